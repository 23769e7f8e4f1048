"""How the numbers of regions are shown: tables, interval estimates and performance profiles."""

from collections.abc import Mapping, Sequence

import numpy as np

from agents.environments import Feature
from agents.evaluation.comparison import ALPHA, Verdict
from agents.evaluation.summary import describe_context
from agents.statistics import fewest_seeds
from tuning.reporting.blocks import (
    Block,
    Cell,
    Column,
    Figure,
    Grid,
    Heading,
    Legend,
    Table,
    Text,
    counted,
    listed,
    number,
    number_cell,
)
from tuning.reporting.charts import Dot, Line, draw_estimates, draw_profiles
from tuning.reporting.collect import Agent
from tuning.reporting.numbers import Judged, Numbers, Standing, region_title

_MOST_SEEDS = 100  # beyond it a number of seeds says no more than that
_HELP = {
    "IQM": "interquartile mean: the mean of the middle half of all runs and contexts",
    "mean": "over all runs and contexts",
    "median": "over contexts, of the mean over runs",
    "optimality gap": "by how much scores fall short of the expert's 1 on average; smaller is better",
}


def summary_table(numbers: Numbers, agents: Sequence[Agent]) -> Table:
    """The mean of every agent in every region."""
    columns = [Column("agent", number=False)]
    columns += [Column(one.region.name, region_title(one.region)) for one in numbers.regions]
    found = {
        (place, one.agent.label): one.estimates["mean"]
        for place, judged in enumerate(numbers.regions)
        for one in judged.standings
    }
    rows = [
        [
            Cell(agent.label, key=agent.label, agent=agent.index),
            *(
                number_cell(mean.value, (mean.low, mean.high), _digits(numbers))
                for mean in (found[place, agent.label] for place in range(len(numbers.regions)))
            ),
        ]
        for agent in agents
        if (0, agent.label) in found
    ]
    return Table(f"Mean {_what(numbers)} by region, with 95% intervals over seeds", columns, rows)


def region_blocks(numbers: Numbers, features: Mapping[str, Feature], reference: Agent | None) -> list[Block]:
    """A table and a picture of the numbers of every region, and which agents can be told apart."""
    blocks: list[Block] = [Text(f"Left out: {note}.") for note in numbers.notes]
    for place, judged in enumerate(numbers.regions):
        title = region_title(judged.region)
        panels: dict[str, list[Dot]] = {
            name: [
                Dot(one.agent.index, one.estimates[name].value, (one.estimates[name].low, one.estimates[name].high))
                for one in judged.standings
            ]
            for name in judged.standings[0].estimates
        }
        marks = {}
        if reference is not None:
            panel = f"P(better than {reference.label})"
            panels[panel] = [
                Dot(one.agent.index, one.against[0].value, (one.against[0].low, one.against[0].high))
                for one in judged.standings
                if one.against is not None
            ]
            marks[panel] = 0.5
        labels = {one.agent.index: one.agent.label for one in judged.standings}
        description = f"Estimates with intervals in {title}, as in the table above: {listed(list(panels))}"
        svg = draw_estimates(panels, labels, f"estimates{place}", description, marks)
        blocks += [Heading(title), _table(numbers, judged, features, reference), Figure(svg)]
    return [*blocks, *_verdict_blocks(numbers)]


def profile_blocks(numbers: Numbers) -> list[Block]:
    """A performance profile of every region."""
    figures = []
    for place, judged in enumerate(numbers.regions):
        title = region_title(judged.region)
        lines = [Line(one.agent.index, judged.thresholds, one.profile[0], *one.profile[1]) for one in judged.standings]
        halves = ", ".join(
            f"{one.agent.label} {number(float(np.median(one.scores)), _digits(numbers))}" for one in judged.standings
        )
        description = f"Performance profiles in {title}; half of the scores are above: {halves}"
        figures.append(Figure(draw_profiles(lines, f"profile{place}", _what(numbers), description), title))
    if not figures:
        return []
    agents = {one.agent.index: one.agent.label for judged in numbers.regions for one in judged.standings}
    told = (
        f"The share of all runs and contexts whose {_what(numbers)} is above the value on the horizontal axis, with a "
        "95% interval over seeds at each value. A curve that is higher everywhere is better everywhere."
    )
    return [Text(told), Legend(sorted(agents.items())), Grid(figures, 290)]


