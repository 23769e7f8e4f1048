"""Validation episodes: always the same contexts and seeds, so that epochs of a run are compared fairly.

The seeds come from the stream "validation" of the run's seed, and so are neither those of training nor
those of an evaluation. The agent acts greedily (mode of the policy and of the latents), as it is judged later.
"""

from collections.abc import Mapping, Sequence

from agents.environments import VectorEnvironment, changes_in_turn
from agents.evaluation.episodes import Job
from agents.evaluation.rollout import Episode, run_episodes
from agents.seeding import numpy_generator, seed_for
from agents.training.learner import Learner


def validation_jobs(
    contexts: Sequence[Mapping[str, float]], count: int, seed: int, change_steps: Sequence[int] = ()
) -> list[Job]:
    """Choose ``count`` episodes over the training contexts: each context equally often but for the remainder.

    Args:
        contexts: the training contexts, raw units.
        count: number of episodes.
        seed: the run's seed; the contexts of an incomplete pass are drawn without replacement.
        change_steps: of the agent, just before which an episode goes on to the next context of the list, in turn.
    """
    order = numpy_generator(seed, "validation_contexts").permutation(len(contexts))
    chosen = [int(order[index % len(contexts)]) for index in range(count)]
    return [
        Job(
            "validation",
            choice,
            contexts[choice],
            environment_seed(seed, "validation", index),
            changes_in_turn(contexts, choice, change_steps),
        )
        for index, choice in enumerate(chosen)
    ]


def environment_seed(seed: int, stream: str, *counters: int) -> int:
    """Return a seed that every environment accepts, in [0, 2**31)."""
    return seed_for(seed, stream, *counters) % 2**31


class Validator:
    """Runs the validation episodes in environments of its own.

    Args:
        learner: whose agent acts, greedily, with its present state.
        environments: vectors of one environment each; more episodes than these queue for a free one.
        jobs: the episodes, at least one.
    """

    def __init__(self, learner: Learner, environments: Sequence[VectorEnvironment], jobs: Sequence[Job]) -> None:
        self.learner = learner
        self.environments = environments
        self.jobs = list(jobs)
        self._episodes: list[Episode] = []

    def run(self, jobs: Sequence[Job]) -> None:
        """Play every episode once with the learner's present state; they wait for ``pop_episodes``."""
        agent, state = self.learner.agent, self.learner.state
        self._episodes += run_episodes(agent, state, self.environments, jobs, rows=len(self.environments))

    def pop_episodes(self) -> list[Episode]:
        """Return the episodes since the last call, in the order of the jobs."""
        episodes, self._episodes = self._episodes, []
        return episodes
