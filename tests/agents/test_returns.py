"""Returns by hand and in NumPy."""

import numpy as np
import pytest
import torch
from torchrl.objectives.value.functional import td_lambda_return_estimate

from agents.returns import lambda_return, update_return_range
from tests.agents.dreamerv3.by_hand import lambda_returns


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


def test_a_terminal_a_time_out_and_the_end_of_the_data_by_hand() -> None:
    """Discount 1/2, lambda 1/2; worked out from the last step backwards.

    Nothing ends: R2 = 4 + (30) / 2 = 19; R1 = 2 + (20 / 2 + 19 / 2) / 2 = 11.75; R0 = 1 + (5 + 5.875) / 2 = 6.4375.
    Step 1 arrives at a time-out: R1 = 2 + 20 / 2 = 12; R0 = 1 + (5 + 6) / 2 = 6.5.
    Step 1 arrives at a terminal: R1 = 2; R0 = 1 + (5 + 1) / 2 = 4.
    """
    reward, value = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([10.0, 20.0, 30.0])
    half, out = torch.full((3,), 0.5), torch.tensor([0.5, 0.0, 0.5])
    assert lambda_return(reward, half, half, value).tolist() == [6.4375, 11.75, 19.0]
    assert lambda_return(reward, half, out, value).tolist() == [6.5, 12.0, 19.0]
    assert lambda_return(reward, out, half, value).tolist() == [4.0, 2.0, 19.0]
    assert lambda_return(reward, out, out, value).tolist() == [4.0, 2.0, 19.0]


def test_lambda_zero_is_one_step_and_lambda_one_is_the_discounted_sum() -> None:
    rng = np.random.default_rng(0)
    reward, value = rng.normal(size=(2, 12))
    tensors = [torch.from_numpy(x) for x in (reward, np.full(12, 0.9), value)]
    one_step = lambda_return(tensors[0], tensors[1], torch.tensor(0.0), tensors[2])
    np.testing.assert_allclose(one_step.numpy(), reward + 0.9 * value)
    whole = lambda_return(tensors[0], tensors[1], torch.tensor(1.0), tensors[2])
    expected = [sum(0.9 ** (k - t) * reward[k] for k in range(t, 12)) + 0.9 ** (12 - t) * value[-1] for t in range(12)]
    np.testing.assert_allclose(whole.numpy(), expected)


@pytest.mark.parametrize("seed", range(5))
def test_random_episodes_in_the_forward_view(seed: int) -> None:
    """Terminals, time-outs and uncertain continuations, against the sum over stopping places."""
    rng = np.random.default_rng(seed)
    reward, value = rng.normal(size=(2, 10, 6))
    live = rng.uniform(0.5, 1, (10, 6)) * (rng.random((10, 6)) > 0.2)
    trace = rng.uniform(0, 1, (10, 6)) * (rng.random((10, 6)) > 0.2)
    ours = lambda_return(*(torch.from_numpy(x) for x in (reward, live, trace, value)))
    expected = [lambda_returns(*(x[:, n] for x in (reward, live, trace, value))) for n in range(6)]
    np.testing.assert_allclose(ours.numpy(), np.stack(expected, 1), rtol=1e-10, atol=1e-12)


def test_percentiles_by_hand() -> None:
    """0, 10, ... 100 in disorder: 5 % of ten gaps is half a gap, so 5 and 95; of one number it is that number."""
    returns = torch.tensor([70.0, 0.0, 100.0, 30.0, 50.0, 10.0, 90.0, 20.0, 80.0, 60.0, 40.0])
    low, high = update_return_range(torch.tensor(0.0), torch.tensor(0.0), returns, torch.tensor(1.0))
    assert (low.item(), high.item()) == (5.0, 95.0)
    low, high = update_return_range(torch.tensor(0.0), torch.tensor(0.0), returns, torch.tensor(0.01))
    assert (low.item(), high.item()) == (pytest.approx(0.05), pytest.approx(0.95))  # no bias correction
    only = update_return_range(torch.tensor(0.0), torch.tensor(0.0), torch.tensor([[7.0]]), torch.tensor(1.0))
    assert [x.item() for x in only] == [7.0, 7.0]


@pytest.mark.parametrize("count", [2, 3, 20, 21, 137])
def test_the_moving_range_is_the_weighted_sum_of_all_percentiles(count: int) -> None:
    """After n updates (1 - r)^n of the start is left and r (1 - r)^(n - i) of update i."""
    rng = np.random.default_rng(count)
    draws = rng.normal(size=(6, count)) * 10 + 4
    low, high = torch.tensor(-3.0, dtype=torch.float64), torch.tensor(8.0, dtype=torch.float64)
    for returns in draws:
        low, high = update_return_range(low, high, torch.from_numpy(returns), torch.tensor(0.01, dtype=torch.float64))
    weights = 0.01 * 0.99 ** np.arange(5, -1, -1)
    for ours, start, percent in ((low, -3.0, 5), (high, 8.0, 95)):
        expected = 0.99**6 * start + weights @ np.percentile(draws, percent, axis=1, method="linear")
        assert ours.item() == pytest.approx(expected, rel=1e-12)
