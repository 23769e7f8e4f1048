"""Distributions against numbers computed by hand, with NumPy or with torch.distributions."""

import math

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, OneHotCategorical, kl_divergence

from worldmodels import distributions as d


def test_symlog_and_symexp_by_hand() -> None:
    x = torch.tensor([-math.e + 1, 0.0, 1.0, 1e6], dtype=torch.float64)
    expected = torch.tensor([-1.0, 0.0, math.log(2.0), math.log(1e6 + 1)], dtype=torch.float64)
    torch.testing.assert_close(d.symlog(x), expected)
    torch.testing.assert_close(d.symexp(expected), x)


def test_bins_are_antisymmetric_and_symexp_spaced() -> None:
    bins = d.symexp_bins(255)
    assert torch.equal(bins, -bins.flip(0))
    assert bins[127] == 0
    assert bins[-1] == pytest.approx(math.exp(20) - 1, rel=1e-6)
    assert bins[128] == pytest.approx(math.exp(20 / 127) - 1, rel=1e-5)
    assert (bins[1:] > bins[:-1]).all()


def numpy_twohot(target: float, bins: np.ndarray) -> np.ndarray:
    """Two-hot encoding by interpolation: np.interp gives the fractional index of the target."""
    position = np.interp(target, bins, np.arange(len(bins)))
    below = int(np.floor(position))
    encoding = np.zeros(len(bins))
    encoding[below] = 1 - (position - below)
    if position > below:
        encoding[below + 1] = position - below
    return encoding


@pytest.mark.parametrize("target", [-1e9, -4e8, -37.2, -1.0, -1e-3, 0.0, 1e-4, 0.5, 1.0, 120.0, 7e5, 4.8e8, 1e12])
def test_twohot_loss_over_the_whole_range(target: float) -> None:
    bins = d.symexp_bins(255).double()
    logits = torch.from_numpy(np.random.default_rng(0).normal(size=255))
    targets = torch.tensor([[target, 0.25]], dtype=torch.float64)
    loss = d.twohot_loss(logits[None], targets, bins)
    logs = logits.numpy() - np.log(np.exp(logits.numpy()).sum())
    expected = -(numpy_twohot(target, bins.numpy()) * logs).sum()
    other = -(numpy_twohot(0.25, bins.numpy()) * logs).sum()
    assert loss.squeeze(0).tolist() == pytest.approx([expected, other], rel=1e-9)


@pytest.mark.parametrize("target", [-2e4, -3.3, 0.0, 0.02, 1.0, 555.0])
def test_twohot_mean_decodes_the_encoding(target: float) -> None:
    bins = d.symexp_bins(255).double()
    encoding = torch.from_numpy(numpy_twohot(target, bins.numpy()))
    assert d.twohot_mean(encoding.clamp_min(1e-300).log(), bins).item() == pytest.approx(target, rel=1e-6, abs=1e-9)


def test_twohot_at_an_exact_bin_is_one_hot() -> None:
    bins = d.symexp_bins(9)
    logits = torch.arange(9.0)
    expected = logits.logsumexp(0) - logits
    torch.testing.assert_close(d.twohot_loss(logits.expand(9, 9), bins[:, None], bins).squeeze(-1), expected)


def test_twohot_mean_of_equal_logits_is_exactly_zero() -> None:
    assert d.twohot_mean(torch.zeros(5, 255), d.symexp_bins(255)).abs().max() == 0


def test_twohot_loss_sends_no_gradient_to_its_target() -> None:
    target = torch.tensor([[3.0]], requires_grad=True)
    logits = torch.zeros(1, 255, requires_grad=True)
    d.twohot_loss(logits, target, d.symexp_bins(255)).sum().backward()
    assert target.grad is None
    assert logits.grad is not None and logits.grad.abs().sum() > 0


def test_unimix_by_hand() -> None:
    logits = torch.tensor([[0.0], [math.log(3.0)]])  # C = 2, S = 1: probabilities 1/4, 3/4
    torch.testing.assert_close(d.unimix(logits, 0.01), torch.tensor([[0.2525], [0.7475]]))


def test_kl_against_torch_distributions() -> None:
    p, q = (torch.randn(7, 5, 3, generator=torch.Generator().manual_seed(i), dtype=torch.float64) for i in (0, 1))
    p, q = d.unimix(p, 0.01), d.unimix(q, 0.01)
    expected = kl_divergence(Categorical(p.transpose(-1, -2)), Categorical(q.transpose(-1, -2))).sum(-1)
    torch.testing.assert_close(d.categorical_kl(p, q), expected)


def test_zero_noise_gives_the_mode() -> None:
    probabilities = d.unimix(torch.randn(11, 6, 4), 0.01)
    expected = OneHotCategorical(probabilities.transpose(-1, -2)).mode.transpose(-1, -2)
    assert torch.equal(d.sample_one_hot(probabilities, None), expected)
    assert torch.equal(d.sample_one_hot(probabilities, torch.zeros_like(probabilities)), expected)


def test_gumbel_samples_have_the_right_frequencies() -> None:
    probabilities = torch.tensor([0.1, 0.2, 0.7])[:, None]
    noise = d.gumbel((100_000, 3, 1), torch.Generator().manual_seed(0), "cpu")
    frequencies = d.sample_one_hot(probabilities.expand(100_000, 3, 1), noise).mean(0)
    torch.testing.assert_close(frequencies, probabilities, atol=5e-3, rtol=0)  # three deviations are 4.4e-3


def test_straight_through_gradient_is_that_of_the_probabilities() -> None:
    logits = torch.randn(4, 3, 2, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(4, 3, 2, dtype=torch.float64)
    probabilities = d.unimix(logits, 0.01)
    sample = d.sample_one_hot(probabilities, None)
    through = d.straight_through(sample, probabilities)
    assert torch.equal(through, sample)
    (ours,) = torch.autograd.grad((through * weights).sum(), logits, retain_graph=True)
    (expected,) = torch.autograd.grad((probabilities * weights).sum(), logits)
    torch.testing.assert_close(ours, expected)


def test_masked_zeroes_rows_even_of_not_a_number() -> None:
    x = torch.tensor([[1.0, 2.0], [float("nan"), 4.0]])
    assert torch.equal(d.masked(x, torch.tensor([True, False])), torch.tensor([[1.0, 2.0], [0.0, 0.0]]))


def test_twohot_loss_of_no_number_is_none() -> None:
    """A diverged target must show in the loss; it would else count as the largest bin."""
    bins, logits = d.symexp_bins(9), torch.zeros(2, 9, requires_grad=True)
    loss = d.twohot_loss(logits, torch.tensor([[float("nan"), 1.0], [float("inf"), 2.0]]), bins)
    assert loss.isnan().tolist() == [[True, False], [False, False]]
    assert torch.autograd.grad(loss[0, 0], logits)[0][0].isnan().any()
