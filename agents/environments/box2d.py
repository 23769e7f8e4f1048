"""Gymnasium's Box2D worlds with contexts.

As with the classic ones, an inner world's parameters are overwritten, so that at the default context every
observation, reward and termination equals the original's. What the originals keep as constants of their
module can differ between environments because each has a copy of the module for itself.
"""

import importlib.util
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from agents.environments.base import ContextualEnv, Feature, Observation
from agents.environments.extras import import_extra

LUNAR_LANDER_FEATURES = (
    Feature("gravity", "m/s^2", 10.0, 0.1, 30.0, "downward acceleration"),
    Feature("wind_power", "N", 0.0, 0.0, 40.0, "bound of the horizontal force of the gusts, while no leg stands"),
    Feature("turbulence_power", "N m", 0.0, 0.0, 4.0, "bound of the torque of the gusts, while no leg stands"),
    Feature("main_engine_power", "kg/s", 13.0, 1.0, 50.0, "impulse of the main engine per distance to its nozzle"),
    Feature("side_engine_power", "kg/s", 0.6, 0.05, 3.0, "impulse of the side engines per distance to their nozzle"),
)

BIPEDAL_WALKER_FEATURES = (
    Feature("gravity", "m/s^2", 10.0, 0.1, 30.0, "downward acceleration"),
    Feature("motors_torque", "N m", 80.0, 8.0, 400.0, "largest torque of a joint; fuel costs in proportion to it"),
    Feature("friction", "1", 2.5, 0.0, 10.0, "friction coefficient of the ground"),
)


def _own_module(name: str, environment: str) -> Any:
    """Return a fresh copy of the module ``gymnasium.envs.box2d.<name>``, with constants of its own."""
    import_extra("Box2D", environment=environment, extra="box2d")
    spec = importlib.util.find_spec(f"gymnasium.envs.box2d.{name}")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _Box2DEnv(ContextualEnv):
    """What the two worlds have in common.

    Observation ``{"state": [N]}``, as the original's. The space is unbounded, since in other contexts than the
    default the last step can pass the limits that the original states.
    """

    _world: Any  # of a class that only its own module knows

    @abstractmethod
    def _before_reset(self) -> None:
        """Make the episode depend on the seed and the context alone, whatever was played before."""

    def _reset_world(self, seed: int | None) -> Observation:
        self._before_reset()
        self._world.np_random = self.np_random  # just seeded by the base class
        return {"state": self._world.reset()[0]}

    def _step_world(self, action: Any) -> tuple[Observation, float, bool, bool]:
        state, reward, terminated, truncated, _ = self._world.step(action)
        return {"state": state}, float(reward), bool(terminated), truncated


class LunarLander(_Box2DEnv):
    """Gymnasium's LunarLander-v3 with contexts.

    Observation ``{"state": [8]}``: horizontal and vertical position relative to the pad, velocities, angle
    [rad], angular velocity, and whether each leg stands. Action: 0 nothing, 1 left, 2 main, 3 right engine;
    continuous, main throttle and side engines, each in [-1, 1]. It terminates at a crash, outside the
    picture, and at rest.

    Args:
        continuous: whether the engines have throttles.
        features: see `ContextualEnv`.
        time_limit: steps until truncation; None means 1000.
        action_repeat: steps of the original per step.

    Raises:
        UserError: Box2D is not installed; or see `ContextualEnv`.
    """

    def __init__(
        self,
        *,
        continuous: bool = False,
        features: Sequence[str] | None = None,
        time_limit: int | None = None,
        action_repeat: int = 1,
    ) -> None:
        name = "box2d/lunar_lander_continuous" if continuous else "box2d/lunar_lander"
        self._module = _own_module("lunar_lander", name)
        self._world = self._module.LunarLander(continuous=continuous)
        super().__init__(
            name,
            LUNAR_LANDER_FEATURES,
            spaces.Dict({"state": spaces.Box(-np.inf, np.inf, self._world.observation_space.shape, np.float32)}),
            self._world.action_space,
            features=features,
            time_limit=1000 if time_limit is None else time_limit,
            action_repeat=action_repeat,
        )

    def _apply_context(self, context: Mapping[str, float]) -> None:
        world, module = self._world, self._module
        world.gravity = -context["gravity"]  # of the simulator that the next reset makes
        world.world.gravity = (0.0, -context["gravity"])  # of the present one
        world.wind_power, world.turbulence_power = context["wind_power"], context["turbulence_power"]
        # Without wind the original draws no phase of the gusts, so that its episodes differ from windy ones.
        world.enable_wind = world.wind_power > 0.0 or world.turbulence_power > 0.0
        module.MAIN_ENGINE_POWER = context["main_engine_power"]
        module.SIDE_ENGINE_POWER = context["side_engine_power"]

    def _before_reset(self) -> None:
        # Where the wind rises in a calm episode. The original draws both anew if it begins with wind.
        self._world.wind_idx = self._world.torque_idx = 0


class BipedalWalker(_Box2DEnv):
    """Gymnasium's BipedalWalker-v3 with contexts.

    Observation ``{"state": [24]}``: the hull's angle, angular velocity and velocities, angles and speeds of
    the joints and contacts of the feet, and ten distances to the ground ahead. Action: torques of hips and
    knees [4] in [-1, 1]. It terminates when the hull falls and at the end of the way.

    Args:
        hardcore: whether there are ladders, stumps and pitfalls.
        features: see `ContextualEnv`.
        time_limit: steps until truncation; None means 1600, hardcore 2000.
        action_repeat: steps of the original per step.

    Raises:
        UserError: Box2D is not installed; or see `ContextualEnv`.
    """

    def __init__(
        self,
        *,
        hardcore: bool = False,
        features: Sequence[str] | None = None,
        time_limit: int | None = None,
        action_repeat: int = 1,
    ) -> None:
        name = "box2d/bipedal_walker_hardcore" if hardcore else "box2d/bipedal_walker"
        self._module = _own_module("bipedal_walker", name)
        self._world = self._module.BipedalWalker(hardcore=hardcore)
        own_limit = 2000 if hardcore else 1600
        super().__init__(
            name,
            BIPEDAL_WALKER_FEATURES,
            spaces.Dict({"state": spaces.Box(-np.inf, np.inf, self._world.observation_space.shape, np.float32)}),
            self._world.action_space,
            features=features,
            time_limit=own_limit if time_limit is None else time_limit,
            action_repeat=action_repeat,
        )

    def _apply_context(self, context: Mapping[str, float]) -> None:
        world = self._world
        self._gravity = (0.0, -context["gravity"])
        world.world.gravity = self._gravity
        self._module.MOTORS_TORQUE = context["motors_torque"]
        for definition in (world.fd_edge, world.fd_polygon):  # of the ground that the next reset makes
            definition.friction = context["friction"]
        for body in world.terrain:  # the present ground
            for fixture in body.fixtures:
                fixture.friction = context["friction"]
        for contact in world.world.contacts:  # a contact keeps the friction with which it began
            contact.ResetFriction()

    def _before_reset(self) -> None:
        # The original goes on with the same simulator, whose inner order depends on the episodes before.
        self._world._destroy()
        self._world.world = type(self._world.world)(gravity=self._gravity)
