"""Symlog, two-hot and KL against plain NumPy in float64, over the whole range in which they are used."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.agents.dreamerv3.by_hand import two_hot, two_hot_cross_entropy, two_hot_mean, unimix
from worldmodels import distributions as d
from worldmodels.config import WorldModelConfig
from worldmodels.context import ContextSpec
from worldmodels.layers import initialize
from worldmodels.world_model import WorldModel

COUNT = 255
MIDDLE = 127
LARGEST = math.exp(20) - 1  # 485,165,194.4
BINS = [math.copysign(math.expm1(20 * abs(k) / MIDDLE), k) for k in range(-MIDDLE, MIDDLE + 1)]


def bins(dtype: torch.dtype = torch.float64) -> Tensor:
    """Our bins, here from float64 numbers, so that nothing but the formula under test rounds."""
    return torch.tensor(BINS, dtype=dtype)


def encoding(target: float, dtype: torch.dtype = torch.float64) -> np.ndarray:
    """Our two-hot encoding, read out of the loss: its gradient by the logits is softmax - encoding."""
    logits = torch.zeros(1, COUNT, dtype=dtype, requires_grad=True)
    loss = d.twohot_loss(logits, torch.tensor([[target]], dtype=dtype), bins(dtype))
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    return 1 / COUNT - gradient.double().numpy()[0]


def test_bins_in_closed_form() -> None:
    ours = d.symexp_bins(COUNT)
    assert ours.dtype == torch.float32
    np.testing.assert_allclose(ours.numpy(), BINS, rtol=3e-6)
    assert BINS[-1] == pytest.approx(LARGEST)
    assert ours[MIDDLE + 1].item() == pytest.approx(0.170557, abs=1e-6)  # exp(20 / 127) - 1


def test_symlog_and_symexp_in_numpy() -> None:
    magnitudes = np.concatenate([np.logspace(-12, math.log10(4e8), 500), [0.0, 1.0, math.e - 1]])
    x = np.concatenate([magnitudes, -magnitudes])
    expected = np.where(x < 0, -np.log1p(-x.clip(max=0)), np.log1p(x.clip(min=0)))
    np.testing.assert_allclose(d.symlog(torch.from_numpy(x)).numpy(), expected, rtol=1e-14)
    np.testing.assert_allclose(d.symexp(torch.from_numpy(expected)).numpy(), x, rtol=1e-13)
    single = d.symexp(d.symlog(torch.from_numpy(x).float()))
    np.testing.assert_allclose(single.numpy(), x, rtol=4e-6)  # |symlog| <= 20 has a float32 spacing of 2e-6


def test_symlog_has_slope_one_over_one_plus_magnitude() -> None:
    x = torch.tensor([-300.0, -1.0, -1e-6, 1e-6, 0.5, 9.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(d.symlog(x).sum(), x)
    np.testing.assert_allclose(slope.numpy(), [1 / 301, 1 / 2, 1 / 1.000001, 1 / 1.000001, 1 / 1.5, 1 / 10])


RANGE = [0.0, 1e-9, 0.01, 0.17, 0.5, 1.0, 3.3, 37.0, 1000.0, 12_345.6, 7e5, 3e7, 4e8]


@pytest.mark.parametrize("target", [*RANGE, *(-x for x in RANGE[1:])])
def test_the_expected_value_of_the_encoding_is_the_target(target: float) -> None:
    weights = encoding(target)
    assert (weights > 1e-12).sum() <= 2
    assert weights.min() > -1e-12 and weights.sum() == pytest.approx(1)
    assert math.fsum(weights * np.array(BINS)) == pytest.approx(target, rel=1e-9, abs=1e-6)  # 1e-15 of 5e8 is 5e-7
    np.testing.assert_allclose(weights, two_hot(target, BINS), atol=1e-12)
    # Decoding: a zero weight becomes a probability of e^-690, which even the largest bin leaves at nothing.
    ours = d.twohot_mean(torch.tensor(two_hot(target, BINS), dtype=torch.float64).clamp_min(1e-300).log(), bins())
    assert ours.item() == pytest.approx(target, rel=1e-9, abs=1e-12)


def test_targets_at_bins_are_one_hot() -> None:
    for k in (0, 1, 126, 127, 128, 200, 254):
        assert encoding(BINS[k]) == pytest.approx(np.eye(COUNT)[k], abs=1e-12)


def test_targets_between_bins_by_hand() -> None:
    """Half way 1/2 and 1/2, a quarter of the way 3/4 and 1/4: in raw space, not in symlog space."""
    for k in (3, 126, 127, 180, 253):
        low, high = BINS[k], BINS[k + 1]
        for share in (0.5, 0.25):
            weights = encoding(low + share * (high - low))
            assert weights[k] == pytest.approx(1 - share, rel=1e-6)
            assert weights[k + 1] == pytest.approx(share, rel=1e-6)


@pytest.mark.parametrize(("target", "k"), [(LARGEST * 1.01, 254), (1e15, 254), (-LARGEST * 1.01, 0), (-1e15, 0)])
def test_targets_outside_the_bins_go_to_the_outermost(target: float, k: int) -> None:
    assert encoding(target) == pytest.approx(np.eye(COUNT)[k], abs=1e-12)


def test_loss_is_the_cross_entropy_in_numpy() -> None:
    """Several targets at once, also in float32, and the gradient is softmax - encoding."""
    rng = np.random.default_rng(1)
    logits, targets = (
        3 * rng.normal(size=(40, COUNT)),
        rng.choice([-1, 1], (40, 3)) * 10 ** rng.uniform(-4, 8.6, (40, 3)),
    )
    expected = [
        [two_hot_cross_entropy(row, target, BINS) for target in three]
        for row, three in zip(logits, targets, strict=True)
    ]
    ours = d.twohot_loss(torch.from_numpy(logits), torch.from_numpy(targets), bins())
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-11)
    single = d.twohot_loss(torch.from_numpy(logits).float(), torch.from_numpy(targets).float(), d.symexp_bins(COUNT))
    np.testing.assert_allclose(single.numpy(), expected, rtol=1e-4)
    given = torch.from_numpy(logits).requires_grad_()
    (gradient,) = torch.autograd.grad(d.twohot_loss(given, torch.from_numpy(targets), bins()).sum(), given)
    encoded = np.sum([[two_hot(target, BINS) for target in three] for three in targets], 1)
    np.testing.assert_allclose(gradient.numpy(), 3 * unimix(logits, 0.0) - encoded, atol=1e-11)


def test_mean_in_numpy() -> None:
    rng = np.random.default_rng(2)
    logits = 4 * rng.normal(size=(50, COUNT))
    expected = [two_hot_mean(row, BINS) for row in logits]
    np.testing.assert_allclose(d.twohot_mean(torch.from_numpy(logits), bins()).numpy(), expected, rtol=1e-10)


def test_mean_of_mirrored_logits_is_exactly_zero_in_float32() -> None:
    """Not only for equal logits: bins of 5e8 times a rounding error of 1e-8 would be off by whole units."""
    half = torch.randn(20, MIDDLE + 1, generator=torch.Generator().manual_seed(0))
    logits = torch.cat([half, half[:, :-1].flip(-1)], -1)
    assert (d.twohot_mean(logits, d.symexp_bins(COUNT)) == 0).all()


# KL terms: two latents of two classes, whose logits are biases, so that every number can be worked out.


def kl_losses(posterior: list[list[float]], prior: list[list[float]], free_nats: float) -> tuple[dict, Tensor, Tensor]:
    """Dynamics and representation losses of one step from logits [S][C], and the biases that hold the logits."""
    sizes = {"deter": 4, "hidden": 4, "units": 4, "stoch": 2, "classes": 2, "blocks": 2, "bins": 5}
    model = WorldModel(WorldModelConfig(**sizes, context="hidden"), {"state": (1,)}, 1, ContextSpec()).double()
    initialize(model, torch.Generator().manual_seed(0))
    rssm = model.rssm
    for layer, logits in ((rssm.posterior_out, posterior), (rssm.prior_out, prior)):
        layer.weight.data.zero_()
        layer.bias.data = torch.tensor(logits, dtype=torch.float64).T.flatten().contiguous()  # class-major
    tokens = torch.ones(1, 1, 4, dtype=torch.float64)
    reset = torch.ones(1, 1, dtype=torch.bool)
    latent = rssm.observe(rssm.initial(1, tokens), tokens, tokens[..., :1], reset, None, None)
    one = torch.ones(1, 1, dtype=torch.float64)
    context = torch.zeros(1, 1, 0, dtype=torch.float64)
    floor = torch.tensor(free_nats, dtype=torch.float64)
    losses, _ = model.losses(latent, {"state": one[..., None]}, one, one, context, floor)
    return losses, rssm.posterior_out.bias, rssm.prior_out.bias


def nats(posterior: list[list[float]], prior: list[list[float]]) -> list[float]:
    p, q = unimix(np.array(posterior)), unimix(np.array(prior))
    return [float(sum(a * math.log(a / b) for a, b in zip(x, y, strict=True))) for x, y in zip(p, q, strict=True)]


NEAR = ([[0.0, math.log(9)], [0.0, math.log(3)]], [[0.0, 0.0], [0.0, 0.0]])
FAR = ([[0.0, 4.0], [5.0, 0.0]], [[0.0, -1.0], [0.0, 0.5]])


def test_the_uniform_share_is_over_classes_and_not_over_latents() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 4, 3)) * 3  # four latents of three classes
    ours = d.unimix(torch.from_numpy(logits).mT, 0.01)
    np.testing.assert_allclose(ours.mT.numpy(), unimix(logits), rtol=1e-12)
    np.testing.assert_allclose(ours.sum(-2).numpy(), np.ones((5, 4)), rtol=1e-12)


def test_kl_by_hand() -> None:
    """Softmax (1/10, 9/10) mixed with 1 % of (1/2, 1/2) is (0.104, 0.896); (1/4, 3/4) becomes (0.2525, 0.7475)."""
    first = 0.104 * math.log(0.104 / 0.5) + 0.896 * math.log(0.896 / 0.5)  # 0.3593
    second = 0.2525 * math.log(0.2525 / 0.5) + 0.7475 * math.log(0.7475 / 0.5)  # 0.1281
    assert nats(*NEAR) == pytest.approx([first, second])
    losses, _, _ = kl_losses(*NEAR, free_nats=0.0)
    assert losses["dynamics"].item() == pytest.approx(first + second, rel=1e-12)
    assert losses["representation"].item() == pytest.approx(first + second, rel=1e-12)


def test_free_nats_bound_the_sum_over_latents() -> None:
    """Latents of 0.36 and 0.13 nats: at 1 together, not at 1 each; below a floor of 0.4 each, above it together."""
    assert kl_losses(*NEAR, free_nats=1.0)[0]["dynamics"].item() == 1.0
    assert kl_losses(*NEAR, free_nats=0.4)[0]["dynamics"].item() == pytest.approx(sum(nats(*NEAR)))
    assert sum(nats(*FAR)) > 1
    for name in ("dynamics", "representation"):
        assert kl_losses(*FAR, free_nats=1.0)[0][name].item() == pytest.approx(sum(nats(*FAR)))


@pytest.mark.parametrize("name", ["dynamics", "representation"])
def test_no_gradient_below_the_free_nats(name: str) -> None:
    losses, posterior, prior = kl_losses(*NEAR, free_nats=1.0)
    gradients = torch.autograd.grad(losses[name].sum(), [posterior, prior], allow_unused=True)
    assert all(gradient is None or gradient.abs().max() == 0 for gradient in gradients)


def test_kl_gradients_by_hand() -> None:
    """Dynamics: d/dl_j = -sum_i p_i / q_i dq_i/dl_j, prior only. Representation: sum_i ln(p_i / q_i) dp_i/dl_j."""
    losses, posterior, prior = kl_losses(*FAR, free_nats=1.0)
    p, q = unimix(np.array(FAR[0])), unimix(np.array(FAR[1]))

    def jacobian(logits: list[float]) -> np.ndarray:
        """d probability_i / d logit_j of the mixed softmax: 0.99 s_i (delta_ij - s_j)."""
        s = unimix(np.array(logits), 0.0)
        return 0.99 * (np.diag(s) - np.outer(s, s))

    dynamics = [-(p[s] / q[s]) @ jacobian(FAR[1][s]) for s in range(2)]
    representation = [np.log(p[s] / q[s]) @ jacobian(FAR[0][s]) for s in range(2)]
    for name, trained, fixed, expected in (
        ("dynamics", prior, posterior, dynamics),
        ("representation", posterior, prior, representation),
    ):
        ours, none = torch.autograd.grad(losses[name].sum(), [trained, fixed], retain_graph=True, allow_unused=True)
        np.testing.assert_allclose(ours.view(2, 2).T.numpy(), expected, rtol=1e-10, err_msg=name)
        assert none is None or none.abs().max() == 0
