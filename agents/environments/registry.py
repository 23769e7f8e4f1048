"""The names of the environments."""

from collections.abc import Callable, Sequence
from typing import Any

from agents.environments.base import ContextualEnv
from agents.environments.classic import CartPole, Pendulum
from agents.errors import UserError


def _dm_control(domain: str, task: str, **settings: Any) -> ContextualEnv:
    from agents.environments.dmc import DmControl  # importing MuJoCo takes half a second

    return DmControl(domain, task, **settings)


# Name to maker. Parts in <angle brackets> stand for anything and are the maker's positional arguments.
ENVIRONMENTS: dict[str, Callable[..., ContextualEnv]] = {
    "cartpole": CartPole,
    "pendulum": Pendulum,
    "dmc/<domain>/<task>": _dm_control,
}


def make_environment(
    name: str, *, features: Sequence[str] | None = None, time_limit: int | None = None, action_repeat: int = 1
) -> ContextualEnv:
    """Make an environment by name.

    Args:
        name: a key of `ENVIRONMENTS`: ``cartpole``, ``pendulum``, ``dmc/walker/walk``, ...
        features: names of the features that contexts and context vectors expose, in this order (None: all).
        time_limit: steps of the original environment until truncation (None: 500 for cartpole, 200 for
            pendulum, 1000 for dmc).
        action_repeat: steps of the original environment per step.

    Raises:
        UserError: unknown name or feature, or a limit or repeat below 1.
    """
    parts = name.split("/")
    for pattern, make in ENVIRONMENTS.items():
        places = pattern.split("/")
        free = [place.startswith("<") for place in places]
        if len(places) == len(parts) and all(
            any_part or place == part for any_part, place, part in zip(free, places, parts, strict=True)
        ):
            arguments = [part for part, any_part in zip(parts, free, strict=True) if any_part]
            return make(*arguments, features=features, time_limit=time_limit, action_repeat=action_repeat)
    raise UserError(f"unknown environment {name!r}; valid: {', '.join(ENVIRONMENTS)}")
