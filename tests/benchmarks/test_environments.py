"""Environment steps per second: the environments alone, with the agent acting, and with everything that training does.

A run's own configuration is taken, but for the kind of vector. Lightning's loop is not in it (see test_training.py),
nor are validation and checkpoints.
"""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from agents.configuration import RunConfig, load_config
from agents.environments import ActionCodec, Reset, VectorEnvironment
from agents.run_folder import RunFolder
from agents.training.build import configure_torch, make_vector, training_contexts
from agents.training.session import Session
from tests.benchmarks.machine import until_done

VECTORS = ["serial", "subprocess"]
RUNS = ["cartpole", "dmc_walker_walk"]
ROUNDS = 3


def configuration(name: str, vector: str, *overrides: str) -> RunConfig:
    return load_config(name, ["--environment.vector", vector, *overrides])


def note_rate(benchmark: BenchmarkFixture, steps: int) -> None:
    """Write down environment steps per second, ``steps`` having been one round."""
    benchmark.extra_info["environment steps/s"] = steps / benchmark.stats.stats.median


class Player:
    """Random actions in a vector of environments; episodes that end begin again in the next context."""

    def __init__(self, vector: VectorEnvironment, contexts: list[dict[str, float]]) -> None:
        self.vector = vector
        self.contexts = contexts
        self.size = ActionCodec(vector.action_space).size
        self.generator = np.random.default_rng(0)
        self.episodes = 0
        self.last = np.ones(vector.num_envs, bool)

    def play(self, ticks: int) -> None:
        """Step every environment ``ticks`` times."""
        for _ in range(ticks):
            actions = self.generator.uniform(-1, 1, (self.vector.num_envs, self.size)).astype(np.float32)
            commands = [self._reset() if last else action for last, action in zip(self.last, actions, strict=True)]
            self.last = self.vector.step(commands)["is_last"]

    def _reset(self) -> Reset:
        self.episodes += 1
        return Reset(seed=self.episodes, context=self.contexts[self.episodes % len(self.contexts)])


@pytest.mark.parametrize("vector", VECTORS)
@pytest.mark.parametrize("run", [*RUNS, "dmc_walker_walk-pixels"])
def test_stepping(benchmark: BenchmarkFixture, run: str, vector: str) -> None:
    name, _, observations = run.partition("-")
    config = configuration(name, vector, *(["--environment.observations", observations] if observations else []))
    ticks = 20 if observations else 500
    with closing(make_vector(config, config.environment.num_envs)) as environments:
        player = Player(environments, training_contexts(config))
        benchmark.pedantic(player.play, (ticks,), rounds=ROUNDS, warmup_rounds=1)
    note_rate(benchmark, ticks * config.environment.num_envs)


@pytest.fixture
def session(run: str, vector: str, device: torch.device, tmp_path: Path) -> Iterator[Session]:
    """A run that has collected what it needs before the first update."""
    config = configuration(run, vector, "--training.device", device.type)
    configure_torch(config)
    with closing(Session(config, RunFolder.prepare(tmp_path / "run", config))) as session:
        for _ in range(session.schedule.first_tick):
            session.collector.tick()
        yield session


@pytest.mark.parametrize("vector", VECTORS)
@pytest.mark.parametrize("run", RUNS)
def test_collecting(benchmark: BenchmarkFixture, session: Session, run: str, vector: str) -> None:
    """Environments, acting agent and replay, without updates."""
    ticks = 100

    def collect() -> None:
        for _ in range(ticks):
            session.collector.tick()

    benchmark.pedantic(collect, rounds=ROUNDS)
    note_rate(benchmark, ticks * session.schedule.num_envs)


@pytest.mark.parametrize("vector", VECTORS)
@pytest.mark.parametrize("run", RUNS)
def test_training(benchmark: BenchmarkFixture, session: Session, device: torch.device, run: str, vector: str) -> None:
    """All of it, at the run's train ratio."""
    # Whole updates, and on the CPU not more seconds than that takes.
    ticks = 100 if device.type == "cuda" else {"cartpole": 10, "dmc_walker_walk": 3}[run]

    def train() -> None:
        for _ in range(ticks):
            for batch in session.data.step().batches:
                session.learner.update(batch)

    updates = session.learner.updates
    benchmark.pedantic(until_done(train, device), rounds=ROUNDS, warmup_rounds=1)
    note_rate(benchmark, ticks * session.schedule.num_envs)
    benchmark.extra_info["updates per round"] = (session.learner.updates - updates) / (ROUNDS + 1)
