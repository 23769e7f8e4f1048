"""The table of a run's epochs: metrics.csv, timing.csv and TensorBoard.

``metrics.csv`` has one row per epoch and nothing that depends on the clock, so that equal runs have equal
files; what took how long is in ``timing.csv``. Both are rewritten whole, atomically, at every epoch's end,
from rows that the checkpoint also holds. TensorBoard's events are written anew from them at every start.
"""

import csv
import io
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary
from torch.utils.tensorboard import SummaryWriter

from agents.files import atomic_write

Row = dict[str, float]
logger = logging.getLogger(__name__)


def table(rows: Sequence[Mapping[str, float]]) -> bytes:
    """Return rows as CSV: columns in order of first appearance, empty where a row lacks one."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: int(value) if value.is_integer() else value for name, value in row.items()})
    return text.getvalue().encode()


def write_table(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Write ``rows`` as CSV to ``path``, atomically.

    Raises:
        UserError: the disk is full or fails.
    """
    atomic_write(path, table(rows))


class TensorBoard:
    """An event file with the environment steps as the step.

    Opening it empties the event files that are there and begins one with ``rows``, so that after a kill at any
    moment TensorBoard shows what the checkpoint holds. Wall times are those of training without pauses.

    A failing disk costs the events but not the run: it is told once, and the checkpoint tells it again
    where it matters.

    Args:
        folder: where the event file lies.
        rows: of the epochs that the checkpoint holds; ``env_steps`` and ``total_seconds`` are in every row.
        pictures: finds the pictures that belong to a row by its ``env_steps``: image files by name.
    """

    def __init__(
        self,
        folder: Path,
        rows: Sequence[Mapping[str, float]],
        pictures: Callable[[int], Mapping[str, bytes]] = lambda env_steps: {},
    ) -> None:
        self._pictures = pictures
        self._began = time.time() - (rows[-1]["total_seconds"] if rows else 0.0)
        self._broken = False
        with self._telling_failure():
            for old in folder.glob("events.out.tfevents.*"):
                _retire(old)
            # A TensorBoard that is looking on has read the old file: the new one tells it to forget that.
            self._writer = SummaryWriter(str(folder), purge_step=0)
            for row in rows:
                self._add(row)
            self._writer.flush()

    def write(self, row: Mapping[str, float]) -> None:
        """Write one row; its ``env_steps`` is the step."""
        if self._broken:
            return
        with self._telling_failure():
            self._add(row)
            self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if not self._broken:
            with suppress(OSError):  # the checkpoint, written before, is what counts
                self._writer.close()

    def _add(self, row: Mapping[str, float]) -> None:
        steps, seconds = int(row["env_steps"]), self._began + row["total_seconds"]
        for name in row.keys() - {"epoch", "env_steps"}:
            self._writer.add_scalar(name, row[name], steps, seconds)
        for name, file in self._pictures(steps).items():
            width, height = Image.open(io.BytesIO(file)).size
            image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=file)
            summary = Summary(value=[Summary.Value(tag=name, image=image)])
            self._writer._get_file_writer().add_summary(summary, steps, seconds)

    @contextmanager
    def _telling_failure(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._broken = True
            logger.warning("TensorBoard events are no longer written: %s", error)


def _retire(events: Path) -> None:
    """Empty an event file; remove it at the next opening. One that is looking on never leaves a file that is gone."""
    if events.stat().st_size:
        os.truncate(events, 0)
    else:
        events.unlink()
