"""The sections of a report on runs, in their order. A section that has nothing to show is left out."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from agents.configuration import config_bytes, differences, settings
from agents.configuration.yaml_files import one_line
from agents.errors import UserError
from agents.training.curve import combine_seeds
from tuning.reporting.blocks import (
    Block,
    Cell,
    Code,
    Column,
    Facts,
    Figure,
    Folded,
    Grid,
    Legend,
    Notes,
    Section,
    Table,
    Text,
    listed,
)
from tuning.reporting.charts import Line, curve_line, draw_curves
from tuning.reporting.collect import Agent, Collected, Run
from tuning.reporting.numbers import Numbers
from tuning.reporting.pictures import picture_blocks
from tuning.reporting.standings import profile_blocks, region_blocks, summary_table
from tuning.reporting.worlds import feature_label, world_blocks

_LONG = 160  # characters of a setting's value in a table; the whole value is in the folded configuration


@dataclass(frozen=True)
class Source:
    """What the sections are made from.

    Attributes:
        collected: the runs.
        numbers: of their regions.
        reference: the agent that others are compared with; None where there is no other.
        command: the command line that makes this report.
    """

    collected: Collected
    numbers: Numbers
    reference: Agent | None
    command: Sequence[str]


def make_sections(source: Source) -> list[Section]:
    """Return the sections that have something to show."""
    made = [Section(name, title, build(source)) for name, title, build in SECTIONS]
    return [section for section in made if section.blocks]


def _overview(source: Source) -> list[Block]:
    agents = source.collected.agents
    columns = [
        Column("agent", "a group of runs that differ in their seed", number=False),
        Column("sees the context", "agent.world_model.context", number=False),
        Column("seeds", "of the runs", number=False),
        Column("environment steps", "done by the policy in training, of the planned ones"),
        Column("kept after", "environment steps of the agent that did best in validation and is judged"),
        Column("evaluated", "runs that were judged"),
        Column("training time", "per run, validation included, without pauses"),
    ]
    rows = [[_named(agent), *_overview_cells(agent)] for agent in agents]
    blocks: list[Block] = [summary_table(source.numbers, agents)] if source.numbers.regions else []
    blocks.append(Table("Agents", columns, rows))
    blocks.append(Facts(_facts(source.collected)))
    if source.collected.problems:
        blocks += [
            Text("Missing or to be known:"),
            Notes([(problem.told, problem.commands) for problem in source.collected.problems]),
        ]
    return blocks


def _named(agent: Agent) -> Cell:
    return Cell(agent.label, key=agent.label, agent=agent.index)


def _overview_cells(agent: Agent) -> list[Cell]:
    runs = agent.runs
    context = one_line(runs[0].config.agent.model_dump(mode="json")["world_model"]["context"])
    seeds = [str(run.config.seed) for run in runs]
    planned = max(run.config.training.environment_steps for run in runs)
    done, kept = [run.steps for run in runs], [run.kept for run in runs if run.kept is not None]
    judged = sum(run.folder.evaluation.is_file() for run in runs)
    minutes = [run.seconds / 60 for run in runs if run.seconds is not None]
    return [
        Cell(context, key=context),
        Cell(listed(seeds, 12), key=len(seeds)),
        Cell(_span(done), "" if min(done) >= planned else f"of {planned:,}", min(done)),
        Cell(_span(kept) or "–", key=min(kept, default="")),
        Cell(f"{judged} of {len(runs)}", key=judged),
        Cell(_span(minutes, ".1f") + " min" if minutes else "not recorded", key=min(minutes, default="")),
    ]


def _span(values: Sequence[float], form: str = ",d") -> str:
    """Lowest and highest value; one number if they are equal."""
    texts = list(dict.fromkeys(f"{value:{form}}" for value in (min(values), max(values)))) if values else []
    return " to ".join(texts)


def _facts(collected: Collected) -> list[tuple[str, str]]:
    configs = [run.config for agent in collected.agents for run in agent.runs]
    facts = [("environment", listed(list(dict.fromkeys(config.environment.name for config in configs))))]
    names = list(dict.fromkeys(name for own in collected.ranges.values() for name in own))
    for name in names:
        by_range: dict[str, list[str]] = {}
        for label, own in collected.ranges.items():
            if name in own:
                by_range.setdefault(_range(*own[name]), []).append(label)
        told = [words if len(by_range) == 1 else f"{words} ({listed(labels)})" for words, labels in by_range.items()]
        facts.append((f"training range of {feature_label(collected.features, name)}", "; ".join(told)))
    regions: dict[str, set[int]] = {}
    for score in collected.scores:
        regions.setdefault(score.region, set()).add(score.context_id)
    if regions:
        facts.append(("regions", ", ".join(f"{name}: {len(ids)} contexts" for name, ids in regions.items())))
        episodes = {score.episodes for score in collected.scores}
        facts.append(("episodes per context and seed", _span(list(episodes))))
    return facts


def _range(low: float, high: float) -> str:
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def _curves(source: Source) -> list[Block]:
    """Learning curves of training and validation."""
    kinds = {
        "train/return": ("Training episodes", "return of training episodes", "Sampled actions, in training contexts."),
        "validation/return": (
            "Validation episodes",
            "return of validation episodes",
            "Greedy actions; they choose the kept agent.",
        ),
    }
    figures, shown, left_out = [], [], []
    for name, (title, ylabel, caption) in kinds.items():
        lines, told = _lines(source.collected.agents, name)
        left_out += told
        if lines:
            labels = [source.collected.agents[line.agent].label for line in lines]
            last = ", ".join(f"{label} {line.y[-1]:.1f}" for label, line in zip(labels, lines, strict=True))
            description = f"{title}: mean return over environment steps; at the end {last}"
            figures.append(Figure(draw_curves(lines, f"curve-{name[:5]}", ylabel, description), title, caption))
            shown += [line.agent for line in lines]
    if not figures:
        return []
    legend = Legend([(agent.index, agent.label) for agent in source.collected.agents if agent.index in shown])
    text = (
        "Mean over seeds with a 95% bootstrap interval of the mean. Runs that are not trained to the end count only "
        "where an agent has no others, up to the step that all of them have reached."
    )
    return [Text(text), legend, Grid(figures, 420), *([Notes([(text, ()) for text in left_out])] if left_out else [])]


def _lines(agents: Sequence[Agent], name: str) -> tuple[list[Line], list[str]]:
    """The mean over seeds of one column of metrics.csv for every agent, and which agents have none."""
    lines, left_out = [], []
    for agent in agents:
        finished = [run for run in agent.runs if run.steps >= run.config.training.environment_steps]
        curves = [_points(run, name) for run in finished or agent.runs]
        curves = [points for points in curves if points[0]]
        try:
            if curves:
                lines.append(curve_line(agent.index, combine_seeds(agent.label, curves)))
        except UserError as error:
            left_out.append(f"{name}: {error}.")
    return lines, left_out


def _points(run: Run, name: str) -> tuple[list[float], list[float]]:
    repeat = run.config.environment.action_repeat
    rows = [row for row in run.rows if name in row]
    return [row["env_steps"] * repeat for row in rows], [row[name] for row in rows]


def _regions(source: Source) -> list[Block]:
    return region_blocks(source.numbers, source.collected.features, source.reference)


def _profiles(source: Source) -> list[Block]:
    return profile_blocks(source.numbers)


def _worlds(source: Source) -> list[Block]:
    return world_blocks(source.collected, source.reference)


def _pictures(source: Source) -> list[Block]:
    return picture_blocks(source.collected.agents)


def _configuration(source: Source) -> list[Block]:
    """What agents differ in, and every configuration."""
    agents = source.collected.agents
    first = agents[0].runs[0].config
    keys = {key for agent in agents for key in differences(first, agent.runs[0].config)} - {"seed", "name"}
    blocks: list[Block] = []
    if len(agents) > 1 and keys:
        columns = [Column("setting", number=False), *(Column(agent.label, number=False) for agent in agents)]
        values = [settings(agent.runs[0].config) for agent in agents]
        rows = [
            [Cell(key, key=key), *(Cell(_short(own[key]), key=one_line(own[key])[:_LONG]) for own in values)]
            for key in settings(first)
            if key in keys
        ]
        blocks.append(Table("Settings in which the agents differ; all others are equal", columns, rows))
    elif len(agents) > 1:
        blocks.append(Text("The agents have equal configurations."))
    folded = [
        Folded(
            f"{agent.label}, seed {run.config.seed}: {run.folder.config_file}",
            [Code(config_bytes(run.config).decode())],
        )
        for agent in agents
        for run in agent.runs
    ]
    return [*blocks, Folded("Every run's whole configuration", folded)]


def _short(value: object) -> str:
    text = one_line(value)
    return text if len(text) <= _LONG else text[: _LONG - 1] + "…"


def _reading(source: Source) -> list[Block]:
    """Definitions, a line each."""
    return [Facts(DEFINITIONS)]


DEFINITIONS = [
    ("agent", "Runs that differ in their seed only. All statistics are over seeds: another training is what varies."),
    ("return", "Undiscounted sum of an episode's rewards; a score is the mean over a run's episodes in one context."),
    ("kept agent", "The state of a run that did best in validation episodes; it alone is judged, in other episodes."),
    ("region", "A set of contexts, such as those inside (interpolation) or outside (extrapolation) of training."),
    ("overall", "The contexts of all regions but training, each once."),
    ("95% interval", "Percentile bootstrap: whole runs are drawn anew, each with all its contexts, 2,000 times."),
    (
        "few seeds",
        "From few seeds such intervals are too narrow: of those for a mean, about 74% hold it with 3 seeds, 83% with "
        "5 and 89% with 10 (simulated, normal values).",
    ),
    ("IQM", "Interquartile mean: the mean of the middle half of all scores of a region, runs and contexts together."),
    ("median", "Over contexts, of the mean over runs."),
    (
        "normalized score",
        "With --references: (return - random) / (expert - random) in each context; else scores are returns.",
    ),
    ("optimality gap", "With --references: 1 - mean of min(score, 1). What exceeds the expert makes up for nothing."),
    ("worst context", "The context with the lowest mean over runs."),
    (
        "difference",
        "Of two agents' means over runs and contexts, with Welch's t interval, which few seeds do not spoil.",
    ),
    (
        "P(better)",
        "Share of pairs of runs in which the agent's has the higher score, ties half, averaged over contexts.",
    ),
    (
        "told apart",
        "By AdaStop (arXiv 2306.10882): a permutation test of the runs' means over contexts, at a level of 5% over all "
        "pairs of a region.",
    ),
    ("performance profile", "For every value, the share of runs and contexts whose score is above it."),
]


def _reproducing(source: Source) -> list[Block]:
    """Commands, seeds, versions, and hashes of what was read."""
    columns = [
        Column("run", number=False),
        Column("agent", number=False),
        Column("seed"),
        Column("config.yaml", "first digits of the file's BLAKE2b hash", number=False),
        Column("evaluation.csv", "first digits of the file's BLAKE2b hash", number=False),
    ]
    rows = [
        [
            Cell(str(run.folder.path), key=str(run.folder.path)),
            Cell(agent.label, key=agent.label),
            Cell(str(run.config.seed), key=run.config.seed),
            *(Cell(digits[:12] or "–", key=digits[:12]) for digits in run.hashes),
        ]
        for agent in source.collected.agents
        for run in agent.runs
    ]
    command = shlex.join(source.command)
    example = source.collected.agents[0].runs[0].folder
    training = f"dreamtune train {shlex.quote(str(example.config_file))} --run NEW"
    return [
        Facts(
            [
                (
                    "bootstrap and permutations",
                    "Their random numbers follow from seed 0, as those of dreamtune compare do.",
                ),
                ("this report", "The same runs and the same installation give the same file, byte for byte."),
                ("a run", "Trains again from its own configuration; on a CPU with the same numbers."),
                ("version", f"dreamtune {version('dreamtune')}"),
            ]
        ),
        Code(f"{command}\n{training}\ndreamtune evaluate NEW"),
        Table("What was read", columns, rows),
    ]


SECTIONS: Sequence[tuple[str, str, Callable[[Source], list[Block]]]] = (
    ("overview", "Overview", _overview),
    ("curves", "Learning curves", _curves),
    ("regions", "Returns by region", _regions),
    ("profiles", "Performance profiles", _profiles),
    ("worlds", "Returns by context", _worlds),
    ("pictures", "Dreams and latent states", _pictures),
    ("configuration", "Configuration", _configuration),
    ("reading", "How to read this", _reading),
    ("reproducing", "Reproducing it", _reproducing),
)
