"""Statistics of returns and scores: what is reported, its intervals, and whether agents can be told apart.

* ``scores.py``: interquartile mean, mean, median, optimality gap, probability of improvement, performance profiles.
* ``bootstrap.py``: their bootstrap intervals, from resampled runs within tasks or from whole resampled runs.
* ``differences.py``: the difference of two agents' means with its interval, and seeds for a wanted power.
* ``adastop.py``: the group sequential permutation test of several agents.

A score array is float64 [..., R, T]: R runs (seeds of an agent), T tasks (contexts that it is judged in).
"""

from agents.statistics.adastop import Comparison, adastop, fewest_seeds
from agents.statistics.bootstrap import Statistic, bootstrap_interval, seed_interval, stratified_interval
from agents.statistics.differences import Difference, difference_of_means, seeds_for_power
from agents.statistics.scores import (
    average_score_profile,
    interquartile_mean,
    mean,
    median,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
    worst_stratum,
)

__all__ = [
    "Comparison",
    "Difference",
    "Statistic",
    "adastop",
    "average_score_profile",
    "bootstrap_interval",
    "difference_of_means",
    "fewest_seeds",
    "interquartile_mean",
    "mean",
    "median",
    "optimality_gap",
    "performance_profile",
    "probability_of_improvement",
    "seed_interval",
    "seeds_for_power",
    "stratified_interval",
    "worst_stratum",
]
