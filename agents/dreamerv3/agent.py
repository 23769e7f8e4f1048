"""The DreamerV3 agent: pure functions of a state tree.

Symbols: B batch; T time; E environments; H steps; D deter; C classes; S latents; A action; F context; M members.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from tensordict import TensorDict
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap

from agents.dreamerv3 import losses
from agents.dreamerv3.actor import ActionSpec
from agents.dreamerv3.config import DreamerV3Config, Hyperparameters
from agents.dreamerv3.inference import infer
from agents.dreamerv3.latents import compact
from agents.dreamerv3.networks import Networks
from agents.dreamerv3.state import hyperparameter_tensors
from agents.optimizer import laprop_step
from agents.seeding import torch_generator
from worldmodels.context import ContextSpec
from worldmodels.distributions import gumbel, masked, sample_one_hot, unimix
from worldmodels.layers import initialize

SLOW = "slow_critic."
BELIEF = "belief/"  # of carries: what an agent that infers the context knows of it
Auxiliaries = tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]  # metrics; normalizer; posterior
Gradients = tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]  # by parameter; those


class DreamerV3:
    """Learns and acts. The object holds structure only; every number that changes is in the state tree.

    Args:
        config: the agent's configuration.
        observation_shapes: shape of each observation, keys without ``observation/``.
        action: width and kind of the action.
        context: features and their training range.
        device, dtype: where and in what the networks compute; tests use float64.

    Raises:
        ValueError: when an observation is neither a vector nor an image (see ``WorldModel``).
    """

    def __init__(
        self,
        config: DreamerV3Config,
        observation_shapes: Mapping[str, tuple[int, ...]],
        action: ActionSpec,
        context: ContextSpec,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.config = config
        self.action = action
        self.context = context
        self.device, self.dtype = torch.device(device), dtype
        self.networks = Networks(config, observation_shapes, action, context).to(self.device, dtype)
        self.networks.requires_grad_(False)

    # State -----------------------------------------------------------------------------------------------------

    def initial_state(self, seed: int) -> TensorDict:
        """Return a fresh state tree: weights drawn from ``seed``, the slow critic equal to the critic."""
        initialize(self.networks, torch_generator(seed, "parameters"))
        tensors = {name: value.detach().clone() for name, value in self.networks.named_parameters()}
        slow = {name: value for name, value in tensors.items() if name.startswith(SLOW)}
        parameters = {name: value for name, value in tensors.items() if name not in slow}
        for name, value in slow.items():
            value.copy_(parameters[name.replace(SLOW, "critic.")])
        zeros = {branch: {n: torch.zeros_like(v) for n, v in parameters.items()} for branch in ("rms", "momentum")}
        scalar = torch.zeros((), device=self.device, dtype=self.dtype)
        state = {
            "parameters": parameters,
            "slow": slow,
            "optimizer": zeros,
            "normalizer": {"low": scalar.clone(), "high": scalar.clone(), **self._initial_change(scalar)},
            "counters": {"updates": torch.zeros((), dtype=torch.int64, device=self.device)},
            "hyperparameters": hyperparameter_tensors(self.config.hyperparameters, scalar),
        }
        return TensorDict(state, batch_size=[])

    def _initial_change(self, like: Tensor) -> dict[str, Tensor]:
        """Mean square of the observation's changes [Y], for an agent that infers the context; 0: none seen yet."""
        return {"change": like.new_zeros(self.networks.world_model.measured_size)} if self.infers else {}

    def apply_hyperparameters(self, state: TensorDict, hyperparameters: Hyperparameters) -> None:
        """Overwrite the tree's hyperparameters in place, in every member; the next update reads them."""
        given = hyperparameter_tensors(hyperparameters, state["normalizer", "low"])
        for name, value in given.items():
            state["hyperparameters", name].copy_(value)

    # Learning --------------------------------------------------------------------------------------------------

    def update_noise(self, batch: int, length: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Noise of one update: Gumbel for latents and discrete actions, normal for continuous ones.

        Returns:
            ``posterior`` [B, T, C, S], ``prior`` [H, B*T, C, S], ``action`` [H, B*T, A].
        """
        latent = (self.config.world_model.dimensions.classes, self.config.world_model.stoch)
        rows, horizon = batch * length, self.config.horizon
        return {
            "posterior": self._gumbel((batch, length, *latent), generator),
            "prior": self._gumbel((horizon, rows, *latent), generator),
            "action": self._action_noise((horizon, rows), generator),
        }

    def update(
        self, state: TensorDict, batch: Mapping[str, Tensor], noise: Mapping[str, Tensor]
    ) -> tuple[TensorDict, dict[str, Tensor], dict[str, Tensor]]:
        """Improve world model, actor and critic by one optimizer step, in place.

        A state with batch size [M] is a population: batch and noise then have a leading M too, and every member
        gets what it would have got alone.

        Args:
            state: the tree.
            batch: records [B, T, ...] as sampled from replay (see ``losses.observe``).
            noise: from ``update_noise``.

        Returns:
            The same tree; metrics of shape [] or [M], still on the device; and, where the batch starts from stored
            latents (``carry/...``), the new posteriors [B, T, ...] or [M, B, T, ...] as ``latents.compact`` gives them.
        """
        gradient = self._gradients
        if state.batch_dims:
            gradient = vmap(self._functional_gradients, randomness="error")
        parameters, slow = _leaves(state, "parameters"), _leaves(state, "slow")
        hyperparameters = _leaves(state, "hyperparameters")
        gradients, metrics, normalizer, posterior = gradient(
            parameters, slow, hyperparameters, _leaves(state, "normalizer"), self.cast(batch), dict(noise)
        )
        count = state["counters", "updates"]
        warmup = hyperparameters["warmup"]
        fraction = torch.where(warmup > 0, (count / warmup.clamp_min(1e-9)).clamp_max(1.0), 1.0)
        count += 1
        norms = laprop_step(
            list(parameters.values()),
            [gradients[name] for name in parameters],
            list(state["optimizer", "rms"].values()),
            list(state["optimizer", "momentum"].values()),
            count,
            hyperparameters["learning_rate"] * fraction,
            hyperparameters["gradient_clip"],
        )
        for name, value in normalizer.items():
            state["normalizer", name].copy_(value)
        for name, average in slow.items():
            rate = hyperparameters["slow_rate"].reshape(count.shape + (1,) * (average.dim() - count.dim()))
            average.lerp_(parameters[name.replace(SLOW, "critic.")], rate)
        latents = compact(posterior["deter"], posterior["stoch"]) if posterior else {}
        return state, metrics | {"gradient/norm": norms.gradient, "gradient/clip": norms.clip}, latents

    def _gradients(
        self, parameters: dict[str, Tensor], slow: dict[str, Tensor], *arguments: dict[str, Tensor]
    ) -> Gradients:
        """Gradients of one member's objective and what comes beside it, by eager autograd."""
        leaves = {name: value.detach().requires_grad_() for name, value in parameters.items()}
        total, auxiliaries = self._objective(leaves, slow, *arguments)
        gradients = torch.autograd.grad(total, list(leaves.values()))
        return dict(zip(leaves, gradients, strict=True)), *auxiliaries

    def _functional_gradients(
        self, parameters: dict[str, Tensor], slow: dict[str, Tensor], *arguments: dict[str, Tensor]
    ) -> Gradients:
        """The same for ``vmap``. Alone it is slower: every operation passes through one more dispatcher."""
        gradients, (_, auxiliaries) = grad_and_value(self._objective, has_aux=True)(parameters, slow, *arguments)
        return gradients, *auxiliaries

    def _objective(
        self,
        parameters: dict[str, Tensor],
        slow: dict[str, Tensor],
        hyperparameters: dict[str, Tensor],
        normalizer: dict[str, Tensor],
        batch: dict[str, Tensor],
        noise: dict[str, Tensor],
    ) -> tuple[Tensor, Auxiliaries]:
        arguments = (losses.objective, batch, hyperparameters, normalizer, noise, self.config.horizon)
        return functional_call(self.networks, parameters | slow, arguments)

    # Acting ----------------------------------------------------------------------------------------------------

    def initial_carry(self, environments: int) -> dict[str, Tensor]:
        """Return the zero carry: ``deter`` [E, D], ``stoch`` [E, C, S], ``action`` [E, A].

        For an agent that infers the context also ``belief/...``, see ``ContextEncoder.initial``.
        """
        like = torch.zeros((), device=self.device, dtype=self.dtype)
        model = self.networks.world_model
        carry = model.rssm.initial(environments, like) | {"action": like.new_zeros(environments, self.action.size)}
        belief = model.context_encoder.initial(environments, like) if self.infers else {}
        return carry | {f"{BELIEF}{name}": value for name, value in belief.items()}

    def act_noise(self, environments: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Noise of one policy step: ``posterior`` [E, C, S] and ``action`` [E, A]."""
        latent = (self.config.world_model.dimensions.classes, self.config.world_model.stoch)
        return {
            "posterior": self._gumbel((environments, *latent), generator),
            "action": self._action_noise((environments,), generator),
        }

    @torch.no_grad()
    def act(
        self,
        state: TensorDict,
        carry: Mapping[str, Tensor],
        records: Mapping[str, Tensor],
        noise: Mapping[str, Tensor] | None,
    ) -> tuple[Float[Tensor, "E A"], dict[str, Tensor]]:
        """Choose one action per environment.

        Args:
            carry: what the last call returned; rows whose ``is_first`` is set are zeroed here.
            records: ``observation/<key>`` [E, O], ``is_first`` [E] and ``context`` [E, F] in raw units.
            noise: from ``act_noise``; None acts greedily on the most likely latent.

        Returns:
            Actions [E, A] (one-hot, or continuous and possibly beyond [-1, 1]) and the next carry.
        """
        arguments = (dict(carry), self.cast(records), dict(noise or {}), _leaves(state, "normalizer"))
        return self._call(state, _act, *arguments)

    # Dreaming --------------------------------------------------------------------------------------------------

    @property
    def infers(self) -> bool:
        """Whether the agent infers the context from transitions, instead of being told it."""
        return self.networks.flags.inferred

    @property
    def history(self) -> int:
        """Records before a replayed sequence that `update` infers its context from, as ``history/<entry>``."""
        return self.config.world_model.history

    @torch.no_grad()
    def condition(self, state: TensorDict, batch: Mapping[str, Tensor]) -> Float[Tensor, "B T K"]:
        """Return, for every step of recorded sequences, the context in the form that `imagine` and `decode` take.

        That is the recorded one, raw units [B, T, F]; for an agent that infers it, the code [B, T, Z] that follows from
        the transitions up to each step.
        """
        if not self.infers:
            return self.cast({"context": batch["context"]})["context"]
        return self._call(state, _infer, self.cast(batch), _leaves(state, "normalizer"))

    @torch.no_grad()
    def observe(
        self, state: TensorDict, batch: Mapping[str, Tensor], noise: Float[Tensor, "B T C S"] | None = None
    ) -> dict[str, Tensor]:
        """Return the posterior ``deter`` [B, T, D] and ``stoch`` [B, T, C, S] of recorded sequences."""
        arguments = (self.cast(batch), noise, _leaves(state, "normalizer"))
        posterior = self._call(state, losses.observe, *arguments)["posterior"]
        return {name: posterior[name] for name in ("deter", "stoch")}

    @torch.no_grad()
    def imagine(
        self,
        state: TensorDict,
        start: Mapping[str, Tensor],
        actions: Float[Tensor, "B H A"],
        context: Float[Tensor, "B K"],
        noise: Float[Tensor, "B H C S"] | None = None,
    ) -> dict[str, Tensor]:
        """Dream open-loop with given actions from latents [B, ...] under a context, in the form of `condition`.

        Returns:
            ``deter`` [B, H, D] and ``stoch`` [B, H, C, S]; entry h is the state that ``actions[:, h]`` leads to.
        """
        batch = self.cast({"actions": actions, "context": context})
        return self._call(state, _imagine, dict(start), batch["actions"], batch["context"], noise)

    @torch.no_grad()
    def decode(
        self, state: TensorDict, latent: Mapping[str, Tensor], context: Float[Tensor, "*N K"]
    ) -> dict[str, Tensor]:
        """Return ``observation/<key>``, ``reward`` and ``continue`` of latents [..., ...] under a context [..., K].

        The context has the form of `condition`.
        ``continue`` is the probability that the world goes on, the training discount divided out and cut at 1.
        """

        def predict(networks: Networks) -> dict[str, Tensor]:
            model = networks.world_model
            return model.predict(latent, model.given_context(self.cast({"context": context})["context"]))

        predicted = self._call(state, predict)
        discount = 1 - 1 / state["hyperparameters", "discount_horizon"]
        return predicted | {"continue": (predicted["continue"] / discount).clamp_max(1.0)}

    # Helpers ---------------------------------------------------------------------------------------------------

    def cast(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Move tensors to the agent's device, floating ones to its dtype."""
        return {
            name: value.to(self.device, self.dtype if value.is_floating_point() else None)
            for name, value in tensors.items()
        }

    def _call(self, state: TensorDict, function: Callable[..., Any], *arguments: Any) -> Any:
        tensors = _leaves(state, "parameters") | _leaves(state, "slow")
        return functional_call(self.networks, tensors, (function, *arguments))

    def _gumbel(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return gumbel(shape, generator, generator.device).to(self.device, self.dtype)

    def _action_noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        shape = (*shape, self.action.size)
        if self.action.discrete:
            return self._gumbel(shape, generator)
        return torch.randn(shape, generator=generator, device=generator.device).to(self.device, self.dtype)


def _leaves(state: TensorDict, branch: str) -> dict[str, Tensor]:
    return dict(state[branch].items())


def _act(
    networks: Networks,
    carry: dict[str, Tensor],
    records: dict[str, Tensor],
    noise: dict[str, Tensor],
    normalizer: dict[str, Tensor],
) -> tuple[Tensor, dict[str, Tensor]]:
    model, rssm = networks.world_model, networks.world_model.rssm
    context = model.normalize_context(records["context"])
    observations = model.observations(records, context)
    tokens = model.encode(observations)
    keep = ~records["is_first"]
    deter, stoch, previous = (masked(carry[name], keep) for name in ("deter", "stoch", "action"))
    belief: dict[str, Tensor] = {}
    dynamics = context
    if networks.flags.inferred:
        before = {name.removeprefix(BELIEF): value for name, value in carry.items() if name.startswith(BELIEF)}
        measured = model.measure(observations, tokens)
        dynamics = masked(before["code"], keep)  # known before this observation, which the prior must not see
        context, belief = model.context_encoder.step(before, measured, previous, keep, normalizer["change"])
    action_input = rssm.embed_action(previous, dynamics if networks.flags.sequence else None)
    deter = rssm.recur(rssm.cell_weights(), deter, stoch, action_input)
    probabilities = unimix(rssm.posterior_logits(deter, tokens), rssm.share)
    latent = {"deter": deter, "stoch": sample_one_hot(probabilities, noise.get("posterior"))}
    policy = networks.policy(model.features(latent), context)
    action = networks.actor.sample(policy, noise.get("action"))
    return action, latent | {"action": action} | {f"{BELIEF}{name}": value for name, value in belief.items()}


def _infer(networks: Networks, batch: dict[str, Tensor], normalizer: dict[str, Tensor]) -> Tensor:
    model = networks.world_model
    observations = model.observations(batch, model.normalize_context(batch["context"]))
    return infer(networks, batch, observations, model.encode(observations), normalizer)["code"]


def _imagine(
    networks: Networks, start: dict[str, Tensor], actions: Tensor, context: Tensor, noise: Tensor | None
) -> dict[str, Tensor]:
    model, rssm = networks.world_model, networks.world_model.rssm
    joined = model.given_context(context) if networks.flags.sequence else None
    weights = rssm.cell_weights()
    latent, steps = start, []
    for h in range(actions.shape[1]):
        latent = rssm.imagine_step(weights, latent, actions[:, h], joined, None if noise is None else noise[:, h])
        steps.append(latent)
    return {name: torch.stack([step[name] for step in steps], 1) for name in ("deter", "stoch")}
