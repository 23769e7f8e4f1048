"""Returns by hand and in NumPy."""

import numpy as np
import pytest
import torch
from torchrl.objectives.value.functional import td_lambda_return_estimate

from agents.returns import lambda_return, update_return_range


def test_three_steps_by_hand() -> None:
    """R2 = v3-side bootstrap; the middle state is a terminal, so nothing after it counts."""
    reward = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    discount = torch.tensor([0.5, 0.0, 0.5], dtype=torch.float64)
    value = torch.tensor([10.0, 20.0, 30.0], dtype=torch.float64)
    trace = torch.tensor(0.8, dtype=torch.float64)
    last = 4 + 0.5 * 30  # 19
    middle = 2.0
    first = 1 + 0.5 * (0.2 * 10 + 0.8 * middle)  # 2.8
    expected = torch.tensor([first, middle, last], dtype=torch.float64)
    torch.testing.assert_close(lambda_return(reward, discount, trace, value), expected)


def test_a_time_out_bootstraps_and_cuts_the_trace() -> None:
    reward = torch.tensor([1.0, 1.0])
    discount = torch.tensor([0.9, 0.9])
    value = torch.tensor([5.0, 7.0])
    cut = lambda_return(reward, discount, torch.tensor([0.0, 0.95]), value)
    torch.testing.assert_close(cut, torch.tensor([1 + 0.9 * 5, 1 + 0.9 * 7]))


def test_against_torchrl() -> None:
    generator = torch.Generator().manual_seed(0)
    reward, value = (torch.randn(9, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    done = torch.rand(9, 4, generator=generator) < 0.2
    ours = lambda_return(reward, 0.97 * (~done).double(), torch.tensor(0.9, dtype=torch.float64), value)
    theirs = td_lambda_return_estimate(
        0.97,
        0.9,
        value.T[..., None],
        reward.T[..., None],
        done=done.T[..., None],
        terminated=done.T[..., None],
    )
    torch.testing.assert_close(ours, theirs.squeeze(-1).T)


def test_return_range_in_numpy() -> None:
    returns = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    low, high = update_return_range(torch.tensor(-2.0), torch.tensor(3.0), returns, torch.tensor(0.1))
    percentiles = np.percentile(returns.numpy(), [5, 95])
    assert low.item() == pytest.approx(0.9 * -2 + 0.1 * percentiles[0], rel=1e-5)
    assert high.item() == pytest.approx(0.9 * 3 + 0.1 * percentiles[1], rel=1e-5)
