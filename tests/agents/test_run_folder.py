"""Run folders: who may use one, and that no write leaves half a file."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest

from agents.configuration import RunConfig, load_config
from agents.errors import UserError
from agents.files import atomic_write, disk_full
from agents.run_folder import RunFolder


def smoke(*overrides: str) -> RunConfig:
    return load_config("smoke", overrides)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_is_made_and_the_same_command_goes_on_in_it(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "one"
    assert RunFolder.prepare(path, smoke()).config() == smoke()
    assert RunFolder.prepare(path, smoke()).config() == smoke()
    assert RunFolder.open(path).path == path


def test_left_overs_of_a_killed_start_are_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("1\n")
    (tmp_path / ".config.yaml.1.tmp").write_text("na")
    assert RunFolder.prepare(tmp_path, smoke()).config() == smoke()


SAVED = ("checkpoints/step-000000000400/manifest.json", "checkpoints/best/best.json", "metrics.csv")


def begin(folder: Path, saved: str = SAVED[0]) -> None:
    """Prepare a folder and let it hold something to go on with."""
    RunFolder.prepare(folder, smoke())
    atomic_write(folder / saved, b"epoch\n1\n")


def test_a_run_that_failed_before_its_first_checkpoint_does_not_block_its_folder(tmp_path: Path) -> None:
    RunFolder.prepare(tmp_path, smoke("--training.environment_steps", "800"))
    atomic_write(tmp_path / "metrics.csv", b"epoch\n")
    corrected = smoke("--environment.action_repeat", "2")
    assert RunFolder.prepare(tmp_path, corrected).config() == corrected


def test_a_configuration_written_by_hand_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("# mine\nseed: 3\n")
    with pytest.raises(UserError, match="the run of another configuration"):
        RunFolder.prepare(tmp_path, smoke())
    assert (tmp_path / "config.yaml").read_text() == "# mine\nseed: 3\n"


def test_a_run_on_its_way_to_the_first_checkpoint_keeps_its_configuration(tmp_path: Path) -> None:
    folder = RunFolder.prepare(tmp_path, smoke())
    with folder.lock(), pytest.raises(UserError, match=f"process {os.getpid()} is training here"):
        RunFolder.prepare(tmp_path, smoke("--seed", "4"))
    assert folder.config() == smoke()


@pytest.mark.parametrize("saved", SAVED)
def test_the_run_of_another_configuration_is_refused_with_the_differences(saved: str, tmp_path: Path) -> None:
    begin(tmp_path, saved)
    before = (tmp_path / "config.yaml").read_bytes()
    with pytest.raises(UserError) as caught:
        RunFolder.prepare(tmp_path, smoke("--seed", "4", "--agent.horizon", "7"))
    message = str(caught.value)
    assert "seed (0 there, 4 now), agent.horizon (5 there, 7 now); choose another folder with --run" in message
    assert (tmp_path / "config.yaml").read_bytes() == before


def test_a_run_may_be_made_longer_and_judged_otherwise_but_not_shorter(tmp_path: Path) -> None:
    begin(tmp_path)
    longer = smoke("--training.environment_steps", "800", "--evaluation.episodes_per_context", "9")
    assert RunFolder.prepare(tmp_path, longer).config() == longer
    with pytest.raises(UserError, match="environment_steps 800, which may be raised, not lowered to 400"):
        RunFolder.prepare(tmp_path, smoke())


def test_what_is_no_run_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    for attempt in (lambda: RunFolder.open(tmp_path), lambda: RunFolder.prepare(tmp_path, smoke())):
        with pytest.raises(UserError, match="not a run folder, it has no config.yaml"):
            attempt()
    assert names(tmp_path) == ["thesis.tex"]
    with pytest.raises(UserError, match="absent: no such run folder"):
        RunFolder.open(tmp_path / "absent")
    with pytest.raises(UserError, match="thesis.tex: no such run folder"):
        RunFolder.prepare(tmp_path / "thesis.tex", smoke())


def test_a_damaged_configuration_is_told(tmp_path: Path) -> None:
    folder = RunFolder.prepare(tmp_path, smoke())
    folder.config_file.write_text("sede: 3\n")
    with pytest.raises(UserError, match=r"config\.yaml: unknown key 'sede'"):
        RunFolder.open(tmp_path)


def test_unreadable_folders_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RunFolder.prepare(tmp_path, smoke())

    def refuse(path: object) -> list[str]:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "listdir", refuse)  # tests may run as root, whom permissions do not stop
    with pytest.raises(UserError, match=r"cannot be read \(Permission denied\); name a readable run folder"):
        RunFolder.open(tmp_path)


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    folder = RunFolder.prepare(tmp_path, smoke())
    program = (
        "import sys, time\nfrom agents.run_folder import RunFolder\n"
        f"with RunFolder({str(tmp_path)!r}).lock():\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match=f"process {other.pid} is training here"), folder.lock():
            pass
    finally:
        other.kill()
        other.communicate()
    torn = folder.checkpoints / ".weights.safetensors.1.tmp"
    torn.parent.mkdir()
    torn.write_bytes(b"half")
    with folder.lock():  # the killed process holds it no longer
        assert not torn.exists()


def test_a_write_is_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    atomic_write(path, b"first")
    assert path.read_bytes() == b"first"

    def fail(file: BinaryIO) -> None:
        file.write(b"half")
        raise ValueError("a mistake of the program")

    with pytest.raises(ValueError, match="a mistake of the program"):
        atomic_write(path, fail)
    assert path.read_bytes() == b"first"
    assert names(path.parent) == ["file"]


def test_a_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    """The limit on a file's size fails a real write in the middle, as a full disk does."""
    path = tmp_path / "file"
    atomic_write(path, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(UserError, match="free some room and run the same command again, nothing saved before"):
            atomic_write(path, bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_room_is_known_however_a_library_tells_it(number: int, tmp_path: Path) -> None:
    class LibraryError(Exception):
        pass

    assert disk_full(OSError(number, os.strerror(number))) is not None
    told = f"Error while serializing: I/O error: {os.strerror(number)} (os error {number})"

    def fail(file: BinaryIO) -> None:
        raise LibraryError(told)

    with pytest.raises(UserError, match="free some room"):
        atomic_write(tmp_path / "file", fail)
    assert disk_full(OSError(errno.EACCES, "Permission denied")) is None
    assert disk_full(LibraryError("something else (os error 2)")) is None
    assert names(tmp_path) == []


def test_a_folder_that_may_not_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot be written \(.*\); choose a folder you may write to"):
        atomic_write(tmp_path / "file" / "below", b"")
