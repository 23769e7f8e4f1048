"""Aggregate scores of an agent, as R. Agarwal et al. define them: "Deep Reinforcement Learning at the Edge of the
Statistical Precipice" (NeurIPS 2021, arXiv 2108.13264), section 4; the definitions are those of the library rliable.

Shapes: scores are float64 [..., R, T]: R runs, T tasks, any leading dimensions (of resamples). A vector [T] counts as
one run.
"""

from collections.abc import Sequence

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


def as_scores(values: ArrayLike) -> Array:
    """Return values as a score array, float64 [..., R, T].

    Raises:
        ValueError: there is no run or no task.
    """
    scores = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if 0 in scores.shape[-2:]:
        raise ValueError(f"scores need at least one run and one task, but have the shape {scores.shape}")
    return scores


def mean(scores: ArrayLike) -> Array:
    """Return the mean over all runs and tasks: scores [..., R, T] -> [...]."""
    return np.asarray(as_scores(scores).mean(axis=(-2, -1)))


def median(scores: ArrayLike) -> Array:
    """Return the median over tasks of the mean over runs: scores [..., R, T] -> [...]."""
    return np.asarray(np.median(as_scores(scores).mean(axis=-2), axis=-1))


def interquartile_mean(scores: ArrayLike) -> Array:
    """Return the mean of the middle half of all R * T scores: scores [..., R, T] -> [...].

    The floor(R * T / 4) smallest and as many of the largest scores are left out.
    """
    array = as_scores(scores)
    pooled = array.reshape(*array.shape[:-2], -1)
    return np.asarray(scipy.stats.trim_mean(pooled, 0.25, axis=-1), dtype=np.float64)


def optimality_gap(scores: ArrayLike, gamma: float = 1.0) -> Array:
    """Return by how much the scores fall short of ``gamma`` on average: scores [..., R, T] -> [...].

    It is gamma - mean(min(score, gamma)): what exceeds gamma makes up for nothing. Smaller is better.

    Args:
        scores: in the unit of gamma.
        gamma: the score that counts as good enough; 1 for normalized scores, where an expert has 1.
    """
    return np.asarray(gamma - mean(np.minimum(as_scores(scores), gamma)))


def probability_of_improvement(first: ArrayLike, second: ArrayLike) -> Array:
    """Return how probably a run of the first agent beats one of the second, averaged over tasks.

    In every task it is the share of pairs (run of the first, run of the second) in which the first scores higher,
    ties counting half: the Mann-Whitney statistic U / (R1 * R2).

    Args:
        first: scores [..., R1, T].
        second: scores [..., R2, T] in the same tasks.

    Returns:
        Probabilities [...], in [0, 1].

    Raises:
        ValueError: the numbers of tasks differ.
    """
    x, y = as_scores(first), as_scores(second)
    if x.shape[-1] != y.shape[-1]:
        raise ValueError(f"the first agent has {x.shape[-1]} tasks, the second {y.shape[-1]}")
    wins = np.zeros(np.broadcast_shapes(x.shape[:-2], y.shape[:-2]))
    for run in range(x.shape[-2]):
        signs = np.sign(x[..., run : run + 1, :] - y)  # [..., R2, T]
        wins += (0.5 + 0.5 * signs).mean(axis=(-2, -1))
    return np.asarray(wins / x.shape[-2])


def performance_profile(scores: ArrayLike, thresholds: ArrayLike) -> Array:
    """Return the run-score distribution: the share of all R * T scores above each threshold.

    Args:
        scores: [..., R, T].
        thresholds: tau [K], in the unit of the scores.

    Returns:
        Shares [..., K], in [0, 1].
    """
    return _share_above(as_scores(scores), thresholds)


def average_score_profile(scores: ArrayLike, thresholds: ArrayLike) -> Array:
    """Return the average-score distribution: the share of tasks whose mean over runs is above each threshold.

    Arguments and shapes are those of `performance_profile`. Its expectation depends on the number of runs, which that
    of the run-score distribution does not.
    """
    return _share_above(as_scores(scores).mean(axis=-2, keepdims=True), thresholds)


def _share_above(scores: Array, thresholds: ArrayLike) -> Array:
    levels = np.asarray(thresholds, dtype=np.float64).reshape(-1)
    return np.stack([(scores > level).mean(axis=(-2, -1)) for level in levels], axis=-1)


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
