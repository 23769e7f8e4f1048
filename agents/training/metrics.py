"""The table of a run's epochs: metrics.csv, timing.csv and TensorBoard.

``metrics.csv`` has one row per epoch and nothing that depends on the clock, so that equal runs have equal
files; what took how long is in ``timing.csv``. Both are rewritten whole, atomically, at every epoch's end,
from rows that the checkpoint also holds.
"""

import csv
import io
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

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
    """Event files with the environment steps as the step; those after ``env_steps`` are purged on resume.

    A failing disk costs the events but not the run: it is told once, and the checkpoint tells it again
    where it matters.
    """

    def __init__(self, folder: Path, env_steps: int) -> None:
        self._writer = SummaryWriter(str(folder), purge_step=env_steps + 1)
        self._broken = False

    def write(self, row: Mapping[str, float]) -> None:
        """Write one row; its ``env_steps`` is the step."""
        if self._broken:
            return
        try:
            for name in row.keys() - {"epoch", "env_steps"}:
                value = row[name]
                self._writer.add_scalar(name, value, int(row["env_steps"]))
            self._writer.flush()
        except OSError as error:
            self._broken = True
            logger.warning("TensorBoard events are no longer written: %s", error)

    def close(self) -> None:
        """Close the event file."""
        if not self._broken:
            with suppress(OSError):  # the checkpoint, written before, is what counts
                self._writer.close()
