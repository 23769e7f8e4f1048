"""Writes what a benchmark measured to tests/benchmarks/results, with what it was measured on."""

import csv
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

RESULTS = Path(__file__).resolve().parent / "results"
COLUMNS = ["benchmark", "median_ms", "min_ms", "max_ms", "rounds", "extra", "hardware", "software", "date", "commit"]


def processor() -> str:
    """Return the processor's name, as Linux tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def hardware() -> str:
    """Return the processor, its usable cores and the GPU, if any."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{processor()}, {cores} cores{gpu}"


def commit() -> str:
    """Return the commit that was measured, marked where the files differ from it."""
    here = Path(__file__).resolve().parent
    commands = (["git", "rev-parse", "--short=10", "HEAD"], ["git", "status", "--porcelain"])
    head, changes = (
        subprocess.run(command, cwd=here, capture_output=True, text=True).stdout.strip() for command in commands
    )
    return f"{head} with changes" if changes else head


def row(benchmark: dict[str, Any]) -> list[str]:
    """Return the row of one benchmark, as pytest-benchmark describes it (times in seconds)."""
    stats = benchmark["stats"]
    milliseconds = [f"{1e3 * stats[name]:.6g}" for name in ("median", "min", "max")]
    extra = "; ".join(f"{key}={value}" for key, value in sorted(benchmark["extra_info"].items()))
    software = f"python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}"
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    return [benchmark["name"], *milliseconds, str(stats["rounds"]), extra, hardware(), software, date, commit()]


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(config: pytest.Config, benchmarks: list[Any], output_json: dict[str, Any]) -> None:
    """Write one table per benchmark file, instead of the one that was there."""
    tables: dict[str, list[list[str]]] = {}
    for benchmark in output_json["benchmarks"]:
        name = Path(benchmark["fullname"].split("::")[0]).stem.removeprefix("test_")
        tables.setdefault(name, []).append(row(benchmark))
    RESULTS.mkdir(exist_ok=True)
    for name, rows in tables.items():
        with (RESULTS / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
