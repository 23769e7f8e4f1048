"""What a process of its own needs at most: ``python -m tests.benchmarks.memory update 1m state float32 cpu``.

Prints JSON: ``MB before`` the work (Python and the packages), ``MB peak``, and on CUDA ``CUDA MB peak`` of tensors.
"""

import json
import sys
import tempfile
from pathlib import Path

import torch

from agents.configuration import load_config
from agents.train import train
from agents.training.build import keep_freed_memory
from agents.training.capture import choose_recorder
from tests.benchmarks.machine import cores
from tests.benchmarks.workloads import WALKER, Workload


def resident_peak() -> float:
    """Return the most MB that this process has had in main memory.

    Not ``getrusage``: what that tells a child begins with the memory of the parent.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def update(size: str, observation: str, dtype: str, device: str) -> None:
    """Run some updates, captured on CUDA."""
    workload = Workload(size, observation, dtype)
    target = torch.device(device)
    learner = workload.learner(target, choose_recorder(target, "auto"))
    batch = workload.random_batch(learner.agent)
    for _ in range(5 if device == "cuda" else 2):
        learner.update(batch)


def torchrl(size: str, dtype: str, device: str) -> None:
    """The same for TorchRL's eager update."""
    from tests.benchmarks.torchrl_dreamer import TorchRLDreamer  # which ours need not pay for

    learner = TorchRLDreamer(size, WALKER, 6, (16, 64), torch.device(device), bfloat16=dtype == "bfloat16")
    for _ in range(2):
        learner.update()


def training(name: str, steps: str, device: str) -> None:
    """Train, validate and save once after ``steps`` environment steps."""
    fields = {"training.environment_steps": steps, "training.epoch_steps": steps, "training.device": device}
    fields["evaluation.validation_episodes"] = "1"
    overrides = [word for field, value in fields.items() for word in (f"--{field}", value)]
    with tempfile.TemporaryDirectory() as folder:
        train(load_config(name, overrides), Path(folder) / "run")


def main() -> None:
    kind, *arguments = sys.argv[1:]
    keep_freed_memory()
    torch.set_flush_denormal(True)
    torch.set_num_threads(cores())
    before = resident_peak()
    {"update": update, "torchrl": torchrl, "training": training}[kind](*arguments)
    result = {"MB before": round(before), "MB peak": round(resident_peak())}
    if arguments[-1] == "cuda":
        result["CUDA MB peak"] = round(torch.cuda.max_memory_allocated() / 2**20)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
