"""The names of the environments."""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from agents.environments.atari import Atari
from agents.environments.base import DRAWN_SIZE, ContextualEnv, Observations
from agents.environments.box2d import BipedalWalker, LunarLander
from agents.environments.classic import Acrobot, CartPole, MountainCar, MountainCarContinuous, Pendulum
from agents.environments.crafter import Crafter
from agents.environments.minigrid import MiniGrid
from agents.errors import UserError


def _dm_control(domain: str, task: str, **settings: Any) -> ContextualEnv:
    from agents.environments.dmc import DmControl  # importing MuJoCo takes half a second

    return DmControl(domain, task, **settings)


def _gymnasium(*parts: str, **settings: Any) -> ContextualEnv:
    from agents.environments.gym import make_gymnasium

    return make_gymnasium("/".join(parts), **settings)


# Name to maker. Parts in <angle brackets> stand for anything and are the maker's positional arguments.
# A maker with a parameter ``image_size`` makes a world whose own observations are images of that size.
ENVIRONMENTS: dict[str, Callable[..., ContextualEnv]] = {
    "cartpole": CartPole,
    "pendulum": Pendulum,
    "acrobot": Acrobot,
    "mountain_car": MountainCar,
    "mountain_car_continuous": MountainCarContinuous,
    "dmc/<domain>/<task>": _dm_control,
    "gym/<id>": _gymnasium,
    "gym/<namespace>/<id>": _gymnasium,
    "box2d/lunar_lander": LunarLander,
    "box2d/lunar_lander_continuous": partial(LunarLander, continuous=True),
    "box2d/bipedal_walker": BipedalWalker,
    "box2d/bipedal_walker_hardcore": partial(BipedalWalker, hardcore=True),
    "crafter": Crafter,
    "atari/<game>": Atari,
    "minigrid/<id>": MiniGrid,
}


def make_environment(
    name: str,
    *,
    features: Sequence[str] | None = None,
    time_limit: int | None = None,
    action_repeat: int = 1,
    observations: Observations | None = None,
    image_size: int | None = None,
    camera: int | None = None,
) -> ContextualEnv:
    """Make an environment by name.

    Args:
        name: a key of `ENVIRONMENTS`: ``cartpole``, ``pendulum``, ``dmc/walker/walk``, ...
        features: names of the features that contexts and context vectors expose, in this order (None: all).
        time_limit: steps of the original environment until truncation (None: the original's own, such as 500
            for cartpole, 1000 for dmc, what is registered for gym).
        action_repeat: steps of the original environment per step.
        observations: ``state``, ``pixels`` or ``both``, see `ContextualEnv.observe` (None: the world's own).
        image_size: height and width of images (None: 64, and what they have where a world gives them in one size).
        camera: through which pixels are drawn, see `ContextualEnv.draw`.

    Raises:
        UserError: unknown name or feature, a limit or repeat below 1, a package that is not installed, or see
            `ContextualEnv.observe`.
    """
    parts = name.split("/")
    for pattern, make in ENVIRONMENTS.items():
        places = pattern.split("/")
        free = [place.startswith("<") for place in places]
        if len(places) == len(parts) and all(
            any_part or place == part for any_part, place, part in zip(free, places, parts, strict=True)
        ):
            arguments = [part for part, any_part in zip(parts, free, strict=True) if any_part]
            settings: dict[str, Any] = {"features": features, "time_limit": time_limit, "action_repeat": action_repeat}
            if "image_size" in inspect.signature(make).parameters:
                settings["image_size"] = DRAWN_SIZE if image_size is None else image_size
            env = make(*arguments, **settings)
            env.observe(observations, image_size, camera)
            return env
    raise UserError(f"unknown environment {name!r}; valid: {', '.join(ENVIRONMENTS)}")
