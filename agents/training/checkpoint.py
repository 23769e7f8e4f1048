"""Checkpoints: folders of safetensors and JSON with hashes, so that loading one runs no code.

A checkpoint is written into a temporary folder, synced to the disk and renamed, after the replay pages
that it names. Whoever is killed while writing leaves the checkpoint before intact, and a checkpoint whose
files do not have the hashes that its manifest tells is passed over for the one before.

Layout, below a run's ``checkpoints`` folder::

    step-000012000/manifest.json         counters, open episodes, metrics so far, replay manifest, hashes
                   agent.safetensors     the state tree, one tensor per leaf, named by its path
                   collector.safetensors carry, last records and open episodes' actions
    best/best.json                       which file, its hash, environment steps, validation return
         agent-000010000.safetensors     the state tree
"""

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import torch as safetensors
from tensordict import TensorDict

from agents.dreamerv3 import check_same_structure, flatten_state, unflatten_state
from agents.errors import Damaged, UserError
from agents.files import atomic_write, digest, disk_full, full_message, read_intact, sync_folder
from agents.replay import Replay, collect_garbage

FORMAT = 1
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """What continues a run: a JSON-able dict and named tensors."""

    progress: dict[str, Any]  # counters, open episodes, metric rows, replay manifest
    agent: dict[str, torch.Tensor]  # the state tree, by path
    collector: dict[str, torch.Tensor]


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Tell a failure of the disk while writing below ``path`` as a `UserError` in one line."""
    try:
        yield
    except OSError as error:
        words = disk_full(error) or f"cannot be written ({error.strerror})"
        raise UserError(full_message(path, words)) from error


def restore_state(state: TensorDict, leaves: Mapping[str, torch.Tensor], source: Path) -> None:
    """Overwrite a state tree in place, so that the order of its leaves stays that of a fresh one.

    Args:
        state: a tree of the same agent, for instance its initial state.
        leaves: as ``flatten_state`` returned them.
        source: named in errors.

    Raises:
        UserError: names or shapes are not those of the tree.
    """
    given = unflatten_state(leaves)
    try:
        check_same_structure(state, given)
    except ValueError as error:
        raise UserError(f"{source}: saved by an agent of another configuration: {error}") from error
    with torch.no_grad():
        for path in state.keys(include_nested=True, leaves_only=True):
            state.get(path).copy_(given.get(path))


class Checkpoints:
    """The checkpoints of a run.

    Args:
        folder: where they are, created on the first save.
        pages: folder of the replay pages that they share.
        keep: how many of the latest to keep.
    """

    def __init__(self, folder: Path, pages: Path, keep: int) -> None:
        self.folder = folder
        self.pages = pages
        self.keep = keep

    def steps(self) -> list[int]:
        """Return the environment steps of the checkpoints on disk, ascending."""
        return sorted(int(path.name.removeprefix("step-")) for path in self.folder.glob("step-*"))

    def path(self, step: int) -> Path:
        """Return the folder of the checkpoint at ``step`` environment steps."""
        return self.folder / f"step-{step:012d}"

    def save(self, step: int, checkpoint: Checkpoint) -> None:
        """Write a checkpoint; then drop those beyond ``keep`` and the pages that no checkpoint names.

        Raises:
            UserError: the disk is full or fails; earlier checkpoints are untouched.
        """
        final, temporary = self.path(step), self.folder / f".writing-{step:012d}"
        files = {
            "agent.safetensors": safetensors.save(checkpoint.agent),
            "collector.safetensors": safetensors.save(checkpoint.collector),
        }
        hashes = {name: digest(content) for name, content in files.items()}
        body = {"format": FORMAT, "files": hashes, "progress": checkpoint.progress}
        files["manifest.json"] = json.dumps({"hash": _body_digest(body), "body": body}).encode()
        with disk_errors(final):
            try:
                shutil.rmtree(temporary, ignore_errors=True)
                for name, content in files.items():
                    atomic_write(temporary / name, content)
                shutil.rmtree(final, ignore_errors=True)
                temporary.rename(final)
                sync_folder(self.folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            self._prune(step)

    def _prune(self, latest: int) -> None:
        """Keep the checkpoints up to ``latest``, which is intact, and torn ones that it has yet to reach."""
        for step in [step for step in self.steps() if step <= latest][: -self.keep]:
            doomed = self.folder / f".removing-{step:012d}"  # so that a kill leaves no half of a checkpoint
            self.path(step).rename(doomed)
            shutil.rmtree(doomed)
        try:
            manifests = [self._manifest(step)["progress"]["replay"] for step in self.steps()]
        except Damaged:  # nobody knows which pages that one names; it might be restored
            return
        collect_garbage(self.pages, manifests)

    def latest(self, load_replay: Callable[[dict[str, Any]], Replay]) -> tuple[Checkpoint, Replay] | None:
        """Return the latest intact checkpoint and its replay, passing over torn ones; None before the first.

        Only `Damaged` content is passed over: whatever else fails may be well again with the next try.

        Args:
            load_replay: makes the replay of a manifest.

        Raises:
            UserError: there are checkpoints, but none is intact; or one cannot be read for another reason.
        """
        for leftover in (*self.folder.glob(".writing-*"), *self.folder.glob(".removing-*")):
            shutil.rmtree(leftover, ignore_errors=True)
        steps = self.steps()
        for step in reversed(steps):
            try:
                checkpoint = self._read(step)
                found = checkpoint, load_replay(checkpoint.progress["replay"])
            except Damaged as error:
                logger.warning("%s cannot be used (%s); trying the one before", self.path(step), error)
            else:
                self._prune(step)  # in case a kill came before that
                return found
        if steps:
            raise UserError(
                f"{self.folder}: no intact checkpoint; restore one, or the replay pages that are missing or damaged, "
                "from a copy, or choose another folder with --run"
            )
        return None

    def _manifest(self, step: int) -> dict[str, Any]:
        path = self.path(step) / "manifest.json"
        content = read_intact(path)
        try:
            manifest = json.loads(content)
            body = manifest["body"]
            intact = _body_digest(body) == manifest["hash"]
        except (ValueError, KeyError, TypeError):
            intact = False
        if not intact:
            raise Damaged(f"{path}: damaged; restore it from a copy")
        if body["format"] != FORMAT:
            raise UserError(
                f"{path.parent}: written in format {body['format']}; this version reads {FORMAT}, so continue with "
                "the one that wrote it, or choose another folder with --run"
            )
        return body

    def _read(self, step: int) -> Checkpoint:
        body = self._manifest(step)
        tensors = {
            name: safetensors.load(read_intact(self.path(step) / name, expected))
            for name, expected in body["files"].items()
        }
        return Checkpoint(body["progress"], tensors["agent.safetensors"], tensors["collector.safetensors"])


def _body_digest(body: dict[str, Any]) -> str:
    return digest(json.dumps(body, sort_keys=True).encode())


class BestAgent:
    """The kept agent: the state with the highest mean validation return, the latest of equals.

    Before that comes the number of invalid validation episodes: an agent with fewer of them is the better one,
    whatever its return, which is the mean of the valid ones only.

    Args:
        folder: ``checkpoints/best`` of a run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.note = folder / "best.json"

    def read_note(self) -> dict[str, Any] | None:
        """Return the note on the kept agent, None before the first: file, hash, score, steps, invalid episodes.

        Raises:
            Damaged: the note is cut or changed.
            UserError: it cannot be read.
        """
        if not self.note.exists():
            return None
        content = read_intact(self.note)
        try:
            note = json.loads(content)
            required = {key: note[key] for key in ("file", "hash", "env_steps", "validation_return")}
            return required | {"validation_invalid": note.get("validation_invalid", 0)}
        except (ValueError, KeyError, TypeError) as error:
            raise Damaged(
                f"{self.note}: damaged; restore it from a copy, or move {self.folder} elsewhere and go on without "
                "the agent that was kept"
            ) from error

    def offer(self, state: TensorDict, env_steps: int, validation_return: float, invalid: int = 0) -> bool:
        """Keep ``state`` if it is at least as good as what is kept; return whether it was.

        Args:
            state: the agent's state tree.
            env_steps: environment steps done.
            validation_return: mean of the valid validation episodes.
            invalid: number of the others.

        Raises:
            UserError: the disk is full or fails, or the note is damaged; the agent kept before is untouched.
        """
        note = self.read_note()
        rank = (-invalid, validation_return)
        if note is not None and (-note["validation_invalid"], note["validation_return"]) > rank:
            return False
        content = safetensors.save(flatten_state(state))
        name = f"agent-{env_steps:012d}.safetensors"
        score = {"env_steps": env_steps, "validation_return": validation_return}
        if invalid:
            score["validation_invalid"] = invalid
        new = {"file": name, "hash": digest(content), **score}
        with disk_errors(self.folder):
            atomic_write(self.folder / name, content)
            atomic_write(self.note, json.dumps(new, indent=2).encode())
            self.tidy()
        return True

    def tidy(self) -> None:
        """Remove agents that are no longer kept, and what a kill left half written.

        Raises:
            UserError: the note is damaged or cannot be read; nothing is removed.
        """
        note = self.read_note()
        wanted = {self.note.name, note["file"] if note else None}
        for path in self.folder.glob("*"):
            if path.name not in wanted:
                path.unlink()

    def load(self) -> dict[str, torch.Tensor]:
        """Return the leaves of the kept state tree.

        Raises:
            UserError: no agent has been kept yet, or its file is missing, damaged or cannot be read.
        """
        note = self.read_note()
        if note is None:
            raise UserError(f"{self.folder}: no agent has been kept yet; train until the first validation")
        try:
            content = read_intact(self.folder / note["file"], note["hash"])
        except Damaged:
            newer = self.read_note()  # training may have kept a better agent since, and removed this one
            if newer is None or newer == note:
                raise
            content = read_intact(self.folder / newer["file"], newer["hash"])
        return safetensors.load(content)
