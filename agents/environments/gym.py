"""Environments that are registered with Gymnasium, by their id."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec, load_env_creator

from agents.environments.base import IMAGE, ContextualEnv, Feature, Observation
from agents.environments.pixels import rendered
from agents.errors import UserError

_MUJOCO = "gymnasium.envs.mujoco."


def make_gymnasium(
    identifier: str, *, features: Sequence[str] | None = None, time_limit: int | None = None, action_repeat: int = 1
) -> ContextualEnv:
    """Make the environment with this id, such as ``Acrobot-v1``; see `GymnasiumEnv`."""
    spec = _spec(identifier)
    settings: dict[str, Any] = {"features": features, "time_limit": time_limit, "action_repeat": action_repeat}
    if str(spec.entry_point).startswith(_MUJOCO):
        from agents.environments.gym_mujoco import GymnasiumMujoco  # importing MuJoCo takes half a second

        return GymnasiumMujoco(spec, **settings)
    return GymnasiumEnv(spec, make_world(spec), **settings)


class GymnasiumEnv(ContextualEnv):
    """A registered Gymnasium environment as it is, with no context features of its own.

    Observations: a vector has the key ``state``, a uint8 image ``image``, and those of a Dict keep theirs. Numbers
    of any type and rank below 3 become vectors of float32.

    Args:
        spec: what is registered.
        world: what `make_world` made of it.
        all_features: see `ContextualEnv`.
        features: see `ContextualEnv`.
        time_limit: steps until truncation; None means the registered limit. A world may truncate by itself, too.
        action_repeat: steps of the original per step.

    Raises:
        UserError: observations or actions of a kind that agents cannot deal with, or see `ContextualEnv`.
    """

    def __init__(
        self,
        spec: EnvSpec,
        world: gymnasium.Env[Any, Any],
        all_features: Sequence[Feature] = (),
        *,
        features: Sequence[str] | None = None,
        time_limit: int | None = None,
        action_repeat: int = 1,
    ) -> None:
        name = f"gym/{spec.id}"
        if not isinstance(world.action_space, spaces.Discrete | spaces.Box):
            raise UserError(f"environment {name} has actions {world.action_space}; valid: Discrete, Box")
        self._world = world
        own_limit = sys.maxsize if spec.max_episode_steps is None else spec.max_episode_steps
        super().__init__(
            name,
            all_features,
            _observation_space(name, world.observation_space),
            world.action_space,
            features=features,
            time_limit=own_limit if time_limit is None else time_limit,
            action_repeat=action_repeat,
        )

    def draw(self, size: int, camera: int | None = None) -> np.ndarray:
        """See `ContextualEnv.draw`; many worlds need a package for it, the classic ones pygame."""
        return rendered(self.name, self._world, size, camera)

    def close(self) -> None:
        """See `gymnasium.Env.close`."""
        self._world.close()

    def _apply_context(self, context: Mapping[str, float]) -> None:
        """There is nothing to write."""

    def _reset_world(self, seed: int | None) -> Observation:
        return self._converted(self._world.reset(seed=seed)[0])

    def _step_world(self, action: Any) -> tuple[Observation, float, bool, bool]:
        observation, reward, terminated, truncated, _ = self._world.step(action)
        return self._converted(observation), float(reward), bool(terminated), bool(truncated)

    def _converted(self, observation: Any) -> Observation:
        """Return the world's observation with the types and ranks of the space."""
        if not isinstance(observation, Mapping):
            observation = {next(iter(self._world_space.spaces)): observation}
        converted = {}
        for key, value in observation.items():
            array = np.array(value)
            if array.ndim >= 2 and array.dtype == np.uint8:
                converted[key] = array if array.ndim > 2 else array[..., None]
            else:
                converted[key] = array.astype(np.float32).reshape(-1)
        return converted


def _observation_space(name: str, space: gymnasium.Space[Any]) -> spaces.Dict:
    """Return the space of the converted observations."""
    if isinstance(space, spaces.Box):
        image = space.dtype == np.uint8 and len(space.shape) >= 2
        space = spaces.Dict({IMAGE if image else "state": space})
    if not isinstance(space, spaces.Dict):
        raise UserError(f"environment {name} has observations {space}; valid: Box, or Dict of Boxes")
    converted: dict[str, spaces.Space[Any]] = {}
    for key, box in space.spaces.items():
        rank = len(box.shape or ())
        if not isinstance(box, spaces.Box) or rank > 3 or (rank == 3 and box.dtype != np.uint8):
            raise UserError(f"environment {name}: observation {key!r} is {box}; valid: vectors, images of uint8")
        if box.dtype == np.uint8 and rank >= 2:
            converted[key] = spaces.Box(0, 255, box.shape if rank == 3 else (*box.shape, 1), np.uint8)
        else:
            converted[key] = spaces.Box(-np.inf, np.inf, (int(np.prod(box.shape)),), np.float32)
    return spaces.Dict(converted)


def make_world(spec: EnvSpec) -> gymnasium.Env[Any, Any]:
    """Return a registered environment without its time limit, able to render if it can.

    Raises:
        UserError: a package is missing.
    """
    try:
        creator = load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point
        modes = getattr(creator, "metadata", {}).get("render_modes") or []
        rendering = {"render_mode": "rgb_array"} if "rgb_array" in modes else {}
        # A limit of -1 is none: the base class counts.
        return gymnasium.make(spec, max_episode_steps=-1, disable_env_checker=True, **rendering)
    except (gymnasium.error.Error, ImportError) as error:
        raise UserError(f"environment gym/{spec.id} cannot be made: {_one_line(error)}") from error


def _spec(identifier: str) -> EnvSpec:
    try:
        return gymnasium.spec(identifier)
    except (gymnasium.error.Error, ImportError) as error:
        raise UserError(
            f"unknown environment 'gym/{identifier}': {_one_line(error)} Valid: what Gymnasium has registered, such as "
            "gym/Acrobot-v1; what another package registers as gym/<module>:<id>"
        ) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
