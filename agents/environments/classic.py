"""CartPole and Pendulum of Gymnasium with contexts.

The dynamics are Gymnasium's own: an inner CartPole-v1 or Pendulum-v1 world whose parameters are overwritten,
so at the default context every observation, reward and termination equals the original's.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.envs.classic_control.pendulum import PendulumEnv

from agents.environments.base import ContextualEnv, Feature, Observation
from agents.environments.pixels import rendered

CARTPOLE_FEATURES = (
    Feature("gravity", "m/s^2", 9.8, 0.1, 100.0, "downward acceleration"),
    Feature("masscart", "kg", 1.0, 0.1, 10.0, "mass of the cart"),
    Feature("masspole", "kg", 0.1, 0.01, 1.0, "mass of the pole"),
    Feature("length", "m", 0.5, 0.05, 5.0, "half the length of the pole"),
    Feature("force_mag", "N", 10.0, 1.0, 100.0, "force with which the cart is pushed"),
    Feature("tau", "s", 0.02, 0.002, 0.2, "time between two states"),
)

PENDULUM_FEATURES = (
    Feature("g", "m/s^2", 10.0, 0.1, 100.0, "downward acceleration"),
    Feature("m", "kg", 1.0, 0.1, 10.0, "mass of the pendulum"),
    Feature("l", "m", 1.0, 0.1, 10.0, "length of the pendulum"),
    Feature("dt", "s", 0.05, 0.002, 0.2, "time between two states"),
)


class CartPole(ContextualEnv):
    """Gymnasium's CartPole-v1 (Barto, Sutton and Anderson, 1983) with contexts.

    Observation ``{"state": [4]}``: cart position [m] and velocity [m/s], pole angle [rad] and angular
    velocity [rad/s]. Action: 0 pushes left, 1 right. The space is unbounded, since in other contexts than
    the default one last step can pass the limits that the original states. Arguments: see `ContextualEnv`.
    """

    def __init__(
        self, *, features: Sequence[str] | None = None, time_limit: int | None = None, action_repeat: int = 1
    ) -> None:
        self._world = CartPoleEnv(render_mode="rgb_array")
        super().__init__(
            "cartpole",
            CARTPOLE_FEATURES,
            spaces.Dict({"state": spaces.Box(-np.inf, np.inf, (4,), np.float32)}),
            spaces.Discrete(2),
            features=features,
            time_limit=500 if time_limit is None else time_limit,
            action_repeat=action_repeat,
        )

    def draw(self, size: int, camera: int | None = None) -> np.ndarray:
        """See `ContextualEnv.draw`; it needs the package pygame. Of the context it shows the pole's length."""
        return rendered(self.name, self._world, size, camera)

    def _apply_context(self, context: Mapping[str, float]) -> None:
        world = self._world
        for name, value in context.items():
            setattr(world, name, value)
        world.total_mass = world.masspole + world.masscart
        world.polemass_length = world.masspole * world.length

    def _reset_world(self, seed: int | None) -> Observation:
        self._world.np_random = self.np_random  # just seeded by the base class
        return {"state": self._world.reset()[0]}

    def _step_world(self, action: Any) -> tuple[Observation, float, bool, bool]:
        state, reward, terminated, truncated, _ = self._world.step(action)
        return {"state": state}, float(reward), terminated, truncated


class Pendulum(ContextualEnv):
    """Gymnasium's Pendulum-v1 swing-up with contexts.

    Observation ``{"state": [3]}``: cosine and sine of the angle from upright, angular velocity [rad/s].
    Action: torque [1] in [-2, 2] N m. It never terminates. Arguments: see `ContextualEnv`.
    """

    def __init__(
        self, *, features: Sequence[str] | None = None, time_limit: int | None = None, action_repeat: int = 1
    ) -> None:
        self._world = PendulumEnv(render_mode="rgb_array")
        super().__init__(
            "pendulum",
            PENDULUM_FEATURES,
            spaces.Dict({"state": self._world.observation_space}),
            self._world.action_space,
            features=features,
            time_limit=200 if time_limit is None else time_limit,
            action_repeat=action_repeat,
        )

    def draw(self, size: int, camera: int | None = None) -> np.ndarray:
        """See `ContextualEnv.draw`; it needs the package pygame. Of the context it shows nothing."""
        return rendered(self.name, self._world, size, camera)

    def _apply_context(self, context: Mapping[str, float]) -> None:
        for name, value in context.items():  # nothing is derived: the dynamics read these four at each step
            setattr(self._world, name, value)

    def _reset_world(self, seed: int | None) -> Observation:
        self._world.np_random = self.np_random  # just seeded by the base class
        return {"state": self._world.reset()[0]}

    def _step_world(self, action: Any) -> tuple[Observation, float, bool, bool]:
        state, reward, terminated, truncated, _ = self._world.step(action)
        return {"state": state}, float(reward), terminated, truncated
