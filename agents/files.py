"""Files that are whole or not there: written atomically, and read only if they have the hash they should have."""

import errno
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from agents.errors import Damaged, UserError

_FULL = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is too big",
}


def disk_full(error: BaseException) -> str | None:
    """Return how a write failed for want of room, in words, or None if it failed for another reason.

    Libraries that write by themselves report it in their own exceptions, so their text is searched too.
    """
    if isinstance(error, OSError):
        return _FULL.get(error.errno or 0)
    for number, words in _FULL.items():
        if f"os error {number}" in str(error).lower() or os.strerror(number) in str(error):
            return words
    return None


def digest(content: bytes) -> str:
    """Return the content's BLAKE2b hash, 32 hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def read_intact(path: Path, expected: str | None = None) -> bytes:
    """Return the content of a file.

    Args:
        path: the file.
        expected: the `digest` that its content should have, where that is known.

    Raises:
        Damaged: there is no such file, or its content is another.
        UserError: it cannot be read for another reason, which says nothing about its content.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise Damaged(f"{path}: missing; restore it from a copy") from error
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); mend that and run the same command again"
        ) from error
    if expected is not None and digest(content) != expected:
        raise Damaged(f"{path}: damaged; restore it from a copy")
    return content


def atomic_write(path: Path, content: bytes | Callable[[BinaryIO], object], *, sync_parent: bool = True) -> None:
    """Write a file by way of a temporary one that is synced and renamed; parents are made.

    Args:
        path: the file.
        content: its bytes, or a function that writes them to the open file that it is given.
        sync_parent: whether the renaming is synced too; who writes many files calls `sync_folder` once instead.

    Raises:
        UserError: no room, or no permission; the old file is untouched and the temporary one is removed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                if callable(content):
                    content(file)
                else:
                    file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        if sync_parent:
            sync_folder(path.parent)
    except Exception as error:
        words = disk_full(error)
        if words is not None:
            raise UserError(full_message(path, words)) from error
        if isinstance(error, OSError):
            raise UserError(
                f"{path}: cannot be written ({error.strerror}); choose a folder you may write to"
            ) from error
        raise


def full_message(path: Path | str, words: str) -> str:
    """Return the line that a user sees when `path` could not be written for want of room."""
    return f"{path}: {words}; free some room and run the same command again, nothing saved before is lost"


def sync_folder(folder: Path) -> None:
    """Make renames in the folder survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
