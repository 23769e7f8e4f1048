"""TorchRL's DreamerV3 at a published size: its whole update, for timing beside ours on equal data.

Built from the public modules and losses of TorchRL 0.14 as its own recipe for DeepMind Control joins them: one
encoder of all vectors, a block-diagonal recurrence, one decoder head for each vector, REINFORCE in imagination,
the replayed value loss, its optimizer and its soft update of the slow critic. The number of parameters is that of
danijar/dreamerv3 at e3f0224 and ours. Only vector observations and continuous actions.
"""

from collections.abc import Mapping

import torch
from tensordict import TensorDict
from tensordict.nn import (
    ProbabilisticTensorDictModule,
    ProbabilisticTensorDictSequential,
    TensorDictModule,
    TensorDictSequential,
)
from torch import Tensor, nn
from torchrl.data import Bounded, Composite, Unbounded
from torchrl.envs.model_based import DreamerEnv
from torchrl.modules import (
    DreamerV3MLP,
    RSSMPosteriorV3,
    RSSMPriorV3,
    RSSMRolloutV3,
    SymExpTwoHot,
    WorldModelWrapper,
)
from torchrl.modules.distributions.continuous import IndependentNormal
from torchrl.objectives import (
    DreamerV3ActorLoss,
    DreamerV3Loss,
    DreamerV3ModelLoss,
    DreamerV3ValueLoss,
    SoftUpdate,
    ValueEstimators,
    symexp,
    symlog,
)
from torchrl.trainers.algorithms import DreamerV3OptimizationStepper, DreamerV3Optimizer

from worldmodels.config import SIZES, Size

STOCH, BLOCKS, BINS, UNIMIX = 32, 8, 255, 0.01
HORIZON, DISCOUNT_HORIZON, RETURN_LAMBDA = 15, 333.0, 0.95


class TorchRLDreamer:
    """TorchRL's learner on random replay; `update` is one step of world model, actor, critic and slow critic.

    Args:
        size: a published size.
        shapes: of the vector observations, by key.
        actions: width of the action.
        steps: batch and length of the random batch.
        device: where everything lies.
        bfloat16: by autocast, which TorchRL knows on CUDA only.
        captured: compiled and captured as a CUDA graph, TorchRL's default there; construction then takes minutes.
    """

    def __init__(
        self,
        size: str,
        shapes: Mapping[str, tuple[int, ...]],
        actions: int,
        steps: tuple[int, int],
        device: torch.device,
        *,
        bfloat16: bool = False,
        captured: bool = False,
    ) -> None:
        dimensions, widths = SIZES[size], tuple(shape[0] for shape in shapes.values())
        with torch.device(device):
            loss = _loss(dimensions, widths, actions, device)
            self.batch = _random_batch(dimensions, sum(widths), actions, steps).to(device)
        self.parameters = [parameter for parameter in loss.parameters() if parameter.requires_grad]
        self.stepper = DreamerV3OptimizationStepper(
            loss,
            DreamerV3Optimizer(self.parameters),
            SoftUpdate(loss.value_loss, tau=0.02),
            compile_train_step=captured,
            cudagraph=captured,
            mixed_precision=bfloat16,
        )
        if captured:
            self.stepper.warmup(self.batch)

    def update(self) -> TensorDict:
        """Update parameters, optimizer and slow critic in place; return the losses."""
        return self.stepper.step(None, self.batch)


