"""MiniGrid."""

import difflib
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import load_env_creator

from agents.environments.base import IMAGE, ContextualEnv, Observation
from agents.environments.extras import import_extra
from agents.errors import UserError

DIRECTIONS = 4  # right, down, left, up


class MiniGrid(ContextualEnv):
    """A world of MiniGrid (Chevalier-Boisvert et al., 2023, https://arxiv.org/abs/2306.13831).

    Observations:
    ``image`` [image_size, image_size, 3], uint8: the 7 x 7 cells before the agent, seen from above and turned so
    that it looks up; what it does not see is dark. Drawn as large as whole pixels allow, with a black edge.
    ``direction`` [4]: one-hot of where it looks (right, down, left, up), a compass that the image lacks.
    ``mission`` [N], only where the mission differs between episodes: for each of its blanks (such as color
    and kind of object), one-hot of what fills it.

    Actions: left, right, forward, pick up, drop, toggle, done (some worlds have the first three only). It
    terminates as the world says: goal, lava, ... The reward at the goal is 1 - 0.9 n / N after n of N steps.
    There are no context features.

    Args:
        world: the id under which MiniGrid registers it, such as ``MiniGrid-DoorKey-8x8-v0``.
        features: see `ContextualEnv`; there are none to name.
        time_limit: steps until truncation; None, or more than it, means the world's own limit.
        action_repeat: steps of the original per step.
        image_size: edge of the image, pixels.

    Raises:
        UserError: minigrid is not installed, or has no such world; or see `ContextualEnv`.
    """

    def __init__(
        self,
        world: str,
        *,
        features: Sequence[str] | None = None,
        time_limit: int | None = None,
        action_repeat: int = 1,
        image_size: int = 64,
    ) -> None:
        name = f"minigrid/{world}"
        import_extra("minigrid", environment=name, extra="minigrid")  # registers its worlds
        _check_world(name, world)
        spec = gymnasium.registry[world]
        # Not gymnasium.make, which wraps the world and warns of older versions.
        create: Any = load_env_creator(str(spec.entry_point))
        self._world = create(**spec.kwargs)
        self._size = image_size
        self._missions = _mission_codes(self._world.observation_space["mission"])
        boxes: dict[str, spaces.Space[Any]] = {
            IMAGE: spaces.Box(0, 255, (image_size, image_size, 3), np.uint8),
            "direction": spaces.Box(0.0, 1.0, (DIRECTIONS,), np.float32),
        }
        if self._missions:
            boxes["mission"] = spaces.Box(0.0, 1.0, next(iter(self._missions.values())).shape, np.float32)
        super().__init__(
            name,
            (),
            spaces.Dict(boxes),
            spaces.Discrete(int(self._world.action_space.n)),
            features=features,
            time_limit=self._world.max_steps if time_limit is None else time_limit,
            action_repeat=action_repeat,
        )

    def _apply_context(self, context: Mapping[str, float]) -> None:
        pass  # there are no features

    def _reset_world(self, seed: int | None) -> Observation:
        self._world.reset(seed=int(self.np_random.integers(2**31)) if seed is None else seed)
        return self._observe()

    def _step_world(self, action: Any) -> tuple[Observation, float, bool, bool]:
        _, reward, terminated, truncated, _ = self._world.step(int(action))
        return self._observe(), float(reward), bool(terminated), bool(truncated) and not terminated

    def _observe(self) -> Observation:
        view = self._world.agent_view_size
        drawn = self._world.get_pov_render(tile_size=self._size // view)
        image = np.zeros((self._size, self._size, 3), np.uint8)
        start = (self._size - drawn.shape[0]) // 2
        image[start : start + drawn.shape[0], start : start + drawn.shape[1]] = drawn
        direction = np.zeros(DIRECTIONS, np.float32)
        direction[self._world.agent_dir] = 1.0
        observation: Observation = {IMAGE: image, "direction": direction}
        if self._missions:
            observation["mission"] = self._missions[self._world.mission].copy()
        return observation


def _check_world(name: str, world: str) -> None:
    """Raise a UserError unless MiniGrid registers this world and its mission can be observed."""
    # The package lacks the patterns that the WFC worlds are made of.
    known = [key for key in gymnasium.registry if key.startswith("MiniGrid-") and not key.startswith("MiniGrid-WFC-")]
    if world in known:
        return
    if world.startswith("BabyAI-"):
        raise UserError(f"environment {name}: missions of BabyAI are sentences, which no observation holds here")
    close = difflib.get_close_matches(world, known, n=3, cutoff=0.5) or ["MiniGrid-DoorKey-8x8-v0"]
    raise UserError(f"unknown world in environment {name!r}; valid are MiniGrid's ids, such as {', '.join(close)}")


def _mission_codes(space: Any) -> dict[str, np.ndarray]:
    """Return every possible mission with its code, float32 [N]; nothing if there is only one."""
    blanks = space.ordered_placeholders or []
    sizes = [len(fillings) for fillings in blanks]
    if max(sizes, default=1) == 1:
        return {}
    codes = {}
    for choice in product(*(range(size) for size in sizes)):
        mission = space.mission_func(*(fillings[index] for fillings, index in zip(blanks, choice, strict=True)))
        codes[mission] = np.concatenate(
            [np.eye(size, dtype=np.float32)[index] for size, index in zip(sizes, choice, strict=True) if size > 1]
        )
    return codes
