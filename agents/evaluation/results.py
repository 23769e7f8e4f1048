"""Scores of judged runs, read from their ``evaluation.csv``: the mean return of every run in every context."""

import csv
import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agents.configuration import RunConfig, differences
from agents.curve import MAY_DIFFER
from agents.errors import UserError
from agents.evaluation.episodes import TRAINING
from agents.run_folder import RunFolder

_BEFORE, _AFTER = ["region", "context_id"], ["seed", "episode_return", "episode_length"]  # columns around the features
_SEED_FOLDER = re.compile(r"seed[-_]?\d+")


@dataclass(frozen=True)
class Score:
    """What one run reached in one context.

    Attributes:
        agent: label of the agent, see `agent_label`.
        seed: of the run: two runs of an agent differ in it.
        region: the context's region.
        context_id: the context's place in its region.
        context: every feature's value, raw units.
        mean_return: undiscounted, over the valid episodes.
        episodes: how many these are, at least 1.
    """

    agent: str
    seed: int
    region: str
    context_id: int
    context: dict[str, float]
    mean_return: float
    episodes: int


def find_runs(folders: Sequence[Path]) -> list[RunFolder]:
    """Return the runs in some folders, each once, in the order of the folders and of the names in them.

    Args:
        folders: run folders, or folders that contain some, however deep. Names are ordered as people count:
            seed2 before seed10.

    Raises:
        UserError: a folder that is not there, cannot be read, or has no run.
    """
    if not folders:
        raise UserError("no run named: name folders of runs, or folders that contain some, such as runs")
    found: dict[Path, RunFolder] = {}
    for folder in folders:
        if not Path(folder).is_dir():
            raise UserError(f"{folder}: no such folder; name folders of runs, or folders that contain some")
        runs = list(_walk(Path(folder)))
        if not runs:
            raise UserError(f"{folder}: no run in it; name folders that `dreamtune train` made, or that contain some")
        for run in runs:
            found.setdefault(run.path.resolve(), run)
    return list(found.values())


def unjudged(folders: Sequence[Path]) -> list[RunFolder]:
    """Return the runs that `read_scores` leaves out, since they have no ``evaluation.csv``; raise as `find_runs`."""
    return [run for run in find_runs(folders) if not run.evaluation.is_file()]


def agent_label(run: RunFolder) -> str:
    """Return whose seed a run is: the name of the folder above a folder seed<k>, else the run folder's own name."""
    path = run.path.resolve()
    return path.parent.name if _SEED_FOLDER.fullmatch(path.name) else path.name


def read_scores(folders: Sequence[Path]) -> list[Score]:
    """Return the mean return of every judged run in every context, in the order of the runs, then of their files.

    Invalid episodes are in no mean, and a context in which a run has no valid episode is left out of its scores.
    Runs found within a folder that are not judged yet are left out (`unjudged` lists them), so that the results of
    a grid can be looked at while it computes.

    Args:
        folders: run folders, or folders that contain some.

    Raises:
        UserError: no run, none that was judged, one that was named itself and not judged, a damaged file, two runs
            with one label and seed, or runs that judged different contexts in a region other than the training one.
            (In that one agents that were trained in different worlds do.)
    """
    runs = find_runs(folders)
    named = {Path(folder).resolve() for folder in folders}
    judged = [run for run in runs if run.evaluation.is_file()]
    for run in runs:
        if run not in judged and (not judged or run.path.resolve() in named):
            raise UserError(f"{run.path}: has no evaluation.csv; judge it with `dreamtune evaluate {run.path}` first")
    _check_labels(judged)
    scores: list[Score] = []
    first: dict[str, dict[int, dict[str, float]]] = {}
    for run in judged:
        own, contexts = _read_run(run)
        first = first or contexts
        _check_contexts(run, contexts, judged[0], first)
        scores += own
    return scores


def mixed(runs: Sequence[RunFolder]) -> dict[str, list[str]]:
    """Return the agents whose runs differ in more than seed and name, and in which settings."""
    first: dict[str, RunConfig] = {}
    found: dict[str, set[str]] = {}
    for run in runs:
        config, label = run.config(), agent_label(run)
        different = differences(first.setdefault(label, config), config).keys() - MAY_DIFFER
        if different:
            found.setdefault(label, set()).update(different)
    return {label: sorted(keys) for label, keys in found.items()}


