"""The rate of large matrix products: what an update's rate of floating point operations is compared with."""

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from tests.benchmarks.machine import cores, until_done


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    cuda = metafunc.config.getoption("device") == "cuda"
    metafunc.parametrize("threads", [1] if cuda else sorted({1, cores()}), ids="{}-threads".format)
    metafunc.parametrize("dtype", ["float32", "bfloat16"])


def test_matmul(benchmark: BenchmarkFixture, device: torch.device, threads: int, dtype: str) -> None:
    width = 8192 if device.type == "cuda" else 2048
    generator = torch.Generator().manual_seed(0)
    # Random numbers: zeros draw less power and are multiplied faster.
    left, right = (torch.randn(width, width, generator=generator).to(device, getattr(torch, dtype)) for _ in range(2))
    out = torch.empty_like(left)
    benchmark.pedantic(until_done(lambda: torch.mm(left, right, out=out), device), rounds=10, warmup_rounds=2)
    benchmark.extra_info |= {
        "device": device.type,
        "threads": threads,
        "dtype": dtype,
        "GFLOP/s": 2 * width**3 / benchmark.stats.stats.median / 1e9,
    }
