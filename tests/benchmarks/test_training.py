"""What Lightning costs: the same ticks and updates under the trainer and in a plain loop.

Environments, replay and agent are replaced by nothing, so that only the loop itself is measured.
"""

import lightning.pytorch as pl
import pytest
import torch

from agents.train import fit
from agents.training.data import ExperienceData
from agents.training.schedule import Schedule

TICKS = 2000
UPDATES_PER_TICK = 2
BATCH = {"is_first": torch.zeros(16, 64, dtype=torch.bool), "reward": torch.zeros(16, 64)}


class Nothing:
    """A collector, replay buffer, learner and validator that only count."""

    device = torch.device("cpu")
    keeps_latents = False

    def __init__(self) -> None:
        self.ticks = self.updates = 0
        self.jobs = []

    def tick(self) -> None:
        self.ticks += 1

    def num_starts(self, length: int) -> int:
        return 1

    def draw(self, size: int, length: int, generator: object, *, before: int) -> None:
        return None

    def read(self, places: None, *, device: object) -> dict[str, torch.Tensor]:
        return BATCH

    def update(self, batch: object) -> None:
        self.updates += 1

    def run(self, episodes: object) -> None:
        pass


class Run:
    """What `fit` needs of a session."""

    epochs_left = 1
    device = torch.device("cpu")

    def __init__(self) -> None:
        self.learner = self.validator = nothing = Nothing()
        schedule = Schedule(1, TICKS, TICKS, UPDATES_PER_TICK * 4.0, 2, 2, 0)  # 4 steps a batch
        self.data = ExperienceData(schedule, nothing, nothing, nothing, nothing, seed=0)


def plain_loop(run: Run) -> None:
    for _ in range(TICKS):
        for batch in run.data.step().batches:
            run.learner.update(batch)


def with_lightning(run: Run) -> None:
    fit(run, pl.Callback())


@pytest.mark.parametrize("loop", [plain_loop, with_lightning])
def test_loop(benchmark, loop):
    runs = []

    def setup():
        runs.append(Run())
        return (runs[-1],), {}

    benchmark.pedantic(loop, setup=setup, rounds=5, warmup_rounds=1)
    assert all((run.learner.ticks, run.learner.updates) == (TICKS, (TICKS - 2) * UPDATES_PER_TICK) for run in runs)
    seconds = benchmark.stats.stats.median
    benchmark.extra_info["us_per_tick"] = round(seconds / TICKS * 1e6, 1)
    benchmark.extra_info["us_per_update"] = round(seconds / runs[0].learner.updates * 1e6, 1)
