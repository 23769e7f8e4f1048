"""All networks of the agent in one module, so that one parameter tree binds them all.

Symbols: N any leading dimensions; D deter; C classes; S categorical latents; F context; H horizon; K bins.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from agents.dreamerv3.actor import ActionSpec, Actor
from agents.dreamerv3.config import DreamerV3Config
from worldmodels.context import ContextSpec
from worldmodels.distributions import twohot_mean
from worldmodels.layers import Head
from worldmodels.world_model import WorldModel, join


class Networks(nn.Module):
    """World model, actor, critic and slow critic.

    ``forward(function, *arguments)`` calls ``function(self, *arguments)``: with ``torch.func.functional_call``
    any function of the networks becomes a function of (parameters, arguments).
    """

    def __init__(
        self,
        config: DreamerV3Config,
        observation_shapes: Mapping[str, tuple[int, ...]],
        action: ActionSpec,
        context: ContextSpec,
    ) -> None:
        super().__init__()
        self.flags = config.world_model.flags
        self.world_model = WorldModel(config.world_model, observation_shapes, action.size, context)
        units, bins = config.world_model.dimensions.units, config.world_model.bins

        def inputs(flag: bool) -> int:
            return self.world_model.feature_size + (context.size if flag else 0)

        self.actor = Actor(inputs(self.flags.actor), units, config.actor_layers, action)
        self.critic = Head(inputs(self.flags.critic), units, config.critic_layers, bins, scale=0.0)
        self.slow_critic = Head(inputs(self.flags.critic), units, config.critic_layers, bins, scale=0.0)

    def forward(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call ``function`` with these networks as its first argument."""
        return function(self, *arguments)

    def policy(self, features: Float[Tensor, "*N I"], context: Float[Tensor, "*N F"]) -> dict[str, Tensor]:
        """The policy's parameters in the given states."""
        return self.actor(join(features, context, self.flags.actor))

    def value_logits(self, features: Tensor, context: Float[Tensor, "*N F"]) -> Float[Tensor, "*N K"]:
        """Two-hot logits of the critic."""
        return self.critic(join(features, context, self.flags.critic))

    def slow_value(self, features: Tensor, context: Float[Tensor, "*N F"]) -> Float[Tensor, "*N"]:
        """Scalar prediction of the slow critic."""
        logits = self.slow_critic(join(features, context, self.flags.critic))
        return twohot_mean(logits, self.world_model.bins)


def imagine(
    networks: Networks,
    start: Mapping[str, Tensor],
    context: Float[Tensor, "N F"],
    horizon: int,
    noise: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """Roll the policy out in the world model.

    Nothing flows back through the rollout, since the policy gradient is REINFORCE: only actor and critic build a
    graph, on detached features. The rollout itself needs the policy's samples alone; all heads are evaluated
    once on all states, which at small sizes costs far less than a call per step.

    Args:
        start: latent ``deter`` [N, D], ``stoch`` [N, C, S].
        context: normalized context, constant over the rollout.
        horizon: number of steps H.
        noise: ``prior`` [H, N, C, S] (Gumbel) and ``action`` [H, N, A] (Gumbel or normal).

    Returns:
        For the states 0..H: ``deter``, ``stoch``, ``reward``, ``continue``, ``value``; for the steps 0..H-1:
        ``action``, ``log_prob``, ``entropy`` and ``value_logits`` (with gradient), ``slow_value`` and the policy's
        parameters, as ``policy_<name>``. Time first, [H + 1 or H, N, ...].
    """
    model = networks.world_model
    with torch.no_grad():
        steps = _rollout(networks, start, context, horizon, noise)
        features = model.features(steps)
        contexts = context.expand(horizon + 1, *context.shape)
        reward = twohot_mean(model.reward_logits(features, contexts), model.bins)
        continues = torch.sigmoid(model.continue_logits(features, contexts))
        last_value = twohot_mean(networks.value_logits(features[-1:], contexts[-1:]), model.bins)
        features, contexts = features[:-1], contexts[:-1]
        slow = networks.slow_value(features, contexts)
    logits = networks.value_logits(features, contexts)
    policy = networks.policy(features, contexts)
    log_prob, entropy = networks.actor.log_prob_and_entropy(policy, steps["action"])
    return {
        **steps,
        **{f"policy_{name}": parameter.detach() for name, parameter in policy.items()},
        "reward": reward,
        "continue": continues,
        "value_logits": logits,
        "value": torch.cat([twohot_mean(logits.detach(), model.bins), last_value]),
        "slow_value": slow,
        "log_prob": log_prob,
        "entropy": entropy,
    }


def _rollout(
    networks: Networks,
    start: Mapping[str, Tensor],
    context: Tensor,
    horizon: int,
    noise: Mapping[str, Tensor],
) -> dict[str, Tensor]:
    """States 0..H and actions 0..H-1 of an imagined rollout, time first."""
    model, rssm = networks.world_model, networks.world_model.rssm
    weights = rssm.core_weights()
    joined = context if networks.flags.sequence else None
    latent = {name: start[name].detach() for name in ("deter", "stoch")}
    latents, actions = [latent], []
    for h in range(horizon):
        policy = networks.policy(model.features(latent), context)
        actions.append(networks.actor.sample(policy, noise["action"][h]))
        latent = rssm.imagine_step(weights, latent, actions[-1], joined, noise["prior"][h])
        latents.append(latent)
    states = {name: torch.stack([latent[name] for latent in latents]) for name in ("deter", "stoch")}
    return states | {"action": torch.stack(actions)}
