"""Validation episodes: always the same contexts and seeds, so that epochs of a run are compared fairly.

The seeds come from the stream "validation" of the run's seed, and so are neither those of training nor
those of an evaluation. The agent acts greedily (mode of the policy and of the latents).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from agents.environments import Reset, VectorEnvironment
from agents.seeding import numpy_generator, seed_for
from agents.training.learner import Learner


@dataclass(frozen=True)
class Episode:
    """An episode to run: where it starts, and in which world."""

    context: Mapping[str, float]  # raw units
    context_id: int
    seed: int


@dataclass(frozen=True)
class EpisodeResult:
    """What an episode came to: the undiscounted sum of rewards, and environment steps."""

    episode_return: float
    length: int


def validation_episodes(contexts: Sequence[Mapping[str, float]], count: int, seed: int) -> list[Episode]:
    """Choose ``count`` episodes over the training contexts: each context equally often but for the remainder.

    Args:
        contexts: the training contexts, raw units.
        count: number of episodes.
        seed: the run's seed; the contexts of an incomplete pass are drawn without replacement.
    """
    order = numpy_generator(seed, "validation_contexts").permutation(len(contexts))
    chosen = [int(order[index % len(contexts)]) for index in range(count)]
    return [
        Episode(contexts[choice], choice, environment_seed(seed, "validation", index))
        for index, choice in enumerate(chosen)
    ]


def environment_seed(seed: int, stream: str, *counters: int) -> int:
    """Return a seed that every environment accepts, in [0, 2**31)."""
    return seed_for(seed, stream, *counters) % 2**31


class _Slots:
    """Which episode each environment of a vector is playing, what came of the others, and what is to come."""

    def __init__(self, episodes: Sequence[Episode], num_envs: int) -> None:
        self.episodes = episodes
        self.unfinished = len(episodes)
        self._next = 0
        self._playing: list[int | None] = [None] * num_envs  # None: a repetition that does not count
        self._returns = [0.0] * num_envs
        self._lengths = [0] * num_envs
        self._results: dict[int, EpisodeResult] = {}

    def reset(self, env: int) -> Reset:
        """Give ``env`` the next episode; when there is none left, the last one again."""
        left = self._next < len(self.episodes)
        self._playing[env] = self._next if left else None
        self._returns[env], self._lengths[env] = 0.0, 0
        episode = self.episodes[self._next if left else -1]
        self._next += left
        return Reset(seed=episode.seed, context=episode.context, context_id=episode.context_id)

    def account(self, env: int, reward: float, is_last: bool) -> bool:
        """Add one record to the episode of ``env``; return whether that ended it."""
        self._returns[env] += reward
        if not is_last:
            self._lengths[env] += 1
            return False
        playing = self._playing[env]
        if playing is not None:
            self._results[playing] = EpisodeResult(self._returns[env], self._lengths[env])
            self.unfinished -= 1
        return True

    def results(self) -> list[EpisodeResult]:
        """Return the results in the order of the episodes."""
        return [self._results[index] for index in range(len(self.episodes))]


class Validator:
    """Runs the validation episodes on a vector of environments of its own.

    Args:
        learner: chooses the actions, greedily.
        vector: E environments; more episodes than that queue for a free one.
        episodes: at least one.
    """

    def __init__(self, learner: Learner, vector: VectorEnvironment, episodes: Sequence[Episode]) -> None:
        self.learner = learner
        self.vector = vector
        self.episodes = list(episodes)
        self._results: list[EpisodeResult] = []

    def run(self, episodes: Sequence[Episode]) -> None:
        """Play every episode once with the learner's present state; the results wait for ``pop_results``."""
        num_envs = self.vector.num_envs
        slots = _Slots(episodes, num_envs)
        commands: list[Reset | np.ndarray] = [slots.reset(env) for env in range(num_envs)]
        carry = self.learner.agent.initial_carry(num_envs)
        while slots.unfinished:
            records = self.vector.step(commands)
            actions, carry = self.learner.act(carry, records, None)
            for env in range(num_envs):
                over = slots.account(env, float(records["reward"][env]), bool(records["is_last"][env]))
                commands[env] = slots.reset(env) if over else actions[env]
        self._results += slots.results()

    def pop_results(self) -> list[EpisodeResult]:
        """Return the results since the last call, in the order of the episodes."""
        results, self._results = self._results, []
        return results
