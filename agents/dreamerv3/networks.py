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
            return self.world_model.feature_size + (self.world_model.context_size if flag else 0)

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
) -> dict[str, Any]:
    """Roll the policy out in the world model.

    Nothing flows back through the rollout, since the policy gradient is REINFORCE: only actor and critic build a
    graph, on detached features.

    Args:
        start: latent ``deter`` [N, D], ``stoch`` [N, C, S].
        context: normalized context, constant over the rollout.
        horizon: number of steps H.
        noise: ``prior`` [H, N, C, S] (Gumbel) and ``action`` [H, N, A] (Gumbel or normal).

    Returns:
        ``latents``, the H + 1 states with ``deter`` and ``stoch``; for the states 0..H: ``reward``, ``continue``,
        ``value``; for the steps 0..H-1: ``action``, ``log_prob`` and ``entropy`` (with gradient), ``slow_value`` and
        the policy's parameters, as ``policy_<name>``; time first, [H + 1 or H, N, ...]. And ``value_logits`` (with
        gradient) in H / n groups of n steps, each [n, N, K].
    """
    model = networks.world_model
    with torch.no_grad():
        latents, features, policies, actions = _rollout(networks, start, context, horizon, noise)
        last = _predict(networks, features[-1], context)
        last["value"] = twohot_mean(networks.value_logits(features[-1], context), model.bins)
    # A GPU judges all states at once, a CPU those of one step out of its cache.
    groups = [torch.stack(features[:-1])] if context.is_cuda else [state.unsqueeze(0) for state in features[:-1]]
    pairs = [_judge(networks, group, context.expand(len(group), *context.shape)) for group in groups]
    judged, logits = zip(*pairs, strict=True)
    states = {name: torch.cat([group[name] for group in judged]) for name in judged[0]}
    states |= {name: torch.cat([states[name], value.unsqueeze(0)]) for name, value in last.items()}
    policy = {name: torch.stack([step[name] for step in policies]) for name in policies[0]}
    action = torch.stack(actions)
    log_prob, entropy = networks.actor.log_prob_and_entropy(policy, action)
    return {
        "latents": latents,
        **states,
        **{f"policy_{name}": parameter.detach() for name, parameter in policy.items()},
        "value_logits": logits,
        "action": action,
        "log_prob": log_prob,
        "entropy": entropy,
    }


def _predict(networks: Networks, features: Float[Tensor, "*N I"], context: Float[Tensor, "*N F"]) -> dict[str, Tensor]:
    """What the world model says of states: ``reward`` and ``continue`` [...]."""
    model = networks.world_model
    reward = twohot_mean(model.reward_logits(features, context), model.bins)
    return {"reward": reward, "continue": torch.sigmoid(model.continue_logits(features, context))}


def _judge(
    networks: Networks, features: Float[Tensor, "n N I"], context: Float[Tensor, "n N F"]
) -> tuple[dict[str, Tensor], Float[Tensor, "n N K"]]:
    """What world model and critics say of states, without gradient; and the critic's logits, with it."""
    logits = networks.value_logits(features, context)
    with torch.no_grad():
        value = {
            "value": twohot_mean(logits, networks.world_model.bins),
            "slow_value": networks.slow_value(features, context),
        }
        return _predict(networks, features, context) | value, logits


def _rollout(
    networks: Networks,
    start: Mapping[str, Tensor],
    context: Tensor,
    horizon: int,
    noise: Mapping[str, Tensor],
) -> tuple[list[dict[str, Tensor]], list[Tensor], list[dict[str, Tensor]], list[Tensor]]:
    """Latents and features of the states 0..H, policies (with gradient) and actions 0..H-1 of a rollout."""
    model, rssm = networks.world_model, networks.world_model.rssm
    weights = rssm.cell_weights()
    joined = context if networks.flags.sequence else None
    latents = [{name: start[name].detach() for name in ("deter", "stoch")}]
    features, policies, actions = [model.features(latents[0])], [], []
    for h in range(horizon):
        with torch.enable_grad():
            policies.append(networks.policy(features[-1], context))
        actions.append(networks.actor.sample(policies[-1], noise["action"][h]))
        latents.append(rssm.imagine_step(weights, latents[-1], actions[-1], joined, noise["prior"][h]))
        features.append(model.features(latents[-1]))
    return latents, features, policies, actions
