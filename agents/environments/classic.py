"""Gymnasium's classic control with contexts: CartPole, Pendulum, Acrobot and both MountainCars.

The dynamics are Gymnasium's own: an inner world whose parameters are overwritten, so that at the default context
every observation, reward and termination equals the original's. Where an original writes gravity into its
equations as a number, a subclass varies it without writing them anew: `_Acrobot`, `_MountainCarContinuous`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control.acrobot import AcrobotEnv
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from gymnasium.envs.classic_control.continuous_mountain_car import Continuous_MountainCarEnv
from gymnasium.envs.classic_control.mountain_car import MountainCarEnv
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

ACROBOT_FEATURES = (
    Feature("gravity", "m/s^2", 9.8, 0.1, 100.0, "downward acceleration"),
    Feature("link_length_1", "m", 1.0, 0.1, 10.0, "length of the upper link"),
    Feature("link_length_2", "m", 1.0, 0.1, 10.0, "length of the lower link"),
    Feature("link_mass_1", "kg", 1.0, 0.1, 10.0, "mass of the upper link"),
    Feature("link_mass_2", "kg", 1.0, 0.1, 10.0, "mass of the lower link"),
    Feature("link_com_1", "1", 0.5, 0.05, 1.0, "where its center of mass is, in lengths of the upper link"),
    Feature("link_com_2", "1", 0.5, 0.05, 1.0, "where its center of mass is, in lengths of the lower link"),
    Feature("link_moi", "kg m^2", 1.0, 0.1, 10.0, "moment of inertia of each link about its center of mass"),
    Feature("torque", "N m", 1.0, 0.1, 10.0, "torque that an action applies to the joint between the links"),
    Feature("dt", "s", 0.2, 0.02, 0.4, "time between two states"),
)

# A step is the unit of time. The originals write the slope of the valley sin(3 x) into gravity.
_MOUNTAIN_CAR = (
    Feature("gravity", "1/step^2", 0.0025, 0.0, 0.1, "acceleration where the valley is steepest"),
    Feature("max_speed", "1/step", 0.07, 0.01, 1.0, "bound of the velocity"),
    Feature("min_position", "1", -1.2, -2.0, -0.7, "where the wall is that stops the car on the left"),
)
MOUNTAIN_CAR_FEATURES = (
    *_MOUNTAIN_CAR,
    Feature("force", "1/step^2", 0.001, 0.0001, 0.1, "acceleration by the engine"),
    Feature("goal_position", "1", 0.5, -0.3, 0.6, "where the goal is, on the right"),
)
MOUNTAIN_CAR_CONTINUOUS_FEATURES = (
    *_MOUNTAIN_CAR,
    Feature("power", "1/step^2", 0.0015, 0.0001, 0.1, "acceleration by the engine's full power"),
    Feature("goal_position", "1", 0.45, -0.3, 0.6, "where the goal is, on the right"),
)


class _ClassicControl(ContextualEnv):
    """What they have in common: a context is written into attributes of the inner world.

    Args:
        name: see `ContextualEnv`.
        all_features: see `ContextualEnv`; unless a class says otherwise, their names are the world's attributes.
        world: the inner world. Its observation has the key ``state``.
        bounded: whether the observations of all contexts lie in the original's space. Else the space is unbounded.
        own_limit: the original's time limit.
        features, time_limit, action_repeat: see `ContextualEnv`; a time limit of None means the original's.
    """

    def __init__(
        self,
        name: str,
        all_features: Sequence[Feature],
        world: gymnasium.Env[Any, Any],
        *,
        bounded: bool = False,
        own_limit: int,
        features: Sequence[str] | None,
        time_limit: int | None,
        action_repeat: int,
    ) -> None:
        self._world: Any = world
        unbounded = spaces.Box(-np.inf, np.inf, world.observation_space.shape, np.float32)
        super().__init__(
            name,
            all_features,
            spaces.Dict({"state": world.observation_space if bounded else unbounded}),
            world.action_space,
            features=features,
            time_limit=own_limit if time_limit is None else time_limit,
            action_repeat=action_repeat,
        )

    def draw(self, size: int, camera: int | None = None) -> np.ndarray:
        """See `ContextualEnv.draw`; it needs the package pygame. Of the context it shows lengths and positions."""
        return rendered(self.name, self._world, size, camera)

    def _apply_context(self, context: Mapping[str, float]) -> None:
        for name, value in context.items():
            setattr(self._world, name, value)

    def _reset_world(self, seed: int | None) -> Observation:
        self._world.np_random = self.np_random  # just seeded by the base class
        return {"state": self._world.reset()[0]}

    def _step_world(self, action: Any) -> tuple[Observation, float, bool, bool]:
        state, reward, terminated, truncated, _ = self._world.step(action)
        return {"state": state}, float(reward), terminated, truncated


class CartPole(_ClassicControl):
    """Gymnasium's CartPole-v1 (Barto, Sutton and Anderson, 1983) with contexts.

    Observation ``{"state": [4]}``: cart position [m] and velocity [m/s], pole angle [rad] and angular
    velocity [rad/s]. Action: 0 pushes left, 1 right. The space is unbounded, since in other contexts than
    the default one last step can pass the limits that the original states. Arguments: see `ContextualEnv`.
    """

    def __init__(
        self, *, features: Sequence[str] | None = None, time_limit: int | None = None, action_repeat: int = 1
    ) -> None:
        super().__init__(
            "cartpole",
            CARTPOLE_FEATURES,
            CartPoleEnv(render_mode="rgb_array"),
            own_limit=500,
            features=features,
            time_limit=time_limit,
            action_repeat=action_repeat,
        )

    def _apply_context(self, context: Mapping[str, float]) -> None:
        super()._apply_context(context)
        world = self._world
        world.total_mass = world.masspole + world.masscart
        world.polemass_length = world.masspole * world.length


class Pendulum(_ClassicControl):
    """Gymnasium's Pendulum-v1 swing-up with contexts.

    Observation ``{"state": [3]}``: cosine and sine of the angle from upright, angular velocity [rad/s].
    Action: torque [1] in [-2, 2] N m. It never terminates. Nothing is derived from the features: the dynamics
    read them at each step. Arguments: see `ContextualEnv`.
    """

    def __init__(
        self, *, features: Sequence[str] | None = None, time_limit: int | None = None, action_repeat: int = 1
    ) -> None:
        super().__init__(
            "pendulum",
            PENDULUM_FEATURES,
            PendulumEnv(render_mode="rgb_array"),
            bounded=True,
            own_limit=200,
            features=features,
            time_limit=time_limit,
            action_repeat=action_repeat,
        )


class _Acrobot(AcrobotEnv):
    """The original with a gravity that varies.

    Accelerations are M^-1 (torque - C - g G) with C quadratic in the velocities v. For a gravity of s^2 times 9.8,
    which is the original's, they are therefore s^2 times the original's at velocities v / s and torque / s^2.
    """

    gravity = 9.8

    def _dsdt(self, s_augmented: np.ndarray) -> tuple[Any, ...]:
        square = self.gravity / 9.8
        velocities = s_augmented[2:4]
        scaled = np.concatenate([s_augmented[:2], velocities / math.sqrt(square), s_augmented[4:] / square])
        accelerations = super()._dsdt(scaled)[2:4]
        return (*velocities, *(square * acceleration for acceleration in accelerations), 0.0)


class Acrobot(_ClassicControl):
    """Gymnasium's Acrobot-v1 (Sutton, 1996, with the equations of Sutton and Barto's book) with contexts.

    Observation ``{"state": [6]}``: cosine and sine of the upper link's angle from hanging and of the lower link's
    angle from the upper one, their angular velocities [rad/s]. Action: torque -1, 0 or 1 times the feature
    ``torque``. It terminates where -cos(a) - cos(a + b) > 1, whatever the lengths. The lower link's length acts by
    its center of mass. The moment of inertia does not follow from masses and lengths: in the original it is 1.
    Arguments: see `ContextualEnv`.
    """

    def __init__(
        self, *, features: Sequence[str] | None = None, time_limit: int | None = None, action_repeat: int = 1
    ) -> None:
        super().__init__(
            "acrobot",
            ACROBOT_FEATURES,
            _Acrobot(render_mode="rgb_array"),
            bounded=True,
            own_limit=500,
            features=features,
            time_limit=time_limit,
            action_repeat=action_repeat,
        )

    def _apply_context(self, context: Mapping[str, float]) -> None:
        world = self._world
        world.gravity, world.dt = context["gravity"], context["dt"]
        for link in ("1", "2"):
            length = context[f"link_length_{link}"]
            setattr(world, f"LINK_LENGTH_{link}", length)
            setattr(world, f"LINK_MASS_{link}", context[f"link_mass_{link}"])
            setattr(world, f"LINK_COM_POS_{link}", context[f"link_com_{link}"] * length)
        world.LINK_MOI = context["link_moi"]
        world.AVAIL_TORQUE = [-context["torque"], 0.0, context["torque"]]


class MountainCar(_ClassicControl):
    """Gymnasium's MountainCar-v0 (Moore, 1990) with contexts.

    Observation ``{"state": [2]}``: position and velocity [1/step]. Action: 0 pushes left, 1 not at all, 2 right.
    It terminates at the goal. Arguments: see `ContextualEnv`.
    """

    def __init__(
        self, *, features: Sequence[str] | None = None, time_limit: int | None = None, action_repeat: int = 1
    ) -> None:
        super().__init__(
            "mountain_car",
            MOUNTAIN_CAR_FEATURES,
            MountainCarEnv(render_mode="rgb_array"),
            own_limit=200,
            features=features,
            time_limit=time_limit,
            action_repeat=action_repeat,
        )


class _MountainCarContinuous(Continuous_MountainCarEnv):
    """The original with a gravity that varies: a step adds to the velocity what its own 0.0025 lacks or exceeds."""

    gravity = 0.0025

    def step(self, action: np.ndarray) -> tuple[Any, ...]:
        if self.gravity != 0.0025:
            position, velocity = map(float, self.state)
            self.state = np.array([position, velocity + (0.0025 - self.gravity) * math.cos(3 * position)])
        return super().step(action)


class MountainCarContinuous(_ClassicControl):
    """Gymnasium's MountainCarContinuous-v0 with contexts.

    Observation ``{"state": [2]}``: position and velocity [1/step]. Action: power [1] in [-1, 1]. It terminates at
    the goal, with a reward of 100, and costs 0.1 action^2 a step. Arguments: see `ContextualEnv`.
    """

    def __init__(
        self, *, features: Sequence[str] | None = None, time_limit: int | None = None, action_repeat: int = 1
    ) -> None:
        super().__init__(
            "mountain_car_continuous",
            MOUNTAIN_CAR_CONTINUOUS_FEATURES,
            _MountainCarContinuous(render_mode="rgb_array"),
            own_limit=999,
            features=features,
            time_limit=time_limit,
            action_repeat=action_repeat,
        )
