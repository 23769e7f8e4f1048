"""From folders to what a report tells of: agents, their runs and scores, and what is missing.

An agent is a group of runs that differ in their seed; its label is that of ``agents.evaluation.results``.
"""

import csv
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agents.configuration import RunConfig
from agents.environments import Feature
from agents.errors import UserError
from agents.evaluation.results import Score, agent_label, find_runs, mixed, read_scores
from agents.files import digest, read_intact
from agents.run_folder import RunFolder
from agents.training.build import context_spec, make_vector
from agents.training.checkpoint import BestAgent
from tuning.reporting.blocks import counted, listed

Row = Mapping[str, float]  # of metrics.csv: what was measured in an epoch


@dataclass(frozen=True)
class Problem:
    """What is missing or to be known, and the commands that mend it, if any does."""

    told: str
    commands: Sequence[str] = ()


@dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes:
        folder: where it lies, as the command named it.
        config: as resolved.
        rows: the epochs of metrics.csv, none before the first.
        seconds: training and validation took so long, without pauses; None if not recorded.
        kept: environment steps (policy steps) after which the kept agent was kept, None before the first.
        hashes: of config.yaml and evaluation.csv, empty where there is none.
    """

    folder: RunFolder
    config: RunConfig
    rows: Sequence[Row]
    seconds: float | None
    kept: int | None
    hashes: tuple[str, str]

    @property
    def steps(self) -> int:
        """Policy steps done."""
        return int(self.rows[-1]["env_steps"]) if self.rows else 0


@dataclass(frozen=True)
class Agent:
    """Runs that differ in their seed, and the color they have, by its index."""

    label: str
    index: int
    runs: Sequence[Run]


@dataclass(frozen=True)
class Collected:
    """All that a report tells of.

    Attributes:
        agents: in the order of the folders and the names in them.
        scores: mean return of every judged run in every context.
        invalid: by run folder, judged episodes that were dropped for an invalid step.
        features: by name, the context features of the first run's environment that could be made here.
        ranges: by agent's label, the lowest and highest training value of every context feature, raw units; agents
            whose environment cannot be made here are not in it.
        problems: what is missing or doubtful.
    """

    agents: Sequence[Agent]
    scores: Sequence[Score]
    invalid: Mapping[Path, int]
    features: Mapping[str, Feature]
    ranges: Mapping[str, Mapping[str, tuple[float, float]]]
    problems: Sequence[Problem]


def collect(folders: Sequence[Path]) -> Collected:
    """Read everything that the runs in some folders have, and note what they lack.

    Raises:
        UserError: a folder that is not there, cannot be read or has no run; a damaged file; two runs with one label
            and seed; or runs that judged different contexts.
    """
    found = find_runs(folders)
    labels = [agent_label(run) for run in found]
    runs = [_read_run(run) for run in found]
    agents = []
    for index, label in enumerate(dict.fromkeys(labels)):
        own = [run for run, its in zip(runs, labels, strict=True) if its == label]
        agents.append(Agent(label, index, sorted(own, key=lambda run: run.config.seed)))
    judged = [run for run in runs if run.folder.evaluation.is_file()]
    scores = read_scores([run.folder.path for run in judged]) if judged else []
    features, ranges, unknown = _training_ranges(agents)
    invalid = {run.folder.path: count for run in judged if (count := _count_invalid(run.folder))}
    problems = [
        *_unfinished(agents),
        *_unjudged(agents),
        *_outdated(judged),
        *_mixed(found),
        *_uneven(scores),
        *unknown,
    ]
    problems += [
        Problem(f"{path}: {count} judged episodes came to an invalid step and are in no mean.")
        for path, count in invalid.items()
    ]
    return Collected(agents, scores, invalid, features, ranges, problems)


def _read_run(folder: RunFolder) -> Run:
    folder = RunFolder.open(folder.path)
    rows, timing = _read_table(folder.metrics), _read_table(folder.path / "timing.csv")
    note = BestAgent(folder.checkpoints / "best").read_note()
    evaluation = digest(read_intact(folder.evaluation)) if folder.evaluation.is_file() else ""
    return Run(
        folder=folder,
        config=folder.config(),
        rows=rows,
        seconds=timing[-1].get("total_seconds") if timing else None,
        kept=int(note["env_steps"]) if note else None,
        hashes=(digest(read_intact(folder.config_file)), evaluation),
    )


def _read_table(path: Path) -> list[Row]:
    """The rows of a CSV table of numbers, without empty cells; none if there is no such file."""
    if not path.is_file():
        return []
    try:
        text = read_intact(path).decode()
        rows: list[Row] = [
            {name: float(value) for name, value in row.items() if value} for row in csv.DictReader(text.splitlines())
        ]
        if any("env_steps" not in row or not math.isfinite(row["env_steps"]) for row in rows):
            raise ValueError("a row without env_steps")
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{path}: damaged ({error}); restore it from a copy, or leave {path.parent} out of the report"
        ) from error
    return rows


def _unfinished(agents: Sequence[Agent]) -> list[Problem]:
    """Runs that have not done the steps that their configuration plans."""
    runs = [(agent, run) for agent in agents for run in agent.runs]
    lacking = [(agent, run) for agent, run in runs if run.steps < run.config.training.environment_steps]
    if not lacking:
        return []
    told = [
        f"{agent.label} seed {run.config.seed} ({run.steps:,} of {run.config.training.environment_steps:,} steps)"
        for agent, run in lacking
    ]
    commands = [f"dreamtune train --resume {shlex.quote(str(run.folder.path))}" for _, run in lacking]
    return [
        Problem(f"Not trained to the end: {len(lacking)} of {counted(len(runs), 'run')}: {listed(told)}.", commands)
    ]


def _unjudged(agents: Sequence[Agent]) -> list[Problem]:
    """Runs without an evaluation."""
    runs = [(agent, run) for agent in agents for run in agent.runs]
    lacking = [(agent, run) for agent, run in runs if not run.folder.evaluation.is_file()]
    if not lacking:
        return []
    told = listed([f"{agent.label} seed {run.config.seed}" for agent, run in lacking])
    commands = [f"dreamtune evaluate {shlex.quote(str(run.folder.path))}" for _, run in lacking]
    return [
        Problem(
            f"Not evaluated, so in no table or map of returns: {len(lacking)} of {counted(len(runs), 'run')}: {told}.",
            commands,
        )
    ]


def _mixed(runs: Sequence[RunFolder]) -> list[Problem]:
    """Agents whose runs differ in more than what seeds of one agent may differ in."""
    return [
        Problem(
            f"The runs of {label} differ in more than their seed: {listed(keys)}. Its means are over different agents."
        )
        for label, keys in mixed(runs).items()
    ]


def _outdated(judged: Sequence[Run]) -> list[Problem]:
    """Runs whose evaluation is older than the agent that they keep."""
    lacking = [str(run.folder.path) for run in judged if run.folder.judged_before]
    if not lacking:
        return []
    told = f"Evaluated before the present agent was kept, so the returns are an earlier agent's: {listed(lacking)}."
    return [Problem(told, [f"dreamtune evaluate {shlex.quote(path)}" for path in lacking])]


def _uneven(scores: Sequence[Score]) -> list[Problem]:
    """Agents with one judged seed, and different numbers of them."""
    seeds: dict[str, set[int]] = {}
    for score in scores:
        seeds.setdefault(score.agent, set()).add(score.seed)
    alone = [label for label, own in seeds.items() if len(own) == 1]
    found = []
    if alone:
        found.append(Problem(f"One judged seed, and without a second no interval: {listed(alone)}."))
    if len({len(own) for own in seeds.values()}) > 1:
        told = listed([f"{label} {len(own)}" for label, own in seeds.items()], 12)
        found.append(Problem(f"The agents have different numbers of judged seeds: {told}."))
    return found


def _training_ranges(
    agents: Sequence[Agent],
) -> tuple[dict[str, Feature], dict[str, dict[str, tuple[float, float]]], list[Problem]]:
    """Features and training ranges as the environments say, and which could not be made."""
    features: dict[str, Feature] = {}
    ranges: dict[str, dict[str, tuple[float, float]]] = {}
    problems: list[Problem] = []
    for agent in agents:
        config = agent.runs[0].config
        try:
            vector = make_vector(config, 1, serial=True)
        except UserError as error:
            problems.append(
                Problem(f"{agent.label}: its training range is not shown, for its world cannot be made: {error}.")
            )
            continue
        try:
            spec = context_spec(config, vector)
            features = features or {feature.name: feature for feature in vector.features}
        finally:
            vector.close()
        ranges[agent.label] = {
            name: (low, high) for name, low, high in zip(spec.names, spec.low, spec.high, strict=True)
        }
    return features, ranges, problems


def _count_invalid(run: RunFolder) -> int:
    """Judged episodes that are marked as invalid."""
    lines = read_intact(run.evaluation).decode().splitlines()
    return sum(row.get("invalid", "0") != "0" for row in csv.DictReader(lines))
