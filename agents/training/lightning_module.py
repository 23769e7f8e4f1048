"""The thin Lightning side of an agent: manual optimization, nothing logged per step, no state of its own."""

from collections.abc import Sequence

from lightning.pytorch import LightningModule

from agents.evaluation.episodes import Job
from agents.training.data import Tick
from agents.training.learner import Learner
from agents.training.validation import Validator


class LightningAgent(LightningModule):
    """Updates once for every batch of a tick, and runs the validation episodes.

    The learner's tensors are deliberately not registered as parameters: the state tree is the only place
    they live, and Lightning neither moves nor saves it.

    Args:
        learner: holds the agent and its state tree.
        validator: runs and keeps the results of validation episodes.
    """

    def __init__(self, learner: Learner, validator: Validator) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.learner = learner
        self.validator = validator

    def configure_optimizers(self) -> None:
        """The optimizer is part of the agent's update."""

    def training_step(self, tick: Tick, batch_idx: int) -> None:
        """Update once per batch; each is sampled only when its turn comes."""
        for batch in tick.batches:
            self.learner.update(batch)

    def validation_step(self, jobs: Sequence[Job], batch_idx: int) -> None:
        """Run all validation episodes with the present state."""
        self.validator.run(jobs)
