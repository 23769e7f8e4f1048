"""Statistics of returns: interquartile mean, stratified bootstrap intervals, worst context.

The point estimates and the bootstrap follow R. Agarwal et al., "Deep Reinforcement Learning at the Edge of
the Statistical Precipice" (NeurIPS 2021): percentiles of a statistic over resamples that are drawn with
replacement within each stratum. A stratum here is a context, whose episodes are independent draws.

Values are float64 throughout. ``C`` is the number of strata, ``N`` the number of values of all strata.
"""

from collections.abc import Callable, Sequence

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

#: Maps values [..., N] to statistics [...]: a reduction over the last axis.
Statistic = Callable[[NDArray[np.float64]], NDArray[np.float64]]

#: Resampled values held in memory at once (64 MB as float64), however many resamples are asked for.
_CHUNK_VALUES = 8_000_000


def mean(values: ArrayLike) -> NDArray[np.float64]:
    """Return the mean over the last axis: values [..., N] -> [...]."""
    return np.mean(np.asarray(values, dtype=np.float64), axis=-1)


def interquartile_mean(values: ArrayLike) -> NDArray[np.float64]:
    """Return the mean of the middle half over the last axis: values [..., N] -> [...].

    The floor(N / 4) smallest and as many of the largest values are left out.
    """
    trimmed = scipy.stats.trim_mean(np.asarray(values, dtype=np.float64), 0.25, axis=-1)
    return np.asarray(trimmed, dtype=np.float64)


def bootstrap_interval(
    strata: Sequence[ArrayLike],
    statistic: Statistic,
    generator: np.random.Generator,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> tuple[float, float]:
    """Return the stratified percentile bootstrap interval of ``statistic`` over the pooled values.

    Every resample draws, within each stratum, as many values as the stratum has, with replacement. Its variance is
    (n - 1) / n of the unbiased one for strata of n values, so intervals from few values are somewhat narrow: of
    95% intervals for the mean of 20 strata, 93% cover it at n = 10 and 88% at n = 5 (simulated, normal values).

    Args:
        strata: C sequences of values, one per context; their lengths may differ.
        statistic: reduction over the last axis of an array [resamples, N].
        generator: randomness, used up in a fixed order: equal generators give equal intervals.
        confidence: coverage of the interval, in (0, 1).
        resamples: number of bootstrap resamples.

    Returns:
        (low, high) in the unit of the values. Both are NaN if any stratum has fewer than two values: its
        resamples cannot vary, so the interval would claim a certainty that nobody has.

    Raises:
        ValueError: no stratum, an empty one, or a confidence outside (0, 1).
    """
    arrays = [np.asarray(values, dtype=np.float64).reshape(-1) for values in strata]
    if not arrays or any(values.size == 0 for values in arrays):
        raise ValueError("a bootstrap needs at least one stratum, and a value in each")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie in (0, 1), not {confidence}")
    if any(values.size < 2 for values in arrays):
        return float("nan"), float("nan")
    pooled = sum(values.size for values in arrays)
    chunk = max(1, _CHUNK_VALUES // pooled)
    estimates = []
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn = [values[generator.integers(0, values.size, size=(rows, values.size))] for values in arrays]
        estimates.append(statistic(np.concatenate(drawn, axis=-1)))
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(np.concatenate(estimates), [tail, 1.0 - tail])
    return float(low), float(high)


def worst_stratum(strata: Sequence[ArrayLike]) -> tuple[int, float]:
    """Return (index, mean) of the stratum with the lowest mean; the first of equals.

    Raises:
        ValueError: no stratum, or an empty one.
    """
    arrays = [np.asarray(values, dtype=np.float64).reshape(-1) for values in strata]
    if not arrays or any(values.size == 0 for values in arrays):
        raise ValueError("the worst stratum needs at least one stratum, and a value in each")
    means = [float(values.mean()) for values in arrays]
    index = int(np.argmin(means))
    return index, means[index]
