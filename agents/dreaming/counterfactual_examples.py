"""Example episodes of counterfactual dreams: trajectories in real units, or images."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from agents.dreaming.counterfactual_tables import Result
from agents.dreaming.dreams import OBSERVED
from agents.dreaming.figure import COLORS, LINES, MAX_DIMENSIONS, TRUTH
from agents.dreaming.filmstrip import shown_steps

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Colors and lines of dreams and truths; those of the true and the swapped dream are as in the dream picture.
HUES = {**COLORS, "default": "#009E73", "happened": "#9a9a9a", "counterfactual": TRUTH}
DASHES: dict[str, Any] = {**LINES, "default": (0, (1, 1.2)), "happened": "-", "counterfactual": "-"}
NAMED = {
    "true": "dream, true context",
    "swapped": "dream, swapped context",
    "default": "dream, default context",
    "happened": "what happened",
    "counterfactual": "what would have happened",
}
QUANTILES = (0.25, 0.5, 0.75)  # of the skill of pairs: what the examples are
_ROW, _STRIP = 1.1, 2.8  # inches
_ROWS = {
    "happened": "what happened",
    "counterfactual": "what would\nhave happened",
    "true": "dream,\ntrue",
    "swapped": "dream,\nswapped",
}


def example_rows(result: Result) -> float:
    """Height of the examples in inches."""
    return _ROW * len(_shown_channels(result)) if _vectors(result) else _STRIP * len(_with_images(result))


def draw_examples(figure: "Figure", grid: Any, result: Result, words: Sequence[str]) -> None:
    """Draw trajectories of vector observations or, where there are none, images."""
    if _vectors(result):
        _draw_trajectories(figure, grid, result, words)
    else:
        _draw_strips(figure, grid, result, words)


def example_swaps(result: Result) -> list[int]:
    """Places of the swaps whose skill, at the run's horizon, is nearest above the QUANTILES of all pairs'."""
    skills = [group.value("skill", result.horizon) for group in result.singles(result.quantities[0])]
    known = [place for place, value in enumerate(skills) if not math.isnan(value)] or [0]
    order = sorted(known, key=lambda place: skills[place])
    return list(dict.fromkeys(order[round(q * (len(order) - 1))] for q in QUANTILES))


def example_title(result: Result, place: int, words: Sequence[str]) -> str:
    """Where an example comes from, where it was swapped to, and the skill of the pair."""
    swap = result.swaps[place]
    skill = result.singles(result.quantities[0])[place].value("skill", result.horizon)
    return f"{words[swap.source]}\n→ {words[swap.target]} (skill of the pair {skill:.2f})".replace("-", "−")


def _vectors(result: Result) -> bool:
    return result.quantities[0].key == "observation"


def _shown_channels(result: Result) -> list[int]:
    observed = [i for i, channel in enumerate(result.channels) if channel.key.startswith("observation/")]
    others = [i for i, channel in enumerate(result.channels) if channel.key == "continue"]
    return observed[:MAX_DIMENSIONS] + others


def _draw_trajectories(figure: "Figure", grid: Any, result: Result, words: Sequence[str]) -> None:
    """Rows: channels; columns: examples, the first episode of each pair."""
    rows, examples = _shown_channels(result), example_swaps(result)
    panels = grid.subgridspec(len(rows), len(examples), hspace=0.22, wspace=0.1)
    for column, place in enumerate(examples):
        for row, channel in enumerate(rows):
            axes = figure.add_subplot(panels[row, column])
            draw_trajectory(axes, result, place, channel)
            axes.tick_params(labelbottom=row == len(rows) - 1)
            if row == 0:
                axes.set_title(example_title(result, place, words), fontsize=8.5, loc="left")
            if row == len(rows) - 1:
                axes.set_xlabel("step")
            if column == 0:
                axes.set_ylabel(result.channels[channel].label.replace(" [", "\n["), fontsize=8)


def draw_trajectory(axes: "Axes", result: Result, place: int, channel: int, *, dreams: bool = True) -> None:
    """Both truths and the dreams under the true and the swapped context, of the first episode of a swap."""
    swap = result.swaps[place]
    happened, counterfactual = (values[0, :, channel] for values in (swap.happened, swap.counterfactual))
    steps = np.arange(len(happened))
    axes.axvspan(-0.5, OBSERVED - 0.5, color="#ececec", linewidth=0, zorder=0)
    axes.plot(steps, happened, color=HUES["happened"], linewidth=1.6)
    axes.plot(steps, counterfactual, color=TRUTH, linewidth=2.2)
    end = int((~np.isnan(counterfactual)).sum()) - 1
    if end < len(steps) - 1:
        axes.plot(end, counterfactual[end], "o", color=TRUTH, markersize=4.5)
    for name in ("true", "swapped") if dreams else ():
        values = np.where(steps <= end, swap.dreamt[name][0, :, channel], np.nan)
        axes.plot(steps, values, color=COLORS[name], linestyle=LINES[name], linewidth=1.4)
    axes.set_xlim(-0.5, len(steps) - 0.5)
    if result.channels[channel].key == "continue":
        axes.set_ylim(-0.06, 1.06)


def _with_images(result: Result) -> list[int]:
    """At most two swaps whose images were kept."""
    kept = [place for place, swap in enumerate(result.swaps) if swap.shown]
    return [kept[0], kept[-1]] if len(kept) > 1 else kept


def _draw_strips(figure: "Figure", grid: Any, result: Result, words: Sequence[str]) -> None:
    """A strip of images for each of some swaps, the first episode of the pair."""
    places = _with_images(result)
    panels = grid.subgridspec(len(places), 1, hspace=0.5)
    key = result.quantities[0].key
    for row, place in enumerate(places):
        swap, axes = result.swaps[place], figure.add_subplot(panels[row, 0])
        columns = shown_steps(int((~np.isnan(swap.counterfactual[0, :, 0])).sum()))
        images = np.stack([swap.shown[key][name][columns] for name in _ROWS])  # [rows, columns, Y, X, C]
        images = np.pad(images, ((0, 0), (0, 0), (0, 2), (0, 2), (0, 0)), constant_values=255)
        count, shown, height, width, channels = images.shape
        picture = images.transpose(0, 2, 1, 3, 4).reshape(count * height, shown * width, channels)
        axes.imshow(picture.squeeze(), cmap="gray", aspect="equal", interpolation="antialiased")
        axes.grid(False)
        axes.set_yticks((np.arange(count) + 0.5) * height, list(_ROWS.values()))
        axes.set_xticks((np.arange(shown) + 0.5) * width, [f"{step}" for step in columns])
        axes.set_xlabel("step")
        axes.set_title(example_title(result, place, words), fontsize=8.5, loc="left")
