"""Options and fixtures of the measurements; what they give is written to tests/benchmarks/results and reported.

    make bench                 # the CPU
    make bench DEVICE=cuda     # a GPU

A sitting is written when it ends. Where time is short, its parts are sittings of their own, such as
``pytest tests/benchmarks/test_matmul.py tests/benchmarks/test_updates.py --device cuda --benchmark-only -p no:xdist
--benchmark-json=.benchmarks/latest.json``.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import torch

from agents.training.build import keep_freed_memory
from tests.benchmarks.machine import commit
from tests.benchmarks.report import report
from tests.benchmarks.tables import RESULTS, Tables, tables, write

SITTING = pytest.StashKey[tuple[str, str]]()
MEASURED = pytest.StashKey[Tables]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", choices=("cpu", "cuda"), default="cpu", help="what computes (default: cpu)")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("device") == "cuda" and not torch.cuda.is_available():
        raise pytest.UsageError("--device cuda: cuda is not available here; valid here: cpu")
    config.stash[SITTING] = datetime.now(UTC).strftime("%Y-%m-%d %H:%M"), commit()


@pytest.fixture(scope="session")
def device(pytestconfig: pytest.Config) -> torch.device:
    """Return the device to measure."""
    return torch.device(pytestconfig.getoption("device"))


@pytest.fixture(autouse=True)
def torch_threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """Set torch up as training does, with as many threads as the benchmark's ``threads`` says, if it has them."""
    keep_freed_memory()
    torch.set_flush_denormal(True)
    before = torch.get_num_threads()
    if "threads" in request.fixturenames:
        torch.set_num_threads(request.getfixturevalue("threads"))
    yield
    torch.set_num_threads(before)


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(config: pytest.Config, benchmarks: list[Any], output_json: dict[str, Any]) -> None:
    """Add the sitting to the tables."""
    config.stash[MEASURED] = measured = tables(output_json["benchmarks"], *config.stash[SITTING])
    write(measured, RESULTS)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show the sitting's tables."""
    for line in report(config.stash.get(MEASURED, {})):
        terminalreporter.write_line(line)
