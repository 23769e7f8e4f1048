"""Errors of dreams by horizon: of every channel, of all observation dimensions together, of images.

Sizes: E episodes, H imagined steps.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agents.dreaming.channels import Channel
from agents.dreaming.dreams import DREAM_CONTEXTS, OBSERVED, Dreams


@dataclass(frozen=True)
class HorizonErrors:
    """Error of one quantity by horizon, over the episodes that last that long.

    Attributes:
        channel: the quantity, and the unit of its error.
        context: one of ``DREAM_CONTEXTS``.
        episodes: int [H], episodes that have a record at each horizon (1 .. H steps after the last observed).
        mean, lower, median, upper: float64 [H]; lower and upper are the quartiles. NaN where no episode is.
    """

    channel: Channel
    context: str
    episodes: NDArray[np.int64]
    mean: NDArray[np.float64]
    lower: NDArray[np.float64]
    median: NDArray[np.float64]
    upper: NDArray[np.float64]


def horizon_errors(dreams: Dreams) -> list[HorizonErrors]:
    """Absolute errors by horizon of every channel and dream context, over episodes."""
    summaries = []
    for index, channel in enumerate(dreams.channels):
        for context in DREAM_CONTEXTS:
            difference = dreams.dreamt[context][:, OBSERVED:, index] - dreams.truth[:, OBSERVED:, index]
            summaries.append(_summarize(channel, context, np.abs(difference)))
    return summaries


def overall_errors(dreams: Dreams) -> list[HorizonErrors]:
    """Error over all dimensions of vector observations together, for both dream contexts; none without vectors.

    Each dimension's error is divided by the standard deviation of its recorded values (a dimension that never
    varies is left undivided); per episode and horizon the root of the mean square over dimensions is taken.
    """
    picked = [i for i, channel in enumerate(dreams.channels) if channel.key.startswith("observation/")]
    if not picked:
        return []
    truth = dreams.truth[..., picked]
    deviation = np.nanstd(truth, axis=(0, 1))
    deviation = np.where(deviation > 0, deviation, 1.0)
    channel = Channel("observation", -1, "all observation dimensions", "standard deviations")
    summaries = []
    for context in DREAM_CONTEXTS:
        scaled = (dreams.dreamt[context][..., picked] - truth)[:, OBSERVED:] / deviation
        summaries.append(_summarize(channel, context, np.sqrt(np.mean(scaled**2, axis=-1))))
    return summaries


def image_errors(dreams: Dreams) -> list[HorizonErrors]:
    """Mean squared error per pixel and color of each image observation, for both dream contexts."""
    summaries = []
    for key, images in dreams.images.items():
        name = f"{key.partition('/')[2]} (mean squared error per pixel)"
        channel = Channel(key, -1, name, "squared intensities of [0, 1]")
        summaries += [_summarize(channel, context, images.errors[context][:, OBSERVED:]) for context in DREAM_CONTEXTS]
    return summaries


def _summarize(channel: Channel, context: str, errors: NDArray[np.float64]) -> HorizonErrors:
    """Summarize errors [E, H] over the episodes that are not NaN."""
    episodes = np.sum(~np.isnan(errors), axis=0)
    mean, lower, median, upper = np.full((4, errors.shape[1]), np.nan)
    alive = episodes > 0
    mean[alive] = np.nanmean(errors[:, alive], axis=0)
    if alive.any():
        lower[alive], median[alive], upper[alive] = np.nanquantile(errors[:, alive], [0.25, 0.5, 0.75], axis=0)
    return HorizonErrors(channel, context, episodes, mean, lower, median, upper)
