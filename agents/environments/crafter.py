"""Crafter."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from agents.environments.base import IMAGE, ContextualEnv, Observation
from agents.environments.extras import import_extra


class _Ordered(dict[Any, None]):
    """A set that is walked through in the order of insertion."""

    def add(self, element: Any) -> None:
        self[element] = None

    def remove(self, element: Any) -> None:
        del self[element]


class Crafter(ContextualEnv):
    """Crafter (Hafner, 2022, https://arxiv.org/abs/2109.06780) with its reward, set up as danijar/dreamerv3 does.

    Observation ``{"image": [image_size, image_size, 3]}``, uint8: the surroundings and the inventory. Action: one
    of 17. Reward: 1 for the first time of an achievement in an episode (of 22; several at once count as one), and
    a tenth of the change in health. It terminates when the player dies. There are no context features.

    An episode depends on its seed alone. In the original it also depends on addresses in memory: a creature
    that vanishes is drawn from a set of objects. Here such sets are walked through in the order of insertion.

    Args:
        features: see `ContextualEnv`; there are none to name.
        time_limit: steps until truncation; None means 10000.
        action_repeat: steps of the original per step.
        image_size: edge of the image, pixels.

    Raises:
        UserError: crafter is not installed; or see `ContextualEnv`.
    """

    def __init__(
        self,
        *,
        features: Sequence[str] | None = None,
        time_limit: int | None = None,
        action_repeat: int = 1,
        image_size: int = 64,
    ) -> None:
        crafter = import_extra("crafter", environment="crafter", extra="crafter")
        # The limit is the base class's business; every reset sets another seed.
        self._world = crafter.Env(size=(image_size, image_size), length=None, seed=0)
        _walk_in_order(self._world._world)
        super().__init__(
            "crafter",
            (),
            spaces.Dict({IMAGE: spaces.Box(0, 255, (image_size, image_size, 3), np.uint8)}),
            spaces.Discrete(self._world.action_space.n),
            features=features,
            time_limit=10_000 if time_limit is None else time_limit,
            action_repeat=action_repeat,
        )

    def _apply_context(self, context: Mapping[str, float]) -> None:
        pass  # there are no features

    def _reset_world(self, seed: int | None) -> Observation:
        # The original draws each episode from its own seed and the episode's number.
        self._world._seed = int(self.np_random.integers(2**31)) if seed is None else seed
        self._world._episode = 0
        return {IMAGE: self._world.reset()}

    def _step_world(self, action: Any) -> tuple[Observation, float, bool, bool]:
        image, reward, _, info = self._world.step(int(action))
        return {IMAGE: image}, float(reward), info["discount"] == 0.0, False


def _walk_in_order(world: Any) -> None:
    """Have the world keep the objects of each of its chunks in an ordered set."""
    reset = world.reset

    def reset_in_order(seed: int | None = None) -> None:
        reset(seed)
        world._chunks = defaultdict(_Ordered)

    world.reset = reset_in_order
