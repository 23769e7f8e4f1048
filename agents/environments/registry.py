"""The names of the environments."""

from collections.abc import Callable, Sequence

from agents.environments.base import ContextualEnv
from agents.environments.classic import CartPole, Pendulum
from agents.errors import UserError

# The first part of a name to its maker. The other parts, split at "/", are the maker's positional arguments.
ENVIRONMENTS: dict[str, Callable[..., ContextualEnv]] = {
    "cartpole": CartPole,
    "pendulum": Pendulum,
}
VALID_NAMES = "cartpole, pendulum"


def make_environment(
    name: str, *, features: Sequence[str] | None = None, time_limit: int | None = None, action_repeat: int = 1
) -> ContextualEnv:
    """Make an environment by name.

    Args:
        name: ``cartpole``, ``pendulum`` or another name in `ENVIRONMENTS`.
        features: names of the features that contexts and context vectors expose, in this order (None: all).
        time_limit: steps of the original environment until truncation (None: 500 for cartpole, 200 for
            pendulum).
        action_repeat: steps of the original environment per step.

    Raises:
        UserError: unknown name or feature, or a limit or repeat below 1.
    """
    family, *parts = name.split("/")
    if family not in ENVIRONMENTS:
        raise UserError(f"unknown environment {name!r}; valid: {VALID_NAMES}")
    return ENVIRONMENTS[family](*parts, features=features, time_limit=time_limit, action_repeat=action_repeat)
