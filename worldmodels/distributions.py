"""Symlog, two-hot and categorical distributions as pure functions.

Symbols: N any leading dimensions; K bins; C classes; S categorical latents. Latents are *class-major* [..., C, S]:
a softmax over a short last dimension is many times slower on a CPU than over the one before it.
"""

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
    go to the outermost one (arXiv 2301.04104, equation 10). Only the logits concerned are gathered, all at once.
    """
    targets = targets.detach().contiguous()
    last = bins.shape[0] - 1
    count = torch.searchsorted(bins, targets, right=True)
    below, above = (count - 1).clamp(0, last), count.clamp(0, last)
    to_below, to_above = (bins[below] - targets).abs(), (bins[above] - targets).abs()
    outside = below == above
    to_below, to_above = torch.where(outside, 1.0, to_below), torch.where(outside, 1.0, to_above)
    weight = to_above / (to_below + to_above)
    low, high = logits.gather(-1, torch.cat([below, above], -1)).chunk(2, -1)
    return logits.logsumexp(-1, keepdim=True) - weight * low - (1 - weight) * high


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
    return one_hot(scores.argmax(-2), probabilities.shape[-2], probabilities)


def straight_through(
    sample: Float[Tensor, "*N C S"], probabilities: Float[Tensor, "*N C S"]
) -> Float[Tensor, "*N C S"]:
    """The value of ``sample`` with the gradient of ``probabilities`` (arXiv 1308.3432)."""
    return sample + (probabilities - probabilities.detach())


def categorical_kl(p: Float[Tensor, "*N C S"], q: Float[Tensor, "*N C S"]) -> Float[Tensor, "*N"]:
    """KL(p || q) in nats of independent categoricals given by positive probabilities, summed over latents."""
    return (p * (p.log() - q.log())).sum((-2, -1))


def gumbel(shape: tuple[int, ...], generator: torch.Generator, device: torch.device | str) -> Tensor:
    """Standard Gumbel noise, -log(E) of unit exponentials E."""
    draws = torch.empty(shape, device=device).exponential_(generator=generator)
    return draws.clamp_min_(1e-30).log_().neg_()


def masked(x: Float[Tensor, " B *N"], keep: Bool[Tensor, " B"]) -> Float[Tensor, " B *N"]:
    """Zero the rows of x whose ``keep`` is false."""
    return torch.where(keep.view(-1, *[1] * (x.dim() - 1)), x, torch.zeros((), dtype=x.dtype, device=x.device))
