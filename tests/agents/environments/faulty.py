"""An environment that misbehaves on demand, importable by worker processes."""

import os
import time

import numpy as np
from gymnasium import spaces

from agents.environments import ContextualEnv, Feature

FINE, NAN, INFINITE_REWARD, RAISE, HANG, DIE, DIE_AT_RESET, NAN_AT_RESET, SHAPE, TYPE, KEYS = range(11)


class Faulty(ContextualEnv):
    """Counts steps; from the second step of an episode on, it has the fault that the context names."""

    def __init__(self, **settings):
        super().__init__(
            "faulty",
            [Feature("fault", "1", FINE, FINE, KEYS, "what goes wrong")],
            spaces.Dict({"count": spaces.Box(0, np.inf, (1,), np.float32)}),
            spaces.Discrete(2),
            features=None,
            time_limit=10,
            action_repeat=1,
        )

    def _apply_context(self, context):
        self._fault = context["fault"]

    def _reset_world(self, seed):
        self._count = 0
        if self._fault == DIE_AT_RESET:
            os._exit(3)
        return {"count": np.full(1, np.nan if self._fault == NAN_AT_RESET else 0, np.float32)}

    def _step_world(self, action):
        self._count += 1
        count = float(self._count)
        if self._count > 1:
            if self._fault == RAISE:
                raise KeyError("the world is out of joint")
            if self._fault == HANG:
                time.sleep(600)
            if self._fault == DIE:
                os._exit(4)
            if self._fault == NAN:
                count = np.nan
            if self._fault == SHAPE:
                return {"count": np.full((1, 1), count, np.float32)}, 1.0, False, False
            if self._fault == TYPE:
                return {"count": np.full(1, count)}, 1.0, False, False
            if self._fault == KEYS:
                return {"number": np.full(1, count, np.float32)}, 1.0, False, False
        reward = np.inf if self._fault == INFINITE_REWARD and self._count > 1 else 1.0
        return {"count": np.array([count], np.float32)}, reward, False, False


def refuse():
    """Fail to make an environment in an unforeseen way."""
    raise ZeroDivisionError("no world")
