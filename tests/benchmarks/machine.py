"""What is measured on: its name, its cores, and how to wait for it."""

import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def hardware(device: str, threads: int | None = None) -> str:
    """Return what computes: the GPU if ``device`` is cuda, the processor, its usable cores and torch's threads."""
    host = f"{_processor()}, {cores()} core{'s' * (cores() > 1)}"
    if threads is not None:
        host += f", {threads} thread{'s' * (threads > 1)}"
    return f"{torch.cuda.get_device_name()}, {host}" if device == "cuda" else host


def commit() -> str:
    """Return the commit of the files, marked where they differ from it; ``unknown`` outside a checkout."""
    here = Path(__file__).resolve().parent
    differing = ["git", "status", "--porcelain", "--", ":/", ":(exclude,top)tests/benchmarks/results"]
    head, changes = (
        subprocess.run(command, cwd=here, capture_output=True, text=True).stdout.strip()
        for command in (["git", "rev-parse", "--short=10", "HEAD"], differing)
    )
    return f"{head or 'unknown'} with changes" if changes else head or "unknown"


def until_done(function: Callable[..., Any], device: torch.device) -> Callable[..., None]:
    """Return ``function`` such that it returns when the device has done all it was given."""

    def run(*arguments: Any) -> None:
        function(*arguments)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run


def _processor() -> str:
    """Return the processor's name, as Linux tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
