"""Agents side by side: score arrays by region, their statistics, and which agents can be told apart.

Sizes: R runs (seeds) of an agent, T contexts of a region.
"""

import csv
import io
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agents.errors import UserError
from agents.evaluation.episodes import TRAINING
from agents.evaluation.results import Score
from agents.seeding import numpy_generator
from agents.statistics import (
    Comparison,
    Difference,
    adastop,
    difference_of_means,
    fewest_seeds,
    interquartile_mean,
    mean,
    median,
    optimality_gap,
    probability_of_improvement,
    seed_interval,
    seeds_for_power,
    stratified_interval,
)

OVERALL = "overall"  # all contexts but the training ones, each once
CONFIDENCE = 0.95  # of the intervals
ALPHA = 0.05  # family-wise error within a region
#: What turns a context's return into a score: (return of a random policy, of an expert) by `context_key`.
References = Mapping[tuple[tuple[str, float], ...], tuple[float, float]]


@dataclass(frozen=True)
class Estimate:
    """A statistic and its interval; the interval is NaN where an agent has a single run."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Region:
    """The scores of all agents in the contexts of one region.

    Attributes:
        name: the region's, or `OVERALL`.
        contexts: the T contexts that every run has a score in.
        scores: float64 [R, T] by agent, runs in the order of their seeds.
    """

    name: str
    contexts: list[dict[str, float]]
    scores: dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Verdict:
    """What AdaStop says of a pair of agents, and about how many seeds of each it would take if it cannot tell.

    Attributes:
        first, second: the agents.
        comparison: see `agents.statistics.adastop`.
        seeds: for a verdict with 80% power if the present difference is the true one, and at least as many as can
            tell at all; None if they were told apart, or nothing can be said.
    """

    first: str
    second: str
    comparison: Comparison
    seeds: int | None


def context_key(context: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    """Return a context as a key: its features and values, in the order of the features' names."""
    return tuple(sorted(context.items()))


def normalize(scores: Sequence[Score], references: References) -> list[Score]:
    """Return scores with (return - random) / (expert - random) in place of the return.

    Training contexts without references are left out.

    Raises:
        UserError: another context has no references.
    """
    normalized = []
    for score in scores:
        pair = references.get(context_key(score.context))
        if pair is None:
            if score.region == TRAINING:
                continue
            told = ", ".join(f"{name} {value:g}" for name, value in score.context.items())
            raise UserError(
                f"the references have no context {told} (region {score.region}); make them from the configuration "
                "that the runs were judged with: dreamtune references CONFIG"
            )
        random, expert = pair
        value = (score.mean_return - random) / (expert - random)
        normalized.append(
            Score(score.agent, score.seed, score.region, score.context_id, score.context, value, score.episodes)
        )
    return normalized


def vary_alone(scores: Sequence[Score], feature: str, defaults: Mapping[str, float]) -> list[Score]:
    """Return the scores in contexts whose other features are all at their defaults.

    Raises:
        UserError: an unknown feature, or no such context.
    """
    if feature not in defaults:
        raise UserError(f"--along {feature}: no such feature; valid: {', '.join(defaults) or 'none'}")
    kept = [
        score
        for score in scores
        if all(
            name == feature or math.isclose(value, defaults[name], rel_tol=1e-6)
            for name, value in score.context.items()
        )
    ]
    if not kept:
        raise UserError(f"--along {feature}: no judged context has the other features at their defaults")
    return kept


def split_regions(scores: Sequence[Score]) -> tuple[list[Region], list[str]]:
    """Arrange scores by region, the last of them `OVERALL`.

    A context that some run has no valid episode in is left out for all. The training region is there only if all
    agents were trained in the same contexts.

    Returns:
        The regions, and a line for everything that was left out.

    Raises:
        UserError: nothing is left.
    """
    runs = list(dict.fromkeys((score.agent, score.seed) for score in scores))
    agents = {
        agent: sorted(seed for other, seed in runs if other == agent) for agent in dict.fromkeys(a for a, _ in runs)
    }
    table: dict[str, dict[tuple[tuple[str, float], ...], dict[tuple[str, int], float]]] = {}
    for score in scores:
        contexts = table.setdefault(score.region, {})
        contexts.setdefault(context_key(score.context), {})[score.agent, score.seed] = score.mean_return
    notes = []
    for name, contexts in list(table.items()):
        whole = {key: values for key, values in contexts.items() if len(values) == len(runs)}
        if name == TRAINING and len(whole) < len(contexts):
            notes.append("training: left out, the agents were trained in different contexts")
        elif len(whole) < len(contexts):
            count = len(contexts) - len(whole)
            notes.append(f"{name}: {count} of {len(contexts)} contexts left out, where a run has no valid episode")
        table[name] = {} if name == TRAINING and len(whole) < len(contexts) else whole
    table = {name: contexts for name, contexts in table.items() if contexts}
    evaluated = [contexts for name, contexts in table.items() if name != TRAINING]
    if len(evaluated) > 1:
        table[OVERALL] = {key: values for contexts in reversed(evaluated) for key, values in contexts.items()}
    if not table:
        raise UserError("there is no context that every run has a valid episode in; judge all runs in the same regions")
    regions = [
        Region(
            name,
            [dict(key) for key in contexts],
            {
                agent: np.array([[values[agent, seed] for values in contexts.values()] for seed in seeds])
                for agent, seeds in agents.items()
            },
        )
        for name, contexts in table.items()
    ]
    return regions, notes


