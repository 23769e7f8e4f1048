"""Learning curves, interval estimates, performance profiles, and returns over one context feature."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from agents.training.curve import SeedsCurve
from tuning.reporting.svg import INK, LINE, MUTED, agent_color, agent_dash, inline_svg, new_figure, report_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Interval = tuple[float, float]


@dataclass(frozen=True)
class Dot:
    """A number with its interval, NaN where there is none, of the agent with that index."""

    agent: int
    value: float
    interval: Interval


@dataclass(frozen=True)
class Line:
    """A line with its band: x, y, low and high are float64 [P]; low and high are NaN where there is no interval."""

    agent: int
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def curve_line(agent: int, curve: SeedsCurve) -> Line:
    """The line of a mean over seeds."""
    return Line(agent, curve.env_steps, curve.mean, curve.low, curve.high)


def draw_curves(lines: Sequence[Line], name: str, ylabel: str, description: str) -> Markup:
    """Draw values over environment steps, with a band for each interval."""
    from matplotlib.ticker import EngFormatter

    with report_style():
        figure = new_figure(480, 300)
        axes = figure.add_subplot()
        _draw_lines(axes, lines)
        axes.set(xlabel="environment steps, action repeat included", ylabel=ylabel)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        return inline_svg(figure, name, description)


def draw_profiles(lines: Sequence[Line], name: str, xlabel: str, description: str) -> Markup:
    """Draw, for every score, the share of (run, context) pairs above it."""
    with report_style():
        figure = new_figure(340, 270)
        axes = figure.add_subplot()
        _draw_lines(axes, lines, stairs=True)
        axes.set(xlabel=xlabel, ylabel="share of runs and contexts", ylim=(-0.02, 1.02))
        return inline_svg(figure, name, description)


def draw_over_feature(
    lines: Sequence[Line], trained: Interval | None, name: str, xlabel: str, description: str
) -> Markup:
    """Draw mean return over the values of one feature; the training range is shaded."""
    with report_style():
        figure = new_figure(640, 340)
        axes = figure.add_subplot()
        if trained is not None:
            axes.axvspan(*trained, color=LINE, linewidth=0 if trained[0] < trained[1] else 2)
        _draw_lines(axes, lines, marker="o", markersize=4)
        axes.set(xlabel=xlabel, ylabel="mean return")
        return inline_svg(figure, name, description)


def draw_estimates(
    panels: Mapping[str, Sequence[Dot]],
    agents: Mapping[int, str],
    name: str,
    description: str,
    marks: Mapping[str, float],
) -> Markup:
    """Draw a panel for each statistic: a dot for each agent's estimate, a bar for its interval.

    Args:
        panels: by the statistic's name the estimates, at most one per agent.
        agents: labels of the agents, by their index.
        name, description: see `inline_svg`.
        marks: by panel, a value that is marked by a line, such as the one that means no difference.
    """
    shown = sorted({estimate.agent for estimates in panels.values() for estimate in estimates})
    rows = {agent: place for place, agent in enumerate(reversed(shown))}
    with report_style():
        figure = new_figure(220 * len(panels) + 60, 64 + 30 * len(rows))
        figure.set_layout_engine("constrained", w_pad=0.12)
        for place, (title, estimates) in enumerate(panels.items()):
            axes = figure.add_subplot(1, len(panels), place + 1)
            axes.set_title(title, color=INK)
            axes.grid(axis="y", visible=False)
            if title in marks:
                axes.axvline(marks[title], color=MUTED, linewidth=1.2, linestyle=(0, (3, 2)))
            for estimate in estimates:
                color, row = agent_color(estimate.agent), rows[estimate.agent]
                if not math.isnan(estimate.interval[0]):
                    axes.plot(
                        estimate.interval, (row, row), color=color, linewidth=7, alpha=0.35, solid_capstyle="butt"
                    )
                if not math.isnan(estimate.value):
                    axes.plot(estimate.value, row, marker="o", color=color, markersize=7)
            axes.set_ylim(-0.6, len(rows) - 0.4)
            axes.set_yticks(list(rows.values()), [agents[agent] for agent in rows] if place == 0 else [])
            axes.tick_params(axis="y", length=0)
            axes.spines["left"].set_visible(False)
            axes.locator_params(axis="x", nbins=4)
        return inline_svg(figure, name, description)


def _draw_lines(axes: "Axes", lines: Sequence[Line], stairs: bool = False, **settings: Any) -> None:
    for line in lines:
        color = agent_color(line.agent)
        if not np.isnan(line.low).all():
            axes.fill_between(
                line.x, line.low, line.high, color=color, alpha=0.16, linewidth=0, step="post" if stairs else None
            )
    for line in lines:
        color, dash = agent_color(line.agent), agent_dash(line.agent)
        axes.plot(
            line.x, line.y, color=color, linestyle=dash, drawstyle="steps-post" if stairs else "default", **settings
        )
