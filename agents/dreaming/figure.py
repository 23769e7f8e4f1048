"""The dream picture: what happened against what was dreamt, and the error by horizon.

Matplotlib is imported on use, with the Agg canvas: no display and no OpenGL are needed.
"""

import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from agents.dreaming.dreams import OBSERVED, Dreams, HorizonErrors, horizon_errors, overall_errors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Example episodes and observation dimensions shown; the CSV files hold all of them.
MAX_EXAMPLES = 3
MAX_DIMENSIONS = 8

# Okabe and Ito's colours: distinct for every common colour vision.
_TRUTH = "#1c1c1c"
_COLOURS = {"true": "#0072B2", "swapped": "#D55E00"}
_STYLES: dict[str, Any] = {"true": "-", "swapped": (0, (4, 1.5))}
_STYLE: Any = {
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Captions:
    """Words of the picture.

    Attributes:
        title: what was dreamt, by whom.
        contexts: for each of the E episodes its context in words.
        swapped: for each episode the swapped context in words.
        note: one line under the title, such as why both dreams are equal; may be empty.
    """

    title: str
    contexts: Sequence[str]
    swapped: Sequence[str]
    note: str = ""


def draw_dreams(dreams: Dreams, captions: Captions) -> bytes:
    """Draw the picture of E dreams of K channels; returns a PNG file's bytes."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = _shown_channels(dreams)
    examples = _example_episodes(dreams.truth)
    names = ("true", "swapped") if dreams.swap_matters else ("true",)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(3.3 * len(examples) + 4.1, 1.32 * len(rows) + 4.3))
        canvas = FigureCanvasAgg(figure)
        height = figure.get_figheight()
        outer = figure.add_gridspec(
            2,
            1,
            height_ratios=[1.32 * len(rows), 1.75],
            hspace=1.9 / height,
            left=0.075,
            right=0.985,
            top=1 - 1.62 / height,
            bottom=0.52 / height,
        )
        columns = outer[0].subgridspec(1, 2, width_ratios=[3.3 * len(examples), 3.0], wspace=0.15)
        panels = columns[0].subgridspec(len(rows), len(examples), hspace=0.22, wspace=0.08)
        _draw_examples(figure, panels, dreams, rows, examples, names)
        _title_examples(figure, captions, examples, len(names) > 1)
        errors = columns[1].subgridspec(len(rows), 1, hspace=0.22)
        _draw_errors(figure, errors, dreams, rows, names)
        _draw_overall(figure.add_subplot(outer[1]), dreams, names)
        _draw_header(figure, captions, dreams, names, height)
        buffer = io.BytesIO()
        canvas.print_png(buffer, pil_kwargs={"optimize": True})
    return buffer.getvalue()


def _shown_channels(dreams: Dreams) -> list[int]:
    """Indices of the channels drawn: at most MAX_DIMENSIONS observation dimensions, reward and continue."""
    observations = [i for i, c in enumerate(dreams.channels) if c.key.startswith("observation/")]
    others = [i for i, c in enumerate(dreams.channels) if not c.key.startswith("observation/")]
    return observations[:MAX_DIMENSIONS] + others


def _example_episodes(truth: NDArray[np.float64]) -> list[int]:
    """Indices of episodes of truth [E, T, K], evenly spread over those that last longest."""
    records = (~np.isnan(truth[:, :, 0])).sum(axis=1)
    order = np.argsort(-records, kind="stable")
    whole = int((records == records.max()).sum())
    if whole > MAX_EXAMPLES:
        order = order[np.linspace(0, whole - 1, MAX_EXAMPLES).round().astype(int)]
    return sorted(int(index) for index in order[:MAX_EXAMPLES])


def _draw_examples(
    figure: "Figure",
    panels: Any,
    dreams: Dreams,
    rows: Sequence[int],
    examples: Sequence[int],
    names: Sequence[str],
) -> None:
    """One row per channel, one column per example episode; values over steps."""
    steps = dreams.truth.shape[1]
    for row, channel in enumerate(rows):
        limits = _limits(dreams, channel, examples)
        for column, episode in enumerate(examples):
            axes = figure.add_subplot(panels[row, column])
            axes.axvspan(-0.5, OBSERVED - 0.5, color="#ececec", linewidth=0, zorder=0)
            axes.axvline(OBSERVED - 0.5, color="#888888", linewidth=0.9, zorder=1)
            _draw_lines(axes, dreams, episode, channel, names)
            axes.set_xlim(-0.5, steps - 0.5)
            axes.set_ylim(*limits)
            axes.tick_params(labelbottom=row == len(rows) - 1, labelleft=column == 0)
            if row == len(rows) - 1:
                axes.set_xlabel("step")
            if column == 0:
                axes.set_ylabel(_wrap(dreams.channels[channel].label))
                axes.yaxis.set_label_coords(-0.2, 0.5)


def _draw_lines(axes: "Axes", dreams: Dreams, episode: int, channel: int, names: Sequence[str]) -> None:
    """What happened and the dreams of one channel in one episode."""
    truth = dreams.truth[episode, :, channel]
    steps = np.arange(len(truth))
    # No reward is received on arriving at the first observation; its recorded 0 is a convention.
    begin = 1 if dreams.channels[channel].key == "reward" else 0
    axes.plot(steps[begin:], truth[begin:], color=_TRUTH, linewidth=2.4, alpha=0.85)
    for name in reversed(names):
        values = dreams.dreamt[name][episode, :, channel]
        # The observed steps are the same under both contexts: drawn once, as part of the true dream.
        first = begin if name == "true" else OBSERVED - 1
        axes.plot(steps[first:], values[first:], color=_COLOURS[name], linestyle=_STYLES[name], linewidth=1.4)
    records = int((~np.isnan(truth)).sum())
    if records < len(truth):  # the episode ended before the dream's horizon
        axes.plot(records - 1, truth[records - 1], "o", color=_TRUTH, markersize=4.5)


def _title_examples(figure: "Figure", captions: Captions, examples: Sequence[int], swapped: bool) -> None:
    """Contexts above the first row's panels, the swapped one in its dream's colour."""
    for axes, episode in zip(figure.axes[: len(examples)], examples, strict=True):
        place: dict[str, Any] = {"transform": axes.transAxes, "fontsize": 8.5}
        if swapped:
            text = f"swapped: {captions.swapped[episode]}"
            axes.text(0, 1.07, text, color=_COLOURS["swapped"], **place)
        axes.text(
            0, 1.24 if swapped else 1.07, captions.contexts[episode], color=_TRUTH, weight="bold", **place
        )


def _limits(dreams: Dreams, channel: int, examples: Sequence[int]) -> tuple[float, float]:
    """Vertical limits shared by a row: all lines, but not farther than three spans beyond the truth."""
    if dreams.channels[channel].key == "continue":
        return -0.06, 1.06
    truth = dreams.truth[examples, 1:, channel]
    lines = np.stack([values[examples, 1:, channel] for values in dreams.dreamt.values()])
    low, high = float(np.nanmin(truth)), float(np.nanmax(truth))
    if dreams.channels[channel].key == "reward":  # a constant reward must not zoom into the dream's noise
        low, high = min(low, 0.0), max(high, 0.0)
    span = max(high - low, 0.2 * max(abs(low), abs(high)), 1e-6)
    low = min(low, max(float(np.nanmin(lines)), low - 3 * span))
    high = max(high, min(float(np.nanmax(lines)), high + 3 * span))
    margin = 0.08 * max(high - low, span)
    return low - margin, high + margin


def _draw_errors(
    figure: "Figure", panels: Any, dreams: Dreams, rows: Sequence[int], names: Sequence[str]
) -> None:
    """One row per channel: absolute error by horizon, median and quartiles over episodes."""
    errors = horizon_errors(dreams)
    for row, channel in enumerate(rows):
        axes = figure.add_subplot(panels[row, 0])
        for summary in errors:
            if summary.channel == dreams.channels[channel] and summary.context in names:
                _draw_band(axes, summary)
        axes.set_ylim(bottom=0)
        axes.tick_params(labelbottom=row == len(rows) - 1)
        if row == 0:
            axes.set_title("absolute error over all episodes", loc="left", pad=6)
        if row == len(rows) - 1:
            axes.set_xlabel("horizon (imagined steps)")


def _draw_overall(axes: "Axes", dreams: Dreams, names: Sequence[str]) -> None:
    """Error over all observation dimensions together, by horizon."""
    for summary in overall_errors(dreams):
        if summary.context in names:
            _draw_band(axes, summary)
    axes.set_ylim(bottom=0)
    axes.set_title(
        "error by horizon: root mean square over observation dimensions, in standard deviations of the truth",
        loc="left",
    )
    axes.set_xlabel("horizon (imagined steps)")
    axes.set_ylabel("error [std]")


def _draw_band(axes: "Axes", errors: HorizonErrors) -> None:
    """Median line and quartile band of one dream context."""
    horizon = np.arange(1, len(errors.median) + 1)
    colour = _COLOURS[errors.context]
    axes.fill_between(horizon, errors.lower, errors.upper, color=colour, alpha=0.18, linewidth=0)
    axes.plot(horizon, errors.median, color=colour, linestyle=_STYLES[errors.context], linewidth=1.6)
    axes.set_xlim(1, max(len(horizon), 2))


def _draw_header(
    figure: "Figure", captions: Captions, dreams: Dreams, names: Sequence[str], height: float
) -> None:
    """Title, one line of explanation and the legend, at distances in inches from the top."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    episodes, steps = dreams.truth.shape[:2]
    figure.text(0.02, 1 - 0.33 / height, captions.title, fontsize=14, weight="bold", color=_TRUTH)
    lines = [
        f"{OBSERVED} observed steps, then {steps - OBSERVED} imagined ones driven by the recorded actions; "
        f"errors over {episodes} episodes"
    ]
    hidden = sum(c.key.startswith("observation/") for c in dreams.channels) - MAX_DIMENSIONS
    if hidden > 0:
        lines.append(f"{hidden} more observation dimensions are in dream.csv")
    lines += [captions.note] if captions.note else []
    figure.text(0.02, 1 - 0.6 / height, ". ".join(lines) + ".", fontsize=9.5, color="#444444")
    words = {"true": "dream, true context", "swapped": "dream, swapped context"}
    handles: list[Any] = [Line2D([], [], color=_TRUTH, linewidth=2.2, label="what happened")]
    handles += [
        Line2D([], [], color=_COLOURS[n], linestyle=_STYLES[n], linewidth=1.6, label=words[n]) for n in names
    ]
    handles += [
        Patch(color="#ececec", label="observed steps, before the dream"),
        Patch(color="#999999", alpha=0.35, linewidth=0, label="middle half of the episodes"),
    ]
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.012, 1 - 0.66 / height),
        ncols=len(handles),
        columnspacing=1.8,
        handlelength=2.4,
    )


def _wrap(label: str) -> str:
    """Break an axis label into lines that fit a low panel."""
    return "\n".join(textwrap.wrap(label, 18))
