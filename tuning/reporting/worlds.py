"""Returns by context: heat maps over pairs of features, or lines over a single one, and all means as a table."""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from agents.environments import Feature
from agents.evaluation.episodes import TRAINING
from agents.evaluation.results import Score
from agents.evaluation.summary import unit_suffix
from agents.statistics import bootstrap_interval, mean
from tuning.reporting.blocks import (
    Block,
    Cell,
    Column,
    Figure,
    Folded,
    Grid,
    Heading,
    Legend,
    Table,
    Text,
    listed,
    number,
    number_cell,
)
from tuning.reporting.charts import Line, draw_over_feature
from tuning.reporting.collect import Agent, Collected
from tuning.reporting.maps import Axis, Place, difference_scale, draw_color_bar, draw_map, is_grid, same_scale

_MOST_PAIRS = 6

# By the values of two features, by seed: the mean return there.
Field = dict[tuple[float, float], dict[int, float]]


def shown_scores(collected: Collected) -> list[Score]:
    """The scores of the regions that are judged on a grid; of the training contexts only if there are no others."""
    return [score for score in collected.scores if score.region != TRAINING] or list(collected.scores)


def varied_features(scores: Sequence[Score]) -> list[str]:
    """Names of the features in which the contexts of some scores differ."""
    names = list(scores[0].context) if scores else []
    return [name for name in names if len({score.context[name] for score in scores}) > 1]


def world_blocks(collected: Collected, reference: Agent | None) -> list[Block]:
    """Return what is to be seen of returns by context; nothing where all scores are of one context.

    Args:
        collected: with scores.
        reference: the agent that the others are compared with; None where there is no other.
    """
    scores = shown_scores(collected)
    names = varied_features(scores)
    agents = [agent for agent in collected.agents if any(score.agent == agent.label for score in scores)]
    if not names:
        return []
    if len(names) == 1:
        blocks = _lines(collected, scores, names[0], agents)
    else:
        pairs = list(itertools.combinations(names, 2))
        blocks = [
            block
            for place, pair in enumerate(pairs[:_MOST_PAIRS])
            for block in _pair(collected, scores, pair, agents, reference, f"map{place}")
        ]
        if len(pairs) > _MOST_PAIRS:
            left_out = [f"{x} and {y}" for x, y in pairs[_MOST_PAIRS:]]
            blocks.append(Text(f"Pairs of features that are not shown: {listed(left_out)}."))
    return [*blocks, Folded("All means by context", [_table(collected, scores, agents)])]


def field_of(scores: Sequence[Score], agent: str, pair: tuple[str, str]) -> Field:
    """Return by the values of two features, by seed, the mean over the contexts that have these values."""
    returns: dict[tuple[float, float], dict[int, list[float]]] = {}
    for score in scores:
        if score.agent == agent:
            values = (score.context[pair[0]], score.context[pair[1]])
            returns.setdefault(values, {}).setdefault(score.seed, []).append(score.mean_return)
    return {
        values: {seed: math.fsum(own) / len(own) for seed, own in sorted(by_seed.items())}
        for values, by_seed in sorted(returns.items())
    }


def _pair(
    collected: Collected,
    scores: Sequence[Score],
    pair: tuple[str, str],
    agents: Sequence[Agent],
    reference: Agent | None,
    name: str,
) -> list[Block]:
    """Maps of returns and of differences over two features, one per agent."""
    fields = {agent.label: field_of(scores, agent.label, pair) for agent in agents}
    means = {label: {values: _mean(seeds) for values, seeds in field.items()} for label, field in fields.items()}
    axes = {agent.label: _axes(collected, fields, pair, agent.label) for agent in agents}
    words = f"{pair[0]} and {pair[1]}"
    scale = same_scale([value for own in means.values() for value in own.values()], "mean return")
    maps = []
    for agent in agents:
        places = [
            Place(
                *values,
                value,
                f"{_words(collected, pair, values)}: {number(value)} ({_seeds(fields[agent.label][values])})",
            )
            for values, value in means[agent.label].items()
        ]
        description = f"Mean return of {agent.label} by {words}: {_described(means[agent.label])}"
        svg = draw_map(places, *axes[agent.label], scale, f"{name}-{agent.index}", description)
        maps.append(Figure(svg, agent.label, agent=agent.index))
    blocks: list[Block] = [
        Heading(f"Mean return by {words}"),
        Text(_how_to_read(axes, means, len(varied_features(scores)))),
    ]
    blocks += [Figure(draw_color_bar(scale, f"{name}-scale")), Grid(maps, 340)]
    others = [agent for agent in agents if reference is not None and agent.label != reference.label]
    if reference is None or not others or reference.label not in means:
        return blocks
    base = means[reference.label]
    changes = {
        agent.label: {values: value - base[values] for values, value in means[agent.label].items() if values in base}
        for agent in others
    }
    changes = {label: own for label, own in changes.items() if own}
    if not changes:
        return blocks
    scale = difference_scale(
        [value for own in changes.values() for value in own.values()], "difference of mean returns"
    )
    maps = []
    for agent in (agent for agent in others if agent.label in changes):
        own = means[agent.label]
        places = [
            Place(
                *values,
                value,
                f"{_words(collected, pair, values)}: {number(value, sign=True)} "
                f"({number(own[values])} against {number(base[values])})",
            )
            for values, value in changes[agent.label].items()
        ]
        description = (
            f"Mean return of {agent.label} minus {reference.label} by {words}: {_described(changes[agent.label])}"
        )
        svg = draw_map(places, *axes[agent.label], scale, f"{name}-difference-{agent.index}", description)
        maps.append(Figure(svg, f"{agent.label} minus {reference.label}", agent=agent.index))
    blocks += [
        Heading(f"Difference to {reference.label} by {words}"),
        Text(f"Blue: more than {reference.label}; red: less."),
    ]
    return [*blocks, Figure(draw_color_bar(scale, f"{name}-difference-scale")), Grid(maps, 340)]


