"""What a run consists of: frozen models in which every field names its meaning, unit, range and source.

The agent's own models are in `agents.dreamerv3.config`.
"""

from itertools import product
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from agents.dreamerv3.config import DreamerV3Config

PROTOCOL = "arXiv 2403.10967"
REFERENCE = "danijar/dreamerv3 at e3f0224"


class Settings(BaseModel):
    """Base of the run's models: unknown keys, infinite numbers and later changes are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class EnvironmentConfig(Settings):
    """The environment and how many copies of it are stepped together."""

    name: str = Field(
        default="cartpole",
        description="cartpole, pendulum, acrobot, mountain_car, mountain_car_continuous, dmc/<domain>/<task>, "
        "gym/<id>, or one of an extra.",
    )
    num_envs: int = Field(default=4, ge=1, description=f"Environments stepped together, >= 1. {PROTOCOL}: 4.")
    features: tuple[str, ...] | None = Field(
        default=None,
        description="Context features shown to the agent, in order; null: every feature of the environment.",
    )
    time_limit: int | None = Field(
        default=None,
        ge=1,
        description="Steps of the original environment until an episode is cut (never a terminal), >= 1; "
        "null: the environment's own.",
    )
    action_repeat: int = Field(
        default=1, ge=1, description="Environment steps per policy step, the rewards summed, >= 1."
    )
    observations: Literal["state", "pixels", "both"] | None = Field(
        default=None,
        description="state: the environment's vectors; pixels: its images, drawn where it has none of its own; both; "
        "null: what the environment has by itself.",
    )
    image_size: int | None = Field(
        default=None,
        ge=16,
        multiple_of=16,
        description=f"Height and width of images in pixels, a multiple of 16; null: 64 ({REFERENCE}: 64), and for a "
        "world that gives images in one size of its own, that.",
    )
    camera: int | None = Field(
        default=None,
        ge=-1,
        description="Number of the camera through which pixels are drawn, -1 for a free one; null: the one that shows "
        f"the task ({REFERENCE}: for dmc 0, quadruped 2).",
    )
    on_invalid: Literal["stop", "drop"] = Field(
        default="stop",
        description="What a step does whose observation or reward is NaN, infinite or of a wrong shape or type, or "
        "whose simulation diverged. stop: end the run with a line; drop: drop the episode and go on.",
    )
    vector: Literal["serial", "subprocess"] = Field(
        default="serial",
        description="serial: all in this process, faster for environments under 1 ms a step; "
        "subprocess: one process each, and a crash of one is survived.",
    )
    observation_scale: dict[str, tuple[float, ...]] | None = Field(
        default=None,
        description="By observation key, the positive numbers, in its units, that divide its elements; null: none.",
    )

    def settings(self) -> dict[str, Any]:
        """The keyword arguments with which `make_environment` makes this environment."""
        names = ("features", "time_limit", "action_repeat", "observations", "image_size", "camera")
        return {name: getattr(self, name) for name in names}

    @field_validator("features")
    @classmethod
    def _features_differ(cls, features: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if features is not None and len(set(features)) < len(features):
            raise ValueError("every feature may be named once")
        return features

    @field_validator("observation_scale")
    @classmethod
    def _scales_are_positive(cls, scale: dict[str, tuple[float, ...]] | None) -> dict[str, tuple[float, ...]] | None:
        for key, numbers in (scale or {}).items():
            if not numbers or min(numbers) <= 0.0:
                raise ValueError(f"the numbers for {key!r} must all be > 0")
        return scale


def expand_contexts(contexts: Any) -> Any:
    """Replace every context that lists several values of a feature by the product of its values.

    `[{gravity: [4.9, 14.7], length: [0.5, 0.7]}]` stands for four contexts, the last feature varying fastest.
    Anything that is not a list of mappings is returned as it is, for pydantic to refuse.
    """
    if not isinstance(contexts, list | tuple) or not all(isinstance(context, dict) for context in contexts):
        return contexts
    expanded = []
    for context in contexts:
        values = [value if isinstance(value, list | tuple) else [value] for value in context.values()]
        expanded += [dict(zip(context, combination, strict=True)) for combination in product(*values)]
    return tuple(expanded)


class TrainingContextsConfig(Settings):
    """The contexts in which the agent is trained."""

    distribution: Literal["default", "fixed", "uniform", "round_robin"] = Field(
        default="default",
        description="default: the environment's defaults; fixed: `contexts` in the order given; uniform: "
        "drawn afresh from `ranges` at every reset; round_robin: `contexts`, or `count` contexts drawn once "
        "from `ranges`, "
        f"shuffled anew in each pass. {PROTOCOL}: round_robin over 100.",
    )
    ranges: dict[str, tuple[float, float]] = Field(
        default_factory=dict, description="By feature, lowest and highest value, in the feature's unit."
    )
    contexts: tuple[dict[str, float], ...] = Field(
        default=(),
        description="Contexts in the features' units; the features that one leaves out have their defaults. "
        "A list of values stands for one context each.",
    )
    count: int = Field(
        default=100,
        ge=1,
        description="Contexts drawn once from `ranges`: with round_robin those trained in, with uniform those that "
        f"stand for it when the agent is judged. {PROTOCOL}: 100.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of the draw, so that runs of other seeds share the contexts.")
    change_every: int | None = Field(
        default=None,
        ge=1,
        description="Policy steps after which the context changes within an episode to another one of this "
        "distribution, >= 1; null: only from episode to episode.",
    )

    _expand = field_validator("contexts", mode="before")(expand_contexts)

    @field_validator("ranges")
    @classmethod
    def _ranges_are_ordered(cls, ranges: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        for feature, (low, high) in ranges.items():
            if low >= high:
                raise ValueError(f"{feature!r} must go from low to high, got [{low:g}, {high:g}]")
        return ranges

    @model_validator(mode="after")
    def _distribution_has_what_it_needs(self) -> Self:
        given = {"ranges": bool(self.ranges), "contexts": bool(self.contexts)}
        needed = {
            "default": [{"ranges": False, "contexts": False}],
            "fixed": [{"ranges": False, "contexts": True}],
            "uniform": [{"ranges": True, "contexts": False}],
            "round_robin": [{"ranges": True, "contexts": False}, {"ranges": False, "contexts": True}],
        }[self.distribution]
        if given not in needed:
            wanted = {
                "default": "neither ranges nor contexts",
                "fixed": "contexts and no ranges",
                "uniform": "ranges and no contexts",
                "round_robin": "either ranges or contexts, not both",
            }[self.distribution]
            raise ValueError(f"distribution {self.distribution!r} takes {wanted}")
        if self.change_every is not None and self.distribution == "default":
            raise ValueError(
                "distribution 'default' is one context, which nothing changes to: change_every must be null"
            )
        return self


class EvaluationContextsConfig(Settings):
    """The contexts in which the kept agent is judged, beside those it was trained in."""

    regions: dict[str, tuple[dict[str, float], ...]] = Field(
        default_factory=dict,
        description="By region (such as interpolation, extrapolation, one_factor), its contexts, in the "
        "features' units. A list of values stands for one context each. `training` is always a region too.",
    )
    change_every: int | None = Field(
        default=None,
        ge=1,
        description="Policy steps after which a judged episode goes on to the next context of its region, in turn, "
        ">= 1: for agents that adapt. It counts for the context that it began in. null: it stays in that one.",
    )

    @field_validator("regions", mode="before")
    @classmethod
    def _expand(cls, regions: Any) -> Any:
        if not isinstance(regions, dict):
            return regions
        return {region: expand_contexts(contexts) for region, contexts in regions.items()}

    @field_validator("regions")
    @classmethod
    def _regions_are_named_and_filled(
        cls, regions: dict[str, tuple[dict[str, float], ...]]
    ) -> dict[str, tuple[dict[str, float], ...]]:
        for region, contexts in regions.items():
            if region == "training":
                raise ValueError("the region 'training' is always that of the training contexts; choose another name")
            if not contexts:
                raise ValueError(f"the region {region!r} needs at least one context")
        return regions


class ContextsConfig(Settings):
    """Contexts of training and of evaluation."""

    training: TrainingContextsConfig = Field(
        default_factory=TrainingContextsConfig, description="Contexts in which the agent is trained."
    )
    evaluation: EvaluationContextsConfig = Field(
        default_factory=EvaluationContextsConfig, description="Contexts in which the kept agent is judged."
    )


class ReplayConfig(Settings):
    """The paged replay buffer."""

    capacity: int = Field(default=1_000_000, ge=1, description=f"Records kept, >= 1. {REFERENCE}: 5,000,000.")
    page_length: int = Field(default=1024, ge=1, description="Records per page, the unit of eviction and of files.")
    storage: Literal["ram", "mmap", "device"] = Field(
        default="ram",
        description="ram: in memory; mmap: in files of the run folder, for more records than memory; device: in the "
        "memory of the device that computes, so that batches need no copy to it.",
    )


class TrainingConfig(Settings):
    """How long and how the agent is trained."""

    environment_steps: int = Field(
        default=50_000,
        ge=1,
        description=f"Policy steps in all, over all environments. {PROTOCOL}: CartPole 50,000.",
    )
    epoch_steps: int = Field(
        default=1_000,
        ge=1,
        description="Policy steps between two validations and checkpoints; divides environment_steps.",
    )
    start_steps: int = Field(default=1_024, ge=1, description=f"Records before training starts. {REFERENCE}: 1,024.")
    train_ratio: float = Field(
        default=512.0, gt=0.0, description=f"Replayed steps per policy step, > 0. {PROTOCOL}: 512."
    )
    batch_size: int = Field(default=16, ge=1, description=f"Sequences per update. {REFERENCE}: 16.")
    batch_length: int = Field(default=64, ge=2, description=f"Time steps per sequence, >= 2. {REFERENCE}: 64.")
    sequence_start: Literal["zero", "stored"] = Field(
        default="zero",
        description="State that replayed sequences start from. zero: all zeros; stored: the latent of the step before, "
        f"kept in replay when acting and renewed by every update. {REFERENCE}: stored.",
    )
    burn_in: int = Field(
        default=0,
        ge=0,
        description="With sequence_start zero, steps before the trained ones that only find their state, without loss "
        "or gradient, >= 0.",
    )
    timeouts: Literal["truncate", "terminal"] = Field(
        default="truncate",
        description="What an episode that is cut by its time limit teaches. truncate: that the world goes on; "
        f"terminal: that it ends there, a fault of the published runs, to compare with them. {PROTOCOL}: terminal.",
    )
    threads: int = Field(
        default=1, ge=1, description="Threads of a torch operation; small networks are fastest with 1."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto: cuda where there is one, else cpu."
    )
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description=f"Numbers that the networks compute in; the parameters are float32. {REFERENCE}: bfloat16.",
    )
    capture: Literal["auto", "never"] = Field(
        default="auto",
        description="auto: on cuda, record the update once as a CUDA graph and replay it; never: launch each "
        "operation anew.",
    )
    keep_checkpoints: int = Field(default=2, ge=1, description="Latest checkpoints kept beside the best one, >= 1.")

    @model_validator(mode="after")
    def _one_way_to_start(self) -> Self:
        if self.sequence_start == "stored" and self.burn_in:
            raise ValueError(
                f"burn_in ({self.burn_in}) is for sequence_start zero; with stored, which has its state, it must be 0"
            )
        return self

    @property
    def steps_before(self) -> int:
        """Records that a replayed sequence has in front of the trained ones."""
        return 1 if self.sequence_start == "stored" else self.burn_in


class EvaluationConfig(Settings):
    """How the agent is validated during training and judged after it."""

    validation_episodes: int = Field(
        default=32,
        ge=1,
        description="Episodes, over the training contexts, whose mean return chooses the checkpoint.",
    )
    episodes_per_context: int = Field(
        default=10,
        ge=1,
        description=f"Episodes of every context when the kept agent is judged. {PROTOCOL}: 50.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of the judged episodes, which no training seed shares.")
    confidence: float = Field(
        default=0.95, gt=0.0, lt=1.0, description="Coverage of the bootstrap intervals, in (0, 1)."
    )


class RunConfig(Settings):
    """One run: an agent trained in one environment, many contexts and one seed."""

    name: str = Field(
        default="run",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="Letters, digits, '.', '_' and '-'; the run folder is runs/<name> unless told otherwise.",
    )
    seed: int = Field(default=0, ge=0, description="Seed of everything random in the run, >= 0.")
    environment: EnvironmentConfig = Field(default_factory=EnvironmentConfig, description="The environment.")
    contexts: ContextsConfig = Field(default_factory=ContextsConfig, description="Contexts of training and evaluation.")
    agent: DreamerV3Config = Field(default_factory=DreamerV3Config, description="The agent.")
    replay: ReplayConfig = Field(default_factory=ReplayConfig, description="The replay buffer.")
    training: TrainingConfig = Field(default_factory=TrainingConfig, description="How the agent is trained.")
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig, description="How the agent is judged.")

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        training, num_envs = self.training, self.environment.num_envs
        if training.environment_steps % training.epoch_steps:
            raise ValueError(
                f"training.epoch_steps ({training.epoch_steps}) must divide training.environment_steps "
                f"({training.environment_steps})"
            )
        if training.epoch_steps % num_envs:
            raise ValueError(
                f"environment.num_envs ({num_envs}) must divide training.epoch_steps ({training.epoch_steps})"
            )
        before = max(training.steps_before, self.agent.world_model.history)
        shortest = num_envs * (before + training.batch_length)
        if training.start_steps < shortest:
            length = f"(training.batch_length + {before} before it)" if before else "training.batch_length"
            raise ValueError(
                f"training.start_steps ({training.start_steps}) must be at least environment.num_envs x {length} = "
                f"{shortest}, so that there is a sequence to replay"
            )
        classes = self.agent.world_model.dimensions.classes
        if training.sequence_start == "stored" and classes > 256:
            raise ValueError(
                f"training.sequence_start stored keeps classes as bytes: agent.world_model.classes ({classes}) must be "
                "at most 256"
            )
        needed = max(training.start_steps, num_envs * self.replay.page_length)
        if self.replay.capacity < needed:
            raise ValueError(
                f"replay.capacity ({self.replay.capacity}) must be at least {needed}: "
                "training.start_steps records and one page per environment"
            )
        return self
