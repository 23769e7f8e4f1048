"""How many episodes of a run are judged so far, which `evaluation.csv` tells only in the end.

The process that judges writes it into a hidden file of the run folder, for any process to read.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from agents.files import atomic_write

EVERY = 2.0  # seconds between two writes


@contextmanager
def count_episodes(folder: Path, total: int) -> Iterator[Callable[[], None]]:
    """Keep the count while the block runs; yields the function to call after each episode.

    Args:
        folder: the run folder.
        total: episodes in all.

    Raises:
        UserError: the disk is full or fails.
    """
    file = _file(folder)
    began = time.time()
    done, written = 0, 0.0

    def on_episode() -> None:
        nonlocal done, written
        done += 1
        now = time.time()
        if now - written >= EVERY:
            written = now
            count = {"done": done, "total": total, "began": began, "now": now}
            atomic_write(file, json.dumps(count).encode(), sync_parent=False)

    try:
        yield on_episode
    finally:
        file.unlink(missing_ok=True)


def read_count(folder: Path, total: int) -> tuple[int, float | None]:
    """Return how many of ``total`` episodes are judged, and the seconds that the others will take, None if unknown."""
    try:
        count = json.loads(_file(folder).read_bytes())
        done, began, now = int(count["done"]), float(count["began"]), float(count["now"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0, None
    left = (now - began) / done * (total - done) - (time.time() - now)
    return done, max(left, 0.0)


def _file(folder: Path) -> Path:
    return folder / ".judging.json"
