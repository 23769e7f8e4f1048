"""Checkpoints: intact or passed over, whatever happens while they are written."""

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tensordict import TensorDict

from agents.dreamerv3 import flatten_state
from agents.errors import UserError
from agents.replay import Replay, Spec
from agents.training.checkpoint import BestAgent, Checkpoint, Checkpoints, disk_errors, restore_state

SPECS = {"is_first": Spec((), bool), "is_last": Spec((), bool), "value": Spec((), "float32")}


def state(value):
    return TensorDict(
        {
            "parameters": {"layer.weight": torch.full((2, 3), value), "bias": torch.tensor(value)},
            "counters": {"updates": torch.tensor(int(value))},
        },
        batch_size=[],
    )


class Run:
    """A growing replay, and a checkpoint of it whose content follows from its step."""

    def __init__(self, path, keep=2):
        self.checkpoints = Checkpoints(path / "checkpoints", path / "replay", keep)
        self.replay = Replay(SPECS, capacity=1000, streams=1, page_length=4)

    def save(self, step):
        while len(self.replay) < step:
            value = np.array([len(self.replay)], np.float32)
            self.replay.append({"is_first": np.zeros(1, bool), "is_last": np.zeros(1, bool), "value": value})
        with disk_errors(self.checkpoints.pages):
            manifest = self.replay.save(self.checkpoints.pages)
        progress = {"replay": manifest, "step": step, "third": 1 / 3}
        collector = {"carry": torch.tensor([float(step)])}
        self.checkpoints.save(step, Checkpoint(progress, flatten_state(state(float(step))), collector))

    def latest(self):
        """Return the step of the checkpoint that loads, having compared everything with what was saved."""
        found = self.checkpoints.latest(lambda manifest: Replay.load(manifest, self.checkpoints.pages))
        if found is None:
            return None
        checkpoint, replay = found
        step = checkpoint.progress["step"]
        assert checkpoint.progress["third"] == 1 / 3
        assert len(replay) == step
        assert torch.equal(checkpoint.collector["carry"], torch.tensor([float(step)]))
        restored = state(0.0)
        restore_state(restored, checkpoint.agent, Path("here"))
        assert (restored == state(float(step))).all()
        return step


def test_latest_is_what_was_saved_and_none_before(tmp_path):
    run = Run(tmp_path)
    assert run.latest() is None
    run.save(6)
    assert run.latest() == 6
    run.save(13)
    assert run.latest() == 13


def test_only_the_latest_stay_and_pages_are_shared(tmp_path):
    run = Run(tmp_path)
    for step in (6, 13, 18):
        run.save(step)
    assert run.checkpoints.steps() == [13, 18]
    # 13 records are 3 full pages and one of 1 record; 18 are 4 full ones and one of 2; 3 are the same.
    assert len(list(run.checkpoints.pages.iterdir())) == 3 + 1 + 1 + 1


@pytest.mark.parametrize("name", ["manifest.json", "agent.safetensors", "collector.safetensors"])
@pytest.mark.parametrize("damage", ["cut", "empty", "missing", "flipped"])
def test_a_torn_checkpoint_falls_back_to_the_one_before(tmp_path, name, damage, caplog):
    run = Run(tmp_path)
    run.save(6)
    run.save(13)
    file = run.checkpoints.path(13) / name
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        file.write_bytes({"cut": content[:middle], "empty": b"", "flipped": flipped}[damage])
    assert run.latest() == 6
    assert "step-000000000013" in caplog.text
    run.save(13)  # the run comes to the same point again
    assert run.latest() == 13


def test_a_lost_replay_page_falls_back_too(tmp_path):
    run = Run(tmp_path)
    run.save(6)
    before = set(run.checkpoints.pages.iterdir())
    run.save(13)
    newer = sorted(set(run.checkpoints.pages.iterdir()) - before)
    newer[0].write_bytes(b"")
    assert run.latest() == 6


