"""The context as the networks see it."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ContextSpec:
    """Names of the context features and the training range that maps linearly to [-1, 1].

    Values outside the range are not clipped, so that extrapolation reaches beyond +-1 (arXiv 2403.10967). A
    feature that never varies in training (low == high) gets half its magnitude as half-width, or 1 where it is 0.

    Raises:
        ValueError: when the lengths differ or a bound is not finite or low > high.
    """

    names: tuple[str, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.low) == len(self.high):
            raise ValueError(f"context features {self.names} need one low and one high each")
        if not all(a <= b and abs(a) + abs(b) < float("inf") for a, b in zip(self.low, self.high, strict=True)):
            raise ValueError(f"context ranges must be finite with low <= high, not {self.low} to {self.high}")

    @property
    def size(self) -> int:
        """Number of features F."""
        return len(self.names)

    def center_and_half_width(self) -> tuple[Tensor, Tensor]:
        """Return the vectors [F] by which a raw context is shifted and then divided."""
        low, high = torch.tensor(self.low, dtype=torch.float64), torch.tensor(self.high, dtype=torch.float64)
        center, half = (low + high) / 2, (high - low) / 2
        constant = torch.where(center == 0, torch.ones_like(center), center.abs() / 2)
        return center.float(), torch.where(half == 0, constant, half).float()