def _what(numbers: Numbers) -> str:
    return "normalized score" if numbers.normalized else "return"


def _digits(numbers: Numbers) -> int:
    return 3 if numbers.normalized else 1


def _table(numbers: Numbers, judged: Judged, features: Mapping[str, Feature], reference: Agent | None) -> Table:
    digits = _digits(numbers)
    columns = [Column("agent", number=False), Column("seeds", "judged runs")]
    columns += [Column(name, _HELP[name]) for name in judged.standings[0].estimates]
    columns.append(Column("worst context", "the lowest mean over runs of a context"))
    if reference is not None:
        columns += [
            Column(f"minus {reference.label}", "difference of the means, with Welch's 95% interval over seeds"),
            Column("P(better)", f"probability that a run beats one of {reference.label} in a context"),
        ]
    rows = []
    for one in judged.standings:
        row = [Cell(one.agent.label, key=one.agent.label, agent=one.agent.index)]
        row.append(Cell(str(len(one.scores)), key=len(one.scores)))
        row += [number_cell(found.value, (found.low, found.high), digits) for found in one.estimates.values()]
        row.append(
            Cell(number(one.worst[0], digits), _context(one.worst[1], features).replace(", ", ",\n"), one.worst[0])
        )
        row += _against_cells(one, digits) if reference is not None else []
        rows.append(row)
    what = "Normalized scores" if numbers.normalized else "Returns"
    return Table(f"{what} in {region_title(judged.region)}; 95% intervals over seeds", columns, rows)


def _against_cells(one: Standing, digits: int) -> list[Cell]:
    if one.against is None:
        return [Cell("reference"), Cell("–")]
    probability, difference = one.against
    return [
        number_cell(difference.mean, (difference.low, difference.high), digits, sign=True),
        number_cell(probability.value, (probability.low, probability.high), 2),
    ]


def _verdict_blocks(numbers: Numbers) -> list[Block]:
    """AdaStop's verdict on every pair in every region."""
    if not any(judged.verdicts for judged in numbers.regions):
        return []
    told = (
        f"AdaStop, with {counted(numbers.group, 'seed')} of each agent, at a level of {100 * ALPHA:g}% over all pairs "
        "of a region. No does not mean that two agents are equal. The seeds named are what it would take about, with "
        "a power of 80%, if the present difference is the true one."
    )
    if numbers.group < fewest_seeds(ALPHA):
        told += (
            f" With {counted(numbers.group, 'seed')} it can tell no two agents apart, however much they differ: "
            f"it takes {fewest_seeds(ALPHA)} of each."
        )
    columns = [Column("pair", number=False), *(Column(one.region.name, number=False) for one in numbers.regions)]
    rows = []
    for pairs in zip(*(judged.verdicts for judged in numbers.regions), strict=True):
        name = f"{pairs[0].first} and {pairs[0].second}"
        rows.append([Cell(name, key=name), *(_verdict_cell(one) for one in pairs)])
    return [Heading("Told apart?"), Text(told), Table("AdaStop's verdicts on pairs of agents", columns, rows)]


def _verdict_cell(verdict: Verdict) -> Cell:
    result = verdict.comparison
    text, small = "no", f"p = {result.p_value:.3f}"
    if result.verdict in ("better", "worse"):
        text = f"{verdict.first if result.verdict == 'better' else verdict.second} is better"
    elif verdict.seeds is not None:
        many = verdict.seeds > _MOST_SEEDS
        small += f", {f'over {_MOST_SEEDS}' if many else f'about {verdict.seeds}'} seeds"
    return Cell(text, small, text)


def _context(values: Mapping[str, float], features: Mapping[str, Feature]) -> str:
    if all(name in features for name in values):
        return describe_context(values, [features[name] for name in values])
    return ", ".join(f"{name} {value:g}" for name, value in values.items())
