"""Time of one update of a whole population by ``vmap``, as a multiple of one member's.

On CUDA the update is captured as a graph. On the CPU nothing is gained by it; the preset shows that it runs.
"""

from functools import partial

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from tensordict import TensorDict
from torch import Tensor

from agents.dreamerv3 import DreamerV3
from agents.seeding import torch_generator
from agents.training.capture import CapturedUpdate, Recorder, choose_recorder
from tests.benchmarks.machine import until_done
from tests.benchmarks.test_updates import about
from tests.benchmarks.workloads import Workload

Tensors = dict[str, Tensor]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    cuda = metafunc.config.getoption("device") == "cuda"
    workloads = (
        [Workload(size, dtype="bfloat16") for size in ("1m", "12m")] if cuda else [Workload("cartpole", length=16)]
    )
    metafunc.parametrize("workload", workloads, ids=str)
    metafunc.parametrize("members", [1, 2, 4, 8, 16] if cuda else [1, 2])


class Population:
    """``members`` agents of one kind, updated together on batches and noise of their own."""

    def __init__(
        self, workload: Workload, members: int, device: torch.device, recorder: Recorder | None = None
    ) -> None:
        self.agent: DreamerV3 = workload.agent(device)
        self.state = torch.stack([self.agent.initial_state(seed) for seed in range(members)]).contiguous()
        batch = workload.random_batch(self.agent)
        self.batch = {name: value.expand(members, *value.shape).contiguous() for name, value in batch.items()}
        self.device, self.members, self.workload = device, members, workload
        self.updates = 0
        eager = partial(self._update, self.state)
        self._apply = CapturedUpdate(self._update, self.state, recorder) if recorder else eager

    def update(self) -> None:
        """Improve every member by one step."""
        workload = self.workload
        each = [
            self.agent.update_noise(workload.batch, workload.length, generator)
            for generator in (
                torch_generator(0, "update", self.updates, member, device=self.device) for member in range(self.members)
            )
        ]
        noise = {name: torch.stack([drawn[name] for drawn in each]) for name in each[0]}
        self._apply(self.batch, noise)
        self.updates += 1

    def _update(self, state: TensorDict, batch: Tensors, noise: Tensors) -> Tensors:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.workload.dtype == "bfloat16"):
            _, metrics, _ = self.agent.update(state, batch, noise)
        return metrics


def test_members(benchmark: BenchmarkFixture, workload: Workload, members: int, device: torch.device) -> None:
    population = Population(workload, members, device, choose_recorder(device, "auto"))
    about_members = {"members": members, "threads": torch.get_num_threads()}
    benchmark.extra_info["members"] = about(workload, "dreamtune", device) | about_members
    benchmark.pedantic(until_done(population.update, device), rounds=10, warmup_rounds=5)
