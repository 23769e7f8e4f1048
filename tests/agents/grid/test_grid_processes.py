"""A grid for real: processes that train, are interrupted, killed and fail; the same command goes on."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import tuning.cli
from agents.configuration import save_config
from agents.grid import load_grid
from agents.grid.state import progress_of
from agents.grid.work import work
from agents.run_folder import RunFolder
from tests.agents.grid.runs_of_grids import REGIONS
from tests.agents.training.training_run import tiny_config

STEPS, EPOCH = 300, 30
SCALE = "{state: [1.0, 2.0]}"  # wrong, which shows when the run begins: cartpole's state has four elements
CRSSM = Path("runs/mine/crssm/seed0")


def write_grid(folder: Path, *, episodes: int = 1) -> None:
    contexts = {"training": {"distribution": "round_robin", "ranges": {"gravity": (4.9, 14.7)}, "count": 5}}
    contexts["evaluation"] = {"regions": REGIONS}
    save_config(tiny_config(contexts=contexts, training={"environment_steps": STEPS}), folder / "tiny.yaml")
    (folder / "mine.yaml").write_text(
        "name: mine\nbase: tiny.yaml\nseeds: [0]\nregions: [interpolation, extrapolation]\n"
        f"episodes: {episodes}\nvariants: {{crssm: {{}}, scaled: {{environment.observation_scale: {SCALE}}}}}\n"
    )


def wait_for_checkpoint(after: int) -> None:
    """Wait until the crssm run has a checkpoint of more than so many steps."""
    deadline = time.monotonic() + 400.0
    while time.monotonic() < deadline:
        if any(int(path.name[5:]) > after for path in (CRSSM / "checkpoints").glob("step-*")):
            return
        time.sleep(0.01)
    raise AssertionError("no checkpoint")


def latest() -> int:
    return max(int(path.name[5:]) for path in (CRSSM / "checkpoints").glob("step-*"))


def interrupt_a_command(environment: dict[str, str]) -> str:
    """Press Ctrl-C once there is a checkpoint; return what was told."""
    command = subprocess.Popen(
        [sys.executable, "-m", "tuning.cli", "grid", "mine.yaml", "--only", "crssm"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    wait_for_checkpoint(0)
    worker = RunFolder(CRSSM).occupant()
    command.send_signal(signal.SIGINT)
    _, told = command.communicate(timeout=100)
    assert command.returncode == 130, told
    assert worker is not None and RunFolder(CRSSM).occupant() is None
    with pytest.raises(ProcessLookupError):
        os.kill(int(worker), 0)
    return told


def test_interrupted_killed_failed_and_gone_on_with(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command_environment: dict[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_grid(tmp_path)
    assert interrupt_a_command(command_environment) == "interrupted; give the same command again to go on\n"
    interrupted_at = latest()
    assert EPOCH <= interrupted_at < STEPS

    def kill() -> None:
        wait_for_checkpoint(interrupted_at)
        os.kill(int(RunFolder(CRSSM).occupant() or 0), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    assert tuning.cli.main(["grid", "mine.yaml", "--workers", "2"]) == 2
    killer.join()
    told = capsys.readouterr()
    assert "2 of 2 runs failed" in told.err and len(told.err.splitlines()) == 1
    assert "crssm/seed0: killed by SIGKILL, perhaps for want of memory (log: runs/mine/crssm/seed0.log)" in told.err
    reason = "environment.observation_scale: 'state' has 2 numbers, the observation has shape (4,)"
    assert f"scaled/seed0: {reason} (log: runs/mine/scaled/seed0.log)" in told.err
    assert f"scaled/seed0: failed, {reason}" in told.out.splitlines()
    killed_at = latest()
    assert interrupted_at < killed_at < STEPS

    assert tuning.cli.main(["grid", "mine.yaml", "--only", "crssm"]) == 0
    assert "1 of 1 runs are done; their table: dreamtune compare runs/mine" in capsys.readouterr().out
    assert [progress_of(run).stage for run in load_grid("mine.yaml")] == ["done", "train"]
    log = (tmp_path / "runs/mine/crssm/seed0.log").read_text()
    assert re.findall(r"continuing at (\d+) of 300 steps", log) == [str(interrupted_at), str(killed_at)]
    # No epoch was trained twice (the one that a kill came into had not ended), and every one is in the table.
    ended = [int(steps) for steps in re.findall(r"^(\d+)/300 steps", log, re.MULTILINE)]
    assert len(ended) == len(set(ended)) and {*range(killed_at + EPOCH, STEPS + 1, EPOCH)} <= set(ended)
    rows = (CRSSM / "metrics.csv").read_text().splitlines()[1:]
    assert [int(row.split(",")[1]) for row in rows] == list(range(EPOCH, STEPS + 1, EPOCH))

    # An evaluation of too few episodes is made anew, and nothing is trained for it.
    write_grid(tmp_path, episodes=2)
    (run,) = load_grid("mine.yaml", only=["crssm"])
    assert progress_of(run).stage == "evaluate"
    before = {path: path.read_bytes() for path in (CRSSM / "checkpoints").rglob("*") if path.is_file()}
    work(run)
    assert progress_of(run).stage == "done"
    assert len((CRSSM / "evaluation.csv").read_text().splitlines()) == 1 + 3 * 2
    assert {path: path.read_bytes() for path in (CRSSM / "checkpoints").rglob("*") if path.is_file()} == before

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("nothing is left to start a process for")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    assert tuning.cli.main(["grid", "mine.yaml", "--only", "crssm", "--dry-run"]) == 0
    assert "mine: 1 run: 1 done" in capsys.readouterr().out
    assert tuning.cli.main(["grid", "mine.yaml", "--only", "crssm"]) == 0
