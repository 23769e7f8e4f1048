"""A progress bar over episodes, with the time left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)


@contextmanager
def episode_progress(verb: str, episodes: int, console: Console) -> Iterator[Callable[[], None]]:
    """Show a bar while the block runs; yields the function to call after each episode.

    Args:
        verb: what is being done.
        episodes: how many there will be.
        console: where to show it; where that is no terminal, a line at the start and the finished bar.
    """
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("episodes"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=console,
    )
    if not console.is_terminal:
        console.print(f"{verb} {episodes} episode{'s' if episodes > 1 else ''}", highlight=False, soft_wrap=True)
    with progress:
        task = progress.add_task(verb, total=episodes)
        yield lambda: progress.advance(task)
