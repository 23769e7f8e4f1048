"""A world of pictures: a dot that drifts, seen as an image, as a number, or both."""

import gymnasium
import numpy as np

from agents.environments import ContextualEnv, Feature

SIZE = 16


class Dot(ContextualEnv):
    """The dot drifts by ``drift`` a step and by one more to the side of the action; it is paid for staying left.

    Args:
        keys: which of ``image`` and ``place`` are observed.
    """

    def __init__(self, *keys, features=None, time_limit=None, action_repeat=1) -> None:
        spaces = {
            "image": gymnasium.spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8),
            "place": gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32),
        }
        self._keys = keys
        super().__init__(
            "dot",
            [Feature("drift", "px", 0.5, -2.0, 2.0, "drift of the dot")],
            gymnasium.spaces.Dict({key: spaces[key] for key in keys}),
            gymnasium.spaces.Discrete(2),
            features=features,
            time_limit=time_limit or 30,
            action_repeat=action_repeat,
        )

    def _apply_context(self, context) -> None:
        self._drift = context["drift"]

    def _reset_world(self, seed):
        self._place = float(self.np_random.uniform(0, SIZE))
        return self._observe()

    def _step_world(self, action):
        self._place = (self._place + self._drift + 2 * action - 1) % SIZE
        return self._observe(), float(self._place < SIZE / 2), False, False

    def _observe(self):
        image = np.full((SIZE, SIZE, 3), 40, np.uint8)
        image[6:10, int(self._place)] = (255, 160, 0)
        return {key: {"image": image, "place": np.array([self._place], np.float32)}[key] for key in self._keys}
