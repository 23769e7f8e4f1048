"""When what happens, in whole numbers: ticks, updates and epochs as functions of the configuration alone.

One *tick* steps every environment once and appends one record per environment; a reset is such a record
too, so ``tick`` ticks are ``tick * num_envs`` environment steps. Updates follow from the train ratio
(replayed steps per environment step), accumulated exactly in fractions, never in floating point. An epoch
is a fixed number of ticks.
"""

import math
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Schedule:
    """The timetable of a run.

    Args:
        num_envs: environments stepped per tick.
        environment_steps: length of the run, environment steps; a multiple of ``epoch_steps``.
        epoch_steps: length of an epoch, environment steps; a multiple of ``num_envs``.
        train_ratio: replayed steps per environment step.
        batch_size, batch_length: shape of a batch; an update replays their product in steps.
        start_steps: records collected before the first update is due.
    """

    num_envs: int
    environment_steps: int
    epoch_steps: int
    train_ratio: float
    batch_size: int
    batch_length: int
    start_steps: int

    @property
    def ticks(self) -> int:
        """Ticks in the whole run."""
        return self.environment_steps // self.num_envs

    @property
    def epoch_length(self) -> int:
        """Ticks in an epoch."""
        return self.epoch_steps // self.num_envs

    @property
    def epochs(self) -> int:
        """Epochs in the whole run."""
        return self.environment_steps // self.epoch_steps

    @property
    def updates_per_tick(self) -> Fraction:
        """Updates that one tick earns, exactly (a decimal train ratio is taken at its written value)."""
        return Fraction(str(self.train_ratio)) * self.num_envs / (self.batch_size * self.batch_length)

    @property
    def first_tick(self) -> int:
        """Ticks before which no update is due: enough records, and a whole sequence in every stream."""
        return max(math.ceil(self.start_steps / self.num_envs), self.batch_length)

    def updates(self, tick: int) -> int:
        """Updates due once ``tick`` ticks are done; steps before the first update earn none."""
        return max(0, math.floor((tick - self.first_tick) * self.updates_per_tick))
