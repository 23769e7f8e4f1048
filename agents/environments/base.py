"""The contextual environment: a Gymnasium environment whose world has named, bounded parameters.

A *context* is one assignment of values to the features. Subclasses describe their features and write a
whole context into their simulator; validation, time limit, action repeat and finiteness are done here.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from agents.errors import UserError

Observation = dict[str, np.ndarray]


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


class ContextualEnv(gymnasium.Env[Observation, Any]):
    """Base of all environments: Dict observations of float32 and contexts.

    Subclasses implement `_apply_context`, `_reset_world` and `_step_world`.

    Args:
        name: name for messages, such as ``"cartpole"``.
        all_features: everything that can vary in this world.
        observation_space: Dict of float32 Boxes.
        action_space: Discrete, or Box in the original environment's range.
        features: names of the features that contexts and context vectors expose, in this order; the
            others stay at their default. None exposes all.
        time_limit: steps of the original environment (not multiplied by ``action_repeat``) after which
            an episode is truncated.
        action_repeat: steps of the original environment per `step`; rewards are summed.

    Attributes:
        features: the F exposed features, in the order of context vectors.
        context: the present value of every exposed feature, raw units.

    Raises:
        UserError: unknown or repeated feature, or a limit or repeat below 1.
    """

    metadata: dict[str, Any] = {"render_modes": []}
    observation_space: gymnasium.spaces.Dict  # type: ignore[assignment]

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
        self._elapsed = 0
        self._needs_reset = True
        self.set_context({})

    @abstractmethod
    def _apply_context(self, context: Mapping[str, float]) -> None:
        """Write all features (raw units) and everything derived from them into the simulator."""

    @abstractmethod
    def _reset_world(self, seed: int | None) -> Observation:
        """Start an episode in the present context; with a seed, make all later randomness follow it."""

    @abstractmethod
    def _step_world(self, action: Any) -> tuple[Observation, float, bool, bool]:
        """Make one step of the original; return (observation, reward, terminated, truncated by itself)."""

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
            options: ``{"context": {name: value}, "context_id": int}``, both optional. Without a context
                the present one stays; a context without an id gets the id -1.

        Raises:
            UserError: see `set_context`; or an option that is neither of the two.
        """
        super().reset(seed=seed)
        if options:
            unknown = sorted(set(options) - {"context", "context_id"})
            if unknown:
                raise UserError(
                    f"environment {self.name}: unknown reset option {unknown[0]!r}; valid: context, context_id"
                )
            if "context" in options:
                self.set_context(options["context"])
            self._context_id = int(options.get("context_id", self._context_id))
        self._elapsed = 0
        self._needs_reset = False
        observation = self._reset_world(seed)
        self._check_finite(observation, 0.0)
        return observation, self._info()

    def step(self, action: Any) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Advance by up to ``action_repeat`` steps of the original environment.

        Returns:
            observation, summed reward, terminated (the world ended), truncated (the time limit was
            reached), and ``{"context": float32 [F], "context_id": int}``.

        Raises:
            UserError: an observation or reward is NaN or infinite.
            gymnasium.error.ResetNeeded: the episode has ended, or none was begun.
        """
        if self._needs_reset:
            raise gymnasium.error.ResetNeeded(f"environment {self.name}: call reset before step")
        total = 0.0
        for _ in range(self._action_repeat):
            observation, reward, terminated, truncated = self._step_world(action)
            self._elapsed += 1
            total += reward
            truncated = truncated or self._elapsed >= self._time_limit
            if terminated or truncated:
                self._needs_reset = True
                break
        self._check_finite(observation, total)
        return observation, total, terminated, truncated, self._info()

    def _info(self) -> dict[str, Any]:
        return {"context": self._vector.copy(), "context_id": self._context_id}

    def _check_finite(self, observation: Observation, reward: float) -> None:
        culprits = [f"observation {key!r}" for key, value in observation.items() if not np.isfinite(value).all()]
        if not math.isfinite(reward):
            culprits.append("reward")
        if culprits:
            self._needs_reset = True
            raise UserError(
                f"environment {self.name}: {culprits[0]} is NaN or infinite at step {self._elapsed} "
                f"in context {self.context}; choose a less extreme context"
            )


def _select(name: str, all_features: Sequence[Feature], names: Sequence[str] | None) -> tuple[Feature, ...]:
    """Return the named features in the order of ``names``, or all of them for None."""
    if names is None:
        return tuple(all_features)
    by_name = {feature.name: feature for feature in all_features}
    for index, wanted in enumerate(names):
        if wanted not in by_name:
            raise UserError(f"environment {name}: unknown feature {wanted!r}; valid: {', '.join(by_name)}")
        if wanted in names[:index]:
            raise UserError(f"environment {name}: feature {wanted!r} is listed twice")
    return tuple(by_name[wanted] for wanted in names)
