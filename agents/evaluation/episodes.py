"""Which episodes are judged: fixed contexts by region, fixed seeds, the same for every agent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agents.environments.base import Change
from agents.environments.distributions import changes_in_turn
from agents.errors import UserError
from agents.seeding import seed_for

#: The region of the contexts that the agent was trained in.
TRAINING = "training"

Regions = Mapping[str, Sequence[Mapping[str, float]]]


@dataclass(frozen=True)
class Job:
    """One episode to run.

    Attributes:
        region: name of the context's region.
        context_id: the context's place in its region.
        context: feature name to value, raw units; features left out are at their default.
        seed: of the environment, in [2**31, 2**32).
        changes: of the context within the episode, which begins in ``context``.
    """

    region: str
    context_id: int
    context: Mapping[str, float]
    seed: int
    changes: tuple[Change, ...] = ()


def evaluation_seed(seed: int, region: str, context_id: int, episode: int) -> int:
    """Return the environment's seed of one judged episode, in [2**31, 2**32).

    It depends on nothing that differs between agents, so comparisons between them pair episode by episode.
    Training and validation use seeds below 2**31: no judged episode can have been seen before.

    Args:
        seed: ``evaluation.seed`` of the configuration.
        region: name of the region.
        context_id: the context's place in its region.
        episode: number of the episode in its context.
    """
    return 2**31 + seed_for(seed, f"evaluation/{region}", context_id, episode) % 2**31


def choose_regions(regions: Regions, names: Sequence[str] | None, run: str) -> dict[str, Sequence[Mapping[str, float]]]:
    """Return the named regions, or all of them for None, in the order of ``regions``.

    Raises:
        UserError: an unknown name, or an empty choice.
    """
    if names is None:
        return dict(regions)
    valid = ", ".join(regions)
    unknown = [name for name in names if name not in regions]
    if unknown:
        raise UserError(f"unknown region {unknown[0]!r}: run {run} has {valid}")
    if not names:
        raise UserError(f"no region to evaluate: name at least one of {valid}")
    return {name: contexts for name, contexts in regions.items() if name in names}


def list_jobs(regions: Regions, episodes: int, seed: int, change_steps: Sequence[int] = ()) -> list[Job]:
    """List every episode of every context of every region.

    Args:
        regions: contexts by region.
        episodes: episodes per context, at least 1.
        seed: ``evaluation.seed`` of the configuration.
        change_steps: of the agent, just before which an episode goes on to the next context of its region, in turn.

    Raises:
        UserError: fewer than one episode.
    """
    if episodes < 1:
        raise UserError(f"episodes is {episodes}, but must be at least 1")
    return [
        Job(
            region,
            context_id,
            context,
            evaluation_seed(seed, region, context_id, episode),
            changes_in_turn(contexts, context_id, change_steps),
        )
        for region, contexts in regions.items()
        for context_id, context in enumerate(contexts)
        for episode in range(episodes)
    ]
