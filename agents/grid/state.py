"""How far the runs of a grid are, from what lies in their folders: no process needs to be asked."""

import csv
import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agents.errors import UserError
from agents.evaluation.episodes import Job, list_jobs
from agents.grid.configuration import TRAINING, GridRun
from agents.grid.count import read_count
from agents.run_folder import RunFolder

Stage = Literal["train", "evaluate", "done", "refused"]


@dataclass(frozen=True)
class Progress:
    """What a run has done of its present work.

    Attributes:
        stage: what is to be done next; done: nothing; refused: nothing can be, see ``reason``.
        done, total: environment steps, or judged episodes where the stage is `evaluate`.
        seconds_left: until the total, if the work goes on as it does now; None where that is not known.
        pace: seconds per environment step, validation included, as far as known.
        reason: why the run is refused.
    """

    stage: Stage
    done: int
    total: int
    seconds_left: float | None = None
    pace: float | None = None
    reason: str = ""


def progress_of(run: GridRun) -> Progress:
    """Return how far a run is. It is done when its agent is trained to the end and judged as the grid asks for."""
    folder = RunFolder(run.folder)
    total = run.config.training.environment_steps
    try:
        if folder.config_file.is_file() and folder.begun():
            folder.check_continues(run.config)
    except UserError as error:
        return Progress("refused", 0, total, reason=str(error))
    steps, pace, left = _training(folder, total)
    if steps < total:
        return Progress("train", steps, total, left, pace)
    episodes = len(_jobs(run))
    if is_judged(run):
        return Progress("done", total, total, pace=pace)
    done, left = read_count(run.folder, episodes) if folder.occupant() else (0, None)
    return Progress("evaluate", done, episodes, left, pace)


def is_trained(run: GridRun) -> bool:
    """Return whether the run's agent is trained to the end."""
    return _steps(RunFolder(run.folder).metrics) >= run.config.training.environment_steps


def is_judged(run: GridRun) -> bool:
    """Return whether the run's table of judged episodes holds all that the grid asks for, of the agent that is kept."""
    folder = RunFolder(run.folder)
    try:
        if folder.judged_before:
            return False
        text = folder.evaluation.read_text()
    except OSError:
        return False
    rows = {(row["region"], row["context_id"], row["seed"]): row for row in _rows(text)}
    return all(_holds(rows, job) for job in _jobs(run))


def _holds(rows: Mapping[tuple[str, str, str], Mapping[str, str]], job: Job) -> bool:
    row = rows.get((job.region, str(job.context_id), str(job.seed)))
    return row is not None and all(row.get(name) == str(float(value)) for name, value in job.context.items())


def _jobs(run: GridRun) -> list[Job]:
    """Return the episodes that the run is to be judged in."""
    contexts: dict[str, Sequence[Mapping[str, float]]] = dict(run.config.contexts.evaluation.regions)
    if TRAINING in run.regions:
        from agents.training.build import training_contexts  # it takes seconds to import

        contexts[TRAINING] = training_contexts(run.config)
    regions = {region: contexts[region] for region in run.regions}
    return list_jobs(regions, run.episodes, run.config.evaluation.seed)


def _training(folder: RunFolder, total: int) -> tuple[int, float | None, float | None]:
    """Return environment steps done, seconds per step, and seconds left if the run is being trained now."""
    rows = _read_rows(folder.path / "timing.csv")
    learned = [row for row in rows if float(row["updates_per_second"]) > 0]  # others are much faster
    steps = min(_steps(folder.metrics), total)
    if not learned:
        return steps, None, None
    latest = learned[-5:]
    pace = sum(1 / float(row["env_steps_per_second"]) for row in latest) / len(latest)
    since = time.time() - (folder.path / "timing.csv").stat().st_mtime
    return steps, pace, max(pace * (total - steps) - since, 0.0)


def _steps(metrics: Path) -> int:
    rows = _read_rows(metrics)
    return int(float(rows[-1]["env_steps"])) if rows else 0


def _read_rows(path: Path) -> list[dict[str, str]]:
    try:
        return _rows(path.read_text())
    except OSError:
        return []


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))
