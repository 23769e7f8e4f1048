"""Configuration of the DreamerV3 agent: structure here, everything that may change during a run in Hyperparameters."""

from pydantic import BaseModel, ConfigDict, Field

from worldmodels.config import WorldModelConfig

SOURCE = "danijar/dreamerv3 at e3f0224"


class Hyperparameters(BaseModel):
    """Numbers that may change during a run: they become 0-d tensors of the state tree and are read at use."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float = Field(
        default=4e-5, gt=0.0, le=1.0, description=f"Step size of the optimizer. {SOURCE}: 4e-5."
    )
    warmup: float = Field(
        default=1000.0, ge=0.0, description=f"Updates of linear warm-up, counted from 0. {SOURCE}: 1000."
    )
    gradient_clip: float = Field(
        default=0.3,
        gt=0.0,
        description=f"Adaptive clipping: largest gradient norm over parameter norm, per tensor. {SOURCE}: 0.3.",
    )
    reconstruction_scale: float = Field(default=1.0, ge=0.0, description="Weight of the reconstruction losses.")
    reward_scale: float = Field(default=1.0, ge=0.0, description="Weight of the reward loss.")
    continue_scale: float = Field(default=1.0, ge=0.0, description="Weight of the continue loss.")
    dynamics_scale: float = Field(default=1.0, ge=0.0, description="Weight of KL(sg(posterior) || prior).")
    representation_scale: float = Field(default=0.1, ge=0.0, description="Weight of KL(posterior || sg(prior)).")
    policy_scale: float = Field(default=1.0, ge=0.0, description="Weight of the policy loss.")
    value_scale: float = Field(default=1.0, ge=0.0, description="Weight of the imagined value loss.")
    replay_value_scale: float = Field(default=0.3, ge=0.0, description="Weight of the replayed value loss.")
    free_nats: float = Field(default=1.0, ge=0.0, description="Nats below which a KL term is not reduced.")
    discount_horizon: float = Field(
        default=333.0, gt=1.0, description=f"Steps; the discount is 1 - 1/horizon. {SOURCE}: 333."
    )
    return_lambda: float = Field(default=0.95, ge=0.0, le=1.0, description="Lambda of the returns.")
    entropy: float = Field(default=3e-4, ge=0.0, description="Weight of the policy's entropy, nats.")
    slow_regularizer: float = Field(
        default=1.0, ge=0.0, description="Weight of the critic's loss towards the slow critic's prediction."
    )
    slow_rate: float = Field(
        default=0.02,
        gt=0.0,
        le=1.0,
        description="Rate of the moving average that makes the slow critic, per update.",
    )
    return_rate: float = Field(
        default=0.01,
        gt=0.0,
        le=1.0,
        description="Rate of the moving average of the return percentiles, per update.",
    )
    return_floor: float = Field(default=1.0, gt=0.0, description="Smallest scale that advantages are divided by.")


class DreamerV3Config(BaseModel):
    """The DreamerV3 agent. Defaults are those of danijar/dreamerv3 at e3f0224 (Nature 2025, arXiv 2301.04104)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    world_model: WorldModelConfig = Field(default_factory=WorldModelConfig, description="Shape of the world model.")
    actor_layers: int = Field(default=3, ge=1, description="Layers of the actor.")
    critic_layers: int = Field(default=3, ge=1, description="Layers of the critic.")
    horizon: int = Field(default=15, ge=1, description="Imagined steps from every replayed state.")
    hyperparameters: Hyperparameters = Field(
        default_factory=Hyperparameters, description="Numbers that may change during a run."
    )
