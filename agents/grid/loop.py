"""Works a grid off: several runs at a time, each in a process of its own, until nothing is left to do.

What a run needs is read from its folder each time, so nothing is remembered that a kill could lose. A run whose folder
another process holds is left to that one and looked at again; a run that fails is told and not tried again.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from agents.errors import UserError
from agents.grid.configuration import GridRun
from agents.grid.process import PATIENCE, Worker
from agents.grid.state import Progress, progress_of
from agents.run_folder import RunFolder

TICK = 0.5  # seconds between two looks at the processes
LOOK = 5.0  # seconds between two looks at a run that another process works on

Status = Literal["to train", "to evaluate", "training", "evaluating", "elsewhere", "failed", "done"]


@dataclass(frozen=True)
class View:
    """A run as it is shown.

    Attributes:
        run: which one.
        status: what becomes of it; elsewhere: another process works on it.
        progress: how far it is.
        note: why it failed, or which process works on it.
    """

    run: GridRun
    status: Status
    progress: Progress
    note: str = ""


class GridLoop:
    """The runs of a grid and the processes that work on them.

    Args:
        runs: all of them, in the order in which they are begun.
        workers: how many processes there may be at a time.
        start: starts the process of a run.
    """

    def __init__(self, runs: Sequence[GridRun], workers: int, start: Callable[[GridRun], Worker] = Worker) -> None:
        self.runs = list(runs)
        self._slots = workers
        self._start = start
        self._workers: dict[str, Worker] = {}
        self._failed: dict[str, str] = {}
        self._elsewhere: dict[str, str] = {}
        self._look_again: dict[str, float] = {}
        self._progress: dict[str, Progress] = {}
        self._judging_seconds: float | None = None  # of one run, as far as seen
        for run in self.runs:
            self._look(run)

    def execute(self, show: Callable[["GridLoop"], None]) -> None:
        """Run until every run is done or has failed; ``show`` is called at every look.

        Raises:
            KeyboardInterrupt: the user interrupted; every process is stopped by then.
        """
        try:
            while True:
                self._collect()
                self._fill()
                show(self)
                if not self._workers and not self._waiting():
                    return
                time.sleep(TICK)
        finally:
            self._stop()

    @property
    def failures(self) -> dict[str, str]:
        """Why runs failed, by label."""
        return dict(self._failed)

    def views(self) -> list[View]:
        """Return every run as it stands."""
        return [self._view(run) for run in self.runs]

    def seconds_left(self) -> float | None:
        """Return an estimate of the seconds until all is done; None while nothing tells how long a step takes."""
        paces = [progress.pace for progress in self._progress.values() if progress.pace is not None]
        open_runs = [run.label for run in self.runs if run.label not in self._failed and not self._done(run.label)]
        if not open_runs:
            return 0.0
        if not paces:
            return None
        pace, seconds = sum(paces) / len(paces), 0.0
        for label in open_runs:
            progress = self._progress[label]
            if progress.stage == "train":
                at_work = label in self._workers or label in self._elsewhere
                known = progress.seconds_left if at_work else None
                seconds += (progress.total - progress.done) * pace if known is None else known
                seconds += self._judging_seconds or 0.0
            elif progress.seconds_left is not None:
                seconds += progress.seconds_left
            else:
                seconds += self._judging_seconds or 0.0
        return seconds / min(self._slots, len(open_runs))

    def _view(self, run: GridRun) -> View:
        label = run.label
        progress = self._progress[label]
        if label in self._failed:
            return View(run, "failed", progress, self._failed[label])
        if progress.stage == "done":
            return View(run, "done", progress)
        if label in self._workers:
            return View(run, "training" if progress.stage == "train" else "evaluating", progress)
        if label in self._elsewhere:
            return View(run, "elsewhere", progress, f"process {self._elsewhere[label]}")
        return View(run, "to train" if progress.stage == "train" else "to evaluate", progress)

    def _done(self, label: str) -> bool:
        return self._progress[label].stage == "done"

    def _waiting(self) -> list[GridRun]:
        taken = self._workers.keys() | self._failed.keys()
        return [run for run in self.runs if run.label not in taken and not self._done(run.label)]

    def _look(self, run: GridRun) -> Progress:
        """Read how far a run is and whether another process works on it."""
        progress = self._progress[run.label] = progress_of(run)
        self._elsewhere.pop(run.label, None)
        if progress.stage == "refused":
            self._failed[run.label] = progress.reason
        elif progress.stage != "done" and run.label not in self._workers:
            occupant = RunFolder(run.folder).occupant()
            if occupant is not None:
                self._elsewhere[run.label] = occupant
                self._look_again[run.label] = time.monotonic() + LOOK
        if progress.stage == "evaluate" and progress.done and progress.seconds_left is not None:
            self._judging_seconds = progress.seconds_left * progress.total / max(progress.total - progress.done, 1)
        return progress

    def _collect(self) -> None:
        """Look at the runs that are worked on, and take note of those that have ended."""
        for run in [run for run in self.runs if run.label in self._workers]:
            worker = self._workers[run.label]
            if not worker.ended():
                self._look(run)
                continue
            del self._workers[run.label]
            progress = self._look(run)
            failure = worker.failure()
            if failure is None and not worker.busy and progress.stage != "done":
                failure = "ended before it was done"
            if failure is not None and progress.stage != "done":
                self._failed[run.label] = failure
            elif worker.busy:
                self._look_again[run.label] = time.monotonic() + LOOK

    def _fill(self) -> None:
        """Begin runs while there is room for processes."""
        for run in self._waiting():
            label, now = run.label, time.monotonic()
            known_elsewhere = label in self._elsewhere
            if self._look_again.get(label, 0.0) > now or (len(self._workers) >= self._slots and not known_elsewhere):
                continue
            progress = self._look(run)
            if progress.stage in ("done", "refused") or label in self._elsewhere:
                continue
            if len(self._workers) < self._slots:
                try:
                    self._workers[label] = self._start(run)
                except UserError as error:
                    self._failed[label] = str(error)

    def _stop(self) -> None:
        for worker in self._workers.values():
            worker.interrupt()
        deadline = time.monotonic() + PATIENCE
        for worker in self._workers.values():
            worker.wait_or_kill(deadline)
        self._workers = {}
