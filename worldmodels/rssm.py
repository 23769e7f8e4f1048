"""Recurrent state-space model with a block-diagonal GRU (danijar/dreamerv3 at e3f0224, ``rssm.RSSM``).

Symbols: B batch; T time; N = any batch; D deter; C classes; S categorical latents; A action; F context; U tokens.
A latent is {"deter": [..., D], "stoch": [..., C, S]}, one-hot over C.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from worldmodels.config import WorldModelConfig
from worldmodels.distributions import masked, sample_one_hot, straight_through, unimix
from worldmodels.layers import MLP, BlockLinear, Linear, RMSNorm, block_map, full_precision


class CoreWeights(NamedTuple):
    """Factors of the recurrent cell's first layer, split once per update."""

    own: Tensor  # [G, D/G, D/G]
    shared: Tensor  # [3 * hidden, D]


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

    def core_weights(self) -> CoreWeights:
        """Split the first recurrent layer; call once per update or rollout, not once per step."""
        return CoreWeights(*self.core.split())

    def recur(
        self,
        weights: CoreWeights,
        deter: Float[Tensor, "N D"],
        stoch: Float[Tensor, "N C S"],
        action: Float[Tensor, "N hidden"],
    ) -> Float[Tensor, "N D"]:
        """One step of the sequence model: the next deter from a latent and an embedded action.

        r = sigmoid(reset); c = tanh(r * candidate); u = sigmoid(update - 1); deter <- u c + (1 - u) deter.
        """
        shared = torch.cat([self.deter_in(deter), self.stoch_in(stoch.flatten(-2)), action], -1)
        hidden = block_map(deter, weights.own) + torch.addmm(self.core.bias, shared, weights.shared)
        hidden = F.silu(self.core_norm(hidden))
        gates = self.gates(hidden).unflatten(-1, (self.blocks, 3, -1))
        reset, candidate, update = (gate.flatten(-2) for gate in gates.unbind(-2))
        candidate = torch.tanh(torch.sigmoid(reset) * candidate)
        update = torch.sigmoid(update - 1)
        return update * candidate + (1 - update) * deter

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
        weights = self.core_weights()
        keep = ~is_first
        inputs = self.embed_action(actions * keep.unsqueeze(-1), context)
        deter, stoch = carry["deter"], carry["stoch"]
        steps: dict[str, list[Tensor]] = {"deter": [], "stoch": [], "logits": [], "probabilities": []}
        for t in range(tokens.shape[1]):
            deter, stoch = masked(deter, keep[:, t]), masked(stoch, keep[:, t])
            deter = self.recur(weights, deter, stoch, inputs[:, t])
            logits = self.posterior_logits(deter, tokens[:, t])
            probabilities = unimix(logits, self.share)
            sample = sample_one_hot(probabilities, None if noise is None else noise[:, t])
            stoch = straight_through(sample, probabilities)
            for name, value in zip(steps, (deter, stoch, logits, probabilities), strict=True):
                steps[name].append(value)
        return {name: torch.stack(values, 1) for name, values in steps.items()}

    def imagine_step(
        self,
        weights: CoreWeights,
        latent: dict[str, Tensor],
        action: Float[Tensor, "N A"],
        context: Float[Tensor, "N F"] | None,
        noise: Float[Tensor, "N C S"] | None,
    ) -> dict[str, Tensor]:
        """One step of imagination: the next latent drawn from the prior. ``stoch`` carries no gradient."""
        deter = self.recur(weights, latent["deter"], latent["stoch"], self.embed_action(action, context))
        probabilities = unimix(self.prior_logits(deter), self.share)
        return {"deter": deter, "stoch": sample_one_hot(probabilities, noise)}
