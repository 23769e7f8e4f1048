"""The state tree: everything that a member is, as tensors (and its flat form for files).

Branches: ``parameters``, ``slow`` (the slow critic), ``optimizer`` (``rms``, ``momentum``), ``normalizer`` (``low``,
``high`` of the return percentiles, and ``change``, the mean square of the observation's changes, where the context is
inferred), ``counters`` (``updates``), ``hyperparameters``. One member has batch size [],
a population of M stacked members [M].
"""

from collections.abc import Mapping

import torch
from tensordict import TensorDict
from torch import Tensor

from agents.dreamerv3.config import Hyperparameters

SEPARATOR = "/"  # parameter names contain dots


def flatten_state(state: TensorDict) -> dict[str, Tensor]:
    """Return the tree as a flat mapping from ``branch/name`` to contiguous tensors, for a file."""
    return {str(name): value.contiguous() for name, value in state.flatten_keys(SEPARATOR).items()}


def unflatten_state(tensors: Mapping[str, Tensor]) -> TensorDict:
    """Rebuild a state tree from its flat form; the member dimension, if any, is the counters' shape."""
    members = tensors[f"counters{SEPARATOR}updates"].shape
    return TensorDict(dict(tensors), batch_size=members).unflatten_keys(SEPARATOR)


def hyperparameter_tensors(hyperparameters: Hyperparameters, like: Tensor) -> TensorDict:
    """One 0-d tensor for every hyperparameter, in the dtype and on the device of ``like``."""
    values = {name: torch.tensor(value) for name, value in hyperparameters.model_dump().items()}
    return TensorDict({name: value.to(like) for name, value in values.items()}, batch_size=[])


def check_same_structure(expected: TensorDict, given: TensorDict) -> None:
    """Compare names and shapes of two trees.

    Raises:
        ValueError: naming the first tensors that are missing, unknown or of another shape.
    """
    want = {name: tuple(value.shape) for name, value in flatten_state(expected).items()}
    have = {name: tuple(value.shape) for name, value in flatten_state(given).items()}
    wrong = sorted(name for name in want.keys() | have.keys() if want.get(name) != have.get(name))
    if wrong:
        name = wrong[0]
        raise ValueError(
            f"{len(wrong)} tensors differ from the configuration's, first '{name}': "
            f"expected {want.get(name, 'none')}, found {have.get(name, 'none')}"
        )
