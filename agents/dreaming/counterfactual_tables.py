"""The numbers of counterfactual dreams: CSV files and the table on the screen."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.table import Table

from agents.dreaming.channels import Channel
from agents.dreaming.counterfactuals import Swap, endings
from agents.dreaming.grid import ContextGrid
from agents.dreaming.moments import MOMENTS, NAMES, SCORES, clear, part, root_mean_square
from agents.dreaming.scores import Estimate, Group, make_groups, single_groups
from agents.dreaming.tables import csv_bytes

#: Horizons at which groups are scored, beside the run's own and the last.
HORIZONS = (1, 5, 15, 30)
ERRORS = tuple(name for name in MOMENTS if name not in ("count", "product"))


@dataclass(frozen=True)
class Quantity:
    """What errors are of.

    Attributes:
        key: ``observation`` for all vector observations together, else the key of an image or a channel.
        name: in words.
        unit: of the errors.
        moments: float64 [E, H, M] of every swap.
    """

    key: str
    name: str
    unit: str
    moments: list[NDArray[np.float64]]


@dataclass(frozen=True)
class Result:
    """All that is known of a run's swaps.

    Attributes:
        grid: the contexts.
        channels: the K scalar quantities.
        swaps: every source with every target.
        quantities: what they are scored in, the leading one first: all vector observations, or an image.
        details: single channels, in their units.
        horizon: imagined steps up to which the score is given.
        seed, confidence: of the bootstrap.
    """

    grid: ContextGrid
    channels: tuple[Channel, ...]
    swaps: list[Swap]
    quantities: list[Quantity]
    details: list[Quantity]
    horizon: int
    seed: int
    confidence: float

    @property
    def imagined(self) -> int:
        """Number H of imagined steps."""
        return self.quantities[0].moments[0].shape[1]

    @property
    def sees_context(self) -> bool:
        """Whether the context changed any dream at all."""
        moved = [part(moments, "moved").sum() for q in (*self.quantities, *self.details) for moments in q.moments]
        return any(value > 0 for value in moved)

    def groups(self, quantity: Quantity) -> list[Group]:
        """The groups of swaps, scored in a quantity."""
        return make_groups(self.grid, self.swaps, quantity.moments, self.seed, self.confidence)

    def singles(self, quantity: Quantity) -> list[Group]:
        """Each swap on its own, scored in a quantity."""
        return single_groups(self.swaps, quantity.moments, self.seed, self.confidence)


def scores_csv(result: Result) -> bytes:
    """One row per quantity, group of swaps and horizon: errors over the steps up to it, scores with intervals."""
    header = ("key", "name", "unit", "group", "horizon", "swapped_episodes", "clear", *ERRORS, *_score_header())
    rows = []
    for quantity in (*result.quantities, *result.details):
        whole = quantity in result.quantities
        horizons = {h for h in HORIZONS if h < result.imagined} | {result.imagined} if whole else set()
        for group in result.groups(quantity):
            for horizon in sorted(horizons | {result.horizon}):
                place = (quantity.key, quantity.name, quantity.unit, group.name, horizon, group.episodes)
                rows.append((*place, *_scored(group, horizon)))
    return csv_bytes(header, rows)


def grid_csv(result: Result) -> bytes:
    """One row per quantity and pair of contexts: scores at the run's horizon with intervals, and ends of episodes.

    ``ended`` counts the episodes that ended in the swapped world and not in the true one; ``continue_<dream>`` is the
    mean probability of going on that each dream gave at these steps.
    """
    ends = [f"continue_{name}" for name in NAMES]
    columns = ("key", *_pair_header(result), "horizon", "swapped_episodes", "clear", *ERRORS, *_score_header())
    rows = []
    for quantity in result.quantities:
        for swap, group in zip(result.swaps, result.singles(quantity), strict=True):
            told = endings([swap], result.channels)
            place = (quantity.key, *_pair(result, swap), result.horizon, group.episodes)
            rows.append((*place, *_scored(group, result.horizon), told.ended, *map(_number, told.at_end.values())))
    return csv_bytes((*columns, "ended", *ends), rows)


def errors_csv(result: Result) -> bytes:
    """One row per quantity, pair of contexts and horizon: root mean squares at that step, scores of all up to it."""
    header = ("key", *_pair_header(result), "horizon", "episodes", *ERRORS, *SCORES)

    def rows() -> Iterator[tuple[object, ...]]:
        for quantity in result.quantities:
            for swap, values in zip(result.swaps, quantity.moments, strict=True):
                summed = values.sum(axis=0)
                cumulative = np.cumsum(summed, axis=0)
                for step in range(result.imagined):
                    episodes = int(part(summed[step], "count"))
                    if episodes:
                        errors = [float(root_mean_square(summed[step], name)) for name in ERRORS]
                        scores = [_number(measure(cumulative[step])) for measure in SCORES.values()]
                        yield (quantity.key, *_pair(result, swap), step + 1, episodes, *errors, *scores)

    return csv_bytes(header, rows())


def score_table(groups: Sequence[Group], horizon: int, title: str, caption: str) -> Table:
    """Errors of the three dreams and scores of each group over the imagined steps 1 .. horizon."""
    table = Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE, padding=(0, 1, 0, 0), show_edge=False
    )
    table.caption, table.caption_justify = caption, "left"
    table.add_column("swap", overflow="fold")
    for name in ("true", "swapped", "default"):
        table.add_column(f"error\n{name}", justify="right", no_wrap=True)
    table.add_column("real\ndiff.", justify="right", no_wrap=True)
    interval = f"{100 * groups[0].confidence:g}% interval"
    for name in ("skill", "direction"):
        table.add_column(f"{name}\n{interval}", justify="right", no_wrap=True)
    for group in groups:
        total = group.total(horizon)
        names = (*(f"{name}_counterfactual" for name in NAMES), "real")
        numbers = [f"{float(root_mean_square(total, name)):.3g}" for name in names]
        scores = [estimate_text(group.score(name, horizon)) for name in ("skill", "direction")]
        table.add_row(group.name, *numbers, *scores)
    return table


def estimate_text(estimate: Estimate) -> str:
    """A number above its interval."""
    if math.isnan(estimate.value):
        return "undefined"
    interval = "needs 2 each" if math.isnan(estimate.low) else f"{estimate.low:.2f} to {estimate.high:.2f}"
    return f"{estimate.value:.2f}\n{interval}"


def _score_header() -> list[str]:
    return [f"{name}{end}" for name in SCORES for end in ("", "_low", "_high")]


def _scored(group: Group, horizon: int) -> tuple[object, ...]:
    """Whether the real difference is clear, errors, scores with intervals; empty where undefined."""
    total = group.total(horizon)
    errors = [_number(root_mean_square(total, name)) for name in ERRORS]
    estimates = [group.score(name, horizon) for name in SCORES]
    return (int(clear(total)), *errors, *(_number(v) for e in estimates for v in (e.value, e.low, e.high)))


def _pair_header(result: Result) -> list[str]:
    return [f"{end}_{name}" for end in ("source", "target") for name in result.grid.contexts[0]]


def _pair(result: Result, swap: Swap) -> list[float]:
    contexts: Sequence[Mapping[str, float]] = result.grid.contexts
    return [*contexts[swap.source].values(), *contexts[swap.target].values()]


def _number(value: float | NDArray[np.float64]) -> float | str:
    return "" if math.isnan(value) else float(value)
