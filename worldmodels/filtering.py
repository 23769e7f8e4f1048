"""Filtering of replayed sequences, with a derivative written by hand.

Autograd would keep some fifty nodes per step and make one small product per weight and step. `filter_sequence` runs
the steps without a graph. Its backward pass first computes all local derivatives at once, then walks the gradients
of the activations back, a product or two per layer and step, and last makes every weight's gradient by one product
over all steps.

Symbols: T time; N rows; D deter; G blocks; h hidden; C classes; S categorical latents; L layers of the posterior.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from worldmodels.distributions import sample_one_hot, unimix
from worldmodels.layers import inverse_rms
from worldmodels.recurrence import (
    CellWeights,
    PosteriorWeights,
    activate,
    block_product,
    cell,
    joined,
    posterior,
    product,
    split,
)


class Saved(NamedTuple):
    """What the derivative of a step needs; stacked, entries have a leading T."""

    inputs: Float[Tensor, "N 2 h"]  # embedded deter and stoch, before the norm
    core: Float[Tensor, "N D"]  # before the norm
    gates: Float[Tensor, "G N 3D_G"]  # r, twice the raw candidate, u
    posterior: Float[Tensor, "L N h"]  # before the norms


def filter_sequence(
    deter: Float[Tensor, "N D"],
    stoch: Float[Tensor, "N CS"],
    keep: Float[Tensor, "T N"],
    actions: Float[Tensor, "T N h"],
    tokens: Float[Tensor, "T N h"],
    noise: Float[Tensor, "T N C S"] | None,
    classes: int,
    share: float,
    cell_weights: CellWeights,
    posterior_weights: PosteriorWeights,
) -> tuple[Float[Tensor, "T N D"], Float[Tensor, "T N C S"], Float[Tensor, "T N C S"], Float[Tensor, "T N C S"]]:
    """Filter sequences: deter, stoch (with straight-through gradient), probabilities and logits of the posterior.

    Args:
        deter, stoch: the latent before the first step.
        keep: 0 where the step begins an episode and the latent before it counts as zero, else 1.
        actions: embedded actions before each step.
        tokens: the share of the tokens in the posterior's first layer, bias included.
        noise: Gumbel noise, or None for the modes.
        classes: C.
        share: of the uniform distribution in the probabilities.
        cell_weights, posterior_weights: of the networks.

    Returns:
        The four; the logits carry no gradient.
    """
    weights = (*cell_weights, *posterior_weights)
    return _Filter.apply(deter, stoch, keep, actions, tokens, noise, classes, share, *weights)[:4]


def _run(
    deter: Tensor,
    stoch: Tensor,
    keep: Tensor,
    actions: Tensor,
    tokens: Tensor,
    noise: Tensor | None,
    classes: int,
    share: float,
    *weights: Tensor,
) -> tuple[Tensor, ...]:
    """The steps of `filter_sequence`: its four outputs and the entries of `Saved`."""
    recurrent, observing = _unpack(weights)
    steps = []
    for t in range(len(keep)):
        alive = keep[t].unsqueeze(-1)
        deter, saved = cell(recurrent, deter * alive, stoch * alive, actions[t])
        flat, layers = posterior(observing, deter, tokens[t])
        logits = flat.unflatten(1, (classes, -1))
        probabilities = unimix(logits, share)
        sample = sample_one_hot(probabilities, None if noise is None else noise[t])
        stoch = sample.flatten(1).to(deter.dtype)
        steps.append((deter, sample, probabilities, logits, *saved, layers))
    return tuple(torch.stack(values) for values in zip(*steps, strict=True))


class _Filter(torch.autograd.Function):
    """`_run` with its derivative by hand."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*arguments: Any) -> tuple[Tensor, ...]:
        return _run(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        deter, stoch, keep, actions, _, _, _, share, *weights = inputs
        ctx.share = share
        ctx.mark_non_differentiable(*output[3:])
        ctx.set_materialize_grads(False)  # or there would be zeros for all that is saved
        ctx.save_for_backward(deter, stoch, keep, actions, *weights, *output[:3], *output[4:])

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        first_deter, first_stoch, keep, actions, *rest = ctx.saved_tensors
        count = len(CellWeights._fields) + len(PosteriorWeights._fields)
        weights, (deter, sample, probabilities, *values) = _unpack(tuple(rest[:count])), rest[count:]
        saved = Saved(*values)
        past = _before(first_deter, deter, keep), _before(first_stoch, sample.flatten(2).to(deter.dtype), keep)
        local = _local_derivatives(weights, saved, past[0], probabilities, ctx.share)
        of_deter = torch.zeros_like(deter) if grads[0] is None else grads[0]
        of_samples = [grad for grad in grads[1:3] if grad is not None]  # straight through to the probabilities
        of_probabilities = sum(of_samples) if of_samples else torch.zeros_like(probabilities)
        walked = _walk_back(weights, saved, local, keep, of_deter, of_probabilities)
        of_cell = _cell_gradients(weights[0], saved, local, past, actions, walked)
        of_posterior = _posterior_gradients(weights[1], saved, local, deter, walked)
        tokens = walked.posterior[:, 0]
        return (walked.deter, walked.stoch, None, walked.actions, tokens, None, None, None, *of_cell, *of_posterior)


class _Local(NamedTuple):
    """Derivatives of all T steps' nonlinearities."""

    inputs: Tensor  # of silu, before the scale of the norm [T, N, 2, h]
    core: Tensor  # [T, N, D]
    posterior: Tensor  # [T, L, N, h]
    deter: Tensor  # 1 - u [T, N, D]
    gates: Tensor  # of the following deter with respect to the three gates [T, G, N, 3, D/G]
    softmax: Tensor  # [T, N, C, S]
    mixed: Tensor  # the same times its share in the probabilities


class _Walked(NamedTuple):
    """Gradients of the latent before the first step and of all T steps' values.

    ``<value>_out`` belongs to the result of a norm and SiLU, ``<value>`` to what goes into the norm.
    """

    deter: Tensor  # [N, D]
    stoch: Tensor  # [N, CS]
    actions: Tensor  # [T, N, h]
    inputs_out: Tensor  # [T, N, 2, h]
    inputs: Tensor
    core_out: Tensor  # [T, N, D]
    core: Tensor
    gates: Tensor  # [T, G, N, 3D/G]
    posterior_out: Tensor  # [T, L, N, h]
    posterior: Tensor
    logits: Tensor  # [T, N, CS]


def _local_derivatives(
    weights: tuple[CellWeights, PosteriorWeights],
    saved: Saved,
    past: Float[Tensor, "T N D"],
    probabilities: Float[Tensor, "T N C S"],
    share: float,
) -> _Local:
    recurrent, observing = weights
    blocks = recurrent.own.shape[0]
    reset, candidate, update = saved.gates.chunk(3, -1)
    half = torch.sigmoid(reset * candidate)  # the proposal is twice this less one
    change = 2 * half - 1 - past.unflatten(2, (blocks, -1)).transpose(1, 2)
    proposal = 2 * update * half * (1 - half)
    gates = [proposal * candidate * reset * (1 - reset), proposal * reset, change * update * (1 - update)]
    softmax = (probabilities - share / probabilities.shape[-2]) / (1 - share)
    return _Local(
        inputs=_silu_derivative(saved.inputs, recurrent.in_scale),
        core=_silu_derivative(saved.core, recurrent.core_scale),
        posterior=_silu_derivative(saved.posterior, observing.scales.unsqueeze(1)),
        deter=(1 - update).transpose(1, 2).flatten(2),
        gates=torch.stack(gates, -2),
        softmax=softmax,
        mixed=softmax * (1 - share),
    )


def _walk_back(
    weights: tuple[CellWeights, PosteriorWeights],
    saved: Saved,
    local: _Local,
    keep: Float[Tensor, "T N"],
    of_deter: Float[Tensor, "T N D"],
    of_probabilities: Float[Tensor, "T N C S"],
) -> _Walked:
    """Carry the gradients of deter and probabilities (stoch's included) back through all steps."""
    recurrent, observing = weights
    blocks, hidden = recurrent.own.shape[0], recurrent.in_scale.shape[1]
    of_inputs = _ActivateBack(saved.inputs, recurrent.in_scale, local.inputs)
    of_core = _ActivateBack(saved.core, recurrent.core_scale, local.core)
    of_posterior = _ActivateBack(saved.posterior, observing.scales.unsqueeze(1), local.posterior)
    deter, stoch = torch.zeros_like(of_deter[0]), torch.zeros_like(of_probabilities[0])
    steps: list[tuple[Tensor, ...]] = []
    for t in range(len(keep) - 1, -1, -1):
        mixed = (of_probabilities[t] + stoch) * local.mixed[t]
        logits = torch.addcmul(mixed, local.softmax[t], mixed.sum(-2, keepdim=True), value=-1).flatten(1)
        layers_out, layers = [product(logits, observing.out.t())], []
        for layer in range(len(observing.scales) - 1, -1, -1):
            layers.append(of_posterior(layers_out[-1], (t, layer)))
            if layer:
                layers_out.append(product(layers[-1], observing.hidden[layer - 1].t()))
        following = product(layers[-1], observing.deter_in.t(), of_deter[t] + deter)
        gates = (split(following, blocks).unsqueeze(-2) * local.gates[t]).flatten(-2)
        core_out = joined(block_product(gates, recurrent.gates.mT)).flatten(1)
        core = of_core(core_out, t)
        shared = product(core, recurrent.shared.t())
        inputs_out = shared[:, : 2 * hidden].unflatten(1, (2, hidden))
        inputs = of_inputs(inputs_out, t)
        own = joined(block_product(split(core, blocks), recurrent.own.mT)).flatten(1)
        alive = keep[t].unsqueeze(-1)
        deter = torch.addcmul(own, following, local.deter[t])
        deter = product(inputs[:, 0], recurrent.deter_in.t(), deter) * alive
        stoch = (product(inputs[:, 1], recurrent.stoch_in.t()) * alive).view_as(stoch)
        observed = torch.stack(layers_out[::-1]), torch.stack(layers[::-1])
        steps.append((shared[:, 2 * hidden :], inputs_out, inputs, core_out, core, gates, *observed, logits))
    return _Walked(deter, stoch.flatten(1), *(torch.stack(values) for values in zip(*steps[::-1], strict=True)))


class _ActivateBack:
    """Derivative of `activate` with respect to x, for all steps' x at once; ``slope`` is that of its SiLU."""

    def __init__(self, x: Float[Tensor, "T *N I"], scale: Tensor, slope: Float[Tensor, "T *N I"]) -> None:
        inverse = inverse_rms(x)
        self.unit, self.factor = x * inverse, slope * (scale * inverse)

    def __call__(self, gradient: Float[Tensor, "*N I"], step: int | tuple[int, int]) -> Float[Tensor, "*N I"]:
        weighted, unit = gradient * self.factor[step], self.unit[step]
        along = (weighted * unit).sum(-1, keepdim=True)
        return torch.addcmul(weighted, unit, along, value=-1 / unit.shape[-1])


def _cell_gradients(
    weights: CellWeights,
    saved: Saved,
    local: _Local,
    past: tuple[Float[Tensor, "T N D"], Float[Tensor, "T N CS"]],
    actions: Float[Tensor, "T N h"],
    walked: _Walked,
) -> CellWeights:
    """Gradients of the weights of all steps at once."""
    blocks = weights.own.shape[0]
    deter, stoch = (value.flatten(0, 1) for value in past)
    shared = torch.cat([activate(saved.inputs, weights.in_scale).flatten(2), actions], -1).flatten(0, 1)
    hidden = activate(saved.core, weights.core_scale).flatten(0, 1)
    inputs, core = walked.inputs.flatten(0, 1), walked.core.flatten(0, 1)
    gates = walked.gates.transpose(0, 1).flatten(1, 2)
    gradients = CellWeights(
        deter_in=_outer(deter, inputs[:, 0], weights.deter_in),
        deter_bias=inputs[:, 0].sum(0),
        stoch_in=_outer(stoch, inputs[:, 1], weights.stoch_in),
        stoch_bias=inputs[:, 1].sum(0),
        in_scale=_scale_gradient(walked.inputs_out * local.inputs, saved.inputs).sum((0, 1)),
        own=_outer(split(deter, blocks), split(core, blocks), weights.own),
        shared=_outer(shared, core, weights.shared),
        core_bias=core.sum(0),
        core_scale=_scale_gradient(walked.core_out * local.core, saved.core).sum((0, 1)),
        gates=_outer(split(hidden, blocks), gates, weights.gates),
        gates_bias=gates.sum(1, keepdim=True),
    )
    return CellWeights(*(value.to(weight.dtype) for value, weight in zip(gradients, weights, strict=True)))


def _posterior_gradients(
    weights: PosteriorWeights, saved: Saved, local: _Local, deter: Float[Tensor, "T N D"], walked: _Walked
) -> PosteriorWeights:
    """The same for the posterior."""
    outputs = activate(saved.posterior, weights.scales.unsqueeze(1)).transpose(0, 1).flatten(1, 2)
    inputs, logits = walked.posterior.transpose(0, 1).flatten(1, 2), walked.logits.flatten(0, 1)
    gradients = PosteriorWeights(
        deter_in=_outer(deter.flatten(0, 1), inputs[0], weights.deter_in),
        scales=_scale_gradient(walked.posterior_out * local.posterior, saved.posterior).sum((0, 2)),
        hidden=_outer(outputs[:-1], inputs[1:], weights.hidden),
        biases=inputs[1:].sum(1),
        out=_outer(outputs[-1], logits, weights.out),
        out_bias=logits.sum(0),
    )
    return PosteriorWeights(*(value.to(weight.dtype) for value, weight in zip(gradients, weights, strict=True)))


def _silu_derivative(x: Float[Tensor, "*N I"], scale: Float[Tensor, "*M I"]) -> Float[Tensor, "*N I"]:
    """Derivative of SiLU where `_activate` evaluates it."""
    scaled = x * inverse_rms(x) * scale
    sigmoid = torch.sigmoid(scaled)
    return sigmoid * (1 + scaled * (1 - sigmoid))


def _scale_gradient(gradient: Float[Tensor, "*N I"], x: Float[Tensor, "*N I"]) -> Float[Tensor, "*N I"]:
    return gradient * x * inverse_rms(x)


def _outer(x: Float[Tensor, "*G N I"], y: Float[Tensor, "*G N O"], weight: Tensor) -> Float[Tensor, "*G I O"]:
    """Sum over N of the outer products, in the precision of ``weight``."""
    return x.mT.to(weight.dtype) @ y.to(weight.dtype)


def _before(first: Tensor, outputs: Float[Tensor, "T N I"], keep: Float[Tensor, "T N"]) -> Float[Tensor, "T N I"]:
    """What each step started from."""
    return torch.cat([first.unsqueeze(0), outputs[:-1]]) * keep.unsqueeze(-1)


def _unpack(weights: tuple[Tensor, ...]) -> tuple[CellWeights, PosteriorWeights]:
    count = len(CellWeights._fields)
    return CellWeights(*weights[:count]), PosteriorWeights(*weights[count:])
