"""Compare agents over their seeds: statistics by region with intervals, and whether there are enough seeds."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from agents.environments import make_environment
from agents.errors import UserError
from agents.evaluation.comparison import (
    ALPHA,
    CONFIDENCE,
    OVERALL,
    Estimate,
    Region,
    Verdict,
    against,
    estimates,
    grid_csv,
    normalize,
    split_regions,
    vary_alone,
    verdicts,
)
from agents.evaluation.results import find_runs, mixed, read_scores, unjudged
from agents.files import atomic_write
from agents.references import read_references
from agents.run_folder import RunFolder
from agents.statistics import Difference, fewest_seeds

_WORTH_NAMING = 100  # beyond it a number of seeds says no more than that


@dataclass(frozen=True)
class Summary:
    """What is said of one region.

    Attributes:
        region: its scores.
        estimates: statistics by agent and name.
        against: P(agent > reference agent) and difference of means, by agent, without the reference agent.
        verdicts: of all pairs.
    """

    region: Region
    estimates: dict[str, dict[str, Estimate]]
    against: dict[str, tuple[Estimate, Difference]]
    verdicts: list[Verdict]


def compare(
    folders: list[Path],
    reference: str | None = None,
    references: Path | None = None,
    gamma: float | None = None,
    along: str | None = None,
    interims: int = 1,
    group: int | None = None,
    stratified: bool = False,
    grid: Path | None = None,
) -> list[Summary]:
    """Compare agents that were judged in the same contexts, and say whether their seeds suffice to tell them apart.

    A run's agent is the folder above seed0, seed1, ..., else the run's own folder. For every region and overall:
    interquartile mean, mean, median and optimality gap with 95% intervals, what each agent gains over a reference
    agent, and AdaStop's verdict on every pair (family-wise error 0.05 within a region). The mean return of every run
    in every context goes into a CSV file.

    Args:
        folders: runs, or folders that contain some, such as runs/contexts_cartpole.
        reference: the agent that the others are compared with; None: the first.
        references: CSV file of random and expert returns (`dreamtune references`); scores are then
            (return - random) / (expert - random) in each context, else returns.
        gamma: the score from which the optimality gap counts nothing; None: 1 with references, no gap without.
        along: only contexts in which this feature alone differs from its default.
        interims: how often you plan to look at the results at most, each time with more seeds; decide it beforehand.
        group: seeds per agent that each look adds; None: all there are, divided by interims.
        stratified: intervals from runs resampled within each context, as rliable has them, instead of whole runs.
            They are too narrow where a run is judged in many contexts.
        grid: the CSV file; None: scores.csv in the folder that holds all runs.

    Returns:
        What is said of each region.

    Raises:
        UserError: see `agents.evaluation.results.read_scores`; an unknown agent or feature, references that do not fit,
            fewer than one interim or seed, or no room for the file.
    """
    if interims < 1 or (group is not None and group < 1):
        raise UserError("--interims and --group must be at least 1")
    scores = read_scores(folders)
    agents = list(dict.fromkeys(score.agent for score in scores))
    reference = agents[0] if reference is None else reference
    if reference not in agents:
        raise UserError(f"--reference {reference}: no such agent; valid: {', '.join(agents)}")
    runs = find_runs(folders)
    missing = [str(run.path) for run in unjudged(folders)]
    notes = [f"not judged yet, left out: {', '.join(missing)}"] if missing else []
    judged = [run for run in runs if str(run.path) not in missing]
    outdated = [str(run.path) for run in judged if run.judged_before]
    if outdated:
        notes.append(f"judged before the present agent was kept, `dreamtune evaluate` renews: {', '.join(outdated)}")
    for agent, keys in mixed(judged).items():
        notes.append(f"the runs of {agent} differ in more than their seed: {', '.join(keys)}")
    table = grid_csv(scores)
    if along is not None:
        scores = vary_alone(scores, along, _defaults(judged[0]))
    if references is not None:
        raw, scores = scores, normalize(scores, read_references(references))
        if len(scores) < len(raw):
            notes.append("training: contexts that the references do not have are left out")
        gamma = 1.0 if gamma is None else gamma
    regions, more = split_regions(scores)
    size = group or max(1, min(len(array) for array in regions[0].scores.values()) // interims)
    summaries = [_summarize(region, reference, gamma, stratified, size, interims) for region in regions]
    path = grid or Path(os.path.commonpath([run.path.absolute() for run in judged])) / "scores.csv"
    atomic_write(path, table)
    _show(summaries, reference, [*notes, *more], size, interims, stratified, references is not None, along)
    Console().print(f"The mean return of every run in every context is in {path}", soft_wrap=True)
    return summaries


def _defaults(run: RunFolder) -> dict[str, float]:
    """The features of a run's environment at their defaults."""
    config = run.config().environment
    env = make_environment(config.name, **config.settings())
    try:
        return {feature.name: feature.default for feature in env.features}
    finally:
        env.close()


def _summarize(
    region: Region, reference: str, gamma: float | None, stratified: bool, group: int, interims: int
) -> Summary:
    return Summary(
        region,
        {
            agent: estimates(scores, region.name, gamma=gamma, stratified=stratified)
            for agent, scores in region.scores.items()
        },
        {
            agent: against(scores, region.scores[reference], region.name, stratified=stratified)
            for agent, scores in region.scores.items()
            if agent != reference
        },
        verdicts(region, group=group, interims=interims),
    )


