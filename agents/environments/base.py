"""The contextual environment: a Gymnasium environment whose world has named, bounded parameters.

A *context* is one assignment of values to the features. Subclasses describe their features and write a
whole context into their simulator; validation, time limit, action repeat, choice of observations (state,
pixels) and checks of what the world gives are done here.
"""

import math
import sys
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium
import numpy as np

from agents.errors import UserError

Observation = dict[str, np.ndarray]
Observations = Literal["state", "pixels", "both"]
IMAGE = "image"  # the key of pixels
DRAWN_SIZE = 64  # height and width of what is drawn, unless another size is asked for
_LARGEST = float(np.finfo(np.float32).max)  # what records can hold


@dataclass(frozen=True)
class Feature:
    """One parameter of a world.

    Attributes:
        name: how contexts refer to it.
        unit: physical unit, ``"1"`` for factors.
        default: value of the original environment, in ``unit``.
        low: smallest valid value (inclusive), in ``unit``.
        high: largest valid value (inclusive), in ``unit``.
        description: what the parameter does.
    """

    name: str
    unit: str
    default: float
    low: float
    high: float
    description: str


@dataclass(frozen=True)
class Change:
    """A change of the context within an episode.

    Attributes:
        step: the context changes just before this step of the agent, >= 1. Step s leads from record s - 1 to
            record s, so record s is the first of the new context.
        context: feature name to value, raw units; the others go to their default.
        context_id: place of the context in its list, -1 if it was drawn afresh.
    """

    step: int
    context: Mapping[str, float]
    context_id: int = -1


class InvalidStep(UserError):
    """A step whose record is worthless, and with it the rest of the episode.

    Args:
        message: where, when and in which context it was.
        kind: what is wrong with which environment, the same for all steps with this fault.
    """

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[type["InvalidStep"], tuple[str, str]]:
        return InvalidStep, (str(self), self.kind)