def test_no_intact_checkpoint_is_told_and_does_not_start_over(tmp_path):
    run = Run(tmp_path)
    run.save(6)
    (run.checkpoints.path(6) / "agent.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="no intact checkpoint"):
        run.latest()


class Killed(BaseException):
    """Stands for a kill: nothing in the code under test may catch it."""


def test_killed_before_any_system_call_of_a_save(tmp_path, monkeypatch):
    """Stop before the n-th sync, rename or removal, for every n: the checkpoint before or the new one loads."""
    stopped_at = []
    for stop in range(100):
        run = Run(tmp_path / str(stop))
        run.save(6)
        run.save(9)
        calls = []

        def stopping(real, stop=stop, calls=calls):
            def call(*arguments, **keywords):
                calls.append(real.__name__)
                if len(calls) > stop:  # also what cleaning up would do
                    raise Killed
                return real(*arguments, **keywords)

            return call

        with monkeypatch.context() as patch:
            for owner, name in ((os, "fsync"), (os, "replace"), (os, "rename"), (os, "unlink"), (shutil, "rmtree")):
                patch.setattr(owner, name, stopping(getattr(owner, name)))
            try:
                run.save(13)
                killed = False
            except Killed:
                killed = True
        latest = run.latest()
        if not killed:
            assert latest == 13
            assert set(stopped_at) == {"fsync", "replace", "rename", "unlink", "rmtree"}
            return
        assert latest in (9, 13)
        stopped_at.append(calls[stop])
    pytest.fail("the save never came to its end")


def test_a_full_disk_leaves_the_earlier_checkpoints(tmp_path, monkeypatch):
    run = Run(tmp_path)
    run.save(6)
    real = os.fsync
    for allowed in range(20):
        calls = iter(range(allowed))

        def full(descriptor, calls=calls):
            if next(calls, None) is None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(descriptor)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            try:
                run.save(13)
            except UserError as error:
                assert "\n" not in str(error)
                assert run.latest() in (6, 13)
                assert not list(run.checkpoints.folder.glob(".writing-*"))
            else:
                break
    assert allowed > 5
    assert run.latest() == 13


def test_another_agents_tensors_are_refused(tmp_path):
    leaves = flatten_state(state(1.0))
    for wrong in (
        {name: value for name, value in leaves.items() if name != "parameters/bias"},
        leaves | {"parameters/extra": torch.zeros(1)},
        leaves | {"parameters/bias": torch.zeros(2)},
    ):
        with pytest.raises(UserError, match="another configuration"):
            restore_state(state(0.0), wrong, tmp_path)


def test_restoring_keeps_the_order_of_the_leaves():
    fresh = state(0.0)
    names = list(fresh["parameters"].keys())
    leaves = flatten_state(state(1.0))
    restore_state(fresh, dict(sorted(leaves.items())), Path("here"))
    assert list(fresh["parameters"].keys()) == names == ["layer.weight", "bias"]


def test_no_code_in_a_checkpoint(tmp_path):
    """Everything in it is JSON or safetensors: a length, a JSON header, numbers."""
    run = Run(tmp_path)
    run.save(6)
    BestAgent(run.checkpoints.folder / "best").offer(state(1.0), 6, 1.0)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".json", ".safetensors"}
    for path in files:
        content = path.read_bytes()
        if path.suffix == ".safetensors":
            length = int.from_bytes(content[:8], "little")
            content = content[8 : 8 + length]
        json.loads(content)


def kept(best):
    fresh = state(0.0)
    restore_state(fresh, best.load(), best.folder)
    return float(fresh["parameters", "bias"])


def test_best_is_the_highest_and_the_latest_of_equals(tmp_path):
    best = BestAgent(tmp_path / "best")
    with pytest.raises(UserError, match="no agent has been kept yet"):
        best.load()
    outcomes = [best.offer(state(float(step)), step, score) for step, score in ((1, 3.0), (2, 2.0), (3, 3.0))]
    assert outcomes == [True, False, True]
    assert kept(best) == 3.0
    assert best.read_note()["env_steps"] == 3
    assert len(list((tmp_path / "best").glob("*.safetensors"))) == 1


def test_the_kept_agent_survives_a_full_disk(tmp_path, monkeypatch):
    best = BestAgent(tmp_path / "best")
    best.offer(state(1.0), 1, 1.0)
    real = os.fsync
    for allowed in range(3):
        calls = iter(range(allowed))

        def full(descriptor, calls=calls):
            if next(calls, None) is None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            real(descriptor)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(UserError):
                best.offer(state(2.0), 2, 2.0)
        assert kept(best) == 1.0


def test_a_damaged_kept_agent_is_told(tmp_path):
    best = BestAgent(tmp_path)
    best.offer(state(1.0), 1, 1.0)
    file = tmp_path / best.read_note()["file"]
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match="damaged"):
        best.load()
