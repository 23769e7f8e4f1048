"""Heat maps of the scores of counterfactual dreams over the grid of contexts."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from agents.dreaming.counterfactual_tables import Result
from agents.dreaming.scores import Group

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = (("skill", "skill"), ("direction", "direction"))
_COLORS = "RdBu"  # red: wrong, white: nothing, blue: right
_MAP, _ROW, _TITLE, _LABELS = 1.55, 0.3, 0.3, 1.0  # inches


def heatmap_rows(result: Result) -> float:
    """Height of the heat maps in inches."""
    if len(result.grid.axes) == 2:
        return 2 * (_MAP + _TITLE)
    return 2 * (_ROW * len(result.grid.sources) + _TITLE) + _LABELS


def draw_heatmaps(figure: "Figure", grid: Any, result: Result, words: Sequence[str]) -> None:
    """Draw the scores of every pair of contexts, at the run's horizon, in the leading quantity.

    Of two varying features each source has a map over both; else sources are rows, targets columns. The source is
    marked by a cross. In parentheses: the two worlds differ less than the true dream errs about what happened.
    """
    groups = result.singles(result.quantities[0])
    by_pair = {(s.source, s.target): group for s, group in zip(result.swaps, groups, strict=True)}
    sources = sorted({source for source, _ in by_pair})
    if len(result.grid.axes) == 2:
        _draw_maps(figure, grid, result, sources, by_pair, words)
    else:
        _draw_matrix(figure, grid, result, sources, by_pair, words)


def _draw_maps(
    figure: "Figure",
    grid: Any,
    result: Result,
    sources: Sequence[int],
    by_pair: dict[tuple[int, int], Group],
    words: Sequence[str],
) -> None:
    """Rows: scores; columns: sources; each map over the values of both features."""
    panels = grid.subgridspec(2, len(sources), wspace=0.12, hspace=_TITLE / _MAP)
    (vertical, ys), (horizontal, xs) = result.grid.axes.items()
    for row, (name, label) in enumerate(SHOWN):
        for column, source in enumerate(sources):
            axes = figure.add_subplot(panels[row, column])
            cells = {
                (ys.index(context[vertical]), xs.index(context[horizontal])): by_pair.get((source, target))
                for target, context in enumerate(result.grid.contexts)
            }
            _draw_cells(axes, cells, name, result.horizon)
            axes.set_xticks(range(len(xs)), [f"{x:.3g}" for x in xs])
            axes.set_yticks(range(len(ys)), [f"{y:.3g}" for y in ys])
            axes.tick_params(labelleft=column == 0, labelbottom=row == 1)
            if row == 0:
                axes.set_title(f"from {words[source]}", fontsize=8.5, loc="left")
            if row == 1:
                axes.set_xlabel(f"swapped {horizontal}")
            if column == 0:
                axes.set_ylabel(f"{label}, steps 1–{result.horizon}\nswapped {vertical}")


def _draw_matrix(
    figure: "Figure",
    grid: Any,
    result: Result,
    sources: Sequence[int],
    by_pair: dict[tuple[int, int], Group],
    words: Sequence[str],
) -> None:
    """Two maps, one above the other: rows are sources, columns targets."""
    heights = [_ROW * len(sources)] * 2 + [_LABELS]
    gap = _TITLE / (sum(heights) / len(heights))
    panels = grid.subgridspec(3, 2, width_ratios=[0.12, 1], height_ratios=heights, hspace=gap)
    targets = range(len(words))
    for row, (name, label) in enumerate(SHOWN):
        axes = figure.add_subplot(panels[row, 1])
        cells = {(place, t): by_pair.get((source, t)) for place, source in enumerate(sources) for t in targets}
        _draw_cells(axes, cells, name, result.horizon)
        axes.set_yticks(range(len(sources)), [words[source] for source in sources])
        axes.set_xticks(targets, list(words), rotation=40, ha="right")
        axes.tick_params(labelbottom=row == 1, bottom=row == 1)
        axes.set_title(f"{label}, steps 1–{result.horizon}: from the row's context to the column's", loc="left")


def _draw_cells(axes: "Axes", cells: dict[tuple[int, int], Group | None], name: str, horizon: int) -> None:
    """Color and number every pair; the pair of a context with itself, which is no swap, is crossed out."""
    shape = tuple(max(place[side] for place in cells) + 1 for side in (0, 1))
    values = np.full(shape, np.nan)
    for place, group in cells.items():
        if group is not None:
            values[place] = group.value(name, horizon)
    axes.imshow(values, cmap=_COLORS, vmin=-1, vmax=1, origin="lower", aspect="auto")
    axes.grid(False)
    for (y, x), group in cells.items():
        if group is None:
            axes.plot(x, y, "x", color="#444444", markersize=7)
        elif not math.isnan(values[y, x]):
            color = "white" if abs(values[y, x]) > 0.65 else "#111111"
            text = (f"{values[y, x]:.2f}" if values[y, x] > -9.995 else "<-10").replace("-", "−")
            text = text if group.clear(horizon) else f"({text})"
            axes.text(x, y, text, ha="center", va="center", fontsize=7, color=color)
