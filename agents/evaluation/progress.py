"""A progress bar over episodes, with the time left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


@contextmanager
def episode_progress(verb: str, episodes: int, console: Console) -> Iterator[Callable[[], None]]:
    """Show a bar while the block runs; yields the function to call after each episode.

    Args:
        verb: what is being done.
        episodes: how many there will be.
        console: where to show it; where that is no terminal, only the finished bar is printed.
    """
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("episodes"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )
    with progress:
        task = progress.add_task(verb, total=episodes)
        yield lambda: progress.advance(task)
