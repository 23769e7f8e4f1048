"""Inferring the context: every formula one transition at a time in NumPy, and whether it learns."""

import numpy as np
import pytest
import scipy.stats
import torch
from pydantic import ValidationError
from sklearn.linear_model import Ridge
from torch import Tensor

from worldmodels.config import ContextEncoderConfig, ContextFlags
from worldmodels.context_encoder import (
    CHANGE_RATE,
    SMALLEST_VARIANCE,
    ContextEncoder,
    bounded,
    fading,
    inverse,
    inverse_root,
    moved_mean_square,
    posterior,
    predictive_loss,
)
from worldmodels.layers import initialize

B, T, Y, IMAGES, A, Z, F = 3, 9, 5, 2, 2, 4, 2
MEMORY = 5.0


def encoder(images: int = IMAGES) -> ContextEncoder:
    config = ContextEncoderConfig(size=Z, layers=2, memory=MEMORY)
    module = ContextEncoder(config, 8, Y, images, A, F).double()
    initialize(module, torch.Generator().manual_seed(0))
    for parameter in module.parameters():  # of no special kind: biases, too
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)).double()
    return module.requires_grad_(False)


def sequences(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """measured, action, is_first, mean_square; resets in the middle and at the start."""
    rng = np.random.default_rng(seed)
    is_first = np.zeros((B, T), bool)
    is_first[0, 0] = is_first[1, 4] = is_first[2, 1] = is_first[2, 6] = True
    values = rng.normal(size=(B, T, Y)), 2 * rng.normal(size=(B, T, A)), is_first, rng.uniform(0.1, 2.0, size=Y)
    return tuple(map(torch.from_numpy, values))


def by_hand(module: ContextEncoder, measured: Tensor, action: Tensor, is_first: Tensor, mean_square: Tensor):
    """Codes [B, T, Z], predictions and variances [B, T-1, Y], one sequence, one transition at a time."""
    root, noise = mean_square.numpy() ** 0.5, np.exp(10 * module.noise.raw.numpy()) + SMALLEST_VARIANCE
    codes, predicted, variance = np.zeros((B, T, Z)), np.zeros((B, T - 1, Y)), np.zeros((B, T - 1, Y))
    for b in range(B):
        y, a, first = measured[b].numpy(), np.clip(action[b].numpy(), -1, 1), is_first[b].numpy()
        change = [np.zeros(Y) if t == 0 or first[t] else (y[t] - y[t - 1]) / root for t in range(T)]
        known = [torch.from_numpy(np.concatenate([y[t], change[t][Y - module.images :], a[t]])) for t in range(T)]
        dynamics = [(module.base(x).numpy(), module.basis(x).numpy().reshape(Y, Z)) for x in known]
        evidence: list[int] = []  # steps of this episode that a transition led to
        for t in range(T):
            evidence = [] if first[t] else evidence + [t] * (t > 0)
            precision, moment = np.eye(Z), np.zeros(Z)
            for i in evidence:
                base, basis = dynamics[i - 1]
                weight = (1 - 1 / MEMORY) ** (t - i)
                precision += weight * basis.T @ np.diag(1 / noise) @ basis
                moment += weight * basis.T @ np.diag(1 / noise) @ (change[i] - base)
            mean = np.linalg.solve(precision, moment)
            codes[b, t] = mean / np.sqrt(1 + mean**2 / 4)
            if t < T - 1:
                base, basis = dynamics[t]
                predicted[b, t] = base + basis @ mean
                variance[b, t] = noise + np.diag(basis @ np.linalg.inv(precision) @ basis.T)
    return codes, predicted, variance


@pytest.mark.parametrize("images", [0, IMAGES])
def test_sequence_equals_the_formulas_one_transition_at_a_time(images: int) -> None:
    module, data = encoder(images), sequences()
    found = module.sequence(*data)
    codes, predicted, variance = by_hand(module, *data)
    np.testing.assert_allclose(found["code"].numpy(), codes, atol=1e-9)
    np.testing.assert_allclose(found["predicted"].numpy(), predicted, atol=1e-9)
    np.testing.assert_allclose(found["variance"].numpy(), variance, rtol=1e-9)
    measured, _, is_first, mean_square = (value.numpy() for value in data)
    np.testing.assert_array_equal(found["valid"].numpy(), ~is_first[:, 1:])
    change = np.diff(measured, axis=1) / np.sqrt(mean_square)
    change[is_first[:, 1:]] = 0.0
    np.testing.assert_allclose(found["change"].numpy(), change, atol=1e-12)
    places = ~is_first[:, 1:]
    density = -scipy.stats.norm.logpdf(change[places], predicted[places], np.sqrt(variance[places]))
    expected = density.mean() - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(predictive_loss(found).item(), expected, rtol=1e-9)


@pytest.mark.parametrize("images", [0, IMAGES])
def test_steps_equal_the_sequence(images: int) -> None:
    module, (measured, action, is_first, mean_square) = encoder(images), sequences(1)
    is_first[:, 0] = True  # an agent that acts sees episodes from their start
    whole = module.sequence(measured, action, is_first, mean_square)["code"]
    belief, before = module.initial(B, measured), torch.zeros(B, A).double()
    for t in range(T):
        code, belief = module.step(belief, measured[:, t], before, ~is_first[:, t], mean_square)
        torch.testing.assert_close(code, whole[:, t], rtol=0, atol=1e-9)
        before = action[:, t]


def test_codes_and_predictions_know_nothing_of_what_comes_later() -> None:
    module, (measured, action, is_first, mean_square) = encoder(), sequences()
    found = module.sequence(measured, action, is_first, mean_square)
    for t in range(1, T):
        later = measured.clone()
        later[:, t:] += 1.0
        other = module.sequence(later, action, is_first, mean_square)
        assert torch.equal(other["code"][:, :t], found["code"][:, :t])
        assert torch.equal(other["predicted"][:, : t - 1], found["predicted"][:, : t - 1])
        inside = ~is_first[:, t]
        assert (other["code"][inside, t] != found["code"][inside, t]).any(-1).all()  # and something of what came


def test_code_of_a_linear_world_is_the_ridge_regression() -> None:
    """No fading, and base and basis that are known: the closed form of scikit-learn."""
    rng = np.random.default_rng(0)
    basis, truth = rng.normal(size=(50, Y, Z)), rng.normal(size=Z)
    change = basis @ truth + 0.1 * rng.normal(size=(50, Y))
    precision, moment = (basis.transpose(0, 2, 1) @ basis).sum(0) / 0.01, np.einsum("tyz,ty->z", basis, change) / 0.01
    mean, covariance = posterior(torch.from_numpy(precision), torch.from_numpy(moment))
    ridge = Ridge(alpha=0.01, fit_intercept=False).fit(basis.reshape(-1, Z), change.ravel())
    np.testing.assert_allclose(mean.numpy(), ridge.coef_, rtol=1e-9)
    np.testing.assert_allclose(covariance.numpy(), np.linalg.inv(precision + np.eye(Z)), atol=1e-12)
    assert np.abs(mean.numpy() - truth).max() < 0.05


def test_bounded_by_hand() -> None:
    given = torch.tensor([0.0, 0.1, -2.0, 1e6], dtype=torch.float64)
    assert bounded(given).tolist() == pytest.approx([0.0, 0.1 / 1.0025**0.5, -(2.0**0.5), 2.0])


@pytest.mark.parametrize("spread", [1.0, 1e4, 1e8])
def test_inverse_of_positive_definite_matrices(spread: float) -> None:
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(20, 8, 8)))[0]
    matrix = rotation @ np.diag(np.geomspace(1.0, spread, 8)) @ rotation.transpose(0, 2, 1)
    found = inverse(torch.from_numpy(matrix)).numpy()
    np.testing.assert_allclose(found @ matrix, np.broadcast_to(np.eye(8), matrix.shape), atol=1e-14 * spread + 1e-13)


