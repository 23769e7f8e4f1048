"""Learning curves as pictures: of one run, and of one task over seeds, beside what was published."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agents.errors import UserError
from agents.files import atomic_write
from agents.statistics import bootstrap_interval, mean
from agents.training.metrics import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLORS = ("#0072B2", "#6b6b6b")  # of the runs, and of what was published
_LINES = ("-", (0, (4, 1.5)))


@dataclass(frozen=True)
class SeedsCurve:
    """The mean of several seeds over environment steps.

    Attributes:
        label: whose returns they are.
        seeds: how many seeds.
        env_steps: float64 [P], increasing; steps of the original environment, action repeat included.
        mean: float64 [P], over seeds.
        low, high: float64 [P], the 95% bootstrap interval of the mean; NaN for a single seed.
    """

    label: str
    seeds: int
    env_steps: NDArray[np.float64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def combine_seeds(label: str, curves: Sequence[tuple[ArrayLike, ArrayLike]]) -> SeedsCurve:
    """Return the mean over seeds, at every step where any seed has a value and that all seeds have reached.

    Between its values a seed's curve is interpolated linearly. The interval's resamples are of whole seeds, the same
    ones at every step.

    Args:
        label: whose curves they are.
        curves: for each seed its environment steps, increasing, and the values there; at least one of each.

    Raises:
        UserError: a seed's values end before another's begin.
    """
    pairs = [(np.asarray(steps, np.float64), np.asarray(values, np.float64)) for steps, values in curves]
    first, last = max(steps[0] for steps, _ in pairs), min(steps[-1] for steps, _ in pairs)
    if first > last:
        raise UserError(f"a seed of {label} ends at step {last:.0f}, where another has no return yet; train it longer")
    steps = np.unique(np.concatenate([steps for steps, _ in pairs]))
    steps = steps[(steps >= first) & (steps <= last)]
    values = np.stack([np.interp(steps, *pair) for pair in pairs], axis=-1)  # [P, S]
    intervals = [bootstrap_interval([row], mean, np.random.default_rng(0)) for row in values]
    low, high = np.array(intervals).reshape(-1, 2).T
    return SeedsCurve(label, len(pairs), steps, values.mean(-1), low, high)


def draw_curve(rows: Sequence[Row], path: Path, title: str) -> None:
    """Draw training and validation return over environment steps into a PNG file.

    Args:
        rows: of metrics.csv; the shaded band is one standard deviation over the validation episodes.
        path: the picture.
        title: above it.

    Raises:
        UserError: the disk is full or fails.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.0), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    labels = {"train/return": "training episodes (sampled)", "validation/return": "validation (greedy)"}
    for name, label in labels.items():
        points = [(row["env_steps"], row[name]) for row in rows if name in row]
        if points:
            axes.plot([x for x, _ in points], [y for _, y in points], label=label)
    band = [row for row in rows if "validation/return" in row]
    axes.fill_between(
        [row["env_steps"] for row in band],
        [row["validation/return"] - row["validation/return_std"] for row in band],
        [row["validation/return"] + row["validation/return_std"] for row in band],
        color="C1",
        alpha=0.2,
        linewidth=0,
    )
    axes.set(xlabel="environment steps", ylabel="episode return", title=title)
    if axes.get_legend_handles_labels()[1]:
        axes.legend()
    axes.grid(alpha=0.3)
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    atomic_write(path, content.getvalue())


def draw_seeds(curves: Sequence[SeedsCurve], path: Path, title: str) -> None:
    """Draw the mean over seeds of one or two curves with their intervals into a PNG file.

    Raises:
        UserError: the disk is full or fails.
    """
    import matplotlib

    from agents.dreaming.figure import STYLE

    content = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        make_seeds_figure(curves, title).savefig(content, format="png", metadata={"Software": None})
    atomic_write(path, content.getvalue())


def make_seeds_figure(curves: Sequence[SeedsCurve], title: str) -> "Figure":
    """Lay out the picture of `draw_seeds`: a line for each curve, a band for its interval."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    figure = Figure(figsize=(7.0, 4.2), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for curve, color, style in zip(curves, _COLORS, _LINES, strict=False):
        label = f"{curve.label}, {curve.seeds} seed{'s' if curve.seeds > 1 else ''}"
        axes.fill_between(curve.env_steps, curve.low, curve.high, color=color, alpha=0.2, linewidth=0)
        axes.plot(curve.env_steps, curve.mean, color=color, linestyle=style, linewidth=1.8, label=label)
    axes.set(xlabel="environment steps, action repeat included", ylabel="return of training episodes")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_title(title, loc="left", weight="bold", fontsize=11)
    axes.legend(title="mean, 95% bootstrap interval over seeds", loc="best", alignment="left")
    return figure
