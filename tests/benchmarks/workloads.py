"""The updates that are timed: agents of given sizes on random batches, as training runs them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from agents.configuration import load_config
from agents.dreamerv3 import ActionSpec, DreamerV3, DreamerV3Config
from agents.training.capture import Recorder
from agents.training.learner import Learner
from worldmodels.context import ContextSpec

WALKER = {"orientations": (14,), "height": (1,), "velocity": (9,)}  # dm_control's; 6 actions
PIXELS = {"image": (64, 64, 3)}


@dataclass(frozen=True)
class Workload:
    """One kind of update.

    Args:
        size: a published size, or ``cartpole`` for the agent and batch of configs/cartpole.yaml.
        observation: ``state`` (walker's, or the preset's) or ``pixels``.
        dtype: what the networks compute in, ``float32`` or ``bfloat16`` (by autocast).
        batch, length: of the random batch.
    """

    size: str
    observation: str = "state"
    dtype: str = "float32"
    batch: int = 16
    length: int = 64

    def __str__(self) -> str:
        return f"{self.size}-{self.observation}-{self.batch}x{self.length}-{self.dtype}"

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every observation."""
        if self.observation == "pixels":
            return PIXELS
        return {"state": (4,)} if self.size == "cartpole" else WALKER

    def agent(self, device: torch.device) -> DreamerV3:
        """Return the agent; published sizes see no context, as the published speeds are measured."""
        if self.size == "cartpole":
            config, action = load_config("cartpole").agent, ActionSpec(2, True)
            context = ContextSpec(("gravity", "length"), (4.9, 0.35), (14.7, 0.75))
        else:
            config = DreamerV3Config.model_validate({"world_model": {"size": self.size, "context": "hidden"}})
            action, context = ActionSpec(6, False), ContextSpec()
        return DreamerV3(config, self.shapes, action, context, device=device)

    def learner(self, device: torch.device, recorder: Recorder | None = None) -> Learner:
        """Return the agent with a fresh state; with a recorder its updates are recorded and replayed."""
        agent = self.agent(device)
        return Learner(agent, agent.initial_state(0), seed=0, device=device, precision=self.dtype, recorder=recorder)

    def random_batch(self, agent: DreamerV3) -> dict[str, Tensor]:
        """Return records [B, T, ...] without an episode's beginning or end, on the agent's device."""
        generator = torch.Generator().manual_seed(0)
        steps = (self.batch, self.length)
        records = {name: torch.zeros(steps, dtype=torch.bool) for name in ("is_first", "is_last", "is_terminal")}
        for key, shape in self.shapes.items():
            if len(shape) == 3:
                drawn = torch.randint(0, 256, (*steps, *shape), dtype=torch.uint8, generator=generator)
            else:
                drawn = torch.randn(*steps, *shape, generator=generator)
            records[f"observation/{key}"] = drawn
        records["action"] = torch.rand(*steps, agent.action.size, generator=generator)
        records["reward"] = torch.randn(steps, generator=generator)
        records["context"] = torch.rand(*steps, agent.context.size, generator=generator)
        return {name: value.to(agent.device) for name, value in records.items()}