class ContextualEnv(gymnasium.Env[Observation, Any]):
    """Base of all environments: Dict observations and contexts.

    Subclasses implement `_apply_context`, `_reset_world` and `_step_world`, and `draw` where they can.

    Args:
        name: name for messages, such as ``"cartpole"``.
        all_features: everything that can vary in this world.
        observation_space: Dict of Boxes: vectors (rank 1, float32) and images (rank 3, [H, W, C], uint8).
        action_space: Discrete, or Box in the original environment's range.
        features: names of the features that contexts and context vectors expose, in this order; the
            others stay at their default. None exposes all.
        time_limit: steps of the original environment (not multiplied by ``action_repeat``) after which
            an episode is truncated; ``sys.maxsize`` for never.
        action_repeat: steps of the original environment per `step`; rewards are summed.

    Attributes:
        features: the F exposed features, in the order of context vectors.
        context: the present value of every exposed feature, raw units.
        live_context: whether `_apply_context` acts from the next step on, also within an episode. A class that
            needs a reset for it sets this to False, and then changes within an episode are refused.

    Raises:
        UserError: unknown or repeated feature, or a limit or repeat below 1.
    """

    metadata: dict[str, Any] = {"render_modes": []}
    observation_space: gymnasium.spaces.Dict  # type: ignore[assignment]
    live_context: bool = True

    def __init__(
        self,
        name: str,
        all_features: Sequence[Feature],
        observation_space: gymnasium.spaces.Dict,
        action_space: gymnasium.Space[Any],
        *,
        features: Sequence[str] | None,
        time_limit: int,
        action_repeat: int,
    ) -> None:
        self.name = name
        self.observation_space = observation_space
        self.action_space = action_space
        for key, value in (("time_limit", time_limit), ("action_repeat", action_repeat)):
            if value < 1:
                raise UserError(f"environment {name}: {key} is {value}, but must be at least 1")
        self._time_limit = time_limit
        self._action_repeat = action_repeat
        self.features = _select(name, all_features, features)
        self._bounds = {feature.name: (feature.low, feature.high) for feature in self.features}
        self._defaults = {feature.name: feature.default for feature in self.features}
        self._fixed = {f.name: f.default for f in all_features if f.name not in self._defaults}
        self.context: dict[str, float] = {}
        self._vector = np.zeros(0, np.float32)
        self._context_id = -1
        self._elapsed = 0  # steps of the original in this episode
        self._calls = 0  # of `step` in this episode
        self._changes: tuple[Change, ...] = ()  # of this episode, those to come
        self._needs_reset = True
        self._world_space = observation_space
        self._picture: tuple[int, int | None] | None = None  # size and camera of what is drawn
        self.set_context({})

    @property
    def longest_episode(self) -> int | None:
        """Calls of `step` after which an episode is truncated at the latest; None without a time limit."""
        return None if self._time_limit == sys.maxsize else -(-self._time_limit // self._action_repeat)

    @abstractmethod
    def _apply_context(self, context: Mapping[str, float]) -> None:
        """Write all features (raw units) and everything derived from them into the simulator."""

    @abstractmethod
    def _reset_world(self, seed: int | None) -> Observation:
        """Start an episode in the present context; with a seed, make all later randomness follow it."""

    @abstractmethod
    def _step_world(self, action: Any) -> tuple[Observation, float, bool, bool]:
        """Make one step of the original; return (observation, reward, terminated, truncated by itself)."""

    def draw(self, size: int, camera: int | None = None) -> np.ndarray:
        """Return a picture of the world as it stands in its context, uint8 [size, size, 3].

        Args:
            size: height and width in pixels.
            camera: number of the world's camera; None for the one that its task is best seen with.

        Raises:
            UserError: the world cannot be drawn, or has no such camera.
        """
        raise UserError(f"environment {self.name} cannot be drawn; valid observations: state")

    def observe(self, observations: Observations | None, size: int | None = None, camera: int | None = None) -> None:
        """Choose what observations hold; to be called at most once, before the first reset.

        Args:
            observations: ``state``: the world's vectors; ``pixels``: its images, and where it has none of its
                own, a drawn one with the key ``image``, uint8 [size, size, 3]; ``both``; None: what the world gives.
            size: of the drawn image, see `draw`; None: 64, and for images of the world's own the size that they have.
            camera: of the drawn image, see `draw`.

        Raises:
            UserError: vectors are asked for and there are none, images of the world's own in another size than they
                have, or a camera where nothing is drawn.
        """
        images = {key for key, box in self._world_space.items() if len(box.shape or ()) == 3}
        vectors = set(self._world_space) - images
        if observations in ("state", "both") and not vectors:
            raise UserError(f"environment {self.name} has no state to observe; valid observations: pixels")
        kept = vectors if observations == "state" else images if observations == "pixels" else vectors | images
        space = {key: box for key, box in self._world_space.items() if key in kept}
        drawn = observations in ("pixels", "both") and not images
        if camera is not None and not drawn:
            reason = "its images are its own" if kept & images else "pixels are not observed"
            raise UserError(f"environment {self.name}: camera is {camera}, but nothing is drawn: {reason}; valid: null")
        for key in sorted(kept & images):
            height, width = (space[key].shape or ())[:2]
            if size is not None and (height, width) != (size, size):
                own = f"its own {key!r} is {height} x {width}"
                raise UserError(f"environment {self.name}: image_size is {size}, but {own}; valid: null")
        if drawn:
            edge = DRAWN_SIZE if size is None else size
            space[IMAGE] = gymnasium.spaces.Box(0, 255, (edge, edge, 3), np.uint8)
            self._picture = (edge, camera)
        if observations is not None:
            self.observation_space = gymnasium.spaces.Dict(space)

    def complete_context(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return ``values`` with the missing features at their default, without applying anything.

        Raises:
            UserError: unknown feature, or a value that is not a finite number within its bounds.
        """
        context = dict(self._defaults)
        for name, value in values.items():
            if name not in context:
                valid = ", ".join(context) or "none"
                raise UserError(f"environment {self.name}: unknown context feature {name!r}; valid: {valid}")
            low, high = self._bounds[name]
            try:
                number = float(value)
            except (TypeError, ValueError):
                number = math.nan
            if not low <= number <= high:  # also catches NaN
                raise UserError(
                    f"environment {self.name}: context feature {name} is {value!r}, "
                    f"but must be a number from {low:g} to {high:g}"
                )
            context[name] = number
        return context

    def set_context(self, values: Mapping[str, float]) -> None:
        """Change the world now; features that are not named go to their default.

        Args:
            values: feature name to value in raw units.

        Raises:
            UserError: unknown feature, or a value that is not a finite number within its bounds.
        """
        context = self.complete_context(values)
        self._apply_context({**self._fixed, **context} if self._fixed else context)
        self.context = context
        self._vector = np.array(list(context.values()), np.float32)
        self._context_id = -1

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: makes this and all later episodes up to the next seed reproducible.
            options: ``{"context": {name: value}, "context_id": int, "changes": [Change]}``, all optional. Without a
                context the present one stays, be it the one that the last episode changed to; a context without an
                id gets the id -1. The changes are of this episode, in the order of their steps; those after its
                end never happen.

        Raises:
            UserError: see `set_context`, also for the changes; changes out of order or before step 1, or where the
                context is not live; or another option.
            InvalidStep: see `step`.
        """
        super().reset(seed=seed)
        options = options or {}
        unknown = sorted(set(options) - {"context", "context_id", "changes"})
        if unknown:
            valid = "context, context_id, changes"
            raise UserError(f"environment {self.name}: unknown reset option {unknown[0]!r}; valid: {valid}")
        self._changes = self._checked_changes(options.get("changes", ()))
        if "context" in options:
            self.set_context(options["context"])
        self._context_id = int(options.get("context_id", self._context_id))
        self._elapsed = self._calls = 0
        self._needs_reset = False
        observation = self._reset_world(seed)
        return self._observed(observation, 0.0), self._info()

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Advance by up to ``action_repeat`` steps of the original environment.

        Returns:
            observation, summed reward, terminated (the world ended), truncated (the time limit was
            reached), and ``{"context": float32 [F], "context_id": int}``.

        Raises:
            InvalidStep: an observation or reward is NaN or infinite, or a reward is so as float32, an observation is
                not of the space's shapes and types, or the simulation diverged.
            gymnasium.error.ResetNeeded: the episode has ended, or none was begun.
        """
        if self._needs_reset:
            raise gymnasium.error.ResetNeeded(f"environment {self.name}: call reset before step")
        self._calls += 1
        if self._changes and self._changes[0].step == self._calls:
            change, self._changes = self._changes[0], self._changes[1:]
            self.set_context(change.context)
            self._context_id = change.context_id
        total = 0.0
        for _ in range(self._action_repeat):
            self._elapsed += 1
            observation, reward, terminated, truncated = self._step_world(action)
            total += reward
            truncated = truncated or self._elapsed >= self._time_limit
            if terminated or truncated:
                self._needs_reset = True
                break
        return self._observed(observation, total), total, terminated, truncated, self._info()

    def _checked_changes(self, changes: Sequence[Change]) -> tuple[Change, ...]:
        """Return the changes of an episode, or raise a `UserError` for the first that cannot be made."""
        if changes and not self.live_context:
            raise UserError(
                f"environment {self.name}: its context acts at a reset only, so it cannot change within an episode"
            )
        step = 0
        for change in changes:
            if change.step <= step:
                valid = "1 or later, each after the one before"
                raise UserError(f"environment {self.name}: a context changes at step {change.step}; valid: {valid}")
            step = change.step
            self.complete_context(change.context)
        return tuple(changes)

    def _info(self) -> dict[str, Any]:
        return {"context": self._vector.copy(), "context_id": self._context_id}

    def _observed(self, observation: Observation, reward: float) -> Observation:
        """Check what the world gave and return what is observed of it."""
        self._check_kind(self._world_space, observation)
        for key, value in observation.items():
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise self._invalid(f"observation {key!r} is NaN or infinite")
        if not math.isfinite(reward):
            raise self._invalid("reward is NaN or infinite")
        if abs(reward) > _LARGEST:
            raise self._invalid("reward is too large for float32")
        if self.observation_space is not self._world_space:
            observation = {key: value for key, value in observation.items() if key in self.observation_space.spaces}
            if self._picture is not None:
                observation[IMAGE] = self.draw(*self._picture)
            self._check_kind(self.observation_space, observation)
        return observation

    def _check_kind(self, space: gymnasium.spaces.Dict, observation: Observation) -> None:
        """Refuse an observation that has other keys, shapes or types than the space."""
        if observation.keys() != space.spaces.keys():
            keys, expected = ", ".join(map(repr, observation)), ", ".join(map(repr, space))
            raise self._invalid(f"observation has the keys {keys} instead of {expected}")
        for key, box in space.spaces.items():
            value = observation[key]
            if not isinstance(value, np.ndarray) or value.shape != box.shape or value.dtype != box.dtype:
                got = f"{value.dtype} {list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
                raise self._invalid(f"observation {key!r} is {got} instead of {box.dtype} {list(box.shape or ())}")

    def _invalid(self, kind: str) -> InvalidStep:
        """Return the error for the present step, after which the world must be reset."""
        self._needs_reset = True
        where = f"environment {self.name}: {kind}"
        return InvalidStep(f"{where} at step {self._elapsed} in context {self.context}", where)


def _select(name: str, all_features: Sequence[Feature], names: Sequence[str] | None) -> tuple[Feature, ...]:
    """Return the named features in the order of ``names``, or all of them for None."""
    if names is None:
        return tuple(all_features)
    by_name = {feature.name: feature for feature in all_features}
    for index, wanted in enumerate(names):
        if wanted not in by_name:
            raise UserError(f"environment {name}: unknown feature {wanted!r}; valid: {', '.join(by_name) or 'none'}")
        if wanted in names[:index]:
            raise UserError(f"environment {name}: feature {wanted!r} is listed twice")
    return tuple(by_name[wanted] for wanted in names)
