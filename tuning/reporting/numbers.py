"""The numbers of every region, as `dreamtune compare` has them, with performance profiles and worst contexts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agents.errors import UserError
from agents.evaluation.comparison import (
    CONFIDENCE,
    OVERALL,
    Estimate,
    Region,
    Verdict,
    against,
    estimates,
    normalize,
    split_regions,
    verdicts,
)
from agents.evaluation.results import Score
from agents.references import read_references
from agents.seeding import numpy_generator
from agents.statistics import Difference, performance_profile, seed_interval
from tuning.reporting.collect import Agent

Array = NDArray[np.float64]
_THRESHOLDS = 101  # scores at which a profile is taken


@dataclass(frozen=True)
class Standing:
    """What an agent reached in a region.

    Attributes:
        agent: whose numbers they are.
        scores: float64 [R, T]: R judged runs, the T contexts of the region.
        estimates: by name, statistics with their intervals.
        worst: the lowest mean over runs of a context, and the context.
        profile: share of runs and contexts above each threshold [K], and its interval [2, K].
        against: probability of improvement over the reference, and difference of means; None for the reference.
    """

    agent: Agent
    scores: Array
    estimates: Mapping[str, Estimate]
    worst: tuple[float, Mapping[str, float]]
    profile: tuple[Array, Array]
    against: tuple[Estimate, Difference] | None


@dataclass(frozen=True)
class Judged:
    """A region in which agents were judged.

    Attributes:
        region: its scores.
        standings: one per judged agent, in their order.
        thresholds: scores [K] at which profiles are taken, the same in all regions.
        verdicts: of all pairs of agents.
    """

    region: Region
    standings: Sequence[Standing]
    thresholds: Array
    verdicts: Sequence[Verdict]


@dataclass(frozen=True)
class Numbers:
    """The numbers of all regions.

    Attributes:
        regions: the judged ones, last all of them together if there are several.
        notes: what was left out, and why.
        normalized: whether scores are (return - random) / (expert - random), else returns.
        group: seeds of each agent that the verdicts rest on.
    """

    regions: Sequence[Judged]
    notes: Sequence[str]
    normalized: bool
    group: int


def find_numbers(
    scores: Sequence[Score], agents: Sequence[Agent], reference: Agent | None, references: Path | None
) -> Numbers:
    """Return the numbers of all regions.

    Args:
        scores: of judged runs; may be none.
        agents: whose they are, among others.
        reference: with whom the others are compared; None for no comparison.
        references: CSV file of random and expert returns, to normalize scores by; None for returns.

    Raises:
        UserError: references that cannot be read, or do not fit.
    """
    if references is not None:
        scores = normalize(scores, read_references(references))
    try:
        regions, notes = split_regions(scores)
    except UserError as error:
        return Numbers([], [str(error)] if scores else [], references is not None, 0)
    values = np.concatenate([own.reshape(-1) for region in regions for own in region.scores.values()])
    thresholds = np.linspace(values.min(), values.max(), _THRESHOLDS)
    group = min(len(own) for own in regions[0].scores.values())
    gamma = None if references is None else 1.0
    judged = [
        Judged(
            region,
            [
                _standing(agent, region, reference, gamma, thresholds)
                for agent in agents
                if agent.label in region.scores
            ],
            thresholds,
            verdicts(region, group=group, interims=1),
        )
        for region in regions
    ]
    return Numbers(judged, notes, references is not None, group)


def region_title(region: Region) -> str:
    """The region's name and size."""
    count = len(region.contexts)
    name = "all regions but training" if region.name == OVERALL else region.name
    return f"{name}: {count} context{'' if count == 1 else 's'}"


def _standing(
    agent: Agent, region: Region, reference: Agent | None, gamma: float | None, thresholds: Array
) -> Standing:
    scores = region.scores[agent.label]
    means = scores.mean(axis=0)
    worst = int(np.argmin(means))
    band = seed_interval(
        scores,
        lambda resampled: performance_profile(resampled, thresholds),
        numpy_generator(0, f"compare/profile/{region.name}"),
        confidence=CONFIDENCE,
    )
    compared = reference is not None and reference.label != agent.label
    return Standing(
        agent=agent,
        scores=scores,
        estimates=estimates(scores, region.name, gamma=gamma, stratified=False),
        worst=(float(means[worst]), region.contexts[worst]),
        profile=(performance_profile(scores, thresholds), band),
        against=against(scores, region.scores[reference.label], region.name, stratified=False)
        if compared and reference is not None
        else None,
    )
