"""Peak memory of updates and of training runs, each in a process of its own (the time is that of the process)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

REPOSITORY = Path(__file__).resolve().parents[2]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    cuda = metafunc.config.getoption("device") == "cuda"
    dtype = "bfloat16" if cuda else "float32"
    sizes = [("1m", "state"), ("1m", "pixels"), ("12m", "state"), *([("200m", "pixels")] if cuda else [])]
    work = [("update", size, observation, dtype) for size, observation in sizes]
    work += [("torchrl", "1m", dtype), ("training", "cartpole", "1200"), ("training", "dmc_walker_walk", "1064")]
    metafunc.parametrize("work", work, ids="-".join)


def test_peak(benchmark: BenchmarkFixture, device: torch.device, work: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "tests.benchmarks.memory", *work, device.type]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}

    def run() -> None:
        output = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
        benchmark.extra_info |= json.loads(output.stdout.splitlines()[-1])

    benchmark.pedantic(run, rounds=1)
    benchmark.extra_info["device"] = device.type
