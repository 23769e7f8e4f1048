"""Killed at any moment, the same command comes to the same end: bit for bit, on the CPU."""

import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest
from training_run import TINY_AGENT, board_scalars, table_scalars, tiny_config

from agents.run_folder import RunFolder
from agents.train import train
from agents.training.checkpoint import Checkpoints


def start_training(folder, stop_after_syncs=None, training=None, context="crssm"):
    """Train in this process; with ``stop_after_syncs``, kill it at that sync of a file to the disk."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if stop_after_syncs is not None:
        real, left = os.fsync, [stop_after_syncs]

        def fsync(descriptor):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            real(descriptor)

        os.fsync = fsync
    model = TINY_AGENT["world_model"] | {"context": context, "context_encoder": {"history": 4}}
    train(tiny_config(training=training or {}, agent={"world_model": model}), folder)


@pytest.fixture(scope="module")
def processes():
    """Fresh processes that need not import everything anew."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["agents.train", "training_run"])
    return context


def run(processes, folder, *, stop_after_syncs=None, kill_after=None, training=None, context="crssm"):
    """Train in a process until it ends, or is killed; return its exit code."""
    process = processes.Process(target=start_training, args=(folder, stop_after_syncs, training, context))
    process.start()
    process.join(kill_after)
    if kill_after is not None:
        process.kill()
    process.join(900)
    assert process.exitcode is not None, "training hangs"
    return process.exitcode


def outcome(folder):
    """Return everything that has to be equal: weights, replay, collector, metrics, kept agent."""
    paths = RunFolder(folder)
    checkpoints = Checkpoints(paths.checkpoints, paths.replay, 2)
    files = {}
    for step in checkpoints.steps():
        for name in ("agent.safetensors", "collector.safetensors"):
            files[step, name] = (checkpoints.path(step) / name).read_bytes()
        progress = checkpoints._manifest(step)["progress"]
        progress.pop("timing")
        files[step, "progress"] = progress  # names every replay page by its content
    files["pages"] = {path.name: path.read_bytes() for path in paths.replay.iterdir()}
    files["metrics"] = paths.metrics.read_bytes()
    files["names"] = sorted(path.name for path in folder.iterdir() if path.name != "curve.png")
    shown, timing = board_scalars(paths.tensorboard), table_scalars(folder / "timing.csv")
    assert shown == table_scalars(paths.metrics) | timing
    files["best"] = {path.name: path.read_bytes() for path in (paths.checkpoints / "best").iterdir()}
    return files


@pytest.fixture(scope="module")
def uninterrupted(processes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert run(processes, folder) == 0
    return outcome(folder)


def test_the_run_is_worth_comparing(uninterrupted):
    lines = uninterrupted["metrics"].decode().splitlines()
    assert len(lines) == 1 + 4
    assert lines[-1].startswith("4,120,33,")  # epoch, environment steps, updates
    open_episodes = uninterrupted[120, "progress"]["collector"]["open"]
    assert any(episode is not None for episode in open_episodes)


def test_killed_at_random_moments(processes, uninterrupted, tmp_path):
    moments = random.Random(11)
    folder = tmp_path / "run"
    begun = time.monotonic()
    assert run(processes, tmp_path / "rehearsal") == 0
    duration = time.monotonic() - begun  # of a whole run, on this machine and now
    codes = []
    while 0 not in codes:
        codes.append(run(processes, folder, kill_after=duration * moments.uniform(0.05, 0.5)))
        assert codes[-1] in (0, -signal.SIGKILL)
        assert len(codes) < 40
    assert len(codes) > 3
    assert outcome(folder) == uninterrupted


def test_killed_while_writing(processes, uninterrupted, tmp_path):
    """A kill at some sync to the disk: in the middle of a page, a checkpoint, the kept agent or a table."""
    moments = random.Random(12)
    folder, codes = tmp_path / "run", []
    while 0 not in codes:
        codes.append(run(processes, folder, stop_after_syncs=moments.randint(1, 40)))
        assert codes[-1] in (0, -signal.SIGKILL)
        assert len(codes) < 60
    assert len(codes) > 3
    assert outcome(folder) == uninterrupted


def test_killed_while_writing_with_stored_latents(processes, uninterrupted, tmp_path):
    """The latents that updates left in replay are what the next ones start from, whoever does them."""
    training = {"sequence_start": "stored"}
    assert run(processes, tmp_path / "whole", training=training) == 0
    wanted = outcome(tmp_path / "whole")
    manifest = wanted[120, "progress"]["replay"]
    assert manifest["latents"]["pages"] and len(wanted["pages"]) > len(uninterrupted["pages"])
    assert wanted["metrics"] != uninterrupted["metrics"]
    moments = random.Random(13)
    folder, codes = tmp_path / "run", []
    while 0 not in codes:
        codes.append(run(processes, folder, stop_after_syncs=moments.randint(20, 60), training=training))
        assert codes[-1] in (0, -signal.SIGKILL)
        assert len(codes) < 60
    assert len(codes) > 2
    assert outcome(folder) == wanted


def test_killed_while_an_agent_infers_its_context(processes, uninterrupted, tmp_path):
    """What it believes of the contexts of open episodes, and the scale of changes, go on as they were."""
    training = {"start_steps": 30}
    assert run(processes, tmp_path / "whole", training=training, context="inferred") == 0
    wanted = outcome(tmp_path / "whole")
    header, *_, last = (line.split(",") for line in wanted["metrics"].decode().splitlines())
    assert float(last[header.index("context/length")]) > 0.0
    folder, codes = tmp_path / "run", []
    while 0 not in codes:
        codes.append(run(processes, folder, stop_after_syncs=25, training=training, context="inferred"))
        assert len(codes) < 60
    assert len(codes) > 2
    assert outcome(folder) == wanted


def test_a_finished_run_is_left_alone(processes, uninterrupted, tmp_path):
    folder = tmp_path / "run"
    assert run(processes, folder) == 0
    assert outcome(folder) == uninterrupted  # and so two processes agree

    def stamps():
        return {path: path.stat().st_mtime_ns for path in (folder / "checkpoints").rglob("*")}

    before = stamps()
    assert run(processes, folder) == 0
    assert stamps() == before
    assert outcome(folder) == uninterrupted
    assert Path(folder / "curve.png").exists()