def read_run(run: RunFolder) -> list[Score]:
    """Return the mean returns of one judged run; see `read_scores`.

    Raises:
        UserError: its evaluation.csv is missing or damaged.
    """
    return _read_run(run)[0]


def _walk(folder: Path) -> Iterator[RunFolder]:
    """The runs in a folder; there is none within another's folder."""
    if (folder / "config.yaml").is_file():
        yield RunFolder(folder)
        return
    try:
        inner = [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}); name readable folders") from error
    for path in sorted(inner, key=_natural):
        yield from _walk(path)


def _natural(path: Path) -> list[tuple[bool, int, str]]:
    """Sorts numbers in names by value."""
    parts = re.findall(r"\d+|\D+", path.name)
    return [(not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]


def _check_labels(runs: Sequence[RunFolder]) -> None:
    taken: dict[tuple[str, int], RunFolder] = {}
    for run in runs:
        key = (agent_label(run), run.config().seed)
        if key in taken:
            raise UserError(
                f"{run.path} and {taken[key].path} are both seed {key[1]} of an agent {key[0]!r}; rename the folder of "
                "one agent, or name each run once"
            )
        taken[key] = run


def _check_contexts(
    run: RunFolder,
    contexts: dict[str, dict[int, dict[str, float]]],
    other: RunFolder,
    expected: dict[str, dict[int, dict[str, float]]],
) -> None:
    for region in dict.fromkeys([*expected, *contexts]):
        if region != TRAINING and contexts.get(region) != expected.get(region):
            raise UserError(
                f"{run.path} and {other.path} judged different contexts in region {region}; judge both with the same "
                "contexts.evaluation.regions and --regions"
            )


def _read_run(run: RunFolder) -> tuple[list[Score], dict[str, dict[int, dict[str, float]]]]:
    """The scores of a run, and all contexts it judged by region and number, also those without a valid episode."""
    file, advice = run.evaluation, f"judge the run anew with `dreamtune evaluate {run.path}`"
    try:
        with file.open(newline="", encoding="utf-8") as opened:
            table = list(csv.reader(opened))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read ({getattr(error, 'strerror', 'no text')}); {advice}") from error
    header = table[0] if table else []
    plain = header[:-1] if header[-1:] == ["invalid"] else header
    if plain[:2] != _BEFORE or plain[-3:] != _AFTER or len(plain) < 5:
        wanted = ", ".join([*_BEFORE, "features", *_AFTER])
        raise UserError(f"{file}: line 1 does not name the columns {wanted}; {advice}")
    names = plain[2:-3]
    contexts: dict[str, dict[int, dict[str, float]]] = {}
    returns: dict[tuple[str, int], list[float]] = {}
    for line, cells in enumerate(table[1:], start=2):
        try:
            region, number, context, value = _read_row(header, names, cells)
            if contexts.setdefault(region, {}).setdefault(number, context) != context:
                raise ValueError(f"context {number} of region {region} has two values")
        except ValueError as error:
            raise UserError(f"{file}: line {line} is damaged ({error}); {advice}") from error
        returns.setdefault((region, number), []).extend([] if value is None else [value])
    if not any(returns.values()):
        raise UserError(f"{file}: has no valid episode; {advice}")
    label, seed = agent_label(run), run.config().seed
    scores = [
        Score(label, seed, region, number, contexts[region][number], math.fsum(values) / len(values), len(values))
        for (region, number), values in returns.items()
        if values
    ]
    return scores, contexts


def _read_row(
    header: Sequence[str], names: Sequence[str], cells: Sequence[str]
) -> tuple[str, int, dict[str, float], float | None]:
    """Region, context's number, context and return, None for an invalid episode; raise `ValueError` if damaged."""
    if len(cells) != len(header):
        raise ValueError(f"{len(cells)} columns, not {len(header)}")
    row = dict(zip(header, cells, strict=True))
    context = {name: _finite(name, row[name]) for name in names}
    invalid = row.get("invalid", "0") != "0"
    value = None if invalid else _finite("episode_return", row["episode_return"])
    try:
        return row["region"], int(row["context_id"]), context, value
    except ValueError:
        raise ValueError(f"context_id is {row['context_id']!r}, not a number") from None


def _finite(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{name} is {text!r}, not a finite number")
    return value
