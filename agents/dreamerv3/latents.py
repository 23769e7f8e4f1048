"""Latents as replay keeps them: deter as bfloat16, stoch as class indices.

Compact they take 2 D + S bytes a record, in all sizes two fifths of what float32 and one-hot take, 4 D + 4 C S.

Symbols: N any leading dimensions; D deter; C classes; S latents.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int16, UInt8
from torch import Tensor

from agents.dreamerv3.config import DreamerV3Config

DETER, STOCH = "latent/deter", "latent/stoch"


def latent_specs(config: DreamerV3Config) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return shape and type of a record's latent: the bits of bfloat16 [D] as int16, class indices [S] as uint8."""
    model = config.world_model
    return {DETER: ((model.dimensions.deter,), "int16"), STOCH: ((model.stoch,), "uint8")}


def compact(
    deter: Float[Tensor, "*N D"], stoch: Float[Tensor, "*N C S"]
) -> dict[str, Int16[Tensor, "*N D"] | UInt8[Tensor, "*N S"]]:
    """Return a latent under the record's keys; ``deter`` is rounded to bfloat16, ``stoch`` is one-hot over C <= 256."""
    return {DETER: deter.to(torch.bfloat16).view(torch.int16), STOCH: stoch.max(-2).indices.to(torch.uint8)}


def expand(latents: Mapping[str, Tensor], classes: int) -> dict[str, Float[Tensor, "*N D"] | Float[Tensor, "*N C S"]]:
    """Return ``deter`` and the one-hot ``stoch`` over C ``classes``, both float32, of a compact latent."""
    one_hot = F.one_hot(latents[STOCH].long(), classes).mT
    return {"deter": latents[DETER].view(torch.bfloat16).float(), "stoch": one_hot.float()}
