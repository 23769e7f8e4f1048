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
from agents.errors import Damaged, UserError
from agents.files import digest
from agents.replay import PageStore, Replay, Spec
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


def fill_the_disk(patch, allowed):
    """Let the disk be full after ``allowed`` syncs."""
    real, calls = os.fsync, iter(range(allowed))

    def full(descriptor):
        if next(calls, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    patch.setattr(os, "fsync", full)


def refuse_to_read(patch, file):
    """Let one file be unreadable (permissions would not stop a superuser)."""
    real = Path.read_bytes

    def read(path):
        if path == file:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path)

    patch.setattr(Path, "read_bytes", read)


def test_latest_is_what_was_saved_and_none_before(tmp_path):
    run = Run(tmp_path)
    assert run.latest() is None
    run.save(6)
    assert run.latest() == 6
    run.save(13)
    assert run.latest() == 13


def test_pages_of_latents_are_kept_and_removed_with_their_checkpoints(tmp_path):
    """Each save finds all latents changed; the records' full pages stay as they are."""
    run = Run(tmp_path)
    latents = PageStore({"latent": Spec((), "int16")}, 4)
    run.replay = Replay(SPECS, capacity=1000, streams=1, page_length=4, latents=latents)
    flags = {"is_first": np.zeros(1, bool), "is_last": np.zeros(1, bool)}
    for number in range(18):
        run.replay.append({**flags, "value": np.full(1, number, np.float32), "latent": np.full(1, number, np.int16)})
    places = run.replay.draw(1, 17, np.random.default_rng(0), before=1)
    for save in range(3):
        run.replay.write_back(places, {"latent": torch.full((1, 17), 100 + save, dtype=torch.int16)})
        manifest = run.replay.save(run.checkpoints.pages)
        run.checkpoints.save(18 + save, Checkpoint({"replay": manifest}, {}, {}))
    # 18 records are 4 full pages and one of 2. Of the latents the first page differs, 3 in the middle are equal.
    assert len(list(run.checkpoints.pages.iterdir())) == 5 + 2 * 3
    for step, value in ((19, 101), (20, 102)):
        progress = run.checkpoints._read(step).progress
        loaded = Replay.load(progress["replay"], run.checkpoints.pages)
        kept = loaded._pages[1].gather(np.array([0]), np.arange(18)[None], "cpu")["latent"]
        assert kept.tolist() == [[0] + [value] * 17]


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
        place = middle if name == "manifest.json" else len(content) - 1  # a number, not the header, which is JSON
        flipped = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
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
    newer[0].unlink()
    assert run.latest() == 6


def test_no_intact_checkpoint_is_told_and_does_not_start_over(tmp_path):
    run = Run(tmp_path)
    run.save(6)
    file = run.checkpoints.path(6) / "agent.safetensors"
    content = file.read_bytes()
    file.write_bytes(b"")
    with pytest.raises(UserError, match="no intact checkpoint; restore one") as told:
        run.latest()
    assert "remove" not in str(told.value) and "--run" in str(told.value)
    file.write_bytes(content)
    assert run.latest() == 6


@pytest.mark.parametrize("name", ["manifest.json", "agent.safetensors", "collector.safetensors"])
def test_what_cannot_be_read_now_is_not_passed_over(tmp_path, monkeypatch, name):
    run = Run(tmp_path)
    run.save(6)
    run.save(13)
    with monkeypatch.context() as patch:
        refuse_to_read(patch, run.checkpoints.path(13) / name)
        with pytest.raises(UserError, match=f"{name}: cannot be read .Permission denied") as told:
            run.latest()
    assert not isinstance(told.value, Damaged) and "remove" not in str(told.value)
    assert run.latest() == 13


@pytest.mark.parametrize("error", [UserError("no memory for 3 GiB"), OSError(errno.ENOSPC, "No space left")])
def test_no_room_for_the_replay_is_told_as_it_is(tmp_path, error):
    run = Run(tmp_path)
    run.save(6)

    def load(manifest):
        raise error

    with pytest.raises(type(error)) as told:
        run.checkpoints.latest(load)
    assert told.value is error


