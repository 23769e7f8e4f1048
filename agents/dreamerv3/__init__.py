"""DreamerV3 with contexts: an agent as pure functions of a state tree.

What computes is imported at its first use, so that the configuration can be read without waiting for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from agents.dreamerv3.config import DreamerV3Config, Hyperparameters

if TYPE_CHECKING:
    from agents.dreamerv3.actor import ActionSpec
    from agents.dreamerv3.agent import DreamerV3
    from agents.dreamerv3.latents import compact, expand, latent_specs
    from agents.dreamerv3.state import check_same_structure, flatten_state, unflatten_state
else:
    _MODULES = {
        "ActionSpec": "actor",
        "DreamerV3": "agent",
        "check_same_structure": "state",
        "compact": "latents",
        "expand": "latents",
        "flatten_state": "state",
        "latent_specs": "latents",
        "unflatten_state": "state",
    }

    def __getattr__(name):
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)

    def __dir__():
        return sorted({*globals(), *__all__})


__all__ = [
    "ActionSpec",
    "DreamerV3",
    "DreamerV3Config",
    "Hyperparameters",
    "check_same_structure",
    "compact",
    "expand",
    "flatten_state",
    "latent_specs",
    "unflatten_state",
]
