"""Several environments side by side, stepped with agent actions, giving stacked records."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import gymnasium
import numpy as np

from agents.environments.actions import ActionCodec
from agents.environments.base import Change, ContextualEnv, Feature, InvalidStep
from agents.errors import UserError

Make = Callable[[], ContextualEnv]
OnInvalid = Literal["stop", "drop"]
Records = dict[str, np.ndarray]

_LOGGER = logging.getLogger(__name__)
_MOST_DROPPED = 32  # episodes of one environment in a row, none of which ended validly, until we give up


@dataclass(frozen=True)
class Reset:
    """The command to begin an episode.

    Attributes:
        seed: of the episode.
        context: feature name to value, raw units; the others are at their default.
        context_id: place of the context in its list, -1 if it was drawn afresh.
        changes: of the context within the episode, in the order of their steps, see `Change`. The records name
            the context under which each was reached.
    """

    seed: int
    context: Mapping[str, float] = field(default_factory=dict)
    context_id: int = -1
    changes: tuple[Change, ...] = ()


class VectorEnvironment(Protocol):
    """E environments with the same spaces and features."""

    num_envs: int
    observation_space: gymnasium.spaces.Dict
    action_space: gymnasium.Space[Any]
    features: tuple[Feature, ...]

    def step(self, commands: Sequence[Reset | np.ndarray]) -> Records:
        """Carry out one command per environment.

        Args:
            commands: E of `Reset` or an agent action, float32 [A] (see `ActionCodec`).

        Returns:
            ``observation/<key>`` float32 [E, ...], ``reward`` float32 [E], ``is_first``, ``is_terminal``,
            ``is_last`` bool [E], ``context`` float32 [E, F], ``context_id`` int32 [E]; and ``lost`` bool [E]:
            the environment broke down, or its step was invalid and is to be dropped; its record is all zeros,
            its open episode ends without a last record, and it must be reset next.

        Raises:
            UserError: a context that the environment refuses, or an invalid step (NaN, wrong shape, diverged)
                unless such are dropped. That environment must be reset next.
            ValueError: not one command per environment.
            RuntimeError: an action for an environment that must be reset; or, from a subprocess, that its
                environment raised anything else (in this process that is raised as it is), or broke down
                again and again.
        """
        ...

    def close(self) -> None:
        """Release everything. Closing twice is harmless."""
        ...


def empty_records(space: gymnasium.spaces.Dict, num_features: int, num_envs: int) -> Records:
    """Return zero-filled records of E environments, as `VectorEnvironment.step` describes them."""
    records: Records = {
        f"observation/{key}": np.zeros((num_envs, *(box.shape or ())), box.dtype) for key, box in space.items()
    }
    records["reward"] = np.zeros(num_envs, np.float32)
    for key in ("is_first", "is_terminal", "is_last", "lost"):
        records[key] = np.zeros(num_envs, np.bool_)
    records["context"] = np.zeros((num_envs, num_features), np.float32)
    records["context_id"] = np.zeros(num_envs, np.int32)
    return records


class Actor:
    """One environment that obeys commands."""

    def __init__(self, env: ContextualEnv) -> None:
        self.env = env
        self._codec = ActionCodec(env.action_space)

    def obey(self, command: Reset | np.ndarray) -> dict[str, Any]:
        """Carry out one command; return the record without the leading E."""
        if isinstance(command, Reset):
            options = {"context": command.context, "context_id": command.context_id, "changes": command.changes}
            observation, info = self.env.reset(seed=command.seed, options=options)
            reward, terminated, truncated, first = 0.0, False, False, True
        else:
            observation, reward, terminated, truncated, info = self.env.step(self._codec.decode(command))
            first = False
        record: dict[str, Any] = {f"observation/{key}": value for key, value in observation.items()}
        record["reward"] = reward
        record["is_first"] = first
        record["is_terminal"] = terminated
        record["is_last"] = terminated or truncated
        record.update(info)
        return record


class InvalidSteps:
    """What becomes of invalid steps.

    Args:
        policy: ``stop``: an invalid step is an error; ``drop``: its episode is lost, which is logged once for
            every kind of fault.
        num_envs: E.
        told: the kinds of faults that were logged; vectors of one run share it. None: a set of its own.
        give_up: whether an environment is an error that loses too many episodes in a row. Without it, whoever
            counts the episodes must tell.
    """

    def __init__(self, policy: OnInvalid, num_envs: int, *, told: set[str] | None = None, give_up: bool = True) -> None:
        self._policy = policy
        self._told = set() if told is None else told
        self._give_up = give_up
        self._dropped = [0] * num_envs  # episodes since the last one that ended validly

    def refuse(self, index: int, error: InvalidStep) -> UserError | None:
        """Take note of an invalid step of environment ``index``; return what to raise, if anything."""
        if self._policy == "stop":
            return UserError(f"{error}; choose a less extreme context, or let environment.on_invalid be drop")
        self._dropped[index] += 1
        if self._give_up and self._dropped[index] >= _MOST_DROPPED:
            return UserError(f"{error}: {self._dropped[index]} episodes in a row were dropped, and none ended validly")
        if error.kind not in self._told:
            self._told.add(error.kind)
            _LOGGER.warning("%s; its episode is dropped, as others will be without a further word", error)
        return None

    def accept(self, index: int, is_last: bool) -> None:
        """Take note of a valid record of environment ``index``."""
        if is_last:
            self._dropped[index] = 0


class SerialVector:
    """Environments in this process, one after the other (`VectorEnvironment`).

    Args:
        makes: E functions that each make one environment.
        on_invalid, told, give_up: see `InvalidSteps`.
    """

    def __init__(
        self,
        makes: Sequence[Make],
        *,
        on_invalid: OnInvalid = "stop",
        told: set[str] | None = None,
        give_up: bool = True,
    ) -> None:
        self.num_envs = check_count(makes)
        self._invalid = InvalidSteps(on_invalid, self.num_envs, told=told, give_up=give_up)
        self._actors = [Actor(make()) for make in makes]
        self._awaits_reset = [True] * self.num_envs
        env = self._actors[0].env
        self.observation_space = env.observation_space
        self.action_space = env.action_space
        self.features = env.features

    def step(self, commands: Sequence[Reset | np.ndarray]) -> Records:
        """See `VectorEnvironment.step`; an environment that breaks down takes this process along."""
        check_commands(commands, self._awaits_reset)
        records = empty_records(self.observation_space, len(self.features), self.num_envs)
        for index, (actor, command) in enumerate(zip(self._actors, commands, strict=True)):
            self._awaits_reset[index] = True  # also if the next line raises
            try:
                record = actor.obey(command)
            except InvalidStep as invalid:
                if error := self._invalid.refuse(index, invalid):
                    raise error from invalid
                records["lost"][index] = True
                continue
            self._invalid.accept(index, record["is_last"])
            self._awaits_reset[index] = record["is_last"]
            for key, value in record.items():
                records[key][index] = value
        return records

    def close(self) -> None:
        """See `VectorEnvironment.close`."""
        for actor in self._actors:
            actor.env.close()


def check_count(makes: Sequence[Make]) -> int:
    """Return the number of environments to make, or raise if there is none."""
    if not makes:
        raise ValueError("a vector needs at least one environment")
    return len(makes)


def check_commands(commands: Sequence[Reset | np.ndarray], awaits_reset: Sequence[bool]) -> None:
    """Raise unless there is one command per environment, and a `Reset` where one is awaited."""
    if len(commands) != len(awaits_reset):
        raise ValueError(f"{len(commands)} commands for {len(awaits_reset)} environments")
    for index, command in enumerate(commands):
        if awaits_reset[index] and not isinstance(command, Reset):
            raise RuntimeError(f"environment {index} must be reset first")
