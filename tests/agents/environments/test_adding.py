"""Adding an environment takes one short class and one line."""

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from agents.environments import ENVIRONMENTS, ContextualEnv, Feature, make_environment

WIND = Feature("wind", "m/s", 0.5, -2.0, 2.0, "drift of the walker")


class Walk(ContextualEnv):
    def __init__(self, *, features=None, time_limit=None, action_repeat=1):
        observation = spaces.Dict({"place": spaces.Box(-np.inf, np.inf, (1,), np.float32)})
        super().__init__("walk", [WIND], observation, spaces.Discrete(2), features=features,
                         time_limit=time_limit or 50, action_repeat=action_repeat)  # fmt: skip

    def _apply_context(self, context):
        self._wind = context["wind"]

    def _reset_world(self, seed):
        self._place = self.np_random.normal()
        return {"place": np.array([self._place], np.float32)}

    def _step_world(self, action):
        self._place += self._wind + 2 * action - 1
        return {"place": np.array([self._place], np.float32)}, -abs(self._place), abs(self._place) > 9, False


@pytest.mark.filterwarnings("ignore:.*(infinity|alternative render).*")
def test_a_new_environment(monkeypatch):
    monkeypatch.setitem(ENVIRONMENTS, "walk", Walk)
    env = make_environment("walk", time_limit=3)
    check_env(env)
    start, _ = env.reset(seed=0, options={"context": {"wind": -1.0}})
    assert env.step(1)[0]["place"] == start["place"]