class _Actor(nn.Module):
    """Mean and deviation of a normal distribution, from separate output layers."""

    def __init__(self, size: Size, features: int, actions: int) -> None:
        super().__init__()
        self.trunk = DreamerV3MLP(features, None, depth=3, num_cells=size.units)
        self.mean = nn.Linear(size.units, actions)
        self.deviation = nn.Linear(size.units, actions)

    def forward(self, state: Tensor, belief: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.trunk(belief, state)
        return self.mean(hidden).tanh().float(), (0.9 * torch.sigmoid(self.deviation(hidden) + 2) + 0.1).float()


class _Decoder(nn.Module):
    """One trunk and an output layer for each vector; predictions in symlog space, as float32."""

    def __init__(self, size: Size, features: int, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.trunk = DreamerV3MLP(features, None, depth=3, num_cells=size.units)
        self.heads = nn.ModuleList(nn.Linear(size.units, width) for width in widths)

    def forward(self, state: Tensor, belief: Tensor) -> Tensor:
        hidden = self.trunk(state, belief)
        return symexp(torch.cat([head(hidden) for head in self.heads], -1).float())


class _Encoder(nn.Module):
    def __init__(self, size: Size, width: int) -> None:
        super().__init__()
        self.layers = DreamerV3MLP(width, None, depth=3, num_cells=size.units)

    def forward(self, observation: Tensor) -> Tensor:
        return self.layers(symlog(observation))


class _Head(nn.Module):
    """A scalar's two-hot logits and their mean, as float32."""

    def __init__(self, size: Size, features: int, depth: int) -> None:
        super().__init__()
        self.layers = DreamerV3MLP(features, BINS, depth=depth, num_cells=size.units, outscale=0.0)
        self.mean = SymExpTwoHot(BINS)

    def forward(self, belief: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.layers(belief, state).float()
        return logits, self.mean(logits)


class _Continue(nn.Module):
    def __init__(self, size: Size, features: int) -> None:
        super().__init__()
        self.layers = DreamerV3MLP(features, 1, depth=1, num_cells=size.units)

    def forward(self, belief: Tensor, state: Tensor) -> Tensor:
        return self.layers(belief, state).float()


def _loss(size: Size, widths: tuple[int, ...], actions: int, device: torch.device) -> DreamerV3Loss:
    """Return all losses over modules of this size, sharing the world model's parameters."""
    latent = STOCH * size.classes
    features = latent + size.deter
    prior = RSSMPriorV3(
        action_shape=(actions,),
        hidden_dim=size.hidden,
        rnn_hidden_dim=size.deter,
        num_categoricals=STOCH,
        num_classes=size.classes,
        action_dim=actions,
        recurrent_model="block_gru",
        num_blocks=BLOCKS,
        unimix=UNIMIX,
    )
    reward, continuation = _Head(size, features, depth=1), _Continue(size, features)
    actor = ProbabilisticTensorDictSequential(
        TensorDictModule(_Actor(size, features, actions), in_keys=["state", "belief"], out_keys=["loc", "scale"]),
        ProbabilisticTensorDictModule(
            in_keys=["loc", "scale"],
            out_keys=["action"],
            distribution_class=IndependentNormal,
            return_log_prob=True,
            log_prob_key="action_log_prob",
        ),
    )
    value = TensorDictModule(
        _Head(size, features, depth=3), in_keys=["belief", "state"], out_keys=["state_value_logits", "state_value"]
    )
    model_loss = DreamerV3ModelLoss(
        _world_model(size, widths, prior, reward, continuation),
        kl_mode="separate",
        unimix=UNIMIX,
        lambda_continue=1.0,
        continue_target_scale=1 - 1 / DISCOUNT_HORIZON,
        detach_output=False,
    )
    model_loss.set_keys(pixels="observation")
    actor_loss = DreamerV3ActorLoss(
        actor,
        value,
        _imagination(prior, reward, latent, size.deter, actions, device),
        continuation_model=_imagined_continuation(continuation),
        imagination_horizon=HORIZON,
        use_reinforce=True,
    )
    # The continue head predicts the discount as well.
    actor_loss.make_value_estimator(ValueEstimators.TDLambda, gamma=1.0, lmbda=RETURN_LAMBDA)
    value_loss = DreamerV3ValueLoss(value, value_loss="two_hot", actor_loss=actor_loss, slow_critic_regularization=1.0)
    return DreamerV3Loss(model_loss, actor_loss, value_loss).to(device)


def _world_model(
    size: Size, widths: tuple[int, ...], prior: RSSMPriorV3, reward: _Head, continuation: _Continue
) -> TensorDictSequential:
    features = STOCH * size.classes + size.deter
    posterior = RSSMPosteriorV3(
        hidden_dim=size.hidden,
        num_categoricals=STOCH,
        num_classes=size.classes,
        rnn_hidden_dim=size.deter,
        obs_embed_dim=size.units,
        use_rms_norm=True,
        unimix=UNIMIX,
    )
    following = [("next", "belief"), ("next", "state")]
    return TensorDictSequential(
        TensorDictModule(
            _Encoder(size, sum(widths)), in_keys=[("next", "observation")], out_keys=[("next", "encoded_latents")]
        ),
        RSSMRolloutV3(
            TensorDictModule(
                prior,
                in_keys=["state", "belief", "action"],
                out_keys=[("next", "prior_logits"), ("next", "state"), ("next", "belief")],
            ),
            TensorDictModule(
                posterior,
                in_keys=[("next", "belief"), ("next", "encoded_latents")],
                out_keys=[("next", "posterior_logits"), ("next", "state")],
            ),
        ),
        TensorDictModule(_Decoder(size, features, widths), in_keys=following[::-1], out_keys=[("next", "reco_pixels")]),
        TensorDictModule(reward, in_keys=following, out_keys=[("next", "reward_logits"), ("next", "reward")]),
        TensorDictModule(continuation, in_keys=following, out_keys=[("next", "continue_pred")]),
    )


def _imagination(
    prior: RSSMPriorV3, reward: _Head, latent: int, deter: int, actions: int, device: torch.device
) -> DreamerEnv:
    """Return the prior and the reward head as an environment."""
    transition = TensorDictModule(prior, in_keys=["state", "belief", "action"], out_keys=["_", "state", "belief"])
    rewards = TensorDictModule(reward, in_keys=["belief", "state"], out_keys=["reward_logits", "reward"])
    environment = DreamerEnv(
        WorldModelWrapper(transition, rewards), prior_shape=(latent,), belief_shape=(deter,), device=device
    )
    environment.observation_spec = Composite(state=Unbounded(latent), belief=Unbounded(deter), device=device)
    environment.state_spec = environment.observation_spec.clone()
    environment.action_spec = Bounded(-1, 1, (actions,), device=device)
    environment.reward_spec = Unbounded((1,), device=device)
    return environment


def _imagined_continuation(continuation: _Continue) -> TensorDictSequential:
    return TensorDictSequential(
        TensorDictModule(continuation, in_keys=["belief", "state"], out_keys=["continue_logits"]),
        TensorDictModule(nn.Sigmoid(), in_keys=["continue_logits"], out_keys=["continuation"]),
    )


def _random_batch(size: Size, width: int, actions: int, steps: tuple[int, int]) -> TensorDict:
    flags = {name: torch.zeros(*steps, 1, dtype=torch.bool) for name in ("done", "terminated", "truncated")}
    following = {"observation": torch.randn(*steps, width), "reward": torch.randn(*steps, 1), **flags}
    records = {
        "state": torch.zeros(*steps, STOCH * size.classes),
        "belief": torch.zeros(*steps, size.deter),
        "action": torch.rand(*steps, actions),
        "is_init": torch.zeros(*steps, 1, dtype=torch.bool),
        "next": following,
    }
    return TensorDict(records, steps)