def test_a_new_episode_knows_nothing() -> None:
    module, (measured, action, is_first, mean_square) = encoder(), sequences()
    found = module.sequence(measured, action, is_first, mean_square)
    assert not found["code"][:, 0].any() and not found["code"][is_first].any()
    assert found["code"][~is_first][1:].any()


def test_fading_by_hand() -> None:
    is_first = torch.tensor([[False, False, True, False]])
    assert fading(is_first, 0.5, torch.zeros(()))[0].tolist() == [
        [1, 0, 0, 0],
        [0.5, 1, 0, 0],
        [0, 0, 0, 0],
        [0, 0, 0, 1],
    ]


def test_mean_square_of_changes_moves_towards_the_batch_s() -> None:
    measured, _, is_first, before = sequences(2)
    places = [(b, t) for b in range(B) for t in range(1, T) if not is_first[b, t]]
    squares = [(measured[b, t] - measured[b, t - 1]).numpy() ** 2 for b, t in places]
    now = np.mean(squares, axis=0)
    moved = moved_mean_square(before, measured, is_first).numpy()
    np.testing.assert_allclose(moved, before.numpy() + CHANGE_RATE * (now - before.numpy()), atol=1e-12)
    first = moved_mean_square(torch.zeros(Y).double(), measured, is_first).numpy()
    np.testing.assert_allclose(first, now, atol=1e-12)
    constant = moved_mean_square(torch.zeros(Y).double(), torch.ones(B, T, Y).double(), is_first)
    assert torch.equal(inverse_root(constant), torch.zeros(Y).double())
    nothing = moved_mean_square(before, measured, torch.ones_like(is_first))  # no transition at all
    np.testing.assert_allclose(nothing.numpy(), before.numpy() * (1 - CHANGE_RATE), atol=1e-12)


