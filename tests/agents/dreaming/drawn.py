"""What is written in a picture, and that it can be read."""

from itertools import combinations

from matplotlib.text import Text


def texts(figure):
    """Every text that is drawn, with its box in pixels."""
    hidden = set()  # labels of ticks beyond the limits exist, but are not drawn
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            hidden |= {tick.label1 for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high}
    return [
        (text.get_text(), text.get_window_extent())
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and text not in hidden
    ]


def check_readable(figure):
    """No text overlaps another or leaves the picture."""
    drawn = texts(figure)
    for (one, first), (other, second) in combinations(drawn, 2):
        assert not first.padded(-1).overlaps(second.padded(-1)), f"{one!r} overlaps {other!r}"
    for text, box in drawn:
        assert figure.bbox.contains(box.x0, box.y0) and figure.bbox.contains(box.x1, box.y1), text
