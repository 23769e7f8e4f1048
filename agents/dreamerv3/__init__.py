"""DreamerV3 with contexts: an agent as pure functions of a state tree."""

from agents.dreamerv3.actor import ActionSpec
from agents.dreamerv3.agent import DreamerV3
from agents.dreamerv3.config import DreamerV3Config, Hyperparameters
from agents.dreamerv3.state import check_same_structure, flatten_state, unflatten_state

__all__ = [
    "ActionSpec",
    "DreamerV3",
    "DreamerV3Config",
    "Hyperparameters",
    "check_same_structure",
    "flatten_state",
    "unflatten_state",
]
