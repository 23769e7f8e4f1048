"""The numbers of a latent analysis: CSV files, and a table for the screen."""

import csv
import io
import math
from collections.abc import Iterable, Sequence

from rich import box
from rich.markup import escape
from rich.table import Table

from agents.dreaming.dreams import OBSERVED
from agents.latent_analysis.analysis import BY_STEP, IMAGINED, POSTERIOR, SHUFFLED, Analysis, Score
from agents.latent_analysis.collection import BOTH, CODE, DETER, HISTORY, OBSERVATION, STOCH

#: What is read, in words.
WORDS = {
    BOTH: "deter and stoch",
    DETER: "deter",
    STOCH: "stoch",
    CODE: "inferred code",
    OBSERVATION: "observation alone",
    HISTORY: f"last {OBSERVED} observations",
    SHUFFLED: "shuffled contexts",
}


def scores_csv(analysis: Analysis) -> bytes:
    """One row per score; ``point`` is the horizon of imagined states or the step of an episode, else empty."""
    context = ("feature", "unit", "region", "contexts", "moments")
    header = ["states", "point", "source", *context, "r2", "r2_low", "r2_high", "rmse"]
    return _csv(
        header,
        (
            (
                score.states,
                _point(score.point),
                score.source,
                score.feature.name,
                score.feature.unit,
                score.region,
                score.contexts,
                score.moments,
                *(_number(v) for v in (score.fit.r2, score.fit.low, score.fit.high, score.fit.rmse)),
            )
            for score in analysis.scores
        ),
    )


def points_csv(analysis: Analysis) -> bytes:
    """One row per projected moment: whose it is, its context in raw units, and its place on both axes."""
    recorded = analysis.recorded
    names = [feature.name for feature in recorded.features]
    return _csv(
        ["states", "horizon", "episode", "region", *names, "step", "axis1", "axis2"],
        (
            (
                projection.states,
                _point(projection.point),
                episode,
                recorded.regions[episode],
                *recorded.contexts[episode].tolist(),
                step,
                *place,
            )
            for projection in analysis.projections
            for episode, step, place in zip(
                projection.latents.episode.tolist(),
                projection.latents.step.tolist(),
                projection.points.tolist(),
                strict=True,
            )
        ),
    )


def make_table(analysis: Analysis, title: str, confidence: float) -> Table:
    """Lay out the scores of all regions for printing: what is read, by feature."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.caption = (
        f"R² in contexts that the probe has not seen, {100 * confidence:g}% interval over contexts; "
        "below, its root mean squared error"
    )
    table.caption_justify = "left"
    table.add_column("read from")
    for feature in analysis.recorded.features:
        unit = f" [{feature.unit}]" if feature.unit != "1" else ""
        table.add_column(escape(feature.name + unit), justify="right", no_wrap=True)
    for source in WORDS:
        if found := analysis.pick(POSTERIOR, source):
            table.add_row(WORDS[source], *map(_cell, found))
    width = len(analysis.recorded.features)
    followed = (
        (IMAGINED, BOTH, "imagined, {} on"),
        (BY_STEP, BOTH, "posterior, {} in"),
        (BY_STEP, CODE, "code, {} in"),
    )
    for states, source, words in followed:
        found = analysis.pick(states, source)
        for place in _few(len(found) // width):
            row = found[place * width : (place + 1) * width]
            point = row[0].point
            table.add_row(words.format(f"{point} step{'s' if point != 1 else ''}"), *map(_cell, row))
    return table


def _few(count: int) -> list[int]:
    """The second, the middle and the last of ``count`` places."""
    return sorted({min(1, count - 1), count // 2, count - 1}) if count else []


def _cell(score: Score) -> str:
    fit = score.fit
    if math.isnan(fit.r2):
        return f"no variance\n{fit.rmse:.3g}"
    return f"{fit.r2:.2f} ({fit.low:.2f} to {fit.high:.2f})\n{fit.rmse:.3g}"


def _point(point: int) -> int | str:
    return point if point >= 0 else ""


def _number(value: float) -> float | str:
    return "" if math.isnan(value) else value


def _csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()
