"""Recurrent state-space model with a block-diagonal GRU (danijar/dreamerv3 at e3f0224, ``rssm.RSSM``).

Symbols: B batch; T time; N = any batch; D deter; C classes; S categorical latents; A action; F context; U tokens.
A latent is {"deter": [..., D], "stoch": [..., C, S]}, one-hot over C.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from worldmodels.config import WorldModelConfig
from worldmodels.distributions import masked, sample_one_hot, unimix
from worldmodels.filtering import filter_sequence
from worldmodels.layers import MLP, BlockLinear, Linear, RMSNorm, full_precision
from worldmodels.recurrence import CellWeights, PosteriorWeights, cell


class RSSM(nn.Module):
    """Sequence model, prior and posterior.

    Args:
        config: sizes.
        tokens: width U of the encoder's output.
        action: width A of the action.
        context: width F of the context that the sequence model sees, joined to the action; 0 for none.
    """

    def __init__(self, config: WorldModelConfig, tokens: int, action: int, context: int) -> None:
        super().__init__()
        size = config.dimensions
        self.deter, self.classes, self.stoch = size.deter, size.classes, config.stoch
        self.blocks, self.share = config.blocks, config.unimix
        latent = self.stoch * self.classes
        self.deter_in = MLP(self.deter, size.hidden, 1)
        self.stoch_in = MLP(latent, size.hidden, 1)
        self.action_in = MLP(action + context, size.hidden, 1)
        self.core = BlockLinear(self.deter, self.deter, self.blocks, shared=3 * size.hidden)
        self.core_norm = RMSNorm(self.deter)
        self.gates = BlockLinear(self.deter, 3 * self.deter, self.blocks)
        self.prior = MLP(self.deter, size.hidden, config.prior_layers)
        self.prior_out = Linear(size.hidden, latent)
        self.posterior = MLP(self.deter + tokens, size.hidden, config.posterior_layers)
        self.posterior_out = Linear(size.hidden, latent)

    def initial(self, batch: int, like: Tensor) -> dict[str, Tensor]:
        """Return the zero latent of ``batch`` sequences, in the dtype and on the device of ``like``."""
        return {
            "deter": like.new_zeros(batch, self.deter),
            "stoch": like.new_zeros(batch, self.classes, self.stoch),
        }

    def embed_action(
        self, action: Float[Tensor, "*N A"], context: Float[Tensor, "*N F"] | None
    ) -> Float[Tensor, "*N hidden"]:
        """Scale actions elementwise into [-1, 1] without changing their gradient, join the context, embed."""
        action = action / action.detach().abs().clamp_min(1.0)
        return self.action_in(action if context is None else torch.cat([action, context], -1))

    def cell_weights(self) -> CellWeights:
        """The weights of one recurrent step; call once per update or rollout, not once per step."""
        (deter, deter_norm), (stoch, stoch_norm) = self.deter_in.layers()[0], self.stoch_in.layers()[0]
        own, shared = self.core.split()
        (reset, candidate, update), biases = self.gates.weight.chunk(3, -1), self.gates.bias.view(self.blocks, 3, -1)
        return CellWeights(
            deter_in=_compute(deter.weight.t()),
            deter_bias=_compute(deter.bias),
            stoch_in=_compute(stoch.weight.t()),
            stoch_bias=_compute(stoch.bias),
            in_scale=torch.stack([deter_norm.weight, stoch_norm.weight]),
            own=_compute(own),
            shared=_compute(shared),
            core_bias=_compute(self.core.bias),
            core_scale=self.core_norm.weight,
            gates=_compute(torch.cat([reset, 2 * candidate, update], -1)),
            gates_bias=torch.cat([biases[:, :1], 2 * biases[:, 1:2], biases[:, 2:] - 1], -1),
        )

    def posterior_weights(self) -> PosteriorWeights:
        """The weights of the posterior behind the product of its first layer with the tokens."""
        linears, norms = zip(*self.posterior.layers(), strict=True)
        first, *others = linears
        hidden = [layer.weight.t() for layer in others]
        empty = first.weight.new_zeros(0, *[len(first.weight)] * 2)
        return PosteriorWeights(
            deter_in=_compute(first.weight[:, : self.deter].t()),
            scales=torch.stack([norm.weight for norm in norms]),
            hidden=_compute(torch.stack(hidden) if hidden else empty),
            biases=_compute(torch.stack([layer.bias for layer in others]) if others else empty[:, 0]),
            out=_compute(self.posterior_out.weight.t()),
            out_bias=_compute(self.posterior_out.bias),
        )

    @torch.no_grad()
    def recur(
        self,
        weights: CellWeights,
        deter: Float[Tensor, "N D"],
        stoch: Float[Tensor, "N C S"],
        action: Float[Tensor, "N hidden"],
    ) -> Float[Tensor, "N D"]:
        """One step of the sequence model: the next deter from a latent and an embedded action, without gradient.

        What replayed sequences teach goes through `observe`; nothing is learned from imagined ones.
        """
        return cell(weights, deter, stoch.flatten(1), action.to(deter.dtype))[0]

    def prior_logits(self, deter: Float[Tensor, "*N D"]) -> Float[Tensor, "*N C S"]:
        """Logits of the next latent from the sequence model alone."""
        return self._logits(self.prior_out(self.prior(deter)))

    def posterior_logits(self, deter: Float[Tensor, "*N D"], tokens: Float[Tensor, "*N U"]) -> Float[Tensor, "*N C S"]:
        """Logits of the latent given the observation's tokens."""
        return self._logits(self.posterior_out(self.posterior(torch.cat([deter, tokens], -1))))

    def _logits(self, flat: Float[Tensor, "*N CS"]) -> Float[Tensor, "*N C S"]:
        return full_precision(flat).unflatten(-1, (self.classes, self.stoch))

    def observe(
        self,
        carry: dict[str, Tensor],
        tokens: Float[Tensor, "B T U"],
        actions: Float[Tensor, "B T A"],
        is_first: Bool[Tensor, "B T"],
        context: Float[Tensor, "B T F"] | None,
        noise: Float[Tensor, "B T C S"] | None,
    ) -> dict[str, Tensor]:
        """Posterior latents of a sequence.

        Args:
            carry: latent and ``action`` [B, A] before the first step.
            tokens: the encoded observations.
            actions: the action *before* each observation; the first one is ``carry["action"]``'s.
            is_first: resets, which zero the latent and the action before the step.
            context: normalized context, or None when the sequence model does not see it.
            noise: Gumbel noise, or None for the modes.

        Returns:
            ``deter`` [B, T, D], ``stoch`` [B, T, C, S] with straight-through gradient, and ``logits`` and
            ``probabilities`` of the posterior, [B, T, C, S].
        """
        deter = carry["deter"].to(self.core_norm.weight.dtype)  # also where autocast computes in less
        keep = ~is_first
        inputs = self.embed_action(actions * keep.unsqueeze(-1), context)
        first = self.posterior.layers()[0][0]
        share = F.linear(tokens, first.weight[:, self.deter :], first.bias)
        outputs = filter_sequence(
            masked(deter, keep[:, 0]),
            masked(carry["stoch"], keep[:, 0]).flatten(1),
            keep.mT.to(deter.dtype),
            inputs.transpose(0, 1).to(deter.dtype),
            share.transpose(0, 1).to(deter.dtype),
            None if noise is None else noise.transpose(0, 1),
            self.classes,
            self.share,
            self.cell_weights(),
            self.posterior_weights(),
        )
        names = ("deter", "stoch", "probabilities", "logits")
        return {name: value.transpose(0, 1) for name, value in zip(names, outputs, strict=True)}

    def imagine_step(
        self,
        weights: CellWeights,
        latent: dict[str, Tensor],
        action: Float[Tensor, "N A"],
        context: Float[Tensor, "N F"] | None,
        noise: Float[Tensor, "N C S"] | None,
    ) -> dict[str, Tensor]:
        """One step of imagination: the next latent drawn from the prior. ``stoch`` carries no gradient."""
        deter = self.recur(weights, latent["deter"], latent["stoch"], self.embed_action(action, context))
        probabilities = unimix(self.prior_logits(deter), self.share)
        return {"deter": deter, "stoch": sample_one_hot(probabilities, noise)}


def _compute(weight: Tensor) -> Tensor:
    """Cast a weight to what autocast computes in, if that is on: `cell` and the posterior choose by their weights."""
    kind = weight.device.type
    enabled = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    return weight.to(torch.get_autocast_dtype(kind)) if enabled else weight
