"""Inferring the context of replayed sequences, and what teaches it (see ``worldmodels.context_encoder``).

Symbols: B batch; T time; K history; L = K + T; Y measured width; Z code; F context.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from agents.dreamerv3.networks import Networks
from worldmodels.context_encoder import moved_mean_square, predictive_loss

HISTORY = "history/"

Tree = Mapping[str, Tensor]


def infer(
    networks: Networks, batch: Tree, observations: Tree, tokens: Float[Tensor, "B T U"], normalizer: Tree
) -> Tree:
    """Infer the context at every step from the transitions before it.

    Args:
        batch: records [B, T, ...]; with the records before them as ``history/<entry>`` [B, K, ...], also from these.
        observations, tokens: of the batch.
        normalizer: ``change`` [Y], the mean square of changes, as updates before this one have left it.

    Returns:
        ``code`` [B, T, Z]; ``code_before`` [B, T, Z], what was known before each observation, zero at the first of an
        episode; what `ContextEncoder.sequence` says of the L - 1 transitions; and ``mean_square`` [Y], the normalizer's
        next.
    """
    model = networks.world_model
    measured, action, is_first = model.measure(observations, tokens), batch["action"], batch["is_first"]
    before = {key.removeprefix(HISTORY): value for key, value in batch.items() if key.startswith(HISTORY)}
    if before:
        with torch.no_grad():
            seen = model.observations(before, model.normalize_context(before["context"]))
            measured = torch.cat([model.measure(seen, model.encode(seen)), measured], 1)
        action = torch.cat([before["action"], action], 1)
        is_first = torch.cat([before["is_first"], is_first], 1)
    found = model.context_encoder.sequence(measured, action, is_first, normalizer["change"])
    moved = moved_mean_square(normalizer["change"], measured, is_first)
    before_each = F.pad(found["code"][:, :-1], (0, 0, 1, 0)) * (~is_first).unsqueeze(-1)
    length = tokens.shape[1]
    codes = {"code": found["code"][:, -length:], "code_before": before_each[:, -length:]}
    return found | codes | {"mean_square": moved}


def inference_losses(
    networks: Networks, inference: Tree, context: Float[Tensor, "B T F"]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What the context encoder and the probe learn from, and how far the code is from the true context.

    Both reach only parameters that no other loss reaches and that give nothing to others, so they need no weight.

    Args:
        inference: from `infer`.
        context: the true one, normalized.

    Returns:
        Losses [] ``transition``, see `predictive_loss`, and ``probe``, the squared error of the context that a linear
        map tells from the code; and metrics [] ``context/<feature>``, the root of that error in half widths of the
        training range.
    """
    losses = {"transition": predictive_loss(dict(inference))}
    model = networks.world_model
    if not model.context_names:
        return losses, {}
    missed = (model.context_encoder.probe(inference["code"].detach()) - context).square().mean((0, 1))
    errors = missed.detach().sqrt().unbind()
    metrics = {f"context/{name}": error for name, error in zip(model.context_names, errors, strict=True)}
    return losses | {"probe": missed.mean()}, metrics
