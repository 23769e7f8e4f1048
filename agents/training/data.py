"""Environments, replay and validation episodes as a Lightning data module.

The unit that Lightning iterates is the tick: all environments step once with the agent as it is now, and
the tick then offers as many batches as the train ratio says, sampled one by one when asked for. Nothing is
produced ahead: an epoch has a length, which keeps Lightning from prefetching, and the iterator is lazy.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from lightning.pytorch import LightningDataModule

from agents.dreamerv3 import expand
from agents.evaluation.episodes import Job
from agents.replay import Places, Replay
from agents.seeding import numpy_generator
from agents.training.collector import Collector
from agents.training.learner import Learner
from agents.training.schedule import Schedule
from agents.training.validation import Validator


@dataclass(frozen=True)
class Tick:
    """One step of all environments and what is to be learned after it."""

    index: int  # ticks done, this one included
    batches: Iterator[dict[str, torch.Tensor]]  # as `ExperienceData.batch`; sampled when advanced


class Epoch:
    """The ticks of one epoch: sized, and stepped lazily from where the collector stands."""

    def __init__(self, data: "ExperienceData") -> None:
        self.data = data

    def __len__(self) -> int:
        return self.data.schedule.epoch_length

    def __iter__(self) -> Iterator[Tick]:
        for _ in range(len(self)):
            yield self.data.step()


class ValidationRound:
    """All validation episodes as the one item of a loader (Lightning would take a list for many loaders)."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = jobs

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[Sequence[Job]]:
        yield self.jobs


class ExperienceData(LightningDataModule):
    """Owns the environments (through the collector), the replay buffer and the validation episodes.

    Args:
        schedule: the timetable.
        collector: steps the environments and appends to ``replay``.
        replay: the buffer that batches are sampled from. If it keeps latents, sequences start from them, and those of
            each update's sequences are renewed by it.
        learner: whose state acts; its update counter numbers the samples.
        validator: names the validation episodes.
        seed: the run's seed; the batch of update ``n`` is drawn from (seed, "sample", n).
        burn_in: records before the trained ones that find their state, where replay keeps no latents.
    """

    def __init__(
        self,
        schedule: Schedule,
        collector: Collector,
        replay: Replay,
        learner: Learner,
        validator: Validator,
        *,
        seed: int,
        burn_in: int = 0,
    ) -> None:
        super().__init__()
        self.schedule = schedule
        self.collector = collector
        self.replay = replay
        self.learner = learner
        self.validator = validator
        self.seed = seed
        self.burn_in = 1 if replay.keeps_latents else burn_in  # records that the state is found from
        self.before = max(self.burn_in, learner.agent.history)

    def step(self) -> Tick:
        """Step all environments once with the learner's present state."""
        self.collector.tick()
        return Tick(self.collector.ticks, self._batches())

    def _batches(self) -> Iterator[dict[str, torch.Tensor]]:
        size, length = self.schedule.batch_size, self.schedule.batch_length
        due = self.schedule.updates(self.collector.ticks)
        while self.learner.updates < due and self.replay.num_starts(self.before + length) > 0:
            generator = numpy_generator(self.seed, "sample", self.learner.updates)
            places = self.replay.draw(size, length, generator, before=self.before)
            yield self.batch(places)
            if self.replay.keeps_latents:  # by now the learner has updated
                self.replay.write_back(places, self.learner.latents)

    def batch(self, places: Places) -> dict[str, torch.Tensor]:
        """Return the trained records [B, T, ...] of sequences, and what they start from, on the learner's device.

        That is, from stored latents, ``carry/deter``, ``carry/stoch`` and ``carry/action`` [B, ...] of the step before;
        or the records before as ``burn_in/<entry>`` [B, K, ...]; or nothing. For an agent that infers the context, the
        records before are there as ``history/<entry>`` too.
        """
        device, before = self.learner.device, self.before
        records = self.replay.read(places, device=device)
        if before == 0:
            return records
        batch = {key: value[:, before:] for key, value in records.items()}
        for name, count in (("history", self.learner.agent.history), ("burn_in", self.burn_in)):
            if count and not (name == "burn_in" and self.replay.keeps_latents):
                batch |= {f"{name}/{key}": value[:, before - count : before] for key, value in records.items()}
        if not self.replay.keeps_latents:
            return batch
        classes = self.learner.agent.config.world_model.dimensions.classes
        latents = self.replay.read_latents(places, before - 1, device=device)
        start = expand(latents, classes) | {"action": records["action"][:, before - 1]}
        return batch | {f"carry/{key}": value for key, value in start.items()}

    def train_dataloader(self) -> Epoch:
        return Epoch(self)

    def val_dataloader(self) -> ValidationRound:
        return ValidationRound(self.validator.jobs)

    def transfer_batch_to_device(self, batch: object, device: torch.device, dataloader_idx: int) -> object:
        """Batches are sampled onto the device; Lightning need not walk through them."""
        return batch