def _how_to_read(
    axes: Mapping[str, tuple[Axis, Axis]], means: Mapping[str, Mapping[tuple[float, float], float]], features: int
) -> str:
    label = next(iter(axes))
    told = ["Mean over episodes and seeds, on one color scale; point at a field for its numbers."]
    if any(axis.trained is not None for pair in axes.values() for axis in pair):
        told.append("The outline is the range of the training contexts.")
    if is_grid(*axes[label], len(means[label])):
        told.append("Hatched fields were not evaluated.")
    if features > 2:
        told.append("Where contexts differ in other features too, a field is their mean.")
    return " ".join(told)


def _axes(collected: Collected, fields: Mapping[str, Field], pair: tuple[str, str], agent: str) -> tuple[Axis, Axis]:
    every = [values for field in fields.values() for values in field]
    trained = collected.ranges.get(agent, {})
    x, y = (
        Axis(feature_label(collected.features, name), sorted({values[place] for values in every}), trained.get(name))
        for place, name in enumerate(pair)
    )
    return x, y


def feature_label(features: Mapping[str, Feature], name: str) -> str:
    """Name and unit of a feature: ``gravity (m/s²)``."""
    unit = unit_suffix(features[name].unit).strip() if name in features else ""
    return f"{name} ({unit})" if unit else name


def _words(collected: Collected, names: Sequence[str], values: Sequence[float]) -> str:
    units = {name: unit_suffix(feature.unit) for name, feature in collected.features.items()}
    return ", ".join(f"{name} {value:g}{units.get(name, '')}" for name, value in zip(names, values, strict=True))


def _seeds(by_seed: Mapping[int, float]) -> str:
    told = ", ".join(f"{seed}: {number(value)}" for seed, value in by_seed.items())
    return f"seed {told}" if len(by_seed) == 1 else f"seeds {told}"


def _described(means: Mapping[tuple[float, float], float]) -> str:
    low, high = min(means, key=means.__getitem__), max(means, key=means.__getitem__)
    return (
        f"{len(means)} contexts, lowest {number(means[low])} at {low[0]:g} and {low[1]:g}, "
        f"highest {number(means[high])} at {high[0]:g} and {high[1]:g}"
    )


def _mean(by_seed: Mapping[int, float]) -> float:
    return math.fsum(by_seed.values()) / len(by_seed)


def _lines(collected: Collected, scores: Sequence[Score], name: str, agents: Sequence[Agent]) -> list[Block]:
    """Returns over the one feature that varies."""
    lines = []
    for agent in agents:
        field = field_of(scores, agent.label, (name, name))
        values = [list(by_seed.values()) for by_seed in field.values()]
        intervals = [bootstrap_interval([own], mean, np.random.default_rng(0)) for own in values]
        low, high = np.array(intervals).T
        x = np.array([place[0] for place in field])
        lines.append(Line(agent.index, x, np.array([np.mean(own) for own in values]), low, high))
    trained = next((collected.ranges[a.label][name] for a in agents if name in collected.ranges.get(a.label, {})), None)
    label = feature_label(collected.features, name)
    description = f"Mean return over {label} for {listed([agent.label for agent in agents])}"
    shaded = f" The training range of {agents[0].label} is shaded." if trained else ""
    return [
        Heading(f"Mean return by {name}"),
        Text(f"Mean over episodes and seeds with a 95% bootstrap interval over seeds.{shaded}"),
        Legend([(agent.index, agent.label) for agent in agents]),
        Figure(draw_over_feature(lines, trained, "line", label, description)),
    ]


def _table(collected: Collected, scores: Sequence[Score], agents: Sequence[Agent]) -> Table:
    """One row per context, one column per agent."""
    names = list(scores[0].context)
    Key = tuple[str, int, tuple[float, ...]]  # agents may have been trained in different contexts of one number
    returns: dict[Key, dict[str, list[float]]] = {}
    for score in scores:
        key = (score.region, score.context_id, tuple(score.context.values()))
        returns.setdefault(key, {}).setdefault(score.agent, []).append(score.mean_return)
    columns = [
        Column("context", "region, and the context's place in it", number=False),
        *(Column(feature_label(collected.features, name)) for name in names),
        *(Column(agent.label) for agent in agents),
    ]
    rows = [
        [
            Cell(f"{region} {place}", key=f"{region} {place}"),
            *(Cell(f"{value:g}", key=value) for value in values),
            *(number_cell(float(np.mean(own[agent.label])) if agent.label in own else math.nan) for agent in agents),
        ]
        for (region, place, values), own in returns.items()
    ]
    return Table("Mean return over episodes and seeds, by context", columns, rows)
