"""The world model: encoder, RSSM, decoder, reward and continue heads, and their losses.

Symbols: B batch; T time; N any leading dimensions; D deter; C classes; S categorical latents; A action; F context.
An observation of rank 1 is a vector, one of rank 3 an image [height, width, channels] of uint8.
Source: danijar/dreamerv3 at e3f0224; contexts from arXiv 2403.10967.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from worldmodels.config import WorldModelConfig
from worldmodels.context import ContextSpec
from worldmodels.context_encoder import ContextEncoder
from worldmodels.distributions import (
    categorical_kl,
    symexp,
    symexp_bins,
    symlog,
    twohot_loss,
    twohot_mean,
    unimix,
)
from worldmodels.images import HIGHEST, ImageDecoder, ImageEncoder
from worldmodels.layers import MLP, Head, Linear, full_precision
from worldmodels.rssm import RSSM

CONTEXT_KEY = "context"  # the observation key under which the concat agent sees the context


class WorldModel(nn.Module):
    """A context-conditioned simulator of observations, rewards and continuations.

    Args:
        config: sizes and context flags.
        observation_shapes: one shape for each observation key: vectors [n] and images [H, W, C].
        action: width A of the action.
        context: features of the context and their training range.

    Raises:
        ValueError: when an observation is neither a vector nor an image, or is called ``context``, the name of the
            context as an observation; and see ``images.ImageDecoder``.
    """

    context_center: Tensor
    context_half_width: Tensor
    bins: Tensor

    def __init__(
        self,
        config: WorldModelConfig,
        observation_shapes: Mapping[str, tuple[int, ...]],
        action: int,
        context: ContextSpec,
    ) -> None:
        super().__init__()
        for key, shape in observation_shapes.items():
            if len(shape) not in (1, 3):
                raise ValueError(f"observation '{key}' has shape {shape}; valid are vectors [n] and images [H, W, C]")
            if key == CONTEXT_KEY:
                raise ValueError(f"observation '{key}' needs another name: this one is the context's")
        self.flags = config.flags
        center, half_width = context.center_and_half_width()
        self.register_buffer("context_center", center, persistent=False)
        self.register_buffer("context_half_width", half_width, persistent=False)
        self.register_buffer("bins", symexp_bins(config.bins), persistent=False)
        size = config.dimensions
        widths = {key: shape[0] for key, shape in observation_shapes.items() if len(shape) == 1}
        images = {key: shape for key, shape in observation_shapes.items() if len(shape) == 3}
        if self.flags.observation and context.size:
            widths[CONTEXT_KEY] = context.size
        self.vectors, self.images = sorted(widths), sorted(images)
        latent = config.stoch * size.classes
        self.feature_size = size.deter + latent
        tokens = 0
        if widths:
            self.encoder = MLP(sum(widths.values()), size.units, config.encoder_layers)
            tokens += size.units
        if images:
            self.image_encoder = ImageEncoder(config, images)
            tokens += self.image_encoder.size
        self.context_names = context.names
        self.context_size = config.context_encoder.size if self.flags.inferred else context.size
        self.rssm = RSSM(config, tokens, action, self.context_size if self.flags.sequence else 0)

        def inputs(flag: bool, width: int = self.feature_size) -> int:
            return width + (self.context_size if flag else 0)

        if widths:
            self.decoder = MLP(inputs(self.flags.decoder), size.units, config.decoder_layers)
            self.reconstructions = nn.ModuleDict({key: Linear(size.units, widths[key]) for key in self.vectors})
        if images:
            self.image_decoder = ImageDecoder(config, images, inputs(self.flags.decoder, latent))
        self.reward = Head(inputs(self.flags.reward), size.units, config.reward_layers, config.bins, scale=0.0)
        self.continuation = Head(inputs(self.flags.continuation), size.units, config.continue_layers, 1)
        if self.flags.inferred:
            seen = self.image_encoder.size if images else 0
            self.measured_size = sum(widths.values()) + seen
            self.context_encoder = ContextEncoder(
                config.context_encoder, size.units, self.measured_size, seen, action, context.size
            )

    def normalize_context(self, context: Float[Tensor, "*N F"]) -> Float[Tensor, "*N F"]:
        """Map raw units linearly so that the training range becomes [-1, 1]."""
        return (context - self.context_center) / self.context_half_width

    def given_context(self, context: Float[Tensor, "*N K"]) -> Float[Tensor, "*N K"]:
        """The context as the modules see it, from how it is given: raw units [..., F], or an inferred code [..., Z]."""
        return context if self.flags.inferred else self.normalize_context(context)

    def measure(self, observations: Mapping[str, Tensor], tokens: Float[Tensor, "*N U"]) -> Float[Tensor, "*N Y"]:
        """What the context is inferred from: the symlog vectors, and the images' tokens without gradient."""
        parts = [symlog(observations[key]) for key in self.vectors]
        if self.images:
            parts.append(full_precision(tokens[..., -self.image_encoder.size :].detach()))
        return torch.cat(parts, -1)

    @property
    def keys(self) -> list[str]:
        """Observations in alphabetical order, the context among them where it is one."""
        return sorted(self.vectors + self.images)

    def observations(self, records: Mapping[str, Tensor], context: Float[Tensor, "*N F"]) -> dict[str, Tensor]:
        """Pick the observations that the encoder reads and the decoder predicts, the context among them if so set."""
        return {key: context if key == CONTEXT_KEY else records[f"observation/{key}"] for key in self.keys}

    def encode(self, observations: Mapping[str, Tensor]) -> Float[Tensor, "*N U"]:
        """Tokens of the observations: of the symlog vectors, keys in alphabetical order, then of the images.

        Raises:
            ValueError: when an image is not uint8 or has not the shape that the model was made for.
        """
        tokens = []
        if self.vectors:
            tokens.append(self.encoder(torch.cat([symlog(observations[key]) for key in self.vectors], -1)))
        if self.images:
            tokens.append(self.image_encoder(observations))
        return torch.cat(tokens, -1) if len(tokens) > 1 else tokens[0]

    def features(self, latent: Mapping[str, Tensor]) -> Float[Tensor, "*N I"]:
        """What the heads see: concat(deter, flat stoch)."""
        return torch.cat([latent["deter"], latent["stoch"].flatten(-2)], -1)

    def decode(self, latent: Mapping[str, Tensor], context: Float[Tensor, "*N F"]) -> dict[str, Tensor]:
        """Reconstructions by key: vectors in symlog space from concat(flat stoch, deter), images in [0, 1]."""
        decoded, stoch = {}, latent["stoch"].flatten(-2)
        if self.vectors:
            hidden = self.decoder(join(torch.cat([stoch, latent["deter"]], -1), context, self.flags.decoder))
            decoded = {key: full_precision(self.reconstructions[key](hidden)) for key in self.vectors}
        if self.images:
            decoded |= self.image_decoder(latent["deter"], join(stoch, context, self.flags.decoder))
        return decoded

    def reward_logits(self, features: Tensor, context: Float[Tensor, "*N F"]) -> Float[Tensor, "*N K"]:
        """Two-hot logits of the reward received on arriving in a state."""
        return self.reward(join(features, context, self.flags.reward))

    def continue_logits(self, features: Tensor, context: Float[Tensor, "*N F"]) -> Float[Tensor, "*N"]:
        """Logit of the probability that the world goes on, discount included."""
        return self.continuation(join(features, context, self.flags.continuation)).squeeze(-1)

    def predict(self, latent: Mapping[str, Tensor], context: Float[Tensor, "*N F"]) -> dict[str, Tensor]:
        """Everything the model says of a latent, in raw units.

        Args:
            latent: ``deter`` [..., D] and ``stoch`` [..., C, S].
            context: normalized context [..., F].

        Returns:
            ``observation/<key>`` [..., O], for images floats [..., H, W, C] in 0 to 255; ``reward`` [...] and
            ``continue`` [...], a probability.
        """
        features = self.features(latent)
        decoded = {
            f"observation/{key}": value * HIGHEST if key in self.images else symexp(value)
            for key, value in self.decode(latent, context).items()
        }
        reward = twohot_mean(self.reward_logits(features, context), self.bins)
        return decoded | {
            "reward": reward,
            "continue": torch.sigmoid(self.continue_logits(features, context)),
        }

    def losses(
        self,
        posterior: Mapping[str, Tensor],
        observations: Mapping[str, Tensor],
        reward: Float[Tensor, "B T"],
        continues: Float[Tensor, "B T"],
        context: Float[Tensor, "B T F"],
        free_nats: Float[Tensor, ""],
    ) -> tuple[dict[str, Float[Tensor, "B T"]], dict[str, Tensor]]:
        """Losses of the world model at every replayed step.

        Args:
            posterior: the RSSM's latents with their ``probabilities``.
            observations: what to reconstruct, by key; images as uint8, whose loss is the squared error of values in
                [0, 1], summed over height, width and channels.
            reward: reward received on arrival.
            continues: target of the continue head, (1 - terminal) * discount.
            context: normalized context.
            free_nats: the KL, summed over latents, is not reduced below this.

        Returns:
            Losses ``dynamics``, ``representation``, ``reward``, ``continue`` and ``reconstruction/<key>``, each
            [B, T]; and the predictions they compare: ``prior_logits``, ``kl``, ``reward_logits``,
            ``continue_logits``, ``reconstruction/<key>``.
        """
        features = self.features(posterior)
        prior_logits = self.rssm.prior_logits(posterior["deter"])
        prior, probabilities = unimix(prior_logits, self.rssm.share), posterior["probabilities"]
        dynamics = categorical_kl(probabilities.detach(), prior)
        representation = categorical_kl(probabilities, prior.detach())
        decoded = self.decode(posterior, context)
        reward_logits = self.reward_logits(features, context)
        continue_logits = self.continue_logits(features, context)
        losses = {
            "dynamics": torch.maximum(dynamics, free_nats),
            "representation": torch.maximum(representation, free_nats),
            "reward": twohot_loss(reward_logits, reward.unsqueeze(-1), self.bins).squeeze(-1),
            "continue": F.binary_cross_entropy_with_logits(continue_logits, continues, reduction="none"),
        }
        outputs = {
            "prior_logits": prior_logits,
            "kl": dynamics.detach(),
            "reward_logits": reward_logits,
            "continue_logits": continue_logits,
        }
        for key, value in decoded.items():
            image = key in self.images
            target = observations[key].to(value.dtype) / HIGHEST if image else symlog(observations[key])
            losses[f"reconstruction/{key}"] = (value - target).square().flatten(2).sum(-1)
            outputs[f"reconstruction/{key}"] = value
        return losses, outputs


def join(features: Float[Tensor, "*N I"], context: Float[Tensor, "*N F"], flag: bool) -> Tensor:
    """Append the normalized context to the features of a module that sees it."""
    return torch.cat([features, context], -1) if flag else features