def _show(
    summaries: Sequence[Summary],
    reference: str,
    notes: Sequence[str],
    group: int,
    interims: int,
    stratified: bool,
    normalized: bool,
    along: str | None,
) -> None:
    """Print the tables and what must be known to read them."""
    console = Console()
    digits = 3 if normalized else 1
    what = "Normalized scores" if normalized else "Returns"
    what += f" where {along} alone varies" if along else ""
    console.print(_statistics_table(summaries, digits, what))
    if len(summaries[0].region.scores) > 1:
        console.print(_reference_table(summaries, reference, digits))
        console.print(_verdict_table(summaries, group, interims))
    seeds = min(len(scores) for scores in summaries[0].region.scores.values())
    notes = [*notes, _interval_note(seeds, stratified)]
    if any(verdict.seeds for summary in summaries for verdict in summary.verdicts):
        notes.append('"about N seeds" would tell with a power of 80%, if the present difference is the true one')
    needed = fewest_seeds(ALPHA, interims)
    if len(summaries[0].region.scores) > 1 and min(group, seeds) < needed:
        looks = f" in {interims} looks" if interims > 1 else ""
        notes.append(
            f"{_seeds(min(group, seeds))} of each agent can never tell two agents apart at alpha {ALPHA:g}{looks}, "
            f"however far apart they are; at least {needed} can"
        )
    if any(summary.region.name == OVERALL for summary in summaries):
        notes.append("overall: the contexts of all regions but training, each once")
    for note in notes:
        console.print(f"- {note}", soft_wrap=True, highlight=False)


def _interval_note(seeds: int, stratified: bool) -> str:
    if stratified:
        return "intervals resample runs within each context, as if a run's contexts had nothing to do with each other"
    note = f"{100 * CONFIDENCE:g}% bootstrap intervals of whole runs"
    if 1 < seeds < 10:
        note += (
            "; from few runs they cover less (74% from 3, 83% from 5, 89% from 10, simulated). The interval of the "
            "difference is Welch's, which covers what it says"
        )
    return note


def _table(title: str, columns: Sequence[tuple[str, bool]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE, padding=(0, 1, 0, 0))
    for name, right in columns:
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    return table


def _statistics_table(summaries: Sequence[Summary], digits: int, title: str) -> Table:
    names = list(next(iter(summaries[0].estimates.values())))
    table = _table(title, [("region", False), ("agent", False), ("seeds", True), *((name, True) for name in names)])
    for summary in summaries:
        for row, (agent, found) in enumerate(summary.estimates.items()):
            count = len(summary.region.contexts)
            region = f"{summary.region.name}\n{count} context{'s' * (count != 1)}" if row == 0 else ""
            seeds = str(len(summary.region.scores[agent]))
            cells = [_cell(found[name], digits) for name in names]
            table.add_row(region, agent, seeds, *cells, end_section=row == len(summary.estimates) - 1)
    return table


def _reference_table(summaries: Sequence[Summary], reference: str, digits: int) -> Table:
    columns = [("region", False), ("agent", False), (f"P(agent > {reference})", True), (f"mean - {reference}'s", True)]
    table = _table(f"Against {reference}", columns)
    for summary in summaries:
        for row, (agent, (improvement, gain)) in enumerate(summary.against.items()):
            difference = Estimate(gain.mean, gain.low, gain.high)
            region = summary.region.name if row == 0 else ""
            alone = min(len(summary.region.scores[one]) for one in (agent, reference)) < 2
            without = "needs 2 seeds" if alone else "all seeds alike"
            cells = [_cell(improvement, 2), _cell(difference, digits, "+", without)]
            table.add_row(region, agent, *cells, end_section=row == len(summary.against) - 1)
    return table


def _verdict_table(summaries: Sequence[Summary], group: int, interims: int) -> Table:
    looks = f" a look, {interims} looks" if interims > 1 else ""
    title = f"Told apart? AdaStop, {_seeds(group)} of each agent{looks}, alpha {ALPHA:g} per region"
    table = _table(title, [("pair", False), *((summary.region.name, False) for summary in summaries)])
    for row in zip(*(summary.verdicts for summary in summaries), strict=True):
        table.add_row(f"{row[0].first},\n{row[0].second}", *(_words(verdict) for verdict in row))
    return table


def _seeds(count: int) -> str:
    return f"{count} seed{'s' * (count != 1)}"


def _words(verdict: Verdict) -> str:
    result = verdict.comparison
    p_value = f"(p {result.p_value:.2g})"
    if result.verdict in ("better", "worse"):
        winner = verdict.first if result.verdict == "better" else verdict.second
        return f"{winner} is better\n{p_value}"
    if result.interim == 0:
        return "too few seeds\nfor a look"
    if verdict.seeds is None:
        return f"no {p_value}"
    many = verdict.seeds > _WORTH_NAMING
    seeds = f"over {_WORTH_NAMING} seeds" if many else f"about {verdict.seeds} seeds"
    return f"{'no' if result.verdict == 'alike' else 'not yet'} {p_value}\n{seeds}"


def _cell(estimate: Estimate, digits: int, sign: str = "", without: str = "needs 2 seeds") -> str:
    value = f"{estimate.value:{sign}.{digits}f}"
    if estimate.low != estimate.low:
        return f"{value}\n{without}"
    return f"{value}\n{estimate.low:{sign}.{digits}f} to {estimate.high:{sign}.{digits}f}"
