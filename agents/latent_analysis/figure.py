"""The picture of a latent analysis: states colored by their context, and how well probes read it.

Matplotlib is imported on use, with the Agg canvas: no display and no OpenGL are needed.
"""

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from agents.dreaming.figure import STYLE, TRUTH, WIDTH, write_header
from agents.environments.base import Feature
from agents.latent_analysis.analysis import (
    BY_STEP,
    IMAGINED,
    POSTERIOR,
    SHUFFLED,
    Analysis,
    Projection,
    Score,
)
from agents.latent_analysis.collection import BOTH, CODE, DETER, HISTORY, OBSERVATION, STOCH
from agents.latent_analysis.tables import WORDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: The lowest R^2 shown: less is drawn there.
LOWEST = -0.5
#: Features shown; the CSV files hold all of them.
MAX_FEATURES = 4

# Okabe and Ito's colors: distinct for every common color vision. One for each feature shown.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
MARKERS = ("o", "s", "^", "D")
LINES: dict[str, Any] = {BOTH: "-", CODE: (0, (5, 1.5)), OBSERVATION: (0, (1, 1.5))}
_ORDER = (CODE, BOTH, DETER, STOCH, HISTORY, OBSERVATION, SHUFFLED)


_SCATTER, _PANEL, _ERROR = 2.9, 2.75, 1.9  # inches: heights of a row of scatter plots, of R^2, of errors
_GAP, _LEGEND = 0.8, 0.3  # inches between rows of panels, and of a legend below one


@dataclass(frozen=True)
class Captions:
    """Words of the picture.

    Attributes:
        title: whose latents they are.
        notes: sentences under the title: what the agent is given, and what the numbers are of.
    """

    title: str
    notes: Sequence[str]


