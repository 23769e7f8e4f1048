"""One step of the recurrent cell and of the posterior, as plain functions of weights.

Elementwise work is done in the dtype of the activations, products in that of the weights.

Symbols: N rows; D deter; G blocks; h hidden; C classes; S categorical latents; L layers of the posterior.
Source: danijar/dreamerv3 at e3f0224, ``rssm.RSSM._core`` and ``rssm.RSSM.observe``.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from worldmodels.layers import full_precision, inverse_rms


class CellWeights(NamedTuple):
    """Weights of one step of the sequence model, laid out for a loop; made once per update or rollout.

    The columns of ``gates`` are reset, candidate times two, update, and the update's bias is less by one (see `cell`).
    """

    deter_in: Float[Tensor, "D h"]
    deter_bias: Float[Tensor, " h"]
    stoch_in: Float[Tensor, "CS h"]
    stoch_bias: Float[Tensor, " h"]
    in_scale: Float[Tensor, "2 h"]
    own: Float[Tensor, "G D_G D_G"]
    shared: Float[Tensor, "3h D"]
    core_bias: Float[Tensor, " D"]
    core_scale: Float[Tensor, " D"]
    gates: Float[Tensor, "G D_G 3D_G"]
    gates_bias: Float[Tensor, "G 1 3D_G"]


class PosteriorWeights(NamedTuple):
    """Weights of the posterior behind its first layer's product with the tokens."""

    deter_in: Float[Tensor, "D h"]
    scales: Float[Tensor, "L h"]
    hidden: Float[Tensor, "L-1 h h"]
    biases: Float[Tensor, "L-1 h"]
    out: Float[Tensor, "h CS"]
    out_bias: Float[Tensor, " CS"]


def cell(
    weights: CellWeights, deter: Float[Tensor, "N D"], stoch: Float[Tensor, "N CS"], action: Float[Tensor, "N h"]
) -> tuple[Float[Tensor, "N D"], tuple[Tensor, Tensor, Tensor]]:
    """One step of the sequence model from a latent and an embedded action; also what `Saved` holds of it.

    r = sigmoid(reset); c = tanh(r * candidate); u = sigmoid(update - 1); deter <- u c + (1 - u) deter. The
    hyperbolic tangent is computed as 2 sigmoid(2x) - 1, on a CPU several times faster; its factor 2 and the 1 that the
    update loses are in the weights. What is large is changed in place: fresh memory costs more than the arithmetic.
    """
    blocks = weights.own.shape[0]
    inputs = torch.stack(
        [_affine(deter, weights.deter_in, weights.deter_bias), _affine(stoch, weights.stoch_in, weights.stoch_bias)], 1
    )
    shared = torch.cat([activate(inputs, weights.in_scale).flatten(1), action], 1)
    core = _affine(shared, weights.shared, weights.core_bias)
    core.unflatten(1, (blocks, -1)).add_(joined(block_product(split(deter, blocks), weights.own)))
    hidden = split(activate(core, weights.core_scale), blocks)
    gates = block_product(hidden, weights.gates).add_(weights.gates_bias)
    reset, candidate, update = gates.chunk(3, -1)
    reset.sigmoid_()
    update.sigmoid_()
    proposal = (reset * candidate).sigmoid_().mul_(2).sub_(1)
    following = torch.lerp(deter.unflatten(1, (blocks, -1)), joined(proposal), joined(update))
    return following.flatten(1), (inputs, core, gates)


def posterior(
    weights: PosteriorWeights, deter: Float[Tensor, "N D"], token: Float[Tensor, "N h"]
) -> tuple[Float[Tensor, "N CS"], Float[Tensor, "L N h"]]:
    """Logits of the latent from deter and the first layer's share of the tokens (``token``, bias included)."""
    layers = [product(deter, weights.deter_in, token)]
    for weight, bias, scale in zip(weights.hidden, weights.biases, weights.scales, strict=False):
        layers.append(_affine(activate(layers[-1], scale), weight, bias))
    logits = _affine(activate(layers[-1], weights.scales[-1]), weights.out, weights.out_bias)
    return full_precision(logits), torch.stack(layers)


def activate(x: Float[Tensor, "*N I"], scale: Float[Tensor, "*M I"]) -> Float[Tensor, "*N I"]:
    """RMS norm and SiLU."""
    return F.silu((x * inverse_rms(x)).mul_(scale), inplace=True)


def _affine(x: Float[Tensor, "N I"], weight: Float[Tensor, "I O"], bias: Float[Tensor, " O"]) -> Float[Tensor, "N O"]:
    if x.dtype == weight.dtype:
        return torch.addmm(bias, x, weight)
    return torch.addmm(bias, x.to(weight.dtype), weight).to(x.dtype)


def product(
    x: Float[Tensor, "N I"], weight: Float[Tensor, "I O"], plus: Float[Tensor, "N O"] | None = None
) -> Float[Tensor, "N O"]:
    """Matrix product, added to ``plus``."""
    if x.dtype != weight.dtype:
        result = torch.mm(x.to(weight.dtype), weight).to(x.dtype)
        return result if plus is None else plus + result
    return torch.mm(x, weight) if plus is None else torch.addmm(plus, x, weight)


def block_product(x: Float[Tensor, "G N I"], weight: Float[Tensor, "G I O"]) -> Float[Tensor, "G N O"]:
    """A matrix product for each block."""
    return torch.bmm(x, weight) if x.dtype == weight.dtype else torch.bmm(x.to(weight.dtype), weight).to(x.dtype)


def split(x: Float[Tensor, "N D"], blocks: int) -> Float[Tensor, "G N D_G"]:
    """View the blocks of each row side by side."""
    return x.unflatten(1, (blocks, -1)).transpose(0, 1)


def joined(x: Float[Tensor, "G N I"]) -> Float[Tensor, "N G I"]:
    """View each row with its blocks."""
    return x.transpose(0, 1)
