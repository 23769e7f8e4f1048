"""Symlog, two-hot and categorical distributions as pure functions.

Symbols: N any leading dimensions; K bins; C classes; S categorical latents. Latents are *class-major* [..., C, S]:
a softmax over a short last dimension is many times slower on a CPU than over the one before it.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def symlog(x: Tensor) -> Tensor:
    """sign(x) ln(1 + |x|) (arXiv 2301.04104, equation 9)."""
    return torch.sign(x) * torch.log1p(torch.abs(x))


def symexp(x: Tensor) -> Tensor:
    """sign(x) (exp(|x|) - 1), the inverse of symlog (arXiv 2301.04104, equation 9)."""
    return torch.sign(x) * torch.expm1(torch.abs(x))


def symexp_bins(count: int) -> Float[Tensor, " K"]:
    """Return ``count`` (odd) values symexp(linspace(-20, 20)), exactly antisymmetric around the middle one."""
    half = symexp(torch.linspace(-20.0, 0.0, (count - 1) // 2 + 1))
    return torch.cat([half, -half[:-1].flip(0)])


def twohot_mean(logits: Float[Tensor, "*N K"], bins: Float[Tensor, " K"]) -> Float[Tensor, "*N"]:
    """Expected value of the two-hot distribution.

    Probabilities of opposite bins are subtracted before they are weighted, so that equal ones give exactly 0
    although the largest bins are near 5e8 (danijar/dreamerv3, ``outs.TwoHot.pred``, pairs them likewise).
    """
    probabilities = F.softmax(logits, -1)
    middle = bins.shape[0] // 2
    differences = probabilities[..., middle + 1 :] - probabilities[..., :middle].flip(-1)
    return (differences * bins[middle + 1 :]).sum(-1)  # not @, which autocast would round


def twohot_loss(
    logits: Float[Tensor, "*N K"], targets: Float[Tensor, "*N J"], bins: Float[Tensor, " K"]
) -> Float[Tensor, "*N J"]:
    """Cross-entropy between the two-hot encoding of each of J targets (raw space, detached) and the same ``logits``.

    The two bins around a target get weights in inverse proportion to their distance; targets outside the bins
    go to the outermost one (arXiv 2301.04104, equation 10); of NaN the loss is NaN. Only the logits concerned are
    gathered, all at once.
    """
    targets = targets.detach().contiguous()
    last = bins.shape[0] - 1
    count = torch.searchsorted(bins, targets, right=True)
    below, above = (count - 1).clamp(0, last), count.clamp(0, last)
    to_below, to_above = (bins[below] - targets).abs(), (bins[above] - targets).abs()
    outside = below == above
    to_below, to_above = torch.where(outside, 1.0, to_below), torch.where(outside, 1.0, to_above)
    weight = to_above / (to_below + to_above)
    weight = torch.where(targets.isnan(), targets, weight)  # searchsorted takes NaN for the largest number
    return _TwoHotLoss.apply(logits, torch.cat([below, above], -1), torch.cat([weight, 1 - weight], -1))[0]


class _TwoHotLoss(torch.autograd.Function):
    """log sum exp(logits) - weight . logits[index] for J targets with two indices each, [..., 2 J].

    By hand, since the gradient, softmax(logits) - two-hot, is the forward pass's softmax changed in a few places:
    autograd would go through all logits ten times.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor, index: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        probabilities = F.softmax(logits, -1)
        low, high = (logits.gather(-1, index) * weight).chunk(2, -1)
        # The most likely bin's probability is at least 1/K, so that its logarithm is exact.
        normalizer = logits.amax(-1, keepdim=True) - probabilities.amax(-1, keepdim=True).log()
        return normalizer - (low + high), probabilities

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(output[1])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(output[1], *inputs[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: None) -> tuple[Tensor, None, None]:
        probabilities, index, weight = ctx.saved_tensors
        change = torch.cat([gradient, gradient], -1) * weight
        return (probabilities * gradient.sum(-1, keepdim=True)).scatter_add_(-1, index, -change), None, None


def one_hot(index: Int[Tensor, "*N S"], classes: int, like: Tensor) -> Float[Tensor, "*N C S"]:
    """Class-major one-hot vectors in the dtype of ``like``, by comparison (``F.one_hot`` fails under vmap)."""
    return (index.unsqueeze(-2) == torch.arange(classes, device=index.device).unsqueeze(-1)).to(like.dtype)


def unimix(logits: Float[Tensor, "*N C S"], share: float) -> Float[Tensor, "*N C S"]:
    """Probabilities of the softmax over classes mixed with ``share`` of the uniform distribution."""
    return (1 - share) * F.softmax(logits, -2) + share / logits.shape[-2]


def sample_one_hot(
    probabilities: Float[Tensor, "*N C S"], noise: Float[Tensor, "*N C S"] | None
) -> Float[Tensor, "*N C S"]:
    """One-hot samples without gradient by the Gumbel-max trick: argmax(log p + noise) over the classes.

    Gumbel noise gives exact samples; zero noise, or None, gives the mode.
    """
    scores = probabilities.detach()
    if noise is not None:
        scores = scores.log() + noise
    # max also gives the first of equals, and is many times faster on a CPU than argmax over this dimension.
    return one_hot(scores.max(-2).indices, probabilities.shape[-2], probabilities)


def straight_through(
    sample: Float[Tensor, "*N C S"], probabilities: Float[Tensor, "*N C S"]
) -> Float[Tensor, "*N C S"]:
    """The value of ``sample`` with the gradient of ``probabilities`` (arXiv 1308.3432)."""
    return sample + (probabilities - probabilities.detach())


def categorical_kl(p: Float[Tensor, "*N C S"], q: Float[Tensor, "*N C S"]) -> Float[Tensor, "*N"]:
    """KL(p || q) in nats of independent categoricals given by positive probabilities, summed over latents."""
    return (p * (p.log() - q.log())).sum((-2, -1))


def gumbel(shape: tuple[int, ...], generator: torch.Generator, device: torch.device | str) -> Tensor:
    """Standard Gumbel noise, -log(-log(U)) of uniform U.

    A fraction of the time of exponential draws on a CPU. U is a multiple of 2^-24 (float32), so that the noise is at
    most 16.6 and, by the bound, at least -2.9.
    """
    draws = torch.empty(shape, device=device).uniform_(generator=generator)
    return draws.clamp_min_(2.0**-25).log_().neg_().log_().neg_()


def masked(x: Float[Tensor, " B *N"], keep: Bool[Tensor, " B"]) -> Float[Tensor, " B *N"]:
    """Zero the rows of x whose ``keep`` is false."""
    return torch.where(keep.view(-1, *[1] * (x.dim() - 1)), x, torch.zeros((), dtype=x.dtype, device=x.device))
