"""The thin Lightning side of an agent: manual optimization, nothing logged per step, no state of its own.

The timeline of training on a GPU. The device works off in order what it is given; the host only gives, and waits for
the device in one place of a tick, where it needs the actions::

    host    | environments step | give act | wait | append | sample, give update 1 | ... 2 | environments step | ...
    device  | updates of the tick before  .  .  .  | act | |                     | update 1 | update 2 .  .  .  .

* Environments step while the device is busy with the updates of the tick before; ``environment.vector: subprocess``
  lets them step beside each other, too. They take no time as long as they take less than a tick's updates.
* Nothing else waits: records, batches and indices go to the device by asynchronous copies from page-locked memory
  (``agents.transfer``), an update is one launch
  (``training.capture``), and its metrics are summed on the device until the end of the epoch asks for them.
* The device has nothing to do while the host appends, samples the first batch and gives the first update: the agent
  acts with the weights that the updates before have made, which rules out working ahead.
* One pair of settings waits at each update: with ``training.sequence_start: stored`` the new latents have to come to
  the host, unless ``replay.storage: device`` keeps them where they are.
* At the end of an epoch everything waits: metrics, validation and the checkpoint read from the device.

No GPU has run this yet.
"""

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
