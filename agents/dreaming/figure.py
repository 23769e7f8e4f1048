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

from agents.dreaming.dreams import OBSERVED, Dreams
from agents.dreaming.errors import HorizonErrors, horizon_errors, overall_errors

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Example episodes and observation dimensions shown; the CSV files hold all of them.
MAX_EXAMPLES = 3
MAX_DIMENSIONS = 8

_REWARD_SPAN = 0.1  # the least that a reward's panel spans, so that a constant one does not zoom into the dream's noise
_HEADROOM = 1.08  # height of an error's panel, in its highest error
_NUMBERS = "{x:g}"  # of values on an axis: with their exponent, which else stands over the panel, in the title's place

WIDTH, _ROW = 14.0, 1.32  # inches: of the picture, and height of a row of panels

# Okabe and Ito's colors: distinct for every common color vision.
TRUTH = "#1c1c1c"
COLORS = {"true": "#0072B2", "swapped": "#D55E00"}
WORDS = {"true": "dream, true context", "swapped": "dream, swapped context"}
LINES: dict[str, Any] = {"true": "-", "swapped": (0, (4, 1.5))}
STYLE: Any = {
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

    with matplotlib.rc_context(STYLE):
        buffer = io.BytesIO()
        FigureCanvasAgg(make_figure(dreams, captions)).print_png(buffer, pil_kwargs={"optimize": True})
    return buffer.getvalue()


def make_figure(dreams: Dreams, captions: Captions) -> "Figure":
    """Lay out the picture: examples on the left, errors by horizon on the right and, for vectors together, below."""
    from matplotlib.figure import Figure

    rows = _shown_channels(dreams)
    examples = example_episodes(dreams.recorded, MAX_EXAMPLES)
    names = ("true", "swapped") if dreams.swap_matters else ("true",)
    explanation = _explanation(dreams, captions.note)
    titles = [panel_title(captions, episode, names, WIDTH / len(examples)) for episode in examples]
    # Inches from the top to the first row: title and legend, explanation, contexts.
    top = 1.0 + 0.19 * len(explanation) + 0.17 * max(map(len, titles))
    overall = overall_errors(dreams)
    height = top + _ROW * len(rows) + (2.9 if overall else 0.52)
    figure = Figure(figsize=(WIDTH, height))
    outer = figure.add_gridspec(
        2 if overall else 1,
        1,
        height_ratios=[_ROW * len(rows), 1.75] if overall else [1.0],
        hspace=1.9 / height,
        left=0.075,
        right=0.985,
        top=1 - top / height,
        bottom=0.52 / height,
    )
    columns = outer[0].subgridspec(1, 2, width_ratios=[3.3, 1.0], wspace=0.15)
    panels = columns[0].subgridspec(len(rows), len(examples), hspace=0.22, wspace=0.08)
    _draw_examples(figure, panels, dreams, rows, examples, names)
    for axes, title in zip(figure.axes[: len(examples)], titles, strict=True):
        write_title(axes, title)
    errors = columns[1].subgridspec(len(rows), 1, hspace=0.22)
    _draw_errors(figure, errors, dreams, rows, names)
    if overall:
        _draw_overall(figure.add_subplot(outer[1]), overall, names)
    write_header(figure, captions.title, explanation)
    _draw_legend(figure, len(explanation), names)
    return figure


def _explanation(dreams: Dreams, note: str) -> list[str]:
    """The lines under the title."""
    episodes, steps = dreams.truth.shape[:2]
    sentences = [
        f"{OBSERVED} observed steps, then {steps - OBSERVED} imagined ones driven by the recorded actions",
        f"errors are over {episodes} episodes",
    ]
    hidden = sum(c.key.startswith("observation/") for c in dreams.channels) - MAX_DIMENSIONS
    if hidden > 0:
        sentences.append(f"{hidden} more observation dimensions are in dream.csv")
    lines = ["; ".join(sentences) + "."]
    return [*lines, *textwrap.wrap(note + ".", 150)] if note else lines


def panel_title(captions: Captions, episode: int, names: Sequence[str], inches: float) -> list[tuple[str, str, str]]:
    """Lines of text, color and weight above an example: its context and the swapped one."""
    letters = int(9.6 * inches)
    lines = [(line, TRUTH, "bold") for line in wrap_values(captions.contexts[episode], letters)]
    if "swapped" in names:
        text = f"swapped: {captions.swapped[episode]}"
        lines += [(line, COLORS["swapped"], "normal") for line in wrap_values(text, letters)]
    return lines


def wrap_values(text: str, letters: int) -> list[str]:
    """Break a list of values into lines after commas only, so that numbers stay with names and units."""
    together = text.replace(" ", "\xa0").replace(",\xa0", ", ")
    return textwrap.wrap(together, letters)


def write_title(axes: "Axes", lines: Sequence[tuple[str, str, str]]) -> None:
    """Write lines above a panel, the last one next to it."""
    for place, (text, color, weight) in enumerate(reversed(lines)):
        axes.annotate(
            text,
            (0, 1),
            (0, 6 + 12 * place),
            xycoords="axes fraction",
            textcoords="offset points",
            color=color,
            weight=weight,
            fontsize=8.5,
        )


def _shown_channels(dreams: Dreams) -> list[int]:
    """Indices of the channels drawn: at most MAX_DIMENSIONS observation dimensions, reward and continue."""
    observations = [i for i, c in enumerate(dreams.channels) if c.key.startswith("observation/")]
    others = [i for i, c in enumerate(dreams.channels) if not c.key.startswith("observation/")]
    return observations[:MAX_DIMENSIONS] + others


def example_episodes(recorded: NDArray[np.bool_], count: int) -> list[int]:
    """Indices of at most ``count`` episodes of recorded [E, T], evenly spread over those that last longest."""
    records = recorded.sum(axis=1)
    order = np.argsort(-records, kind="stable")
    whole = int((records == records.max()).sum())
    if whole > count:
        order = order[np.linspace(0, whole - 1, count).round().astype(int)]
    return sorted(int(index) for index in order[:count])


def _draw_examples(
    figure: "Figure",
    panels: Any,
    dreams: Dreams,
    rows: Sequence[int],
    examples: Sequence[int],
    names: Sequence[str],
) -> None:
    """One row per channel, one column per example episode; values over steps."""
    from matplotlib.transforms import blended_transform_factory

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
            axes.yaxis.set_major_formatter(_NUMBERS)
            axes.tick_params(labelbottom=row == len(rows) - 1, labelleft=column == 0)
            if row == len(rows) - 1:
                axes.set_xlabel("step")
            if column == 0:
                axes.set_ylabel(_wrap(dreams.channels[channel].label))
                place = blended_transform_factory(figure.transFigure, axes.transAxes)
                axes.yaxis.set_label_coords(0.036, 0.5, transform=place)


def _draw_lines(axes: "Axes", dreams: Dreams, episode: int, channel: int, names: Sequence[str]) -> None:
    """What happened and the dreams of one channel in one episode."""
    truth = dreams.truth[episode, :, channel]
    steps = np.arange(len(truth))
    # No reward is received on arriving at the first observation; its recorded 0 is a convention.
    begin = 1 if dreams.channels[channel].key == "reward" else 0
    axes.plot(steps[begin:], truth[begin:], color=TRUTH, linewidth=2.4, alpha=0.85)
    for name in reversed(names):
        values = dreams.dreamt[name][episode, :, channel]
        # The observed steps are the same under both contexts: drawn once, as part of the true dream.
        first = begin if name == "true" else OBSERVED - 1
        axes.plot(steps[first:], values[first:], color=COLORS[name], linestyle=LINES[name], linewidth=1.4)
    records = int((~np.isnan(truth)).sum())
    if records < len(truth):  # the episode ended before the dream's horizon
        axes.plot(records - 1, truth[records - 1], "o", color=TRUTH, markersize=4.5)


def _limits(dreams: Dreams, channel: int, examples: Sequence[int]) -> tuple[float, float]:
    """Vertical limits shared by a row: all lines, but not farther than three spans beyond the truth."""
    if dreams.channels[channel].key == "continue":
        return -0.06, 1.06
    truth = dreams.truth[examples, 1:, channel]
    lines = np.stack([values[examples, 1:, channel] for values in dreams.dreamt.values()])
    low, high = float(np.nanmin(truth)), float(np.nanmax(truth))
    least = 1e-6
    if dreams.channels[channel].key == "reward":
        low, high, least = min(low, 0.0), max(high, 0.0), _REWARD_SPAN
    span = max(high - low, 0.2 * max(abs(low), abs(high)), least)
    low = min(low, max(float(np.nanmin(lines)), low - 3 * span))
    high = max(high, min(float(np.nanmax(lines)), high + 3 * span))
    margin = max(0.08 * max(high - low, span), 0.5 * (least - (high - low)))
    return low - margin, high + margin


def _draw_errors(figure: "Figure", panels: Any, dreams: Dreams, rows: Sequence[int], names: Sequence[str]) -> None:
    """One row per channel: absolute error by horizon, median and quartiles over episodes."""
    errors = horizon_errors(dreams)
    for row, channel in enumerate(rows):
        axes = figure.add_subplot(panels[row, 0])
        for summary in errors:
            if summary.channel == dreams.channels[channel] and summary.context in names:
                draw_band(axes, summary)
        _show_from_zero(axes)
        axes.tick_params(labelbottom=row == len(rows) - 1)
        if row == 0:
            axes.set_title("absolute error over all episodes", loc="left", pad=6)
        if row == len(rows) - 1:
            axes.set_xlabel("horizon (imagined steps)")


def _draw_overall(axes: "Axes", errors: Sequence[HorizonErrors], names: Sequence[str]) -> None:
    """Error over all observation dimensions together, by horizon."""
    for summary in errors:
        if summary.context in names:
            draw_band(axes, summary)
    _show_from_zero(axes)
    axes.set_title(
        "error by horizon: root mean square over observation dimensions, in standard deviations of the truth",
        loc="left",
    )
    axes.set_xlabel("horizon (imagined steps)")
    axes.set_ylabel("error [std]")


def _show_from_zero(axes: "Axes") -> None:
    """Let errors be seen from 0 to a little over the highest."""
    highest = axes.dataLim.y1
    axes.set_ylim(0, _HEADROOM * highest if highest > 0 else 1.0)
    axes.yaxis.set_major_formatter(_NUMBERS)


def draw_band(axes: "Axes", errors: HorizonErrors) -> None:
    """Median line and quartile band of one dream context."""
    horizon = np.arange(1, len(errors.median) + 1)
    color = COLORS[errors.context]
    axes.fill_between(horizon, errors.lower, errors.upper, color=color, alpha=0.18, linewidth=0)
    axes.plot(
        horizon, errors.median, color=color, linestyle=LINES[errors.context], linewidth=1.6, label=WORDS[errors.context]
    )
    axes.set_xlim(1, max(len(horizon), 2))


def write_header(figure: "Figure", title: str, explanation: Sequence[str]) -> None:
    """Write the title and the lines under it, at distances in inches from the top."""
    height = figure.get_figheight()
    figure.text(0.02, 1 - 0.33 / height, title, fontsize=14, weight="bold", color=TRUTH)
    for place, line in enumerate(explanation):
        figure.text(0.02, 1 - (0.6 + 0.19 * place) / height, line, fontsize=9.5, color="#444444")


def _draw_legend(figure: "Figure", lines: int, names: Sequence[str]) -> None:
    """Explain the colors, under the lines of the header."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Line2D([], [], color=TRUTH, linewidth=2.2, label="what happened")]
    handles += [Line2D([], [], color=COLORS[n], linestyle=LINES[n], linewidth=1.6, label=WORDS[n]) for n in names]
    handles += [
        Patch(color="#ececec", label="observed steps, before the dream"),
        Patch(color="#999999", alpha=0.35, linewidth=0, label="middle half of the episodes"),
    ]
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.012, 1 - (0.47 + 0.19 * lines) / figure.get_figheight()),
        ncols=len(handles),
        columnspacing=1.8,
        handlelength=2.4,
    )


def _wrap(label: str) -> str:
    """Break an axis label into lines that fit a low panel."""
    return "\n".join(textwrap.wrap(label, 18))
