"""Episodes of a greedy agent in many environments at once.

Sizes: E rows of the agent's batch, A action size, F context features.

Each environment takes the next episode as soon as it is done with one. The agent is always called with E
rows, used or not: an episode then depends on its context and seed alone, and neither on how many other
episodes are asked for nor on which of them run beside it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.environments import Reset, VectorEnvironment
from agents.evaluation.episodes import Job

#: E, the rows of the agent's batch and the most environments that are used.
ROWS = 128


class ActingAgent(Protocol):
    """The part of an agent that acts; see ``agents.dreamerv3``."""

    def initial_carry(self, num_envs: int) -> dict[str, Tensor]:
        """What the agent remembers between steps, [E, ...] each."""
        ...

    def act(
        self, state: Any, carry: Mapping[str, Tensor], records: Mapping[str, Tensor], noise: None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Greedy actions [E, A] and the next carry."""
        ...


@dataclass(frozen=True)
class Episode:
    """An episode that was run.

    Attributes:
        job: what was asked for.
        episode_return: undiscounted sum of rewards.
        length: agent steps (with action repeat, fewer than the environment's).
        records: recorded values [length + 1, ...] by key, the actions among them; empty unless asked for.
        invalid: it was dropped for an invalid step. Its return is of the steps before that one, and comparable with no
            other episode's.
    """

    job: Job
    episode_return: float
    length: int
    records: Mapping[str, NDArray]
    invalid: bool = False


class _Slot:
    """One environment and the episode it is in."""

    def __init__(self, vector: VectorEnvironment) -> None:
        self.vector = vector
        self.job = -1  # index into the jobs; -1: none left
        self.command: Reset | NDArray[np.float32]
        self.history: list[dict[str, Any]] = []
        self.total = 0.0
        self.length = 0

    def obey(self) -> dict[str, Any]:
        """Carry out the command; return the record, without the leading dimension of the vector of one."""
        records = self.vector.step([self.command])
        return {key: value[0] for key, value in records.items()}

    def begin(self, index: int, jobs: Sequence[Job]) -> None:
        """Take the job with this index, or none if there is no such job."""
        self.job = index if index < len(jobs) else -1
        if self.job < 0:
            return
        job = jobs[index]
        self.command = Reset(job.seed, job.context, job.context_id, job.changes)
        self.history = []
        self.total, self.length = 0.0, 0


def run_episodes(
    agent: ActingAgent,
    state: Any,
    environments: Sequence[VectorEnvironment],
    jobs: Sequence[Job],
    *,
    record: bool = False,
    max_steps: int | None = None,
    rows: int = ROWS,
    on_episode: Callable[[], None] | None = None,
) -> list[Episode]:
    """Run every job once with greedy actions and latents; return the episodes in the order of the jobs.

    Args:
        agent: acts on ``observation/*`` [E, ...], ``is_first`` [E] and ``context`` [E, F].
        state: the agent's state tree.
        environments: vectors of one environment each, at most E; each plays for itself, so that nobody waits
            for one that has nothing left to do (see ``open_environments``).
        jobs: what to run.
        record: keep the records of every step.
        max_steps: agent steps after which an episode is left as it is; None: never.
        rows: E.
        on_episode: called after each episode, for progress.

    Raises:
        UserError: a context that the environment refuses, or an invalid step unless those are dropped, which
            ends the episode before that step and marks it as invalid.
    """
    slots = [_Slot(environment) for environment in environments]
    finished: list[Episode | None] = [None] * len(jobs)
    inputs = _blank_inputs(environments[0], rows)
    carry = agent.initial_carry(rows)
    for index, slot in enumerate(slots):
        slot.begin(index, jobs)
    upcoming = len(slots)
    while active := [(row, slot) for row, slot in enumerate(slots) if slot.job >= 0]:
        current = {row: slot.obey() for row, slot in active}
        for row, values in current.items():
            for key, target in inputs.items():
                target[row] = values[key]
        tensors = {key: torch.tensor(value) for key, value in inputs.items()}
        actions, carry = agent.act(state, carry, tensors, None)
        chosen = actions.float().cpu().numpy()
        for row, slot in active:
            episode = _advance(slot, current[row], chosen[row], jobs, record, max_steps)
            if episode is not None:
                finished[slot.job] = episode
                slot.begin(upcoming, jobs)
                upcoming += 1
                if on_episode is not None:
                    on_episode()
    return [episode for episode in finished if episode is not None]


@contextmanager
def open_environments(make: Callable[[], VectorEnvironment], count: int) -> Iterator[list[VectorEnvironment]]:
    """Make ``count`` environments, at most E, and close them in the end."""
    with ExitStack() as stack:
        environments = []
        for _ in range(min(count, ROWS)):
            environments.append(make())
            stack.callback(environments[-1].close)
        yield environments


def _blank_inputs(vector: VectorEnvironment, rows: int) -> dict[str, NDArray]:
    """What the agent acts on, for E rows, all zero."""
    inputs: dict[str, NDArray] = {
        f"observation/{key}": np.zeros((rows, *(space.shape or ())), space.dtype)
        for key, space in vector.observation_space.items()
    }
    inputs["is_first"] = np.zeros(rows, np.bool_)
    inputs["context"] = np.zeros((rows, len(vector.features)), np.float32)
    return inputs


def _advance(
    slot: _Slot,
    record: dict[str, Any],
    action: NDArray[np.float32],
    jobs: Sequence[Job],
    keep: bool,
    max_steps: int | None,
) -> Episode | None:
    """Take in a record and the action chosen after it; return the episode if it is over."""
    if record.pop("lost"):
        return Episode(jobs[slot.job], slot.total, slot.length, _stack(slot.history), invalid=True)
    slot.total += float(record["reward"])
    slot.length += 0 if record["is_first"] else 1
    action = np.zeros_like(action) if record["is_last"] else action.copy()
    if keep:
        slot.history.append({**record, "action": action})
    slot.command = action
    if not record["is_last"] and slot.length != max_steps:
        return None
    return Episode(jobs[slot.job], slot.total, slot.length, _stack(slot.history))


def _stack(history: Sequence[Mapping[str, Any]]) -> dict[str, NDArray]:
    """Stack records over time: [T, ...] by key."""
    return {key: np.stack([record[key] for record in history]) for key in history[0]} if history else {}
