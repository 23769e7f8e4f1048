"""Draws the learning curve of one task over several seeds, beside the published one."""

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from agents.configuration import RunConfig, differences
from agents.errors import UserError
from agents.run_folder import MAY_CHANGE, RunFolder, atomic_write
from agents.training.curve import SeedsCurve, combine_seeds, draw_seeds

RETURN = "train/return"  # of episodes finished in an epoch, with sampled actions: what the reference publishes too
# What may differ between the seeds of one curve, beside what may change within a run.
MAY_DIFFER = (
    *MAY_CHANGE,
    "seed",
    "environment.vector",
    "evaluation.validation_episodes",
    "replay.storage",
    "replay.page_length",
    "training.device",
    "training.threads",
)


def curve(runs: list[Path], published: Path | None = None, picture: Path | None = None) -> list[SeedsCurve]:
    """Draw the mean return of several seeds over environment steps, with its 95% bootstrap interval.

    The returns are those of training episodes, as in published curves: the actions are sampled. The numbers go into
    a CSV file beside the picture.

    Args:
        runs: folders of runs that differ in their seed.
        published: CSV file of published returns to draw beside them, such as
            notebooks/results/published_dreamerv3.csv.
        picture: the PNG file; None: learning_curve.png beside the first run's folder, such as runs/learning_curve.png.

    Returns:
        The curve of the runs, and the published one if asked for.

    Raises:
        UserError: a folder is not that of a run or has no finished training episode, the runs differ in more than the
            seed or share one, the task was not published, or there is no room for the files.
    """
    if not runs:
        raise UserError("no run to draw: name the folders of one or more runs, such as runs/a runs/b")
    folders = [RunFolder.open(path) for path in runs]
    if picture is None:
        picture = Path(os.path.normpath(runs[0] / ".." / "learning_curve.png"))
    configs = [folder.config() for folder in folders]
    _check_seeds(folders, configs)
    config = configs[0]
    curves = [combine_seeds("Dreamtune", [read_returns(*pair) for pair in zip(folders, configs, strict=True)])]
    if published is not None:
        curves.append(read_published(published, config))
    seen = {None: "", "state": ", state", "pixels": ", pixels", "both": ", state and pixels"}
    draw_seeds(curves, picture, config.environment.name + seen[config.environment.observations])
    atomic_write(picture.with_suffix(".csv"), curves_csv(curves))
    console = Console()
    for one in curves:
        interval = f" (95% interval {one.low[-1]:.1f} to {one.high[-1]:.1f})" if one.seeds > 1 else ""
        told = f"{one.label}: mean return of training episodes {one.mean[-1]:.1f}{interval}"
        steps = f"at {one.env_steps[-1]:.0f} environment steps"
        console.print(
            f"{told} {steps}, {one.seeds} seed{'s' if one.seeds > 1 else ''}", soft_wrap=True, highlight=False
        )
    console.print(f"The picture is {picture}, the numbers are in {picture.with_suffix('.csv')}", soft_wrap=True)
    return curves


def _check_seeds(folders: Sequence[RunFolder], configs: Sequence[RunConfig]) -> None:
    """Refuse runs that are not seeds of one configuration."""
    first, seeds = folders[0].path, {configs[0].seed: folders[0].path}
    for folder, config in zip(folders[1:], configs[1:], strict=True):
        different = [key for key in differences(configs[0], config) if key not in MAY_DIFFER]
        if different:
            raise UserError(
                f"{folder.path} differs from {first} in {', '.join(different)}; name runs that differ in their seed"
            )
        if config.seed in seeds:
            raise UserError(
                f"{folder.path} has the seed {config.seed}, as {seeds[config.seed]} has; name each seed once"
            )
        seeds[config.seed] = folder.path


def read_returns(run: RunFolder, config: RunConfig) -> tuple[list[float], list[float]]:
    """Return environment steps, action repeat included, and the mean return of the training episodes finished then.

    Raises:
        UserError: there is no table, or no such episode in it.
    """
    try:
        with run.metrics.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row.get(RETURN)]
    except OSError as error:
        raise UserError(f"{run.metrics}: cannot be read ({error.strerror}); train the run first") from error
    if not rows:
        raise UserError(f"{run.metrics}: no training episode is finished yet; train the run longer")
    repeat = config.environment.action_repeat
    return [float(row["env_steps"]) * repeat for row in rows], [float(row[RETURN]) for row in rows]


def published_task(config: RunConfig) -> tuple[str, str]:
    """Return suite and task of an environment in the published returns: dmc_vision and dmc_walker_walk."""
    kind, *names = config.environment.name.split("/")
    suite = {
        "dmc": "dmc_vision" if config.environment.observations == "pixels" else "dmc_proprio",
        "atari": "atari100k",
    }
    return suite.get(kind, kind), "_".join([kind, *names])


def read_published(path: Path, config: RunConfig) -> SeedsCurve:
    """Return the published curve of a run's task.

    Args:
        path: CSV file with the columns suite, task, env_steps and one column of returns for every seed; lines that
            begin with # say where they come from.
        config: of the run.

    Raises:
        UserError: the file cannot be read, or does not have the task.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); name a file of published returns") from error
    suite, task = published_task(config)
    table = list(csv.DictReader(lines))
    rows = [row for row in table if (row["suite"], row["task"]) == (suite, task)]
    if not rows:
        suites = sorted({row["suite"] for row in table})
        raise UserError(f"{path}: has no task {task} in {suite}; it has the suites {', '.join(suites)}")
    return combine_seeds("DreamerV3 (published)", _by_seed(rows))


def _by_seed(rows: Sequence[Mapping[str, str]]) -> list[tuple[list[float], list[float]]]:
    """Steps and returns of each seed that has any."""
    columns = [name for name in rows[0] if name not in ("suite", "task", "env_steps")]
    filled = [[(float(row["env_steps"]), float(row[name])) for row in rows if row[name]] for name in columns]
    return [([step for step, _ in points], [value for _, value in points]) for points in filled if points]


def curves_csv(curves: Sequence[SeedsCurve]) -> bytes:
    """One row per curve and step: seeds, mean and interval, empty where there is none."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["curve", "seeds", "env_steps", "mean", "low", "high"])
    for one in curves:
        for steps, *values in zip(one.env_steps, one.mean, one.low, one.high, strict=True):
            writer.writerow(
                [one.label, one.seeds, int(steps), *("" if math.isnan(value) else value for value in values)]
            )
    return text.getvalue().encode()