def estimates(scores: NDArray[np.float64], name: str, *, gamma: float | None, stratified: bool) -> dict[str, Estimate]:
    """Return IQM, mean, median and, if gamma is given, the optimality gap of an agent's scores [R, T].

    Args:
        scores: of the agent.
        name: of the region, for the randomness of the bootstrap.
        gamma: see `optimality_gap`.
        stratified: resample runs within each context (as rliable) instead of whole runs; see
            `agents.statistics.bootstrap` for why whole runs are the default.
    """
    interval = stratified_interval if stratified else seed_interval
    statistics = {"IQM": interquartile_mean, "mean": mean, "median": median}
    found = {}
    for key, statistic in statistics.items():
        low, high = interval(scores, statistic, numpy_generator(0, f"compare/{name}"), confidence=CONFIDENCE)
        found[key] = Estimate(float(statistic(scores)), float(low), float(high))
    if gamma is not None:
        low, high = interval(
            scores, lambda x: optimality_gap(x, gamma), numpy_generator(0, f"compare/{name}"), confidence=CONFIDENCE
        )
        found["optimality gap"] = Estimate(float(optimality_gap(scores, gamma)), float(low), float(high))
    return found


def against(
    scores: NDArray[np.float64], reference: NDArray[np.float64], name: str, *, stratified: bool
) -> tuple[Estimate, Difference]:
    """Return P(agent > reference agent) and the difference of their means, with intervals.

    The probability's interval is a bootstrap like those of `estimates`; the difference's is Welch's over the runs'
    means, unpaired, since runs of different agents with equal seeds have nothing in common that matters.
    """
    interval = stratified_interval if stratified else seed_interval
    generator = numpy_generator(0, f"compare/improvement/{name}")
    low, high = interval((scores, reference), probability_of_improvement, generator, confidence=CONFIDENCE)
    improvement = Estimate(float(probability_of_improvement(scores, reference)), float(low), float(high))
    return improvement, difference_of_means(scores, reference, confidence=CONFIDENCE)


def verdicts(region: Region, *, group: int, interims: int) -> list[Verdict]:
    """Return AdaStop's verdict on every pair of agents; a run's score is its mean over the region's contexts."""
    agents = list(region.scores)
    if len(agents) < 2:
        return []
    means = [region.scores[agent].mean(axis=1) for agent in agents]
    results = adastop(means, group=group, interims=interims, alpha=ALPHA)
    fewest = fewest_seeds(ALPHA, interims)
    found = []
    for (i, j), result in zip(itertools.combinations(range(len(agents)), 2), results, strict=True):
        told = result.verdict in ("better", "worse")
        seeds = None if told else seeds_for_power(means[i][:, None], means[j][:, None], alpha=ALPHA)
        found.append(Verdict(agents[i], agents[j], result, None if seeds is None else max(seeds, fewest)))
    return found


def grid_csv(scores: Sequence[Score]) -> bytes:
    """One row per run and context: agent, seed, region, every feature, mean_return.

    Raises:
        UserError: the runs' features differ.
    """
    names = list(scores[0].context)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["agent", "seed", "region", *names, "mean_return"])
    for score in scores:
        if list(score.context) != names:
            raise UserError(
                f"agent {score.agent}, seed {score.seed} has the features {', '.join(score.context)}, others have "
                f"{', '.join(names)}; compare runs of one environment"
            )
        writer.writerow([score.agent, score.seed, score.region, *score.context.values(), score.mean_return])
    return text.getvalue().encode()
