"""The context inferred from transitions, for agents that are not told it.

Every transition of an episode is evidence: a network reads from it what the context's code seems to be and how
precisely it tells. The code is the precision-weighted mean of all evidence so far, under a unit prior at zero, and old
evidence fades. So the code starts at zero with every episode and sharpens within it, in a state of constant size.

What trains it is the next change of the observation, predicted from the present situation, the action and the code
(forward dynamics). No label of the context takes part: the probe, which tells how much of the true context the code
holds, learns beside it and gives nothing back. The modules that see the code send no gradient into it either.

Sources: evidence as Gaussian factors, whose order does not matter, arXiv 1903.08254 (PEARL, section 4.1), here without
sampling and with fading; forward dynamics as the only teacher and a detached code arXiv 2508.20294 (DALI), where the
encoder is a transformer over a window instead.

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
_SMALLEST = 1e-12  # a mean square below this is no change


class ContextEncoder(nn.Module):
    """Evidence of transitions, their pooling, forward dynamics and the probe.

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
        self.size, self.images = config.size, images
        self.fade = 1.0 - 1.0 / config.memory
        situation = measured + images
        self.evidence = Head(situation + action + measured, units, config.layers, 2 * self.size)
        self.forward_model = Head(situation + action + self.size, units, config.layers, measured)
        self.probe = Linear(self.size, context)

    def initial(self, batch: int, like: Tensor) -> dict[str, Tensor]:
        """Return the belief before any transition.

        ``measured`` [B, Y] and ``change`` [B, I] of the last observation, ``total`` and ``moment`` [B, Z]: the summed
        precision of the evidence, and its precision-weighted sum.
        """
        width = self.forward_model.output.out_features
        sizes = {"measured": width, "change": self.images, "total": self.size, "moment": self.size}
        return {name: like.new_zeros(batch, size) for name, size in sizes.items()}

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
        situation = torch.cat([belief["measured"], belief["change"]], -1)
        mean, precision = self._evidence(situation, action, change)
        total = (self.fade * belief["total"] + precision) * kept
        moment = (self.fade * belief["moment"] + precision * mean) * kept
        seen = change[..., change.shape[-1] - self.images :]
        return moment / (1 + total), {"measured": measured, "change": seen, "total": total, "moment": moment}

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
            ``code`` [B, T, Z]; and of the T - 1 transitions: ``change`` and its prediction ``predicted``, both
            [B, T-1, Y] in root mean squares, and ``valid`` [B, T-1], false for those that cross a reset.
        """
        keep = ~is_first
        moved = (measured[:, 1:] - measured[:, :-1]) * inverse_root(mean_square) * keep[:, 1:].unsqueeze(-1)
        changes = F.pad(moved, (0, 0, 1, 0))
        situation = torch.cat([measured, changes[..., changes.shape[-1] - self.images :]], -1)
        mean, precision = self._evidence(situation[:, :-1], action[:, :-1], moved)
        weights = fading(is_first, self.fade, measured)[:, :, 1:]
        with torch.autocast(measured.device.type, enabled=False):
            code = (weights @ (precision * mean)) / (1 + weights @ precision)
        known = torch.cat([situation[:, :-1], _executed(action[:, :-1]), code[:, :-1]], -1)
        predicted = self.forward_model(known)
        return {"code": code, "change": moved, "predicted": predicted, "valid": keep[:, 1:]}

    def _evidence(self, situation: Tensor, action: Tensor, change: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and precision [..., Z] of what transitions tell of the code."""
        mean, precision = self.evidence(torch.cat([situation, _executed(action), change], -1)).chunk(2, -1)
        return mean, F.softplus(precision)


def _executed(action: Float[Tensor, "*N A"]) -> Float[Tensor, "*N A"]:
    """Actions as the environment takes them: continuous ones may be sampled beyond their range."""
    return action.clamp(-1.0, 1.0)


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
    return torch.where(mean_square > _SMALLEST, mean_square.clamp_min(_SMALLEST).rsqrt(), 0.0)


def moved_mean_square(
    mean_square: Float[Tensor, " Y"], measured: Float[Tensor, "B T Y"], is_first: Bool[Tensor, "B T"]
) -> Float[Tensor, " Y"]:
    """Move the mean square of changes within episodes towards the batch's; the first batch's is taken as it is."""
    keep = (~is_first[:, 1:]).to(measured.dtype).unsqueeze(-1)
    squares = (measured[:, 1:] - measured[:, :-1]).square() * keep
    now = squares.sum((0, 1)) / keep.sum().clamp_min(1.0)
    return torch.where(mean_square > 0, torch.lerp(mean_square, now, CHANGE_RATE), now)
