"""The whole objective of one update, as functions of (networks, batch, hyperparameters, normalizer, noise).

Symbols: B batch; T time; N = B T start states; H horizon; K bins; D deter; C classes; S latents; A action; F context.
Source: danijar/dreamerv3 at e3f0224 (``imag_loss``, ``repl_loss``, ``Agent.loss``).
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from agents.dreamerv3.inference import infer, inference_losses
from agents.dreamerv3.networks import Networks, imagine
from agents.returns import lambda_return, update_return_range
from worldmodels.distributions import twohot_loss, twohot_mean

Tree = Mapping[str, Tensor]


def observe(
    networks: Networks, batch: Tree, noise: Float[Tensor, "B T C S"] | None, normalizer: Tree
) -> dict[str, Any]:
    """Encode a batch of replayed sequences and filter it.

    Args:
        batch: flat records [B, T, ...]; ``action`` at t is chosen after observation t. With ``carry/deter``,
            ``carry/stoch`` and ``carry/action`` [B, ...] the sequences start from there, as the reference's do from
            stored latents; with the records before them as ``burn_in/<entry>`` [B, K, ...], from where these lead
            (see ``_start``); else from zero: a sequence cut out of the middle of an episode then needs its
            first steps to find its state.
        noise: Gumbel noise of the posterior, or None for the modes.
        normalizer: what the context is inferred with, where it is (see ``inference.infer``).

    Returns:
        ``posterior`` (see RSSM.observe), ``observations``, ``tokens``; the ``context`` [B, T, K] that actor and critic
        see, normalized or inferred, and ``context_before``, which the world model sees: the same, but where it is
        inferred, as known before each observation; the normalized ``true_context`` [B, T, F]; and ``inference``, None
        where the agent does not infer the context.
    """
    model = networks.world_model
    context = true_context = model.normalize_context(batch["context"])
    observations = model.observations(batch, context)
    tokens = model.encode(observations)
    inference = infer(networks, batch, observations, tokens, normalizer) if networks.flags.inferred else None
    before = context  # what is known before each observation: the model that predicts it must not see it in the code
    if inference is not None:
        context, before = inference["code"].detach(), inference["code_before"].detach()
    action = batch["action"]
    carry = _start(networks, batch, tokens, normalizer)
    previous = torch.cat([carry["action"].unsqueeze(1), action[:, :-1]], 1)
    joined = before if networks.flags.sequence else None
    posterior = model.rssm.observe(carry, tokens, previous, batch["is_first"], joined, noise)
    seen = {"posterior": posterior, "observations": observations, "tokens": tokens, "inference": inference}
    return seen | {"context": context, "context_before": before, "true_context": true_context}


def _start(networks: Networks, batch: Tree, like: Tensor, normalizer: Tree) -> dict[str, Tensor]:
    """Return the latent and the action before a batch's first step, deter in the dtype of ``like``.

    Burn-in runs from the zero state without gradient and on posterior modes: it finds a state, it trains nothing. An
    inferred context is then that of its own records.
    """
    if "carry/deter" in batch:
        carry = {name: batch[f"carry/{name}"] for name in ("deter", "stoch", "action")}
        return carry | {"deter": carry["deter"].to(like.dtype)}
    if "burn_in/action" in batch:
        before = {name.removeprefix("burn_in/"): value for name, value in batch.items() if name.startswith("burn_in/")}
        with torch.no_grad():
            posterior = observe(networks, before, None, normalizer)["posterior"]
        return {name: posterior[name][:, -1] for name in ("deter", "stoch")} | {"action": before["action"][:, -1]}
    action = batch["action"]
    return networks.world_model.rssm.initial(action.shape[0], like) | {"action": torch.zeros_like(action[:, 0])}


def imagination_losses(
    rollout: Mapping[str, Any], hyperparameters: Tree, normalizer: Tree
) -> tuple[dict[str, Float[Tensor, "H N"]], dict[str, Tensor]]:
    """Losses of actor and critic on an imagined rollout (see ``networks.imagine``).

    The actor's is REINFORCE on the normalized advantage with an entropy bonus; the critic's is the two-hot
    cross-entropy to the lambda-return plus that to the slow critic's scalar prediction. Both are weighted by the
    probability of being alive, the first state's predicted continuation included.

    Returns:
        Losses ``policy`` and ``value`` [H, N]; and ``returns`` [H, N], ``weight`` [H + 1, N], ``advantage``
        [H, N], ``scale`` [] and the moved normalizer ``low``, ``high`` [].
    """
    value, continues = rollout["value"], rollout["continue"]
    returns = lambda_return(rollout["reward"][1:], continues[1:], hyperparameters["return_lambda"], value[1:])
    low, high = update_return_range(normalizer["low"], normalizer["high"], returns, hyperparameters["return_rate"])
    scale = torch.maximum(high - low, hyperparameters["return_floor"])
    weight = torch.cumprod(continues, 0)
    advantage = (returns - value[:-1]) / scale
    policy = rollout["log_prob"] * advantage + hyperparameters["entropy"] * rollout["entropy"]
    groups = rollout["value_logits"]
    targets = torch.stack([returns, rollout["slow_value"]], -1).chunk(len(groups))
    pairs = [twohot_loss(logits, target, rollout["bins"]) for logits, target in zip(groups, targets, strict=True)]
    critic, slow = torch.cat(pairs).unbind(-1)
    losses = {
        "policy": -weight[:-1] * policy,
        "value": weight[:-1] * (critic + hyperparameters["slow_regularizer"] * slow),
    }
    extras = {"returns": returns, "weight": weight, "advantage": advantage, "scale": scale}
    return losses, extras | {"low": low, "high": high}


def replay_value_loss(
    networks: Networks,
    features: Float[Tensor, "B T I"],
    context: Float[Tensor, "B T F"],
    batch: Tree,
    bootstrap: Float[Tensor, "B T"],
    hyperparameters: Tree,
) -> tuple[Float[Tensor, "B T-1"], dict[str, Tensor]]:
    """Critic loss on replayed rewards, with gradient into the world model through ``features``.

    The lambda-return runs over the replayed rewards and mixes in the imagined return of each *next* state. A
    terminal ends the return; a time-out (``is_last`` alone) cuts the trace but keeps the bootstrap. Positions that
    end an episode carry no loss.
    """
    bins = networks.world_model.bins
    discount = 1 - 1 / hyperparameters["discount_horizon"]
    alive = _float(~batch["is_terminal"], bootstrap) * discount
    trace = _float(~batch["is_last"], bootstrap) * hyperparameters["return_lambda"]
    returns = lambda_return(batch["reward"].mT[1:], alive.mT[1:], trace.mT[1:], bootstrap.detach().mT[1:]).mT
    logits = networks.value_logits(features, context)
    with torch.no_grad():
        slow = networks.slow_value(features, context)
    critic, regularizer = twohot_loss(logits[:, :-1], torch.stack([returns, slow[:, :-1]], -1), bins).unbind(-1)
    weight = _float(~batch["is_last"], bootstrap)[:, :-1]
    loss = weight * (critic + hyperparameters["slow_regularizer"] * regularizer)
    return loss, {"returns": returns, "value_logits": logits, "slow_value": slow}


def update_trace(
    networks: Networks, batch: Tree, hyperparameters: Tree, normalizer: Tree, noise: Tree, horizon: int
) -> dict[str, dict[str, Any]]:
    """Every loss of one update and what it was made from.

    Returns:
        ``losses`` (each the mean over batch and time, unscaled), ``maps`` (the same before the mean),
        ``world_model`` (outputs of observe and WorldModel.losses), ``rollout``, ``imagination``, ``replay``; and
        ``inference`` (losses, metrics and the normalizer's next), empty where the context is not inferred.
    """
    model = networks.world_model
    seen = observe(networks, batch, noise["posterior"], normalizer)
    posterior, context = seen["posterior"], seen["context"]
    discount = 1 - 1 / hyperparameters["discount_horizon"]
    continues = _float(~batch["is_terminal"], batch["reward"]) * discount
    before, free_nats = seen["context_before"], hyperparameters["free_nats"]
    maps, outputs = model.losses(posterior, seen["observations"], batch["reward"], continues, before, free_nats)
    start = {name: posterior[name].flatten(0, 1) for name in ("deter", "stoch")}
    rollout = imagine(networks, start, context.flatten(0, 1), horizon, noise)
    imagined, extras = imagination_losses(rollout | {"bins": model.bins}, hyperparameters, normalizer)
    bootstrap = extras["returns"][0].unflatten(0, batch["reward"].shape)
    features = model.features(posterior)
    replay, replayed = replay_value_loss(networks, features, context, batch, bootstrap, hyperparameters)
    maps = maps | imagined | {"replay_value": replay}
    inference: dict[str, dict[str, Tensor]] = {}
    if seen["inference"] is not None:
        learned, errors = inference_losses(networks, seen["inference"], seen["true_context"])
        moved = {"change": seen["inference"]["mean_square"]}
        inference = {"losses": learned, "metrics": errors, "normalizer": moved}
    return {
        "inference": inference,
        "losses": {name: value.mean() for name, value in maps.items()},
        "maps": maps,
        "world_model": {**outputs, **posterior, "tokens": seen["tokens"]},
        "rollout": rollout,
        "imagination": extras,
        "replay": replayed | {"bootstrap": bootstrap},
    }


def total_loss(losses: Tree, hyperparameters: Tree) -> Float[Tensor, ""]:
    """Sum of the losses, each times its scale."""
    return torch.stack([value * hyperparameters[f"{name.split('/')[0]}_scale"] for name, value in losses.items()]).sum()


def objective(
    networks: Networks, batch: Tree, hyperparameters: Tree, normalizer: Tree, noise: Tree, horizon: int
) -> tuple[Float[Tensor, ""], tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]]:
    """The scalar that one update descends, with (metrics, moved normalizer, posterior) beside it.

    The posterior ``deter`` [B, T, D] and ``stoch`` [B, T, C, S] is there if the batch starts from stored latents, for
    these to be renewed, and empty else.
    """
    trace = update_trace(networks, batch, hyperparameters, normalizer, noise, horizon)
    rollout, imagination = trace["rollout"], trace["imagination"]
    total = total_loss(trace["losses"], hyperparameters)
    metrics = {f"loss/{name}": value.detach() for name, value in trace["losses"].items()}
    moved = {name: imagination[name] for name in ("low", "high")}
    if inference := trace["inference"]:
        total = total + torch.stack(list(inference["losses"].values())).sum()
        metrics |= {f"loss/{name}": value.detach() for name, value in inference["losses"].items()}
        metrics |= inference["metrics"]
        moved |= inference["normalizer"]
    metrics |= {
        "loss/total": total.detach(),
        "kl": trace["world_model"]["kl"].mean(),
        "entropy": rollout["entropy"].detach().mean(),
        "imagined/return": imagination["returns"].mean(),
        "imagined/reward": rollout["reward"].mean(),
        "imagined/continue": rollout["continue"].mean(),
        "imagined/value": rollout["value"].mean(),
        "imagined/advantage_abs": imagination["advantage"].abs().mean(),
        "imagined/return_scale": imagination["scale"],
        "replay/value": twohot_mean(trace["replay"]["value_logits"].detach(), networks.world_model.bins).mean(),
    }
    stored = ("deter", "stoch") if "carry/deter" in batch else ()
    posterior = {name: trace["world_model"][name].detach() for name in stored}
    return total, (metrics, moved, posterior)


def _float(flag: Bool[Tensor, "*N"], like: Tensor) -> Tensor:
    return flag.to(like.dtype)
