"""The picture of counterfactual dreams: scores over the grid of contexts, errors and scores by horizon, examples.

Matplotlib is imported on use, with the Agg canvas: no display and no OpenGL are needed.
"""

import io
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from agents.dreaming.counterfactual_examples import DASHES, HUES, NAMED, draw_examples, example_rows
from agents.dreaming.counterfactual_tables import Result
from agents.dreaming.figure import STYLE, TRUTH, WIDTH, write_header
from agents.dreaming.heatmaps import draw_heatmaps, heatmap_rows
from agents.dreaming.moments import NAMES, root_mean_square
from agents.dreaming.scores import OVERALL, Estimate, Group

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GROUP_HUES = ("#332288", "#CC6677", "#999933")  # of P. Tol's muted colors
_LETTERS = 195  # of a line under the title
_CURVES = 2.1  # inches: height of a panel of curves
_REAL: Any = (0, (5, 1, 1, 1))  # the line of the real difference
_LOWEST = -1.5  # of scores shown by horizon


def draw_counterfactuals(result: Result, words: Sequence[str], title: str, note: str) -> bytes:
    """Draw the picture; returns a PNG file's bytes.

    Args:
        result: the dreams with their moments.
        words: each context of the grid in words.
        title: whose dreams they are.
        note: one line under the title; may be empty.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with matplotlib.rc_context(STYLE):
        buffer = io.BytesIO()
        figure = make_counterfactual_figure(result, words, title, note)
        FigureCanvasAgg(figure).print_png(buffer, pil_kwargs={"optimize": True})
    return buffer.getvalue()


def make_counterfactual_figure(result: Result, words: Sequence[str], title: str, note: str) -> "Figure":
    """Lay out the picture: heat maps over contexts, errors and scores by horizon, example episodes."""
    from matplotlib.figure import Figure

    lines = _explanation(result, note)
    top = 0.85 + 0.19 * len(lines)
    heights = [heatmap_rows(result), _CURVES, _CURVES, example_rows(result)]
    gaps = [0.85, 0.8, 1.4]
    height = top + sum(heights) + sum(gaps) + 0.55
    figure = Figure(figsize=(WIDTH, height))
    place, boxes = top, []
    for size, gap in zip(heights, [*gaps, 0.0], strict=True):
        boxes.append((1 - place / height, 1 - (place + size) / height))
        place += size + gap
    grids = [figure.add_gridspec(1, 1, left=0.06, right=0.985, top=high, bottom=low)[0] for high, low in boxes]
    draw_heatmaps(figure, grids[0], result, words)
    groups = [group for group in result.groups(result.quantities[0]) if group.by_place]
    _draw_errors(figure, grids[1], result, groups)
    _draw_scores(figure, grids[2], result, groups)
    draw_examples(figure, grids[3], result, words)
    write_header(figure, title, lines)
    _draw_legend(figure, boxes[3][0] + 0.5 / height)
    return figure


def _explanation(result: Result, note: str) -> list[str]:
    quantity, swaps = result.quantities[0], result.swaps
    (whole,) = (group for group in result.groups(quantity) if group.name == OVERALL)
    text = (
        f"{len(whole.moments)} recorded episodes, each swapped to {len(swaps) // len(whole.strata)} other contexts "
        "after the observed steps, in the simulator (what would have happened) and in dreams driven by the recorded "
        "actions. Skill: 1 − squared error of the swapped dream / that of the true dream, both against what would have "
        "happened; 0 if the swap was of no use. Direction: cosine between what the swap changed in the dream and in "
        "the simulator. In parentheses: the two worlds differ less than the true dream errs about what happened. "
        f"Errors are of {quantity.name}, in {quantity.unit}."
    )
    return textwrap.wrap(text, _LETTERS) + (textwrap.wrap(note + ".", _LETTERS) if note else [])


def _draw_errors(figure: "Figure", grid: Any, result: Result, groups: Sequence[Group]) -> None:
    """Root mean square error of the three dreams by horizon, a panel for each place of the target."""
    panels = grid.subgridspec(1, len(groups), wspace=0.12)
    first = None
    horizons = np.arange(1, result.imagined + 1)
    for column, group in enumerate(groups):
        axes = figure.add_subplot(panels[0, column], sharey=first)
        first = first or axes
        for name in NAMES:
            estimates = [group.error(f"{name}_counterfactual", int(h)) for h in horizons]
            _draw_line(axes, horizons, estimates, HUES[name], DASHES[name])
        real = [float(root_mean_square(group.moments[:, h - 1].sum(axis=0), "real")) for h in horizons]
        axes.plot(horizons, real, color=HUES["counterfactual"], linewidth=1.1, linestyle=_REAL)
        axes.set_title(f"error by horizon, targets: {_place(group)}", loc="left")
        axes.set_xlabel("horizon (imagined steps)")
        axes.tick_params(labelleft=column == 0)
        _mark_horizon(axes, result)
    assert first is not None
    first.set_ylabel("root mean square error")
    first.set_ylim(bottom=0)  # of all panels, now that they hold what they hold


def _draw_scores(figure: "Figure", grid: Any, result: Result, groups: Sequence[Group]) -> None:
    """Skill and direction over the steps up to each horizon, and how many episodes are still going."""
    panels = grid.subgridspec(1, 3, wspace=0.16)
    horizons = np.arange(1, result.imagined + 1)
    for column, (name, text) in enumerate((("skill", "skill"), ("direction", "direction (cosine)"))):
        axes = figure.add_subplot(panels[0, column])
        for group, color in zip(groups, GROUP_HUES, strict=False):
            _draw_line(axes, horizons, [group.score(name, int(h)) for h in horizons], color, "-", _place(group))
        axes.axhline(0, color="#444444", linewidth=0.9)
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, _LOWEST), min(max(high, 0.2), 1.02))
        axes.set_title(f"{text} over the steps up to a horizon", loc="left")
        axes.set_xlabel("horizon (imagined steps)")
        _mark_horizon(axes, result)
        if column == 0:
            axes.legend(loc="best", fontsize=8)
    axes = figure.add_subplot(panels[0, 2])
    for group, color in zip(groups, GROUP_HUES, strict=False):
        axes.plot(horizons, group.going(), color=color, linewidth=1.6)
    axes.set_ylim(0, 1.03)
    axes.set_title("share of episodes going on in both worlds", loc="left")
    axes.set_xlabel("horizon (imagined steps)")
    _mark_horizon(axes, result)


def _place(group: Group) -> str:
    """Where the targets of a group lie, in words."""
    words = {"inside": "in the training range", "one outside": "one feature outside", "more outside": "more outside"}
    return words.get(group.name, "outside the training range")


def _draw_line(
    axes: "Axes", horizons: Any, estimates: Sequence[Estimate], color: str, dashes: Any, label: str | None = None
) -> None:
    """A line with its intervals."""
    low, high = [e.low for e in estimates], [e.high for e in estimates]
    axes.fill_between(horizons, low, high, color=color, alpha=0.16, linewidth=0)
    axes.plot(horizons, [e.value for e in estimates], color=color, linestyle=dashes, linewidth=1.6, label=label)


def _mark_horizon(axes: "Axes", result: Result) -> None:
    """Mark the horizon at which scores are given."""
    from matplotlib.ticker import MaxNLocator

    axes.axvline(result.horizon, color="#888888", linewidth=0.9, linestyle=":")
    axes.set_xlim(1, max(result.imagined, 2))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw_legend(figure: "Figure", top: float) -> None:
    """Explain the colors of dreams and truths, above the examples; they are those of the errors too."""
    from matplotlib.lines import Line2D

    widths = {"counterfactual": 2.4, "happened": 1.6}
    handles = [
        Line2D([], [], color=HUES[name], linestyle=DASHES[name], linewidth=widths.get(name, 1.6), label=NAMED[name])
        for name in ("counterfactual", "happened", *NAMES)
    ]
    handles.append(
        Line2D(
            [], [], color=TRUTH, linewidth=1.1, linestyle=(0, (5, 1, 1, 1)), label="errors: the two worlds' difference"
        )
    )
    figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.05, top), ncols=len(handles), columnspacing=1.6)
