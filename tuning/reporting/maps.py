"""Heat maps over the context grid: one cell for each pair of values of two features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from tuning.reporting.svg import INK, MISSING, MUTED, PAPER, difference_color, inline_svg, new_figure, report_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_RETURNS = "viridis"  # Matplotlib's color map of means
_CELLS = 48  # values of a feature that a grid has at most: with more, contexts are dots at their place
_SPARSE = 12  # and fields of a grid for each context


@dataclass(frozen=True)
class Place:
    """A context on a map: values of the two features, the mean there, and what is shown on pointing at it."""

    x: float
    y: float
    mean: float
    tip: str


@dataclass(frozen=True)
class Scale:
    """The color scale of several maps.

    Attributes:
        low, high: the means at its ends.
        label: what the colors stand for.
        differences: whether zero, halfway, means that there is none.
    """

    low: float
    high: float
    label: str
    differences: bool = False

    def color(self, share: float) -> Any:
        """The color of a mean that lies this share of the way from low to high."""
        from matplotlib import colormaps

        return difference_color(2 * share - 1) if self.differences else colormaps[_RETURNS](share)


@dataclass(frozen=True)
class Axis:
    """One feature of a map.

    Attributes:
        label: name and unit.
        values: all values that the maps of this pair have, in order.
        trained: lowest and highest value in training, None if not known.
    """

    label: str
    values: Sequence[float]
    trained: tuple[float, float] | None


def same_scale(means: Sequence[float], label: str) -> Scale:
    """The scale of mean returns, from the lowest of all maps to the highest."""
    return Scale(min(means), max(means), label)


def difference_scale(means: Sequence[float], label: str) -> Scale:
    """The scale of differences: as far below zero as above."""
    most = max(abs(mean) for mean in means)
    return Scale(-most, most, label, differences=True)


def is_grid(x: Axis, y: Axis, contexts: int) -> bool:
    """Whether that many contexts fill a grid of these values well enough to be its cells."""
    fields = len(x.values) * len(y.values)
    return max(len(x.values), len(y.values)) <= _CELLS and fields <= _SPARSE * contexts


def draw_map(places: Sequence[Place], x: Axis, y: Axis, scale: Scale, name: str, description: str) -> Markup:
    """Draw one map: cells of a grid, or dots where contexts lie on none; the training range is outlined."""
    with report_style():
        if is_grid(x, y, len(places)):
            return _draw_cells(places, x, y, scale, name, description)
        return _draw_dots(places, x, y, scale, name, description)


def draw_color_bar(scale: Scale, name: str) -> Markup:
    """Draw the scale that maps share."""
    from matplotlib.patches import Rectangle

    steps = 48
    with report_style():
        figure = new_figure(360, 52)
        axes = figure.add_subplot()
        width = (scale.high - scale.low or 1.0) / steps
        for step in range(steps):
            color = scale.color((step + 0.5) / steps)
            axes.add_patch(Rectangle((scale.low + step * width, 0), width * 1.3, 1, color=color, linewidth=0))
        axes.set(xlim=(scale.low, scale.low + steps * width), ylim=(0, 1), yticks=[], xlabel=scale.label)
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return inline_svg(figure, name, f"color scale: {scale.label} from {scale.low:.4g} to {scale.high:.4g}")


def _colors(places: Sequence[Place], scale: Scale) -> list[Any]:
    span = scale.high - scale.low
    return [scale.color((place.mean - scale.low) / span if span else 0.5) for place in places]


def _draw_cells(places: Sequence[Place], x: Axis, y: Axis, scale: Scale, name: str, description: str) -> Markup:
    from matplotlib.patches import Rectangle

    columns, rows = ({value: place for place, value in enumerate(axis.values)} for axis in (x, y))
    cell = max(15.0, min(40.0, 330 / len(columns)))
    figure = new_figure(cell * len(columns) + 80, cell * len(rows) + 80)
    axes = figure.add_subplot()
    axes.add_patch(Rectangle((-0.5, -0.5), len(columns), len(rows), facecolor=MISSING, linewidth=0))
    for place, color in zip(places, _colors(places, scale), strict=True):
        corner = (columns[place.x] - 0.5, rows[place.y] - 0.5)
        gid = f"cell-{columns[place.x]}-{rows[place.y]}"
        axes.add_patch(Rectangle(corner, 1, 1, facecolor=color, edgecolor=PAPER, linewidth=0.6, gid=gid))
    across, up = _span(x), _span(y)
    if across is not None and up is not None:
        (left, right), (bottom, top) = across, up
        _outline(axes, left - 0.5, bottom - 0.5, right - left + 1, top - bottom + 1)
    axes.set(xlim=(-0.5, len(columns) - 0.5), ylim=(-0.5, len(rows) - 0.5), aspect="equal")
    axes.set_xticks(range(len(columns)), [f"{value:g}" for value in columns], rotation=90)
    axes.set_yticks(range(len(rows)), [f"{value:g}" for value in rows])
    tips = {f"cell-{columns[place.x]}-{rows[place.y]}": place.tip for place in places}
    return _finish(figure, axes, x, y, name, description, tips)


def _draw_dots(places: Sequence[Place], x: Axis, y: Axis, scale: Scale, name: str, description: str) -> Markup:
    figure = new_figure(420, 400)
    axes = figure.add_subplot()
    tips = {}
    for index, (place, color) in enumerate(zip(places, _colors(places, scale), strict=True)):
        (dot,) = axes.plot(place.x, place.y, "o", color=color, markeredgecolor=MUTED, markeredgewidth=0.5, markersize=9)
        dot.set_gid(f"dot-{index}")
        tips[f"dot-{index}"] = place.tip
    if x.trained is not None and y.trained is not None:
        (left, right), (bottom, top) = x.trained, y.trained
        _outline(axes, left, bottom, right - left, top - bottom)
    return _finish(figure, axes, x, y, name, description, tips)


def _span(axis: Axis) -> tuple[int, int] | None:
    """First and last place of the values within the training range; None if there is none."""
    if axis.trained is None:
        return None
    low, high = axis.trained
    slack = 1e-6 * max(abs(low), abs(high))  # features pass through float32
    inside = [place for place, value in enumerate(axis.values) if low - slack <= value <= high + slack]
    return (inside[0], inside[-1]) if inside else None


def _outline(axes: "Axes", left: float, bottom: float, width: float, height: float) -> None:
    from matplotlib.patches import Rectangle

    for color, line in ((PAPER, 5.0), (INK, 2.0)):  # seen on light and on dark cells
        axes.add_patch(
            Rectangle(
                (left, bottom), width, height, fill=False, edgecolor=color, linewidth=line, zorder=5, clip_on=False
            )
        )


def _finish(
    figure: "Figure", axes: "Axes", x: Axis, y: Axis, name: str, description: str, tips: Mapping[str, str]
) -> Markup:
    axes.set(xlabel=x.label, ylabel=y.label)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    return inline_svg(figure, name, description, tips)
