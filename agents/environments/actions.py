"""Actions of an agent and actions of an environment."""

from typing import Any

import numpy as np
from gymnasium import Space, spaces

from agents.errors import UserError

UNBOUNDED = 1e10  # MuJoCo states this range for an actuator without control limits


class ActionCodec:
    """Maps agent actions, float32 [A], to those of an action space.

    A Discrete space of n actions has A = n one-hot entries. A Box has A = its number of entries, each mapped
    linearly from [-1, 1] to its range; an entry without limits passes unchanged.

    Attributes:
        size: A.
        discrete: whether agent actions are one-hot.

    Raises:
        UserError: any other kind of space.
    """

    def __init__(self, space: Space[Any]) -> None:
        self._space = space
        if isinstance(space, spaces.Discrete):
            self.discrete = True
            self.size = int(space.n)
        elif isinstance(space, spaces.Box):
            self.discrete = False
            self.size = int(np.prod(space.shape))
            bounded = (space.low > -UNBOUNDED) & (space.high < UNBOUNDED)
            self._low = np.where(bounded, space.low, -1.0).astype(space.dtype)
            self._high = np.where(bounded, space.high, 1.0).astype(space.dtype)
        else:
            raise UserError(f"action space {space} is not supported; valid: Discrete, Box")

    def decode(self, action: np.ndarray) -> int | np.ndarray:
        """Return the environment's action for an agent's.

        Args:
            action: [A]; one-hot (the largest entry counts) or in [-1, 1] (clipped).

        Returns:
            int for a Discrete space, else an array of the space's shape and type within its range.

        Raises:
            ValueError: wrong shape.
            UserError: NaN or infinite.
        """
        if action.shape != (self.size,):
            raise ValueError(f"agent action has shape {action.shape}, expected ({self.size},)")
        if not np.isfinite(action).all():
            raise UserError(
                f"the agent's action is NaN or infinite ({action}): the run diverged; lower its learning rate"
            )
        if isinstance(self._space, spaces.Discrete):
            return int(action.argmax()) + int(self._space.start)
        fraction = (np.clip(action, -1.0, 1.0).reshape(self._low.shape) + 1.0) * 0.5
        decoded = self._low + fraction * (self._high - self._low)
        return np.clip(decoded, self._low, self._high).astype(self._low.dtype)
