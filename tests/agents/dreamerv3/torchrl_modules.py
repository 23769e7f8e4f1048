"""DreamerV3 put together from TorchRL's modules, with the weights of one of our state trees.

Ours keeps latents class-major [C, S], TorchRL's are [S, C]; linear layers are alike. ``pairs`` names every tensor of
ours with its counterpart and the change of layout, so that weights go one way and gradients can be compared.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from tensordict import TensorDict
from tensordict.nn import (
    InteractionType,
    ProbabilisticTensorDictModule,
    ProbabilisticTensorDictSequential,
    TensorDictModule,
    TensorDictSequential,
)
from torch import Tensor, nn
from torchrl.data import Bounded, Composite, Unbounded
from torchrl.envs.model_based import DreamerEnv
from torchrl.modules import (
    DreamerV3DiscreteActor,
    DreamerV3MLP,
    IndependentNormal,
    RSSMPosteriorV3,
    RSSMPriorV3,
    RSSMRolloutV3,
    SymExpTwoHot,
    WorldModelWrapper,
)
from torchrl.objectives import DreamerV3ActorLoss, DreamerV3Loss, DreamerV3ModelLoss, DreamerV3ValueLoss
from torchrl.objectives.dreamer_v3 import symexp, symlog
from torchrl.objectives.utils import ValueEstimators

from agents.dreamerv3 import ActionSpec, DreamerV3, DreamerV3Config
from worldmodels.context import ContextSpec

STOCH, CLASSES, DETER, HIDDEN, UNITS, BLOCKS, ACTIONS, OBSERVATION = 4, 3, 16, 8, 8, 2, 3, 4
LATENT = STOCH * CLASSES
SMALL = {"deter": DETER, "hidden": HIDDEN, "units": UNITS, "stoch": STOCH, "classes": CLASSES, "blocks": BLOCKS}
Pair = tuple[str, Tensor, Callable[[Tensor], Tensor]]


def our_agent(discrete: bool, horizon: int) -> tuple[DreamerV3, TensorDict]:
    """An agent in float32, TorchRL's precision, whose weights are of no special kind.

    Outer bins are made improbable, or every value would be millions; wider logits take the KL across the free nat.
    """
    config = {"world_model": SMALL | {"context": "hidden"}, "horizon": horizon}
    action, shapes = ActionSpec(ACTIONS, discrete), {"state": (OBSERVATION,)}
    agent = DreamerV3(DreamerV3Config.model_validate(config), shapes, action, ContextSpec())
    state = agent.initial_state(0)
    rng = np.random.default_rng(11)
    for branch in ("parameters", "slow"):
        for value in state[branch].values():
            value += 0.3 * torch.from_numpy(rng.normal(size=value.shape)).float()
    for branch, head in (("parameters", "world_model.reward"), ("parameters", "critic"), ("slow", "slow_critic")):
        state[branch, f"{head}.output.bias"] -= 0.2 * torch.arange(-127, 128).abs()
    state["parameters", "world_model.rssm.posterior_out.weight"] *= 2
    state["normalizer", "low"].fill_(-2.0)
    state["normalizer", "high"].fill_(3.0)
    return agent, state


def same(value: Tensor) -> Tensor:
    return value


def rows(value: Tensor) -> Tensor:
    """Class-major rows of a weight or bias as [S, C]."""
    return value.unflatten(0, (CLASSES, STOCH)).transpose(0, 1).flatten(0, 1)


def columns(start: int) -> Callable[[Tensor], Tensor]:
    """Class-major columns of a weight, from ``start`` on, as [S, C]."""

    def change(value: Tensor) -> Tensor:
        before, latent, after = value.split([start, LATENT, value.shape[1] - start - LATENT], 1)
        return torch.cat([before, rows(latent.T).T, after], 1)

    return change


class First(nn.Module):
    """A function and then a network: encoders see symlog, decoders answer in raw units."""

    def __init__(self, network: nn.Module, before: Callable = same, after: Callable = same) -> None:
        super().__init__()
        self.network, self.before, self.after = network, before, after

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.after(self.network(*(self.before(value) for value in inputs)))


class BeliefFirst(First):
    """Heads see concat(belief, state)."""

    def forward(self, state: Tensor, belief: Tensor) -> Tensor:
        return super().forward(belief, state)


class BoundedNormal(nn.Module):
    """The reference's continuous policy (``heads.Head.bounded_normal``), which TorchRL does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.network = DreamerV3MLP(DETER + LATENT, None, depth=3, num_cells=UNITS)
        self.mean, self.deviation = nn.Linear(UNITS, ACTIONS), nn.Linear(UNITS, ACTIONS)

    def forward(self, state: Tensor, belief: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.network(belief, state)
        return self.mean(hidden).tanh(), 0.9 * (self.deviation(hidden) + 2).sigmoid() + 0.1


class TorchRLDreamer:
    """TorchRL's modules and losses, set as the reference's are."""

    def __init__(self, discrete: bool, horizon: int) -> None:
        features = DETER + LATENT
        self.discrete = discrete
        self.encoder = DreamerV3MLP(OBSERVATION, None, depth=3, num_cells=UNITS)
        self.prior = RSSMPriorV3(
            action_shape=(ACTIONS,),
            action_dim=ACTIONS,
            hidden_dim=HIDDEN,
            rnn_hidden_dim=DETER,
            num_categoricals=STOCH,
            num_classes=CLASSES,
            recurrent_model="block_gru",
            num_blocks=BLOCKS,
            unimix=0.01,
        )
        self.posterior = RSSMPosteriorV3(
            hidden_dim=HIDDEN,
            num_categoricals=STOCH,
            num_classes=CLASSES,
            rnn_hidden_dim=DETER,
            obs_embed_dim=UNITS,
            use_rms_norm=True,
            unimix=0.01,
        )
        self.decoder = DreamerV3MLP(features, OBSERVATION, depth=3, num_cells=UNITS)
        self.reward = DreamerV3MLP(features, 255, depth=1, num_cells=UNITS)
        self.continuation = DreamerV3MLP(features, 1, depth=1, num_cells=UNITS)
        self.critic, self.slow = (DreamerV3MLP(features, 255, depth=3, num_cells=UNITS) for _ in range(2))
        self.rollout = RSSMRolloutV3(
            TensorDictModule(
                self.prior,
                in_keys=["state", "belief", "action"],
                out_keys=[("next", "prior_logits"), ("next", "state"), ("next", "belief")],
            ),
            TensorDictModule(
                self.posterior,
                in_keys=[("next", "belief"), ("next", "encoded_latents")],
                out_keys=[("next", "posterior_logits"), ("next", "state")],
            ),
        )
        self.actor = self._actor(discrete, features)
        self.model_loss = DreamerV3ModelLoss(
            self._world_model(),
            kl_mode="separate",
            unimix=0.01,
            lambda_continue=1.0,
            continue_target_scale=1 - 1 / 333,
            detach_output=False,
        )
        self.model_loss.set_keys(pixels="observation", reco_pixels="reconstruction")
        value = self._value(self.critic)
        self.actor_loss = DreamerV3ActorLoss(
            self.actor,
            value,
            self._environment(discrete),
            continuation_model=TensorDictModule(
                BeliefFirst(self.continuation, after=torch.sigmoid),
                in_keys=["state", "belief"],
                out_keys=["continuation"],
            ),
            imagination_horizon=horizon,
            use_reinforce=True,
        )
        self.actor_loss.make_value_estimator(ValueEstimators.TDLambda, gamma=1.0, lmbda=0.95)
        self.value_loss = DreamerV3ValueLoss(
            value, "two_hot", actor_loss=self.actor_loss, slow_critic_regularization=1.0
        )
        self.loss = DreamerV3Loss(self.model_loss, self.actor_loss, self.value_loss)

    def _world_model(self) -> TensorDictSequential:
        latent = [("next", "state"), ("next", "belief")]
        logits, continued = ("next", "reward_logits"), ("next", "continue_pred")
        return TensorDictSequential(
            TensorDictModule(
                First(self.encoder, symlog), in_keys=[("next", "observation")], out_keys=[("next", "encoded_latents")]
            ),
            self.rollout,
            TensorDictModule(First(self.decoder, after=symexp), in_keys=latent, out_keys=[("next", "reconstruction")]),
            TensorDictModule(BeliefFirst(self.reward), in_keys=latent, out_keys=[logits]),
            TensorDictModule(SymExpTwoHot(255), in_keys=[logits], out_keys=[("next", "reward")]),
            TensorDictModule(BeliefFirst(self.continuation), in_keys=latent, out_keys=[continued]),
        )

    def _value(self, network: nn.Module) -> TensorDictSequential:
        return TensorDictSequential(
            TensorDictModule(BeliefFirst(network), in_keys=["state", "belief"], out_keys=["state_value_logits"]),
            TensorDictModule(SymExpTwoHot(255), in_keys=["state_value_logits"], out_keys=["state_value"]),
        )

    def _actor(self, discrete: bool, features: int) -> nn.Module:
        if discrete:
            return DreamerV3DiscreteActor(features, ACTIONS, num_cells=UNITS, unimix=0.0)
        return ProbabilisticTensorDictSequential(
            TensorDictModule(BoundedNormal(), in_keys=["state", "belief"], out_keys=["loc", "scale"]),
            ProbabilisticTensorDictModule(
                in_keys=["loc", "scale"],
                out_keys=["action"],
                distribution_class=IndependentNormal,
                distribution_kwargs={"tanh_loc": False},
                default_interaction_type=InteractionType.RANDOM,
            ),
        )

    def _environment(self, discrete: bool) -> DreamerEnv:
        step = TensorDictModule(self.prior, in_keys=["state", "belief", "action"], out_keys=["_", "state", "belief"])
        reward = TensorDictModule(
            BeliefFirst(self.reward, after=SymExpTwoHot(255)), in_keys=["state", "belief"], out_keys=["reward"]
        )
        environment = DreamerEnv(WorldModelWrapper(step, reward), prior_shape=(LATENT,), belief_shape=(DETER,))
        environment.observation_spec = Composite(state=Unbounded(LATENT), belief=Unbounded(DETER))
        environment.state_spec = environment.observation_spec.clone()
        environment.action_spec = Bounded(-1, 1, (ACTIONS,)) if not discrete else Unbounded((ACTIONS,))
        environment.reward_spec = Unbounded((1,))
        return environment

    def load(self, state: TensorDict) -> None:
        """Take over weights, slow critic and return range of a state tree."""
        tensors = dict(state["parameters"].items()) | dict(state["slow"].items())
        with torch.no_grad():
            for name, theirs, change in self.pairs():
                theirs.copy_(change(tensors[name]))
            target = self._value(self.slow)
            self.value_loss.target_value_model_params.data.copy_(TensorDict.from_module(target).data)
            for name in ("low", "high"):
                getattr(self.actor_loss.retnorm, name).fill_(state["normalizer", name].item())

    def pairs(self) -> Iterator[Pair]:
        """Every tensor of ours, by name, with TorchRL's and what takes ours to theirs."""
        model = "world_model"
        yield from mlp(f"{model}.encoder", self.encoder.model)
        yield from self._recurrent(f"{model}.rssm")
        yield from mlp(f"{model}.decoder", self.decoder.model[:-1], columns(0))
        yield from linear(f"{model}.reconstructions.state", self.decoder.model[-1])
        heads = {"reward": self.reward, "continuation": self.continuation}
        networks = {f"{model}.{name}": head for name, head in heads.items()}
        for name, network in (networks | {"critic": self.critic, "slow_critic": self.slow}).items():
            yield from mlp(f"{name}.mlp", network.model[:-1], columns(DETER))
            yield from linear(f"{name}.output", network.model[-1])
        if self.discrete:
            network = self.actor[0].module
            yield from mlp("actor.mlp", network.backbone.model, columns(DETER))
            yield from linear("actor.outputs.logits", network.logits_head)
        else:
            policy = self.actor[0].module
            yield from mlp("actor.mlp", policy.network.model, columns(DETER))
            yield from linear("actor.outputs.mean", policy.mean)
            yield from linear("actor.outputs.deviation", policy.deviation)

    def _recurrent(self, rssm: str) -> Iterator[Pair]:
        core = self.prior.rnn
        yield from mlp(f"{rssm}.deter_in", core.belief_projection)
        yield from mlp(f"{rssm}.stoch_in", core.state_projection, columns(0))
        yield from mlp(f"{rssm}.action_in", core.action_projection)
        yield from linear(f"{rssm}.core", core.hidden_layers[0])
        yield f"{rssm}.core_norm.weight", core.hidden_layers[1].weight, same
        yield from linear(f"{rssm}.gates", core.gates)
        yield from mlp(f"{rssm}.prior", self.prior.rnn_to_prior_projector[:-1])
        yield from linear(f"{rssm}.prior_out", self.prior.rnn_to_prior_projector[-1], rows)
        yield from mlp(f"{rssm}.posterior", self.posterior.obs_rnn_to_post_projector[:-1])
        yield from linear(f"{rssm}.posterior_out", self.posterior.obs_rnn_to_post_projector[-1], rows)


def linear(name: str, layer: nn.Module, change: Callable[[Tensor], Tensor] = same) -> Iterator[Pair]:
    yield f"{name}.weight", layer.weight, change
    yield f"{name}.bias", layer.bias, change


def mlp(name: str, layers: nn.Sequential, first: Callable[[Tensor], Tensor] = same) -> Iterator[Pair]:
    """Linear, norm, SiLU, again and again; ``first`` changes the columns of the first weight."""
    for n in range(len(layers) // 3):
        yield f"{name}.linears.{n}.weight", layers[3 * n].weight, first if n == 0 else same
        yield f"{name}.linears.{n}.bias", layers[3 * n].bias, same
        yield f"{name}.norms.{n}.weight", layers[3 * n + 1].weight, same