def test_it_learns_what_a_hidden_gain_does_and_with_it_the_gain() -> None:
    """A world whose change is gain x action: after some updates the code tells the gain of unseen sequences."""
    torch.manual_seed(0)
    module = ContextEncoder(ContextEncoderConfig(size=2, memory=32), 32, 1, 0, 1, 1)
    initialize(module, torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(module.parameters(), 3e-3)
    mean_square = torch.ones(1)

    def sample(count: int) -> tuple[Tensor, dict[str, Tensor]]:
        gain, action = 2 * torch.rand(count, 1, 1) - 1, torch.rand(count, 16, 1) * 2 - 1
        moved = gain * action + 0.05 * torch.randn(count, 16, 1)
        measured = torch.cat([torch.zeros(count, 1, 1), moved[:, :-1].cumsum(1)], 1)
        is_first = torch.zeros(count, 16, dtype=torch.bool)
        return gain, module.sequence(measured, action, is_first, mean_square)

    for _ in range(300):
        _, found = sample(32)
        loss = predictive_loss(found)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        gain, found = sample(512)
        error = (found["predicted"] - found["change"]).square().mean((0, 2))
        inputs = torch.cat([found["code"][:, -1], torch.ones(512, 1)], 1)
        fitted = inputs[:256] @ torch.linalg.lstsq(inputs[256:], gain[256:, 0]).solution
    missed = (fitted - gain[:256, 0]).square().mean() / gain.var()
    assert missed < 0.1  # a code that says nothing would miss all of it
    assert error[-1] < 0.15 * error[0]  # the first prediction of a sequence has nothing to go by


@pytest.mark.parametrize("flags", [{"inferred": True}, {"inferred": True, "observation": True}])
def test_flags_that_infer_for_nobody_or_show_the_truth_are_refused(flags: dict[str, bool]) -> None:
    with pytest.raises(ValidationError, match="inferred needs a module"):
        ContextFlags(**flags)