def test_another_format_is_told_as_it_is(tmp_path):
    run = Run(tmp_path)
    run.save(6)
    run.save(13)
    file = run.checkpoints.path(13) / "manifest.json"
    body = json.loads(file.read_bytes())["body"] | {"format": 99}
    file.write_text(json.dumps({"hash": digest(json.dumps(body, sort_keys=True).encode()), "body": body}))
    with pytest.raises(UserError, match="written in format 99; this version reads 1"):
        run.latest()


def test_pages_of_a_checkpoint_stay_while_its_manifest_is_unknown(tmp_path):
    """A copy of the manifest makes it whole again, also after the run went on from the one before."""
    run = Run(tmp_path)
    run.save(6)
    run.save(13)
    manifest = run.checkpoints.path(13) / "manifest.json"
    content = manifest.read_bytes()
    manifest.write_bytes(b"")
    other = Run(tmp_path, keep=1)
    other.save(9)
    assert other.checkpoints.steps() == [9, 13]
    assert other.latest() == 9
    manifest.write_bytes(content)
    assert other.latest() == 13
    other.save(13)
    assert other.checkpoints.steps() == [13]
    assert len(list(other.checkpoints.pages.iterdir())) == 3 + 1


class Killed(BaseException):
    """Stands for a kill: nothing in the code under test may catch it."""


def test_killed_before_any_system_call_of_a_save(tmp_path, monkeypatch):
    """Stop before the n-th sync or rename, or within a removal, for every n: all checkpoints that are left load."""
    stopped_at, remove_folder = [], shutil.rmtree
    for stop in range(100):
        run, calls = Run(tmp_path / str(stop)), []
        run.save(6)
        run.save(9)

        def stopping(real, stop=stop, calls=calls):
            def call(*arguments, **keywords):
                calls.append(real.__name__)
                if len(calls) > stop:  # also what cleaning up would do
                    if real is remove_folder and len(calls) == stop + 1 and os.path.exists(arguments[0]):
                        os.remove(Path(arguments[0], "agent.safetensors"))
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
        assert all(run.checkpoints._read(step) for step in run.checkpoints.steps())
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
    for allowed in range(20):
        with monkeypatch.context() as patch:
            fill_the_disk(patch, allowed)
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
    for allowed in range(3):
        with monkeypatch.context() as patch:
            fill_the_disk(patch, allowed)
            with pytest.raises(UserError):
                best.offer(state(2.0), 2, 2.0)
        assert kept(best) == 1.0


@pytest.mark.parametrize("damage", ["cut", "flipped", "missing", "unreadable"])
def test_a_kept_agent_that_cannot_be_loaded_is_one_line(tmp_path, monkeypatch, damage):
    best = BestAgent(tmp_path)
    best.offer(state(1.0), 1, 1.0)
    file = tmp_path / best.read_note()["file"]
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    elif damage == "unreadable":
        refuse_to_read(monkeypatch, file)
    else:
        file.write_bytes(content[:-1] + (bytes([content[-1] ^ 1]) if damage == "flipped" else b""))
    told = {"missing": "missing", "unreadable": "cannot be read .Permission denied"}.get(damage, "damaged")
    with pytest.raises(UserError, match=f"{file.name}: {told}") as caught:
        best.load()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ['{"file": "agent', "", "[]", "{}", "\udc80"])
def test_a_torn_note_is_one_line_and_nothing_is_removed(tmp_path, content):
    best = BestAgent(tmp_path)
    best.offer(state(1.0), 1, 1.0)
    whole = best.note.read_bytes()
    best.note.write_bytes(content.encode(errors="surrogateescape"))
    for use in (best.load, best.tidy, lambda: best.offer(state(2.0), 2, 2.0)):
        with pytest.raises(Damaged, match=r"best.json: damaged; restore it") as caught:
            use()
        assert "\n" not in str(caught.value)
    best.note.write_bytes(whole)
    assert kept(best) == 1.0


def test_a_better_agent_may_be_kept_while_one_is_loaded(tmp_path, monkeypatch):
    """Between reading the note and the file that it names, training replaces both."""
    best, training = BestAgent(tmp_path), BestAgent(tmp_path)
    best.offer(state(1.0), 1, 1.0)
    real, offered = best.read_note, []

    def read_note():
        note = real()
        if not offered:
            offered.append(training.offer(state(2.0), 2, 2.0))
        return note

    monkeypatch.setattr(best, "read_note", read_note)
    assert kept(best) == 2.0
    assert offered == [True]
