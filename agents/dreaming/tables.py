"""The numbers of dreams as CSV files."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence

from agents.dreaming.dreams import Dreams
from agents.dreaming.errors import HorizonErrors
from agents.evaluation.rollout import Episode


def dream_csv(dreams: Dreams) -> bytes:
    """One row per episode, step and quantity: what happened and both dreams of it.

    Before the dream starts, the dreams' columns hold the posterior's reconstruction. ``unit`` is empty where
    there is none or it is not known.
    """
    return csv_bytes(
        (
            "episode",
            "step",
            "key",
            "dimension",
            "name",
            "unit",
            "truth",
            "dream_true_context",
            "dream_swapped_context",
        ),
        (
            (
                episode,
                step,
                channel.key,
                channel.dimension,
                channel.name,
                channel.unit,
                float(dreams.truth[episode, step, index]),
                float(dreams.dreamt["true"][episode, step, index]),
                float(dreams.dreamt["swapped"][episode, step, index]),
            )
            for episode in range(dreams.truth.shape[0])
            for step in range(dreams.truth.shape[1])
            for index, channel in enumerate(dreams.channels)
            if not math.isnan(dreams.truth[episode, step, index])
        ),
    )


def errors_csv(errors: Sequence[HorizonErrors]) -> bytes:
    """One row per quantity, dream context and horizon with an episode: errors over episodes.

    They are absolute errors, but for the key ``observation`` (see ``overall_errors``) and images, whose errors are
    mean squares.
    """
    return csv_bytes(
        (
            "key",
            "dimension",
            "name",
            "unit",
            "context",
            "horizon",
            "episodes",
            "mean",
            "quartile1",
            "median",
            "quartile3",
        ),
        (
            (
                error.channel.key,
                error.channel.dimension if error.channel.dimension >= 0 else "",
                error.channel.name,
                error.channel.unit,
                error.context,
                step + 1,
                int(error.episodes[step]),
                float(error.mean[step]),
                float(error.lower[step]),
                float(error.median[step]),
                float(error.upper[step]),
            )
            for error in errors
            for step in range(len(error.episodes))
            if error.episodes[step] > 0
        ),
    )


def episodes_csv(
    episodes: Sequence[Episode],
    contexts: Sequence[Mapping[str, float]],
    swapped: Sequence[Mapping[str, float]],
) -> bytes:
    """One row per dreamt episode: where it comes from, its context, and the swapped one, raw units."""
    names = list(contexts[0])
    header = ("episode", "region", "context_id", "seed", *names, *(f"swapped_{name}" for name in names))
    return csv_bytes(
        header,
        (
            (index, e.job.region, e.job.context_id, e.job.seed, *true.values(), *other.values())
            for index, (e, true, other) in enumerate(zip(episodes, contexts, swapped, strict=True))
        ),
    )


def csv_bytes(header: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """Return a CSV file with a line of names, then the rows."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()