def draw_analysis(analysis: Analysis, captions: Captions) -> bytes:
    """Draw the picture; returns a PNG file's bytes."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with matplotlib.rc_context(STYLE):
        buffer = io.BytesIO()
        FigureCanvasAgg(make_figure(analysis, captions)).print_png(buffer, pil_kwargs={"optimize": True})
    return buffer.getvalue()


def make_figure(analysis: Analysis, captions: Captions) -> "Figure":
    """Lay out the picture: projected states, below them R^2, and for inferring agents the error by step."""
    from matplotlib.figure import Figure

    features = analysis.recorded.features[:MAX_FEATURES]
    lines = [line for note in captions.notes for line in textwrap.wrap(note, 185)]
    infers = bool(analysis.pick(BY_STEP, CODE))
    heights = [_SCATTER] * len(features) + [_PANEL] + [_ERROR] * infers
    top = 0.95 + 0.19 * len(lines)
    gaps = [_GAP] * len(features) + [_GAP + _LEGEND] * infers
    height = top + sum(heights) + sum(gaps) + (_GAP if infers else _GAP + _LEGEND)
    figure = Figure(figsize=(WIDTH, height))
    place = height - top
    boxes = []
    for each, gap in zip(heights, [*gaps, 0.0], strict=True):
        boxes.append((place / height, (place - each) / height))
        place -= each + gap
    for row, feature in enumerate(features):
        _draw_projections(figure, boxes[row], analysis, feature, first=row == 0)
    _draw_scores(figure, boxes[len(features)], analysis, features)
    if infers:
        _draw_errors(figure, boxes[-1], analysis, features)
    write_header(figure, captions.title, lines)
    return figure


def _draw_projections(
    figure: "Figure", box: tuple[float, float], analysis: Analysis, feature: Feature, *, first: bool
) -> None:
    """One panel for each projection, its points colored by a feature."""
    from matplotlib.ticker import MaxNLocator

    column = analysis.recorded.features.index(feature)
    values = analysis.recorded.contexts[:, column]
    count = len(analysis.projections)
    grid = figure.add_gridspec(
        1,
        count + 1,
        width_ratios=[1.0] * count + [0.035],
        wspace=0.2,
        left=0.06,
        right=0.925,
        top=box[0],
        bottom=box[1],
    )
    for place, projection in enumerate(analysis.projections):
        axes = figure.add_subplot(grid[place])
        points = projection.points
        # Neither region nor episode decides which point lies on top.
        order = np.random.default_rng(0).permutation(len(points))
        shown = axes.scatter(
            points[order, 0],
            points[order, 1],
            c=values[projection.latents.episode][order],
            cmap="viridis",
            s=7,
            alpha=0.75,
            linewidths=0,
            vmin=float(values.min()),
            vmax=float(values.max()),
        )
        axes.set_xlabel(_axis(projection, 0))
        axes.set_ylabel(_axis(projection, 1))
        axes.margins(0.04)
        if first:
            axes.set_title(_states(projection), loc="left", weight="bold", pad=8)
    scale = figure.add_subplot(grid[count])
    low, high = float(values.min()), float(values.max())
    ticks = [tick for tick in MaxNLocator(6).tick_values(low, high) if low <= tick <= high]
    figure.colorbar(shown, cax=scale, label=_label(feature), alpha=1.0, ticks=ticks)
    scale.grid(False)


def _draw_scores(figure: "Figure", box: tuple[float, float], analysis: Analysis, features: Sequence[Feature]) -> None:
    """R^2 by what is read, by horizon and by step."""
    # Names of what is read stand to the left of the first panel.
    grid = figure.add_gridspec(1, 3, wspace=0.2, left=0.125, right=0.985, top=box[0], bottom=box[1])
    sources, horizons, steps = (figure.add_subplot(grid[place]) for place in range(3))
    _draw_sources(sources, analysis, features)
    _draw_lines(horizons, analysis, IMAGINED, (BOTH,), features)
    horizons.set_title("imagined states: R² by horizon", loc="left")
    horizons.set_xlabel("horizon (imagined steps)")
    _draw_lines(steps, analysis, BY_STEP, (CODE, BOTH, OBSERVATION), features)
    steps.set_title("within an episode: R² by step", loc="left")
    steps.set_xlabel("step of the episode")
    _draw_legend(steps, analysis)
    for axes in (horizons, steps):
        axes.set_ylim(min(0.0, axes.dataLim.y0) - 0.05, 1.05)
        axes.axhline(0, color="#888888", linewidth=0.9, zorder=1)


def _draw_sources(axes: "Axes", analysis: Analysis, features: Sequence[Feature]) -> None:
    """R^2 of posteriors and controls, with its interval: a row for what is read, a mark for each feature."""
    shown = [source for source in _ORDER if analysis.pick(POSTERIOR, source)]
    for place, source in enumerate(shown):
        scores = {score.feature: score for score in analysis.pick(POSTERIOR, source)}
        for number, feature in enumerate(features):
            fit = scores[feature].fit
            height = place + 0.22 * (number - (len(features) - 1) / 2)
            span = np.clip([fit.low, fit.high], LOWEST, 1)
            axes.plot(span, [height] * 2, color=COLORS[number], linewidth=2.4, alpha=0.45, zorder=2)
            axes.plot(
                max(fit.r2, LOWEST),
                height,
                MARKERS[number],
                color=COLORS[number],
                markersize=5,
                zorder=3,
                label=feature.name if place == 0 else None,
            )
    axes.set_yticks(range(len(shown)), [WORDS[source] for source in shown])
    axes.set_ylim(len(shown) - 0.5, -0.5)
    axes.set_xlim(min(0.0, axes.get_xlim()[0]) - 0.02, 1.03)
    axes.axvline(0, color="#888888", linewidth=0.9, zorder=1)
    axes.set_title("posterior states and controls: R²", loc="left")
    axes.set_xlabel("R² in unseen contexts")
    # Below the panel, in which a mark may be anywhere.
    axes.legend(loc="upper right", bbox_to_anchor=(1.02, -0.17), ncols=len(features), handletextpad=0.2)


def _draw_lines(
    axes: "Axes", analysis: Analysis, states: str, sources: Sequence[str], features: Sequence[Feature]
) -> None:
    """R^2 by point, its interval as a band, for each source and feature."""
    for source in sources:
        for number, feature in enumerate(features):
            scores = [score for score in analysis.pick(states, source) if score.feature == feature]
            if not scores:
                continue
            points = [score.point for score in scores]
            r2, low, high = np.clip([_triple(score) for score in scores], LOWEST, 1).T
            if source != OBSERVATION:
                axes.fill_between(points, low, high, color=COLORS[number], alpha=0.15, linewidth=0)
            axes.plot(points, r2, color=COLORS[number], linestyle=LINES[source], linewidth=1.6)
    _spread_axis(axes)


def _draw_errors(figure: "Figure", box: tuple[float, float], analysis: Analysis, features: Sequence[Feature]) -> None:
    """Root mean squared error by step, in each feature's unit."""
    grid = figure.add_gridspec(1, len(features), wspace=0.2, left=0.06, right=0.985, top=box[0], bottom=box[1])
    for number, feature in enumerate(features):
        axes = figure.add_subplot(grid[number])
        for source in (CODE, BOTH, OBSERVATION):
            scores = [score for score in analysis.pick(BY_STEP, source) if score.feature == feature]
            axes.plot(
                [score.point for score in scores],
                [score.fit.rmse for score in scores],
                color=COLORS[number],
                linestyle=LINES[source],
                linewidth=1.6,
            )
        axes.set_ylim(bottom=0)
        _spread_axis(axes)
        axes.set_title(f"{feature.name}: error against the true context", loc="left")
        axes.set_xlabel("step of the episode")
        axes.set_ylabel(f"RMSE [{_unit(feature)}]" if _unit(feature) else "RMSE")


def _draw_legend(axes: "Axes", analysis: Analysis) -> None:
    """Explain the kinds of lines."""
    from matplotlib.lines import Line2D

    sources = [source for source in LINES if analysis.pick(BY_STEP, source)]
    handles = [Line2D([], [], color=TRUTH, linestyle=LINES[source], label=WORDS[source]) for source in sources]
    axes.legend(handles=handles, loc="upper right", bbox_to_anchor=(1.02, -0.17), ncols=len(handles), handlelength=2.2)


def _spread_axis(axes: "Axes") -> None:
    """Points lie dense in the beginning: so does the axis, which still has its 0."""
    axes.set_xscale("symlog", linthresh=1, linscale=0.5)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter("{x:g}")
    last = axes.dataLim.x1
    axes.set_xticks([0, *(tick for tick in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if tick <= last)], minor=False)
    axes.minorticks_off()


def _triple(score: Score) -> tuple[float, float, float]:
    return score.fit.r2, score.fit.low, score.fit.high


def _states(projection: Projection) -> str:
    names: Mapping[str, str] = {POSTERIOR: "posterior states", CODE: "inferred code"}
    return names.get(projection.states, f"imagined states, {projection.point} steps on")


def _axis(projection: Projection, axis: int) -> str:
    if projection.states == IMAGINED:
        return f"the posterior's component {axis + 1}"
    return f"component {axis + 1} ({100 * projection.explained[axis]:.0f}% of variance)"


def _label(feature: Feature) -> str:
    return f"{feature.name} [{_unit(feature)}]" if _unit(feature) else feature.name


def _unit(feature: Feature) -> str:
    return "" if feature.unit == "1" else feature.unit.replace("^2", "²").replace("^3", "³")
