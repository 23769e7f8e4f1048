"""Inferring the context: every formula one transition at a time in NumPy, and whether it learns."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from worldmodels.config import ContextEncoderConfig, ContextFlags
from worldmodels.context_encoder import CHANGE_RATE, ContextEncoder, fading, inverse_root, moved_mean_square
from worldmodels.layers import initialize

B, T, Y, IMAGES, A, Z, F = 3, 9, 5, 2, 2, 4, 2
MEMORY = 5.0


def encoder(images: int = IMAGES) -> ContextEncoder:
    config = ContextEncoderConfig(size=Z, layers=2, memory=MEMORY)
    module = ContextEncoder(config, 8, Y, images, A, F).double()
    initialize(module, torch.Generator().manual_seed(0))
    for parameter in module.parameters():  # of no special kind: biases, too
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)).double()
    return module.requires_grad_(False)


def sequences(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """measured, action, is_first, mean_square; resets in the middle and at the start."""
    rng = np.random.default_rng(seed)
    is_first = np.zeros((B, T), bool)
    is_first[0, 0] = is_first[1, 4] = is_first[2, 1] = is_first[2, 6] = True
    values = rng.normal(size=(B, T, Y)), 2 * rng.normal(size=(B, T, A)), is_first, rng.uniform(0.1, 2.0, size=Y)
    return tuple(map(torch.from_numpy, values))


def by_hand(module: ContextEncoder, measured: Tensor, action: Tensor, is_first: Tensor, mean_square: Tensor):
    """Codes [B, T, Z] and predictions [B, T-1, Y], one sequence, one transition at a time."""
    root = mean_square.numpy() ** 0.5
    codes, predictions = np.zeros((B, T, Z)), np.zeros((B, T - 1, Y))
    for b in range(B):
        y, a, first = measured[b].numpy(), np.clip(action[b].numpy(), -1, 1), is_first[b].numpy()
        change = [np.zeros(Y) if t == 0 or first[t] else (y[t] - y[t - 1]) / root for t in range(T)]
        situation = [np.concatenate([y[t], change[t][Y - module.images :]]) for t in range(T)]
        evidence: list[tuple[int, np.ndarray, np.ndarray]] = []  # (step, mean, precision) of this episode
        for t in range(T):
            if first[t]:
                evidence = []
            elif t:
                seen = np.concatenate([situation[t - 1], a[t - 1], change[t]])
                mean, raw = np.split(module.evidence(torch.from_numpy(seen)).numpy(), 2)
                evidence.append((t, mean, np.log1p(np.exp(raw))))
            faded = [((1 - 1 / MEMORY) ** (t - i) * precision, mean) for i, mean, precision in evidence]
            total = sum((weight for weight, _ in faded), np.zeros(Z))
            codes[b, t] = sum((weight * mean for weight, mean in faded), np.zeros(Z)) / (1 + total)
            if t < T - 1:
                known = torch.from_numpy(np.concatenate([situation[t], a[t], codes[b, t]]))
                predictions[b, t] = module.forward_model(known).numpy()
    return codes, predictions


@pytest.mark.parametrize("images", [0, IMAGES])
def test_sequence_equals_the_formulas_one_transition_at_a_time(images: int) -> None:
    module, data = encoder(images), sequences()
    found = module.sequence(*data)
    codes, predictions = by_hand(module, *data)
    np.testing.assert_allclose(found["code"].numpy(), codes, atol=1e-12)
    np.testing.assert_allclose(found["predicted"].numpy(), predictions, atol=1e-12)
    measured, _, is_first, mean_square = (value.numpy() for value in data)
    np.testing.assert_array_equal(found["valid"].numpy(), ~is_first[:, 1:])
    change = np.diff(measured, axis=1) / np.sqrt(mean_square)
    change[is_first[:, 1:]] = 0.0
    np.testing.assert_allclose(found["change"].numpy(), change, atol=1e-12)


@pytest.mark.parametrize("images", [0, IMAGES])
def test_steps_equal_the_sequence(images: int) -> None:
    module, (measured, action, is_first, mean_square) = encoder(images), sequences(1)
    is_first[:, 0] = True  # an agent that acts sees episodes from their start
    whole = module.sequence(measured, action, is_first, mean_square)["code"]
    belief, before = module.initial(B, measured), torch.zeros(B, A).double()
    for t in range(T):
        code, belief = module.step(belief, measured[:, t], before, ~is_first[:, t], mean_square)
        torch.testing.assert_close(code, whole[:, t], rtol=0, atol=1e-12)
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


def test_a_code_is_zero_without_evidence_and_the_evidence_with_much() -> None:
    module, mean_square = encoder(0), torch.ones(Y).double()
    alike, action = torch.zeros(1, 400, Y).double(), torch.zeros(1, 400, A).double()
    is_first = torch.zeros(1, 400, dtype=torch.bool)
    is_first[0, 0] = True
    code = module.sequence(alike, action, is_first, mean_square)["code"][0]
    mean, raw = module.evidence(torch.zeros(Y + A + Y).double()).chunk(2)
    precision = torch.nn.functional.softplus(raw)
    assert torch.equal(code[0], torch.zeros(Z).double())
    total = precision * MEMORY  # of a geometric series
    torch.testing.assert_close(code[-1], total * mean / (1 + total), rtol=0, atol=1e-9)


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
        loss = (found["predicted"] - found["change"]).square().mean()
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
