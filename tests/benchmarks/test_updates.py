"""Time of a full update as training does it: noise, world model, actor, critic, optimizer and slow critic.

Replay is excluded. On the CPU the smallest published size is timed in turns with TorchRL's DreamerV3 on equal data,
so that whatever else the machine does slows both. On CUDA a time is that from the call until the device is done;
``dreamtune`` and ``torchrl`` are the updates captured as a graph there, ``-eager`` the same without.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch.utils.flop_counter import FlopCounterMode

from agents.training.capture import choose_recorder
from tests.benchmarks.machine import cores, until_done
from tests.benchmarks.workloads import WALKER, Workload

WARM_UP = 2  # rounds that are not counted


@dataclass(frozen=True)
class Case:
    """A workload and how it is run.

    Args:
        rounds: updates timed.
        threads: of torch; on CUDA what little the host computes.
        captured: as a CUDA graph.
        beside: in turns with TorchRL's update.
    """

    workload: Workload
    rounds: int
    threads: int = 1
    captured: bool = False
    beside: bool = False

    def __str__(self) -> str:
        return f"{self.workload}-{self.threads}-threads{'-captured' * self.captured}"


def cases(device: str) -> list[Case]:
    """Return what is timed on a device; the CPU's take two minutes on two cores."""
    if device == "cuda":
        small = Workload("1m", dtype="bfloat16")
        captured = [small, Workload("1m"), Workload("12m", dtype="bfloat16"), Workload("200m", dtype="bfloat16")]
        captured += [Workload(size, "pixels", "bfloat16") for size in ("1m", "12m", "200m")]
        return [Case(small, 10), *(Case(workload, 30, captured=True) for workload in captured)]
    some, most = 1, cores()
    return [
        *(Case(Workload("cartpole", batch=16, length=16), 20, threads) for threads in sorted({some, most})),
        *(Case(Workload("1m"), 10, threads, beside=threads == most) for threads in sorted({some, most})),
        Case(Workload("1m", dtype="bfloat16"), 10, most),
        Case(Workload("1m", "pixels"), 3, most),
        Case(Workload("12m"), 1, most),
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", cases(metafunc.config.getoption("device")), ids=str)


@pytest.fixture
def threads(case: Case) -> int:
    """Return the number of threads that torch is to compute with (see `torch_threads`)."""
    return case.threads


def about(workload: Workload, code: str, device: torch.device) -> dict[str, Any]:
    """Return what the table of update times says of a workload."""
    names = ("size", "observation", "batch", "length", "dtype")
    return {"code": code, "device": device.type} | {name: getattr(workload, name) for name in names}


@pytest.mark.usefixtures("threads")
@pytest.mark.filterwarnings("ignore:Creating .* which inherits from WeightUpdaterBase:DeprecationWarning")
def test_update(benchmark: BenchmarkFixture, case: Case, device: torch.device) -> None:
    workload = case.workload
    learner = workload.learner(device, choose_recorder(device, "auto" if case.captured else "never"))
    batch = workload.random_batch(learner.agent)
    with FlopCounterMode(display=False) as counter:
        learner.update(batch)  # eager, the first of those that count
    code = "dreamtune" if case.captured or device.type == "cpu" else "dreamtune-eager"
    benchmark.extra_info |= {
        "update": about(workload, code, device) | {"threads": case.threads},
        "GFLOP": counter.get_total_flops() / 1e9,
    }
    turns = _Turns(workload, device) if case.beside else None
    warm_up = 4 if case.captured else min(WARM_UP, case.rounds)  # a graph is recorded at the fourth update
    benchmark.pedantic(
        until_done(partial(learner.update, batch), device), setup=turns, rounds=case.rounds, warmup_rounds=warm_up
    )
    if turns:
        benchmark.extra_info["beside"] = {"code": "torchrl", "seconds": turns.seconds[warm_up:]}


class _Turns:
    """Times one update of TorchRL's at each call."""

    def __init__(self, workload: Workload, device: torch.device) -> None:
        self._update = _torchrl_update(workload, device)
        self.seconds: list[float] = []

    def __call__(self) -> None:
        start = time.perf_counter()
        self._update()
        self.seconds.append(time.perf_counter() - start)


def _torchrl_update(workload: Workload, device: torch.device, *, captured: bool = False) -> Callable[[], None]:
    from tests.benchmarks.torchrl_dreamer import TorchRLDreamer

    learner = TorchRLDreamer(
        workload.size,
        WALKER,
        6,
        (workload.batch, workload.length),
        device,
        bfloat16=workload.dtype == "bfloat16",
        captured=captured,
    )
    return until_done(learner.update, device)


@pytest.mark.parametrize("captured", [False, True], ids=["eager", "captured"])
def test_torchrl_update(benchmark: BenchmarkFixture, device: torch.device, captured: bool) -> None:
    if device.type == "cpu":
        pytest.skip("on the CPU it is timed in turns with ours")
    workload = Workload("1m", dtype="bfloat16")
    benchmark.extra_info["update"] = about(workload, "torchrl" if captured else "torchrl-eager", device)
    update = _torchrl_update(workload, device, captured=captured)
    benchmark.pedantic(update, rounds=10, warmup_rounds=WARM_UP)
