"""Observations divided by constants, so that networks see numbers of about unit size."""

from collections.abc import Mapping, Sequence

import gymnasium
import numpy as np

from agents.environments import Reset, VectorEnvironment
from agents.errors import UserError


class ScaledVector:
    """A vector of environments whose observations are divided elementwise (`VectorEnvironment`).

    Args:
        vector: the environments.
        scale: by observation key, one positive number per element, in the observation's units.

    Raises:
        UserError: an unknown key, or another number of elements than the observation has.
    """

    def __init__(self, vector: VectorEnvironment, scale: Mapping[str, Sequence[float]]) -> None:
        self.vector = vector
        self.num_envs = vector.num_envs
        self.action_space = vector.action_space
        self.features = vector.features
        self._scale: dict[str, np.ndarray] = {}
        spaces = dict(vector.observation_space.items())
        for key, numbers in scale.items():
            where = f"environment.observation_scale: {key!r}"
            if key not in spaces:
                raise UserError(f"{where} is no observation; valid: {', '.join(spaces)}")
            shape = spaces[key].shape
            if shape != (len(numbers),) or spaces[key].dtype != np.float32:
                raise UserError(f"{where} has {len(numbers)} numbers, the observation has shape {shape}")
            self._scale[key] = np.array(numbers, np.float32)
            spaces[key] = _scaled(spaces[key], self._scale[key])
        self.observation_space = gymnasium.spaces.Dict(spaces)

    def step(self, commands: Sequence[Reset | np.ndarray]) -> dict[str, np.ndarray]:
        """See `VectorEnvironment.step`; the observations are scaled."""
        records = self.vector.step(commands)
        for key, scale in self._scale.items():
            records[f"observation/{key}"] = records[f"observation/{key}"] / scale
        return records

    def close(self) -> None:
        """See `VectorEnvironment.close`."""
        self.vector.close()


def _scaled(space: gymnasium.Space, scale: np.ndarray) -> gymnasium.spaces.Box:
    assert isinstance(space, gymnasium.spaces.Box)
    return gymnasium.spaces.Box(space.low / scale, space.high / scale, dtype=np.float32)
