"""Sizes of a world model, and where the context enters it."""

from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, model_validator

SizeName = Literal["1m", "12m", "25m", "50m", "100m", "200m", "400m"]
ContextPreset = Literal["hidden", "concat", "crssm", "inferred"]
Width = Annotated[int, Field(ge=1)]


class Size(NamedTuple):
    """Widths of one published size (danijar/dreamerv3, configs.yaml, e3f0224)."""

    deter: int
    hidden: int
    classes: int
    units: int
    depth: int


SIZES: dict[str, Size] = {
    "1m": Size(512, 64, 4, 64, 4),
    "12m": Size(2048, 256, 16, 256, 16),
    "25m": Size(3072, 384, 24, 384, 24),
    "50m": Size(4096, 512, 32, 512, 32),
    "100m": Size(6144, 768, 48, 768, 48),
    "200m": Size(8192, 1024, 64, 1024, 64),
    "400m": Size(12288, 1536, 96, 1536, 96),
}


class ContextFlags(BaseModel):
    """Which modules are given the context vector.

    Source: "Dreaming of Many Worlds" (arXiv 2403.10967); the presets are its agents.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    observation: bool = Field(
        default=False, description="The context is one more vector observation: encoded and reconstructed."
    )
    sequence: bool = Field(
        default=False, description="The sequence model sees the context, joined to the previous action."
    )
    decoder: bool = Field(default=False, description="The decoder sees the context.")
    reward: bool = Field(default=False, description="The reward head sees the context.")
    continuation: bool = Field(default=False, description="The continue head sees the context.")
    actor: bool = Field(default=False, description="The actor sees the context.")
    critic: bool = Field(default=False, description="The critic and the slow critic see the context.")
    inferred: bool = Field(
        default=False,
        description="What these modules see is not the context, but a code of it that is inferred from transitions.",
    )

    @model_validator(mode="after")
    def _inferred_for_someone(self) -> "ContextFlags":
        if self.inferred and (self.observation or not self.any):
            raise ValueError(
                "inferred needs a module that sees the inferred context (sequence, decoder, reward, continuation, "
                "actor, critic), and does not go with observation, which is the true one"
            )
        return self

    @classmethod
    def preset(cls, name: str) -> "ContextFlags":
        """Return the flags of ``hidden``, ``concat``, ``crssm`` or ``inferred``; KeyError for another name."""
        everywhere = dict.fromkeys(("sequence", "decoder", "reward", "continuation", "actor", "critic"), True)
        return {
            "hidden": cls(),
            "concat": cls(observation=True),
            "crssm": cls(**everywhere),
            "inferred": cls(**everywhere, inferred=True),
        }[name]

    @property
    def any(self) -> bool:
        """Whether any module sees the context, or what is inferred of it."""
        return any(value for name, value in self if name != "inferred")


class ContextEncoderConfig(BaseModel):
    """How the context is inferred from transitions, by agents whose context is ``inferred``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: Width = Field(default=8, description="Width of the inferred code. arXiv 2508.20294: 8.")
    layers: Width = Field(default=2, description="Layers of the networks that predict the next observation.")
    memory: float = Field(
        default=64.0,
        gt=1.0,
        description="Steps in which evidence fades to 1/e, > 1; shorter where contexts change fast.",
    )
    history: int = Field(
        default=48,
        ge=0,
        description="Records before each replayed sequence from which its context is inferred too, >= 0, so that the "
        "agent learns with codes as sharp as those it acts with.",
    )


class WorldModelConfig(BaseModel):
    """Shape of the world model. Defaults are those of danijar/dreamerv3 at e3f0224."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: SizeName = Field(
        default="1m",
        description="Published size that sets deter, hidden, classes, units and depth where they are not given.",
    )
    deter: Width | None = Field(default=None, description="Width of the recurrent state; None: the size's.")
    hidden: Width | None = Field(default=None, description="Width of the RSSM's layers; None: the size's.")
    stoch: Width = Field(default=32, description="Number of categorical latents.")
    classes: Annotated[int, Field(ge=2)] | None = Field(
        default=None, description="Classes of each categorical latent; None: the size's."
    )
    units: Width | None = Field(
        default=None, description="Width of the encoder, decoder, heads, actor and critic; None: the size's."
    )
    depth: Width | None = Field(
        default=None,
        description="Channels of the image encoder's first level over 2; its levels have 2, 3, 4 and 4 times as many, "
        "the decoder's the same in reverse; None: the size's.",
    )
    blocks: Width = Field(
        default=8,
        description="Blocks of the block-diagonal recurrent weights; divides deter and, with images, 4 * depth.",
    )
    unimix: float = Field(
        default=0.01, ge=0.0, lt=1.0, description="Share of the uniform distribution mixed into every latent."
    )
    encoder_layers: Width = Field(default=3, description="Layers of the vector encoder.")
    decoder_layers: Width = Field(default=3, description="Layers of the vector decoder.")
    prior_layers: Width = Field(default=2, description="Layers of the prior.")
    posterior_layers: Width = Field(default=1, description="Layers of the posterior.")
    reward_layers: Width = Field(default=1, description="Layers of the reward head.")
    continue_layers: Width = Field(default=1, description="Layers of the continue head.")
    bins: int = Field(default=255, ge=3, description="Bins of the two-hot distributions of reward and value; odd.")
    context: ContextPreset | ContextFlags = Field(
        default="crssm",
        description="Where the context enters: hidden (nowhere), concat (as an observation), crssm (everywhere but "
        "the encoder, prior and posterior), inferred (there too, but as inferred from transitions), or a flag for each "
        "module.",
    )
    context_encoder: ContextEncoderConfig = Field(
        default_factory=ContextEncoderConfig, description="How the context is inferred, where it is."
    )

    @model_validator(mode="after")
    def _check(self) -> "WorldModelConfig":
        if self.dimensions.deter % self.blocks:
            raise ValueError(f"blocks={self.blocks} must divide deter={self.dimensions.deter}")
        if self.bins % 2 == 0:
            raise ValueError(f"bins={self.bins} must be odd, so that 0 is the middle bin")
        return self

    @property
    def dimensions(self) -> Size:
        """The widths in effect: those given, else those of the size."""
        given = {name: getattr(self, name) for name in Size._fields}
        return SIZES[self.size]._replace(**{name: value for name, value in given.items() if value is not None})

    @property
    def flags(self) -> ContextFlags:
        """Which modules see the context."""
        return self.context if isinstance(self.context, ContextFlags) else ContextFlags.preset(self.context)

    @property
    def history(self) -> int:
        """Records before a replayed sequence from which its context is inferred; 0 where it is not."""
        return self.context_encoder.history if self.flags.inferred else 0
