"""Scores of counterfactual dreams by groups of swaps and by horizon, with intervals.

Sizes: N recorded episodes, H imagined steps, M moments (see ``agents.dreaming.moments``).

An episode is swapped to many targets, and what it does in them depends on the same state and actions: its swaps are
resampled together. Strata of the bootstrap are the sources.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from agents.dreaming.counterfactuals import Swap
from agents.dreaming.grid import ContextGrid
from agents.dreaming.moments import SCORES, clear, part, root_mean_square
from agents.seeding import numpy_generator
from agents.statistics import bootstrap_interval

Measure = Callable[[NDArray[np.float64]], NDArray[np.float64]]

OVERALL = "all swaps"
#: Where a target lies: its name, and how many of its features are outside the training range, at least and at most.
PLACES = (("inside", 0, 0), ("one outside", 1, 1), ("more outside", 2, 1_000_000))
PLACES_OF_ONE = (PLACES[0], ("outside", 1, 1))


@dataclass(frozen=True)
class Estimate:
    """A number with its bootstrap interval, NaN if a source has fewer than two episodes or the number is undefined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Group:
    """Swaps that are scored together.

    Attributes:
        name: what they have in common.
        swaps: their places.
        moments: float64 [N, H, M], of every recorded episode the sum over its swaps.
        strata: places [N_s] of the episodes of each source.
        episodes: number of swapped episodes; each of the N counts as often as it has swaps.
        seed: of the bootstrap.
        confidence: coverage of the intervals, in (0, 1).
    """

    name: str
    swaps: tuple[int, ...]
    moments: NDArray[np.float64]
    strata: tuple[NDArray[np.int64], ...]
    episodes: int
    seed: int
    confidence: float

    @property
    def by_place(self) -> bool:
        """Whether the swaps have in common where their targets lie."""
        return self.name in {name for name, _, _ in (*PLACES, *PLACES_OF_ONE)}

    @cached_property
    def cumulative(self) -> NDArray[np.float64]:
        """Sums over the horizons up to each, [N, H, M]."""
        return np.cumsum(self.moments, axis=1)

    def score(self, name: str, horizon: int) -> Estimate:
        """One of SCORES over the imagined steps 1 .. horizon."""
        return self._estimate(SCORES[name], self.cumulative[:, horizon - 1])

    def value(self, name: str, horizon: int) -> float:
        """One of SCORES without its interval."""
        return float(SCORES[name](self.total(horizon)))

    def error(self, name: str, horizon: int) -> Estimate:
        """Root mean square at one imagined step, of one of MOMENTS."""
        return self._estimate(lambda sums: root_mean_square(sums, name), self.moments[:, horizon - 1])

    def total(self, horizon: int) -> NDArray[np.float64]:
        """Moments [M] over all episodes and the imagined steps 1 .. horizon."""
        return self.cumulative[:, horizon - 1].sum(axis=0)

    def going(self) -> NDArray[np.float64]:
        """Share [H] of the swapped episodes that have a record in both worlds at each imagined step."""
        return part(self.moments, "count").sum(axis=0) / self.episodes

    def clear(self, horizon: int) -> bool:
        """Whether the real difference over the imagined steps 1 .. horizon exceeds the true dream's own error."""
        return clear(self.total(horizon))

    def _estimate(self, measure: Measure, table: NDArray[np.float64]) -> Estimate:
        """A measure of the sum of moments [N, M] over episodes, with its interval."""

        def of_resamples(places: NDArray[np.float64]) -> NDArray[np.float64]:
            rows, episodes = len(places), len(table)
            cells = places.reshape(rows, episodes).astype(np.int64) + episodes * np.arange(rows)[:, None]
            drawn = np.bincount(cells.ravel(), minlength=rows * episodes).reshape(rows, episodes)
            return measure(drawn @ table)

        generator = numpy_generator(self.seed, "bootstrap/counterfactual")
        low, high = bootstrap_interval(self.strata, of_resamples, generator, confidence=self.confidence)
        return Estimate(float(measure(table.sum(axis=0))), low, high)


def make_group(
    name: str,
    places: Sequence[int],
    swaps: Sequence[Swap],
    moments: Sequence[NDArray[np.float64]],
    seed: int,
    confidence: float,
) -> Group:
    """Put swaps together.

    Args:
        name: what they have in common.
        places: which of the swaps, at least one.
        swaps: all swaps.
        moments: of each swap [E, H, M].
        seed, confidence: of the bootstrap.
    """
    by_source: dict[int, NDArray[np.float64]] = {}
    for place in places:
        source = swaps[place].source
        by_source[source] = by_source.get(source, 0.0) + moments[place]
    sizes = [len(summed) for summed in by_source.values()]
    ends = np.cumsum(sizes)
    strata = tuple(np.arange(end - size, end) for end, size in zip(ends, sizes, strict=True))
    episodes = sum(len(moments[place]) for place in places)
    table = np.concatenate(list(by_source.values()))
    return Group(name, tuple(places), table, strata, episodes, seed, confidence)


def make_groups(
    grid: ContextGrid, swaps: Sequence[Swap], moments: Sequence[NDArray[np.float64]], seed: int, confidence: float
) -> list[Group]:
    """Group the swaps: all of them, by where the target lies, and, of several features, those that change but one.

    Args: see `make_group`.
    """
    several = len(grid.axes) > 1
    places = range(len(swaps))
    kinds = {OVERALL: list(places)}
    for name, least, most in PLACES if several else PLACES_OF_ONE:
        kinds[name] = [p for p in places if least <= grid.outside[swaps[p].target] <= most]
    for feature in grid.axes if several else ():
        kinds[f"{feature} alone"] = [
            p for p in places if grid.differing(swaps[p].source, swaps[p].target) == (feature,)
        ]
    return [make_group(name, chosen, swaps, moments, seed, confidence) for name, chosen in kinds.items() if chosen]


def single_groups(
    swaps: Sequence[Swap], moments: Sequence[NDArray[np.float64]], seed: int, confidence: float
) -> list[Group]:
    """One group for every swap."""
    return [make_group("", [place], swaps, moments, seed, confidence) for place in range(len(swaps))]
