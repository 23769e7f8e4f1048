"""A grid of runs: a base configuration, variants of it, seeds; trained and judged by one command.

* ``configuration.py``: the file of a grid, and its runs.
* ``state.py``: how far each run is, read from its folder.
* ``count.py``: how many of its episodes are judged so far.
* ``work.py``: the process of one run.
* ``process.py``: that process, as seen from outside.
* ``loop.py``: which runs are worked on, several at a time.
* ``display.py``: what a person sees of it.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from rich.console import Console
from tyro.conf import arg

from agents.configuration import check_drawing
from agents.errors import UserError
from agents.grid.configuration import GridRun, load_grid
from agents.grid.display import Display, render
from agents.grid.loop import GridLoop, View

__all__ = ["GridRun", "View", "grid", "load_grid"]


def grid(
    grid: Annotated[str, arg(metavar="NAME|FILE")],
    workers: int = 1,
    only: tuple[str, ...] | None = None,
    seeds: tuple[int, ...] | None = None,
    dry_run: bool = False,
) -> list[View]:
    """Train and evaluate every run of a grid that is not done, in runs/<grid>/<variant>/seed<k>.

    The same command goes on where it was stopped or killed, and tries again what failed. Runs that another process
    works on are left to it and waited for, so several of these commands share a grid. What the processes print is in
    seed<k>.log beside the run's folder.

    Args:
        grid: a name such as contexts_cartpole (its file in configs/grids here, else the shipped one), or a YAML file.
        workers: runs at a time, each a process of its own.
        only: these variants, by name or by patterns such as 'double_*'; None: all.
        seeds: these instead of those of the file.
        dry_run: only list what is done and what is to do.

    Returns:
        Every run as it stands in the end.

    Raises:
        UserError: a mistake in the file or the command, told before anything starts; or, in the end, runs that failed.
        KeyboardInterrupt: the user interrupted, or the process was asked to end; the same call goes on.
    """
    if workers < 1:
        raise UserError(f"command line: --workers: must be at least 1, got {workers}")
    runs = load_grid(grid, only=only, seeds=seeds)
    name = runs[0].folder.parts[-3]
    console = Console()
    loop = GridLoop(runs, workers)
    if dry_run:
        console.print(render(name, loop.views(), loop.seconds_left()))
        return loop.views()
    for environment in _different([run.config.environment for run in runs]):
        check_drawing(next(run.config for run in runs if run.config.environment == environment))
    display = Display(name, console)
    try:
        with _ending_as_interrupts(), display.open():
            loop.execute(display.show)
    except KeyboardInterrupt as interrupt:
        interrupt.add_note("give the same command again to go on")
        raise
    _tell_end(loop, console)
    return loop.views()


def _different(items: list[Any]) -> list[Any]:
    """Return the items without repetitions (they need not be hashable)."""
    return [item for index, item in enumerate(items) if item not in items[:index]]


def _tell_end(loop: GridLoop, console: Console) -> None:
    failures = loop.failures
    if failures:
        logs = {run.label: run.log for run in loop.runs}
        told = "; ".join(f"{label}: {why} (log: {logs[label]})" for label, why in failures.items())
        raise UserError(
            f"{len(failures)} of {len(loop.runs)} runs failed, the others are done; mend what follows and give the "
            f"same command again: {told}"
        )
    folder = loop.runs[0].folder.parents[1]
    line = f"{len(loop.runs)} of {len(loop.runs)} runs are done; their table: dreamtune compare {folder}"
    console.print(line, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def _ending_as_interrupts() -> Iterator[None]:
    """Let a terminal that closes, and `kill`, stop the block as Ctrl-C does, so that no process is left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) == signal.SIG_DFL]

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
