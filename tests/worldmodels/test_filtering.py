"""The filter and its derivative, written by hand, against the textbook formulas and autograd through them."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

from worldmodels.filtering import filter_sequence
from worldmodels.recurrence import CellWeights, PosteriorWeights

T, N, G, WIDTH, HIDDEN, CLASSES, STOCH = 5, 3, 2, 4, 6, 3, 5
DETER, FLAT = G * WIDTH, CLASSES * STOCH
SHARE = 0.01


def draw(*shape: int, seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape) * 0.7)


def make_arguments(layers: int, noise: bool) -> list[Tensor | None | int | float]:
    """Arguments of `filter_sequence`, flat: resets in the middle, no bias zero and no scale one."""
    cell = [(DETER, HIDDEN), (HIDDEN,), (FLAT, HIDDEN), (HIDDEN,), (2, HIDDEN), (G, WIDTH, WIDTH), (3 * HIDDEN, DETER)]
    cell += [(DETER,), (DETER,), (G, WIDTH, 3 * WIDTH), (G, 1, 3 * WIDTH)]
    posterior = [(DETER, HIDDEN), (layers, HIDDEN), (layers - 1, HIDDEN, HIDDEN), (layers - 1, HIDDEN)]
    posterior += [(HIDDEN, FLAT), (FLAT,)]
    weights = [draw(*shape, seed=number) for number, shape in enumerate(cell + posterior)]
    keep = torch.ones(T, N, dtype=torch.float64)
    keep[0, 1] = keep[2, 0] = keep[3, 2] = 0.0
    inputs = [draw(N, DETER, seed=100), draw(N, FLAT, seed=101), keep]
    inputs += [draw(T, N, HIDDEN, seed=102), draw(T, N, HIDDEN, seed=103)]
    gumbel = draw(T, N, CLASSES, STOCH, seed=104) if noise else None
    return [*inputs, gumbel, CLASSES, SHARE, *weights]


def split(arguments: list) -> tuple:
    count = len(CellWeights._fields)
    return *arguments[:8], CellWeights(*arguments[8 : 8 + count]), PosteriorWeights(*arguments[8 + count :])


def activated(x: Tensor, scale: Tensor) -> Tensor:
    normalized = x / (x.square().mean(-1, keepdim=True) + 1e-4).sqrt() * scale
    return normalized / (1 + (-normalized).exp())


def textbook(arguments: list) -> tuple[Tensor, Tensor, Tensor]:
    """deter, stoch and probabilities, block by block and with a hyperbolic tangent, for autograd to go through."""
    deter, stoch, keep, actions, tokens, noise, _, _, cell, observing = split(arguments)
    outputs = []
    for t in range(T):
        deter, stoch = deter * keep[t, :, None], stoch * keep[t, :, None]
        from_deter = activated(deter @ cell.deter_in + cell.deter_bias, cell.in_scale[0])
        from_stoch = activated(stoch @ cell.stoch_in + cell.stoch_bias, cell.in_scale[1])
        shared = torch.cat([from_deter, from_stoch, actions[t]], -1) @ cell.shared + cell.core_bias
        blocks = [slice(g * WIDTH, (g + 1) * WIDTH) for g in range(G)]
        own = torch.cat([deter[:, block] @ cell.own[g] for g, block in enumerate(blocks)], -1)
        hidden = activated(own + shared, cell.core_scale)
        following = []
        for g, block in enumerate(blocks):
            reset, candidate, update = (hidden[:, block] @ cell.gates[g] + cell.gates_bias[g]).chunk(3, -1)
            # The weights hold twice the candidate and the update less one.
            proposal = torch.tanh(torch.sigmoid(reset) * candidate / 2)
            following.append(torch.sigmoid(update) * proposal + (1 - torch.sigmoid(update)) * deter[:, block])
        deter = torch.cat(following, -1)
        x = activated(deter @ observing.deter_in + tokens[t], observing.scales[0])
        for weight, bias, scale in zip(observing.hidden, observing.biases, observing.scales[1:], strict=True):
            x = activated(x @ weight + bias, scale)
        logits = (x @ observing.out + observing.out_bias).view(N, CLASSES, STOCH)
        probabilities = (1 - SHARE) * logits.exp() / logits.exp().sum(1, keepdim=True) + SHARE / CLASSES
        chosen = (probabilities.log() + (0 if noise is None else noise[t])).argmax(1)
        sample = torch.nn.functional.one_hot(chosen, CLASSES).mT + probabilities - probabilities.detach()
        stoch = sample.flatten(1)
        outputs.append((deter, sample, probabilities))
    return tuple(torch.stack(values) for values in zip(*outputs, strict=True))


def weighted_sum(outputs: tuple[Tensor, ...]) -> Tensor:
    """A scalar to which each entry of each output contributes with a weight of its own."""
    return sum((value * draw(*value.shape, seed=200 + n)).sum() for n, value in enumerate(outputs[:3]))


@pytest.mark.parametrize("noise", [True, False])
@pytest.mark.parametrize("layers", [1, 3])
def test_gradients_equal_those_of_autograd(layers: int, noise: bool) -> None:
    arguments = make_arguments(layers, noise)
    wanted = [n for n, value in enumerate(arguments) if isinstance(value, Tensor) and n not in (2, 5)]
    for n in wanted:
        arguments[n].requires_grad_()
    leaves = [arguments[n] for n in wanted]
    by_hand = filter_sequence(*split(arguments))
    by_autograd = textbook(arguments)
    for ours, theirs in zip(by_hand, by_autograd, strict=False):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)
    ours = torch.autograd.grad(weighted_sum(by_hand), leaves)
    theirs = torch.autograd.grad(weighted_sum(by_autograd), leaves, materialize_grads=True)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
    assert all(gradient.abs().sum() > 0 for gradient, leaf in zip(ours, leaves, strict=True) if leaf.numel())


@pytest.mark.parametrize("used", [0, 1, 2])
def test_gradients_of_one_output_alone(used: int) -> None:
    """A caller may use some of the outputs only."""
    arguments = make_arguments(1, noise=True)
    arguments[4].requires_grad_()
    ours = torch.autograd.grad(filter_sequence(*split(arguments))[used].cos().sum(), arguments[4])
    theirs = torch.autograd.grad(textbook(arguments)[used].cos().sum(), arguments[4])
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)


def test_runs_under_vmap_of_grad() -> None:
    """Two members with weights of their own get the gradients that each would get alone."""
    one, two = make_arguments(2, noise=True), make_arguments(2, noise=True)
    two = [value * 0.5 if isinstance(value, Tensor) and n > 7 else value for n, value in enumerate(two)]

    def loss(weights: list[Tensor], head: list) -> Tensor:
        return weighted_sum(filter_sequence(*split([*head, *weights])))

    stacked = [torch.stack(pair) for pair in zip(one[8:], two[8:], strict=True)]
    together = vmap(grad(loss), in_dims=(0, None))(stacked, one[:8])
    for member, arguments in enumerate((one, two)):
        alone = grad(loss)(arguments[8:], arguments[:8])
        for ours, theirs in zip(together, alone, strict=True):
            torch.testing.assert_close(ours[member], theirs, rtol=1e-9, atol=1e-11)
