"""What is said about judged episodes: numbers by region, a printed table, and the CSV file.

Sizes: F context features.
"""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich import box
from rich.table import Table

from agents.environments.base import Feature
from agents.evaluation.rollout import Episode
from agents.seeding import numpy_generator
from agents.statistics import bootstrap_interval, interquartile_mean, mean, worst_stratum

Interval = tuple[float, float]


@dataclass(frozen=True)
class RegionSummary:
    """Undiscounted returns of one region.

    Attributes:
        region: its name.
        contexts: number of contexts.
        episodes: number of valid episodes over all of them; all that follows is of these.
        mean, iqm: mean and interquartile mean over all episodes; NaN where there is none.
        mean_interval, iqm_interval: bootstrap intervals, episodes resampled within their contexts; NaN where
            a context has only one episode.
        average_return: mean over the contexts of their mean returns, of those that have a valid episode.
        worst_return: lowest mean return of a context: the worst case over the region. It is the lowest of many means of
            few episodes, and so lower than another draw of episodes would show in this context.
        lost_contexts: number of contexts without a valid episode, which neither of the two counts.
        worst_context: the values of that context, raw units.
        invalid: number of episodes that were dropped for an invalid step.
    """

    region: str
    contexts: int
    episodes: int
    mean: float
    mean_interval: Interval
    iqm: float
    iqm_interval: Interval
    worst_return: float
    worst_context: Mapping[str, float]
    invalid: int = 0
    average_return: float = math.nan
    lost_contexts: int = 0


def summarize(
    episodes: Sequence[Episode], features: Sequence[Feature], *, seed: int, confidence: float
) -> list[RegionSummary]:
    """Summarize every region, in the order in which the episodes name them.

    Args:
        episodes: any number of them per context.
        features: the F features of the environment.
        seed: of the bootstrap.
        confidence: coverage of the intervals, in (0, 1).
    """
    by_region: dict[str, dict[int, list[Episode]]] = {}
    for episode in episodes:
        by_region.setdefault(episode.job.region, {}).setdefault(episode.job.context_id, []).append(episode)
    summaries = []
    for region, contexts in by_region.items():
        valid = [[episode for episode in group if not episode.invalid] for group in contexts.values()]
        groups = [group for group in valid if group]
        invalid = sum(map(len, contexts.values())) - sum(map(len, groups))
        if not groups:
            none = (math.nan, math.nan)
            summaries.append(
                RegionSummary(region, len(contexts), 0, math.nan, none, math.nan, none, math.nan, {}, invalid)
            )
            continue
        strata = [[episode.episode_return for episode in group] for group in groups]
        pooled = np.concatenate(strata)
        intervals = [
            bootstrap_interval(strata, statistic, numpy_generator(seed, f"bootstrap/{region}"), confidence=confidence)
            for statistic in (mean, interquartile_mean)
        ]
        worst, worst_return = worst_stratum(strata)
        summaries.append(
            RegionSummary(
                region=region,
                contexts=len(contexts),
                episodes=len(pooled),
                mean=float(mean(pooled)),
                mean_interval=intervals[0],
                iqm=float(interquartile_mean(pooled)),
                iqm_interval=intervals[1],
                worst_return=worst_return,
                worst_context=complete_context(groups[worst][0].job.context, features),
                invalid=invalid,
                lost_contexts=len(valid) - len(groups),
                average_return=float(np.mean([mean(np.array(stratum)) for stratum in strata])),
            )
        )
    return summaries


def average_and_worst(summaries: Sequence[RegionSummary], features: Sequence[Feature]) -> list[str]:
    """Say for every region of several contexts what a robust agent is judged by: average and worst case over them."""
    lines = []
    for summary in summaries:
        if summary.contexts > 1 and summary.episodes:
            where = describe_context(summary.worst_context, features)
            numbers = f"average {summary.average_return:.1f}, worst case {summary.worst_return:.1f} ({where})"
            missing = f"; in {summary.lost_contexts} none is valid" if summary.lost_contexts else ""
            lines.append(f"{summary.region}, {summary.contexts} contexts: {numbers}{missing}")
    return lines


def complete_context(context: Mapping[str, float], features: Sequence[Feature]) -> dict[str, float]:
    """The value of every feature of a context, raw units: the given one, else its default."""
    return {feature.name: context.get(feature.name, feature.default) for feature in features}


def write_csv(episodes: Sequence[Episode], features: Sequence[Feature]) -> bytes:
    """One row per episode: region, context_id, every feature, seed, episode_return, episode_length.

    The context is the one that the episode begins in; contexts that change within episodes follow from it.
    Where an episode is invalid there is also a column of that name, 0 or 1, and such episodes have no return.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    names = [feature.name for feature in features]
    marked = any(episode.invalid for episode in episodes)
    mark = ["invalid"] if marked else []
    writer.writerow(["region", "context_id", *names, "seed", "episode_return", "episode_length", *mark])
    for episode in episodes:
        job = episode.job
        values = complete_context(job.context, features)
        score = "" if episode.invalid else episode.episode_return
        flag = [int(episode.invalid)] if marked else []
        writer.writerow([job.region, job.context_id, *values.values(), job.seed, score, episode.length, *flag])
    return text.getvalue().encode()


def make_table(summaries: Sequence[RegionSummary], features: Sequence[Feature], title: str, confidence: float) -> Table:
    """Lay out the summaries for printing, to fit 80 columns; values at their default are not named."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.caption = "bootstrap over the episodes of this one agent: other seeds vary more"
    table.caption_justify = "left"
    interval = f"{100 * confidence:g}% interval"
    table.add_column("region", no_wrap=True)
    table.add_column("contexts\n× episodes", justify="right", no_wrap=True)
    table.add_column(f"mean\n{interval}", justify="right", no_wrap=True)
    table.add_column(f"IQM\n{interval}", justify="right", no_wrap=True)
    table.add_column("worst context:\nmean, values", overflow="fold")  # the one that may give way
    for summary in summaries:
        played = f"{summary.contexts} × {(summary.episodes + summary.invalid) / summary.contexts:g}"
        if summary.invalid:
            played += f"\n{summary.invalid} invalid"
        if not summary.episodes:
            table.add_row(summary.region, played, "none valid", "none valid", "")
            continue
        values = "\n".join(name_values(summary.worst_context, features))
        table.add_row(
            summary.region,
            played,
            f"{summary.mean:.1f}\n{_interval(summary.mean_interval)}",
            f"{summary.iqm:.1f}\n{_interval(summary.iqm_interval)}",
            f"{summary.worst_return:.1f}\n{values}",
        )
    return table


def describe_context(values: Mapping[str, float], features: Sequence[Feature]) -> str:
    """Name a context in a line: ``gravity 4.9 m/s², length 0.4 m``; see ``name_values``."""
    return ", ".join(name_values(values, features))


def name_values(values: Mapping[str, float], features: Sequence[Feature]) -> list[str]:
    """Name the values of a context that differ from the defaults, or say that none does."""
    parts = []
    for feature in features:
        value = values[feature.name]
        if not math.isclose(value, feature.default, rel_tol=1e-6):
            parts.append(f"{feature.name} {value:.3g}{unit_suffix(feature.unit)}")
    return parts or ["default context"]


def unit_suffix(unit: str) -> str:
    """The unit after a number, with a space before it; nothing for dimensionless factors."""
    return "" if unit in ("", "1") else " " + unit.replace("^2", "²").replace("^3", "³")


def _interval(interval: Interval) -> str:
    if math.isnan(interval[0]):
        return "needs 2 each"
    return f"{interval[0]:.1f} to {interval[1]:.1f}"
