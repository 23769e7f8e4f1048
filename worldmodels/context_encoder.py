"""The context inferred from transitions, for agents that are not told it.

A network predicts the next change of the observation as ``base + basis @ code``, where base and basis depend on the
situation and the action, and the code [Z] on the world alone. Given the networks the code is then a linear regression:
under a unit normal prior its posterior is known in closed form, from all transitions of the episode so far, and it
sharpens with each of them. Old evidence fades, so that a code can follow a world that changes. The code that the agent
is given is the posterior's mean, zero where nothing has been seen, and bounded: a regression follows a world however
far it lies from those of training, but networks that were never shown such codes do not.

What trains base, basis and noise is the probability of every next change under the posterior before it (forward
dynamics), through the regression. No label of the context takes part: the probe, which tells how much of the true
context the code holds, learns beside it and gives nothing back. The modules that see the code send it no gradient.

Sources: arXiv 1807.08912 (ALPaCA, eqs. 3 to 6: Bayesian regression on learned features, trained by its posterior
predictive; here with a learned diagonal noise, a fixed prior, and fading as in recursive least squares); forward
dynamics as the only teacher of a detached code as in arXiv 2508.20294 (DALI), where the encoder is a transformer.

Symbols: B batch; T time; N any leading dimensions; Y measured width; I the part of it that is of images; A action;
Z code; F context.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from worldmodels.config import ContextEncoderConfig
from worldmodels.layers import Head, Linear

CHANGE_RATE = 0.01  # of the moving mean square of changes, per update
SMALLEST_VARIANCE = 1e-5  # of the noise, in mean squares of changes: 3 thousandths of a usual change
LIMIT = 2.0  # of a code's entries, in standard deviations of the prior
_NO_CHANGE = 1e-12  # a mean square below this
_NOISE_SPEED = 10.0  # the optimizer's steps are of one size for all parameters; the noise falls by powers of ten


class ContextEncoder(nn.Module):
    """Forward dynamics that are linear in the code, the regression for the code, and the probe.

    Args:
        config: sizes.
        units: width of the layers.
        measured: Y, width of what is measured of an observation (`WorldModel.measure`).
        images: I, how many of its last entries are of images. One image shows no motion, so their last change is part
            of the situation too.
        action: A.
        context: F, of the true context that the probe tells.
    """

    def __init__(
        self, config: ContextEncoderConfig, units: int, measured: int, images: int, action: int, context: int
    ) -> None:
        super().__init__()
        self.size, self.measured, self.images = config.size, measured, images
        self.fade = 1.0 - 1.0 / config.memory
        known = measured + images + action
        self.base = Head(known, units, config.layers, measured)
        self.basis = Head(known, units, config.layers, measured * self.size)
        self.noise = Noise(measured)
        self.probe = Linear(self.size, context)

    def initial(self, batch: int, like: Tensor) -> dict[str, Tensor]:
        """Return the belief before any transition.

        ``measured`` [B, Y] and ``change`` [B, I] of the last observation and the ``code`` [B, Z] after it; of the
        evidence the summed ``precision`` [B, Z, Z] and ``moment`` [B, Z].
        """
        return {
            "measured": like.new_zeros(batch, self.measured),
            "change": like.new_zeros(batch, self.images),
            "code": like.new_zeros(batch, self.size),
            "precision": like.new_zeros(batch, self.size, self.size, dtype=torch.float64),
            "moment": like.new_zeros(batch, self.size, dtype=torch.float64),
        }

    def step(
        self,
        belief: dict[str, Tensor],
        measured: Float[Tensor, "N Y"],
        action: Float[Tensor, "N A"],
        keep: Bool[Tensor, " N"],
        mean_square: Float[Tensor, " Y"],
    ) -> tuple[Float[Tensor, "N Z"], dict[str, Tensor]]:
        """Take in one observation; `sequence` gives the same for all steps at once.

        Args:
            belief: from `initial` or the last step.
            measured: of the present observation.
            action: executed before it.
            keep: false where the observation is the first of an episode, which forgets everything.
            mean_square: of changes, see `moved_mean_square`.

        Returns:
            The code and the next belief.
        """
        kept = keep.to(measured.dtype).unsqueeze(-1)
        change = (measured - belief["measured"]) * inverse_root(mean_square) * kept
        base, basis = self._dynamics(torch.cat([belief["measured"], belief["change"]], -1), action)
        precision, moment = self._evidence(base, basis, change)
        precision = (self.fade * belief["precision"] + precision) * kept.unsqueeze(-1)
        moment = (self.fade * belief["moment"] + moment) * kept
        mean, _ = posterior(precision, moment)
        seen = change[..., change.shape[-1] - self.images :]
        code = bounded(mean).to(measured.dtype)
        return code, {
            "measured": measured,
            "change": seen,
            "code": code,
            "precision": precision,
            "moment": moment,
        }

    def sequence(
        self,
        measured: Float[Tensor, "B T Y"],
        action: Float[Tensor, "B T A"],
        is_first: Bool[Tensor, "B T"],
        mean_square: Float[Tensor, " Y"],
    ) -> dict[str, Tensor]:
        """Infer the code at every step of sequences from the transitions in them.

        Args:
            measured: of the observations.
            action: chosen *after* each observation.
            is_first: first observations of episodes; evidence does not pass them.
            mean_square: of changes, see `moved_mean_square`.

        Returns:
            ``code`` [B, T, Z]; and of the T - 1 transitions: ``change`` in root mean squares and its prediction from
            the code before it, ``predicted``, with its ``variance``, [B, T-1, Y] each; and ``valid`` [B, T-1], false
            for those that cross a reset.
        """
        keep = ~is_first
        change = (measured[:, 1:] - measured[:, :-1]) * inverse_root(mean_square) * keep[:, 1:].unsqueeze(-1)
        padded = F.pad(change, (0, 0, 1, 0))
        situation = torch.cat([measured, padded[..., padded.shape[-1] - self.images :]], -1)
        base, basis = self._dynamics(situation[:, :-1], action[:, :-1])
        precision, moment = self._evidence(base, basis, change)
        weights = fading(is_first, self.fade, moment)[:, :, 1:]
        summed = (weights @ precision.flatten(2)).unflatten(-1, (self.size, self.size))
        mean, covariance = posterior(summed, weights @ moment)
        predicted = base + (basis @ mean[:, :-1].unsqueeze(-1)).squeeze(-1)
        variance = self.noise.variance + ((basis @ covariance[:, :-1]) * basis).sum(-1)
        exact = {"code": bounded(mean), "change": change, "predicted": predicted, "variance": variance}
        return {name: value.to(measured.dtype) for name, value in exact.items()} | {"valid": keep[:, 1:]}

    def _dynamics(self, situation: Float[Tensor, "*N I"], action: Float[Tensor, "*N A"]) -> tuple[Tensor, Tensor]:
        """Base [..., Y] and basis [..., Y, Z] of the next change, in root mean squares, as float64.

        What is computed with them stays in float64, also under autocast: some directions of the code become known
        millions of times better than others, which float32 could not tell from unknown. Actions count as the
        environment takes them: continuous ones may be sampled beyond their range.
        """
        known = torch.cat([situation, action.clamp(-1.0, 1.0)], -1)
        return self.base(known).double(), self.basis(known).double().unflatten(-1, (self.measured, self.size))

    def _evidence(self, base: Tensor, basis: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
        """What transitions tell of the code: precision [..., Z, Z] and precision times mean [..., Z]."""
        weighted = basis.mT / self.noise.variance
        return weighted @ basis, (weighted @ (change - base).unsqueeze(-1)).squeeze(-1)


class Noise(nn.Module):
    """The variance of what base and basis do not explain, one for each measured number."""

    def __init__(self, measured: int) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.empty(measured))

    def initialize(self, generator: torch.Generator) -> None:
        """Start at the mean square of the changes, as if nothing were explained."""
        nn.init.zeros_(self.raw)

    @property
    def variance(self) -> Float[Tensor, " Y"]:
        """In mean squares of changes."""
        return (_NOISE_SPEED * self.raw).exp() + SMALLEST_VARIANCE


def posterior(
    precision: Float[Tensor, "*N Z Z"], moment: Float[Tensor, "*N Z"]
) -> tuple[Float[Tensor, "*N Z"], Float[Tensor, "*N Z Z"]]:
    """Mean and covariance of the code after evidence, under a unit normal prior."""
    identity = torch.eye(moment.shape[-1], device=moment.device, dtype=moment.dtype)
    covariance = inverse(precision + identity)
    return (covariance @ moment.unsqueeze(-1)).squeeze(-1), covariance


def bounded(mean: Float[Tensor, "*N Z"]) -> Float[Tensor, "*N Z"]:
    """Keep the entries within +-`LIMIT`, and those near zero as they are: x / sqrt(1 + (x / LIMIT)^2)."""
    return mean * (1 + (mean / LIMIT).square()).rsqrt()


def inverse(matrix: Float[Tensor, "*N Z Z"]) -> Float[Tensor, "*N Z Z"]:
    """Inverse of positive definite matrices by Gauss-Jordan elimination, which for these needs no pivoting.

    By hand, since libraries' inverses can neither be recorded in a CUDA graph everywhere nor skip their checks.
    """
    size = matrix.shape[-1]
    identity = torch.eye(size, device=matrix.device, dtype=matrix.dtype)
    rows = torch.cat([matrix, identity.expand_as(matrix)], -1)
    for k in range(size):
        pivot = rows[..., k, :] / rows[..., k, k].unsqueeze(-1)
        rows = rows - (rows[..., k] - identity[k]).unsqueeze(-1) * pivot.unsqueeze(-2)
    return rows[..., size:]


def predictive_loss(inference: dict[str, Tensor]) -> Float[Tensor, ""]:
    """Mean over valid transitions and measured numbers of the changes' negative log density, without the constant.

    Args:
        inference: from `ContextEncoder.sequence`.
    """
    valid, variance = inference["valid"].to(inference["change"].dtype), inference["variance"]
    surprise = (inference["change"] - inference["predicted"]).square() / variance + variance.log()
    return 0.5 * (surprise.mean(-1) * valid).sum() / valid.sum().clamp_min(1.0)


def fading(is_first: Bool[Tensor, "B T"], fade: float, like: Tensor) -> Float[Tensor, "B T T"]:
    """Weight [t, i] of evidence that came with observation i at step t: fade^(t - i) within an episode, else 0.

    In the dtype of ``like``.
    """
    time = torch.arange(is_first.shape[1], device=is_first.device, dtype=like.dtype)
    age = time.unsqueeze(1) - time
    episode = is_first.cumsum(1)
    same = episode.unsqueeze(2) == episode.unsqueeze(1)
    return torch.where(same & (age >= 0) & ~is_first.unsqueeze(1), fade ** age.clamp_min(0.0), 0.0)


def inverse_root(mean_square: Float[Tensor, " Y"]) -> Float[Tensor, " Y"]:
    """1 / sqrt(mean_square), and 0 for what never changed."""
    return torch.where(mean_square > _NO_CHANGE, mean_square.clamp_min(_NO_CHANGE).rsqrt(), 0.0)


def moved_mean_square(
    mean_square: Float[Tensor, " Y"], measured: Float[Tensor, "B T Y"], is_first: Bool[Tensor, "B T"]
) -> Float[Tensor, " Y"]:
    """Move the mean square of changes within episodes towards the batch's; the first batch's is taken as it is."""
    keep = (~is_first[:, 1:]).to(measured.dtype).unsqueeze(-1)
    squares = (measured[:, 1:] - measured[:, :-1]).square() * keep
    now = squares.sum((0, 1)) / keep.sum().clamp_min(1.0)
    return torch.where(mean_square > 0, torch.lerp(mean_square, now, CHANGE_RATE), now)
