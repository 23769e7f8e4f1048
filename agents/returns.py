"""Returns and their normalization. Time is the first dimension throughout.

Symbols: T steps; N any further dimensions.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def lambda_return(
    reward: Float[Tensor, " T *N"],
    discount: Float[Tensor, " T *N"],
    trace: Float[Tensor, " T *N"] | Float[Tensor, ""],
    bootstrap: Float[Tensor, " T *N"],
) -> Float[Tensor, " T *N"]:
    """Lambda-returns R_t = r_{t+1} + d_{t+1} ((1 - l_{t+1}) v_{t+1} + l_{t+1} R_{t+1}), R_T = v_T.

    All arguments belong to the state that is *arrived at*: entry t of each is what step t led to, so the result's
    entry t is the return of the state before step t (arXiv 2301.04104, equation 5).

    Args:
        reward: reward received on arriving.
        discount: factor on everything after arriving; 0 where the world ended.
        trace: lambda, or 0 where the sequence was cut and only the bootstrap may follow.
        bootstrap: value of the state arrived at.
    """
    weight = discount * trace
    interim = reward + discount * (1 - trace) * bootstrap
    result = bootstrap[-1]
    returns = []
    for t in range(reward.shape[0] - 1, -1, -1):
        result = interim[t] + weight[t] * result
        returns.append(result)
    return torch.stack(returns[::-1])


def update_return_range(
    low: Float[Tensor, ""], high: Float[Tensor, ""], returns: Float[Tensor, "*N"], rate: Float[Tensor, ""]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Move the averages of the 5th and 95th percentile towards those of ``returns``, without bias correction.

    Source: arXiv 2301.04104, equation 7; percentiles interpolate linearly.
    """
    ordered = returns.detach().flatten().sort().values
    return low + rate * (_percentile(ordered, 5) - low), high + rate * (_percentile(ordered, 95) - high)


def _percentile(ordered: Float[Tensor, " N"], percent: float) -> Float[Tensor, ""]:
    """Interpolate linearly between sorted values (``torch.quantile`` falls back to a loop under vmap)."""
    position = (ordered.shape[0] - 1) * percent / 100
    below = int(position)
    above = min(below + 1, ordered.shape[0] - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])
