"""The folder of a run: what lies where, whose configuration it has, and that one process trains in it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agents.configuration import RunConfig, config_bytes, differences, read_yaml, save_config, validate
from agents.errors import UserError
from agents.files import atomic_write

__all__ = ["Occupied", "RunFolder", "atomic_write"]

# What may differ between a run and the command that continues it: none changes a number that was computed.
MAY_CHANGE = (
    "name",
    "contexts.evaluation.regions",
    "replay.storage",
    "training.environment_steps",
    "training.capture",
    "training.keep_checkpoints",
    "evaluation.episodes_per_context",
    "evaluation.seed",
    "evaluation.confidence",
)


class Occupied(UserError):
    """Another process works in the run folder: with the next try it may be free."""


class RunFolder:
    """Paths in a run folder.

    Attributes:
        path: the folder, such as runs/cartpole.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    @property
    def config_file(self) -> Path:
        """The resolved configuration; a folder is a run folder if it holds this file."""
        return self.path / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def replay(self) -> Path:
        """Folder of the replay's page files, shared by the checkpoints."""
        return self.path / "replay"

    @property
    def metrics(self) -> Path:
        """Table of the training metrics."""
        return self.path / "metrics.csv"

    @property
    def tensorboard(self) -> Path:
        """Folder of TensorBoard's event files."""
        return self.path / "tensorboard"

    @property
    def evaluation(self) -> Path:
        """Table of the judged episodes."""
        return self.path / "evaluation.csv"

    @property
    def judged_before(self) -> bool:
        """Whether the table of judged episodes is of an agent that was kept before the present one, by their times."""
        kept = self.checkpoints / "best" / "best.json"
        return self.evaluation.is_file() and kept.is_file() and self.evaluation.stat().st_mtime < kept.stat().st_mtime

    @property
    def dream(self) -> Path:
        """Folder of the dreams."""
        return self.path / "dream"

    @property
    def counterfactual(self) -> Path:
        """Folder of the counterfactual dreams."""
        return self.path / "counterfactual"

    @property
    def latents(self) -> Path:
        """Folder of what probes read in the latents."""
        return self.path / "latents"

    @classmethod
    def open(cls, path: Path | str) -> "RunFolder":
        """Return the folder of a run that was begun before.

        Raises:
            UserError: there is no such folder, it cannot be read, or it is not a run's.
        """
        folder = cls(path)
        try:
            if not folder.path.is_dir():
                raise UserError(f"{path}: no such run folder; name the folder of a run, such as runs/cartpole")
            os.listdir(folder.path)
            exists = folder.config_file.is_file()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); name a readable run folder") from error
        if not exists:
            raise UserError(f"{path}: not a run folder, it has no config.yaml; name a folder that `train` made")
        folder.config()
        return folder

    @classmethod
    def prepare(cls, path: Path | str, config: RunConfig) -> "RunFolder":
        """Return the folder to train in with `config`: a new one, or that of the same run, to go on with.

        A run that failed before its first checkpoint leaves nothing to go on with: its configuration gives way.

        Raises:
            UserError: the folder holds something else, a run of another configuration, or cannot be written.
        """
        folder = cls(path)
        try:
            # Hidden files may be left of a process that was killed before it had written the configuration.
            occupied = folder.path.exists() and (
                not folder.path.is_dir() or any(not entry.name.startswith(".") for entry in folder.path.iterdir())
            )
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); choose another folder with --run") from error
        if not occupied:
            save_config(config, folder.config_file)
            return folder
        folder = cls.open(path)
        there = folder.config()
        different = differences(there, config)
        if different and not folder.begun() and folder.config_file.read_bytes() == config_bytes(there):
            with folder.lock():  # held by who is on the way to a first checkpoint
                save_config(config, folder.config_file)
            return folder
        folder.check_continues(config)
        if different:
            save_config(config, folder.config_file)
        return folder

    def check_continues(self, config: RunConfig) -> None:
        """Check that the run that was begun here can go on with ``config``.

        Raises:
            UserError: it is the run of another configuration, or was begun with more steps.
        """
        there = self.config()
        refused = {key: values for key, values in differences(there, config).items() if key not in MAY_CHANGE}
        if refused:
            told = ", ".join(f"{key} ({_short(old)} there, {_short(new)} now)" for key, (old, new) in refused.items())
            raise UserError(
                f"{self.path}: the run of another configuration; it differs in {told}; "
                "choose another folder with --run, or the values it was begun with"
            )
        steps, begun_with = config.training.environment_steps, there.training.environment_steps
        if steps < begun_with:
            raise UserError(
                f"{self.path}: was begun with training.environment_steps {begun_with}, which may be raised, not "
                f"lowered to {steps}; go on with --resume {self.path}, or choose another folder with --run"
            )

    def begun(self) -> bool:
        """Return whether the run has anything to go on with: a checkpoint, a kept agent or a row of metrics."""
        saved = any(self.checkpoints.glob("step-*"))
        return (
            saved
            or (self.checkpoints / "best" / "best.json").is_file()
            or (self.metrics.is_file() and self.metrics.read_bytes().count(b"\n") > 1)
        )

    def config(self) -> RunConfig:
        """Return the configuration that the run was begun with; raise `UserError` if it cannot be read."""
        return validate(read_yaml(self.config_file), str(self.config_file))

    def occupant(self) -> str | None:
        """Return the process that holds the lock, as far as it is known; None where nobody does."""
        try:
            descriptor = os.open(self.path / ".lock", os.O_RDONLY)
        except OSError:  # never locked, or not by us to see: then taking the lock will tell
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
        finally:
            os.close(descriptor)
        return None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one training process; the system lets go of it however that process ends.

        Raises:
            Occupied: another process trains in the folder.
            UserError: the lock cannot be written.
        """
        path = self.path / ".lock"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UserError(
                f"{path}: cannot be written ({error.strerror}); choose another folder with --run"
            ) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                owner = os.read(descriptor, 32).decode(errors="replace").strip()
                raise Occupied(
                    f"{self.path}: process {owner or 'unknown'} is training here; wait for it, stop it, "
                    "or choose another folder with --run"
                ) from error
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
            for folder in (self.checkpoints, self.replay):
                for torn in folder.glob(".*.tmp"):  # of atomic writes that were killed
                    torn.unlink(missing_ok=True)
            yield
        finally:
            os.close(descriptor)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."
