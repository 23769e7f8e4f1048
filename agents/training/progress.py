"""What a person sees of a run: a progress bar on a terminal, a line per epoch elsewhere."""

import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from agents.training.metrics import Row

REFRESH_SECONDS = 0.2


class ProgressReport:
    """Environment steps, rate, time left, latest training and validation return.

    Args:
        total: environment steps of the run.
        done: environment steps that were done before this process.
        console: where to; the bar appears only if it is a terminal.
    """

    def __init__(self, total: int, done: int, console: Console) -> None:
        self.total = total
        self.console = console
        self._started, self._done_before = time.monotonic(), done
        self._shown = 0.0
        self._latest: Row = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]} steps/s"),
            TimeElapsedColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[returns]}"),
            console=console,
            disable=not console.is_terminal,
            refresh_per_second=1 / REFRESH_SECONDS,
            speed_estimate_period=120.0,
        )
        self._task = self._progress.add_task("training", total=total, completed=done, rate="-", returns="")

    def __enter__(self) -> "ProgressReport":
        self._progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._progress.stop()

    def steps(self, done: int, finished: Sequence[tuple[float, int]]) -> None:
        """Move the bar; cheap enough for every tick.

        Args:
            done: environment steps done.
            finished: (return, length) of the episodes that ended in this epoch.
        """
        now = time.monotonic()
        if not self.console.is_terminal or now - self._shown < REFRESH_SECONDS:
            return
        self._shown = now
        rate = (done - self._done_before) / max(now - self._started, 1e-9)
        if finished:
            mean = sum(episode_return for episode_return, _ in finished) / len(finished)
            self._latest["train/return"] = mean
        self._progress.update(self._task, completed=done, rate=f"{rate:.0f}", returns=_returns(self._latest))

    def epoch(self, row: Row, timing: Row, kept: bool) -> None:
        """Tell the end of an epoch.

        Args:
            row: the epoch's row of metrics.csv.
            timing: its row of timing.csv.
            kept: whether its agent is the best so far.
        """
        steps = int(row["env_steps"])
        self._latest |= {name: row[name] for name in ("train/return", "validation/return") if name in row}
        if self.console.is_terminal:
            self._progress.update(self._task, completed=steps, returns=_returns(self._latest))
            return
        rate = timing["env_steps_per_second"]
        # Steps before the first update are so much faster that they tell nothing of the rest.
        training = row["updates"] > 0
        left = f"{_duration((self.total - steps) / rate)} left" if training else "collecting the first records"
        self.console.print(
            f"{steps}/{self.total} steps, {int(row['updates'])} updates, {rate:.0f} steps/s, "
            f"{left}; {_returns(row)}{' (kept)' if kept else ''}",
            highlight=False,
            soft_wrap=True,
        )


def _returns(row: Row) -> str:
    parts = []
    for name, label in (("train/return", "train"), ("validation/return", "validation")):
        if name in row:
            parts.append(f"{label} return {row[name]:.1f}")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
