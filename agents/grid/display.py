"""How a grid looks: a table that stays up to date on a terminal, a line per event elsewhere."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from agents.grid.loop import GridLoop, View

LINES_EVERY = 60.0  # seconds between two lines about a run, where there is no terminal
AT_WORK = ("training", "evaluating", "elsewhere")
STYLES = {"done": "green", "failed": "bold red", "training": "cyan", "evaluating": "magenta", "elsewhere": "yellow"}


class Display:
    """Shows a grid while it is worked off.

    Args:
        name: of the grid.
        console: where to.
    """

    def __init__(self, name: str, console: Console) -> None:
        self.name = name
        self.console = console
        self._live: Live | None = None
        self._told: dict[str, tuple[str, float]] = {}  # by run: what was told last, and when

    @contextmanager
    def open(self) -> Iterator[None]:
        """Show something while the block runs."""
        if not self.console.is_terminal:
            yield
            return
        with Live(console=self.console, auto_refresh=False) as live:
            self._live = live
            yield

    def show(self, loop: GridLoop) -> None:
        """Show the grid as it stands."""
        views = loop.views()
        if self._live is None:
            self._tell(views)
        else:
            room = max(self.console.height - 8, 4)
            self._live.update(render(self.name, views, loop.seconds_left(), room), refresh=True)

    def _tell(self, views: Sequence[View]) -> None:
        """Print a line about every run that has come to something else, and now and then about those at work."""
        now = time.monotonic()
        for view in views:
            label, status = view.run.label, view.status
            before, when = self._told.get(label, ("", 0.0))
            changed = status != before and not (before == "" and status in ("to train", "to evaluate"))
            if changed or (status in AT_WORK and now - when >= LINES_EVERY):
                self._told[label] = (status, now)
                parts = [f"{label}: {status}", _amount(view) if status in AT_WORK else "", _left(view), view.note]
                self.console.print(", ".join(filter(None, parts)), highlight=False, markup=False, soft_wrap=True)


def render(name: str, views: Sequence[View], seconds_left: float | None, room: int | None = None) -> RenderableType:
    """Lay out a grid: a line of counts, the runs, and why some failed.

    Args:
        name: of the grid.
        views: its runs.
        seconds_left: until all is done; None: not known.
        room: rows that there is room for: those at work go before the others; None: any number.
    """
    failures = [view for view in views if view.status == "failed"]
    shown = list(views)
    if room is not None and len(shown) > room:
        first = [view for view in views if view.status in AT_WORK]
        rest = [view for view in views if view.status.startswith("to ")]
        shown = (first + rest)[: max(room - len(failures), 2)]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("run", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("progress", no_wrap=True)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("left", justify="right", no_wrap=True)
    for view in shown:
        style = STYLES.get(view.status, "")
        done, total = view.progress.done, view.progress.total
        bar = ProgressBar(total=total, completed=done, width=12, finished_style="green")
        state = f"by {view.note}" if view.status == "elsewhere" else view.status
        table.add_row(view.run.label, Text(state, style), bar, f"{done}/{total}", _left(view).removesuffix(" left"))
    lines: list[RenderableType] = [Text(_summary(name, views, seconds_left)), table]
    if len(shown) < len(views):
        lines.append(Text(f"and {len(views) - len(shown)} more runs", "dim"))
    for view in failures:
        lines.append(Text(f"{view.run.label} failed: {view.note}", "red"))
    return Group(*lines)


def _summary(name: str, views: Sequence[View], seconds_left: float | None) -> str:
    counts: Counter[str] = Counter(view.status for view in views)
    order = ("done", "training", "evaluating", "elsewhere", "to evaluate", "to train", "failed")
    told = ", ".join(f"{counts[status]} {status}" for status in order if counts[status])
    left = "" if seconds_left is None or seconds_left == 0 else f"; about {duration(seconds_left)} left"
    return f"{name}: {len(views)} run{'' if len(views) == 1 else 's'}: {told}{left}"


def _amount(view: View) -> str:
    progress = view.progress
    unit = "episodes" if progress.stage == "evaluate" else "steps"
    return f"{progress.done}/{progress.total} {unit}"


def _left(view: View) -> str:
    seconds = view.progress.seconds_left
    return f"{duration(seconds)} left" if view.status in AT_WORK and seconds is not None else ""


def duration(seconds: float) -> str:
    """Return seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
