"""Time of choosing actions, from the records of the environments to the actions on the host."""

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from tests.benchmarks.machine import cores
from tests.benchmarks.workloads import Workload


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    cuda = metafunc.config.getoption("device") == "cuda"
    metafunc.parametrize("threads", [1] if cuda else sorted({1, cores()}), ids="{}-threads".format)
    dtype = "bfloat16" if cuda else "float32"
    metafunc.parametrize("workload", [Workload("1m", name, dtype) for name in ("state", "pixels")], ids=str)


@pytest.mark.parametrize("environments", [1, 16])
def test_act(
    benchmark: BenchmarkFixture, device: torch.device, threads: int, workload: Workload, environments: int
) -> None:
    learner = workload.learner(device)
    generator = np.random.default_rng(0)
    records = {
        f"observation/{key}": (
            generator.integers(0, 256, (environments, *shape), np.uint8)
            if len(shape) == 3
            else generator.standard_normal((environments, *shape), np.float32)
        )
        for key, shape in workload.shapes.items()
    }
    records |= {"is_first": np.zeros(environments, bool), "context": np.zeros((environments, 0), np.float32)}
    carry = learner.agent.initial_carry(environments)
    benchmark.pedantic(learner.act, (carry, records, 0), rounds=100, warmup_rounds=10)
    benchmark.extra_info |= {"device": device.type, "threads": threads}
