"""Dreams of recorded episodes, aligned with what happened, and their error by horizon.

Sizes: E episodes, T = OBSERVED + H steps, H imagined steps, K channels (scalars), F context features.

Alignment. A record at step t holds the observation at t, the reward received on arriving there, and the
action chosen after it. The agent observes steps 0 .. OBSERVED-1; imagination starts from the posterior at
step OBSERVED-1 and takes the recorded actions of steps OBSERVED-1, OBSERVED, ...; the state after the action
of step t is the state at t+1, so what is decoded from it is compared with the record at t+1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.dreaming.channels import Channel

#: Steps that the agent observes before it dreams.
OBSERVED = 5
#: The contexts a dream is given: the recorded one, and another episode's.
DREAM_CONTEXTS = ("true", "swapped")


class DreamingAgent(Protocol):
    """The part of an agent that dreams use; see ``agents.dreamerv3``."""

    def observe(self, state: Any, batch: Mapping[str, Tensor], noise: Any = None) -> Mapping[str, Tensor]:
        """Posterior latents [E, T, ...] of a batch of records [E, T, ...]."""
        ...

    def imagine(
        self, state: Any, start: Mapping[str, Tensor], actions: Tensor, context: Tensor, noise: Any = None
    ) -> Mapping[str, Tensor]:
        """Latents [E, H, ...] after each of the actions [E, H, A], from ``start`` [E, ...]."""
        ...

    def decode(self, state: Any, latent: Mapping[str, Tensor], context: Tensor) -> Mapping[str, Tensor]:
        """Observations, reward and continue probability of latents [..., ...]."""
        ...


@dataclass(frozen=True)
class Dreams:
    """Recorded and dreamt values of E episodes.

    Attributes:
        channels: the K quantities.
        truth: float64 [E, T, K]; NaN after an episode's last record.
        dreamt: for each of ``DREAM_CONTEXTS`` float64 [E, T, K]; the first OBSERVED steps are reconstructions
            from the posterior (under the true context), the others imagined. NaN where ``truth`` is.
    """

    channels: tuple[Channel, ...]
    truth: NDArray[np.float64]
    dreamt: dict[str, NDArray[np.float64]]

    @property
    def swap_matters(self) -> bool:
        """Whether the swapped context changed anything in any dream."""
        return not np.array_equal(self.dreamt["true"], self.dreamt["swapped"], equal_nan=True)


@dataclass(frozen=True)
class HorizonErrors:
    """Absolute error of one channel by horizon, over the episodes that last that long.

    Attributes:
        channel: the quantity.
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


def collate(episodes: Sequence[Mapping[str, NDArray]], length: int) -> tuple[dict[str, NDArray], NDArray[np.bool_]]:
    """Stack the first ``length`` records of episodes, padded with zeros.

    Args:
        episodes: E mappings of records [T_e, ...] with the same keys.
        length: T.

    Returns:
        Batch [E, T, ...] and bool [E, T], true where there is a record.
    """
    batch: dict[str, NDArray] = {}
    for key, first in episodes[0].items():
        stacked = np.zeros((len(episodes), length, *first.shape[1:]), first.dtype)
        for row, episode in zip(stacked, episodes, strict=True):
            values = episode[key][:length]
            row[: len(values)] = values
        batch[key] = stacked
    lengths = np.array([len(episode["is_first"]) for episode in episodes])
    return batch, np.arange(length) < lengths[:, None]


def most_distant(contexts: NDArray[np.floating]) -> NDArray[np.int64]:
    """For every context [E, F] the index [E] of the one farthest from it; the first of equals.

    Distances are Euclidean after each feature is divided by its range over the E contexts.
    """
    spread = contexts.max(axis=0) - contexts.min(axis=0)
    scaled = contexts.astype(np.float64) / np.where(spread > 0, spread, 1.0)
    distance = np.linalg.norm(scaled[:, None] - scaled[None], axis=-1)
    return distance.argmax(axis=1)


def dream_episodes(
    agent: DreamingAgent,
    state: Any,
    episodes: Sequence[Mapping[str, NDArray]],
    swapped: NDArray[np.float32],
    channels: Sequence[Channel],
    horizon: int,
) -> Dreams:
    """Dream every episode under its own context and under a swapped one.

    The posterior of the first OBSERVED steps always sees the true context; only imagination and decoding of
    the imagined states see the swapped one.

    Args:
        agent: observes, imagines and decodes; all with zero noise, so dreams are modes.
        state: the agent's state tree.
        episodes: E mappings of records [T_e, ...], each with more than OBSERVED records.
        swapped: float32 [E, F], raw units.
        channels: what to compare.
        horizon: H, imagined steps.
    """
    batch, valid = collate(episodes, OBSERVED + horizon)
    tensors = {key: torch.from_numpy(value) for key, value in batch.items()}
    seen = {key: value[:, :OBSERVED] for key, value in tensors.items()}
    context = tensors["context"][:, 0]  # [E, F]; constant within an episode
    posterior = agent.observe(state, seen)  # [E, OBSERVED, ...]
    start = {key: posterior[key][:, -1] for key in ("deter", "stoch")}
    actions = tensors["action"][:, OBSERVED - 1 : -1]  # [E, H, A], from that of the last observed step
    reconstruction = read_channels(agent.decode(state, posterior, seen["context"]), channels)
    dreamt = {}
    for name, given in zip(DREAM_CONTEXTS, (context, torch.from_numpy(swapped)), strict=True):
        imagined = agent.imagine(state, start, actions, given)  # [E, H, ...]: steps OBSERVED .. OBSERVED+H-1
        repeated = given[:, None].expand(-1, horizon, -1)
        values = np.concatenate(
            [reconstruction, read_channels(agent.decode(state, imagined, repeated), channels)], axis=1
        )
        dreamt[name] = np.where(valid[..., None], values, np.nan)
    truth_tensors = {**tensors, "continue": 1.0 - tensors["is_terminal"].float()}
    truth = np.where(valid[..., None], read_channels(truth_tensors, channels), np.nan)
    return Dreams(tuple(channels), truth, dreamt)


def read_channels(values: Mapping[str, Tensor], channels: Sequence[Channel]) -> NDArray[np.float64]:
    """Pick the channels out of a batch or decoded values [E, T, ...], in their units: float64 [E, T, K]."""
    columns = []
    for channel in channels:
        value = values[channel.key].detach().cpu().double().numpy()
        columns.append(value.reshape(*value.shape[:2], -1)[..., channel.dimension] * channel.scale)
    return np.stack(columns, axis=-1)


def horizon_errors(dreams: Dreams) -> list[HorizonErrors]:
    """Absolute errors by horizon of every channel and dream context, over episodes."""
    summaries = []
    for index, channel in enumerate(dreams.channels):
        for context in DREAM_CONTEXTS:
            difference = dreams.dreamt[context][:, OBSERVED:, index] - dreams.truth[:, OBSERVED:, index]
            summaries.append(_summarize(channel, context, np.abs(difference)))
    return summaries


def overall_errors(dreams: Dreams) -> list[HorizonErrors]:
    """Error over all observation dimensions together, for both dream contexts.

    Each dimension's error is divided by the standard deviation of its recorded values (a dimension that never
    varies is left undivided); per episode and horizon the root of the mean square over dimensions is taken.
    """
    picked = [i for i, channel in enumerate(dreams.channels) if channel.key.startswith("observation/")]
    truth = dreams.truth[..., picked]
    deviation = np.nanstd(truth, axis=(0, 1))
    deviation = np.where(deviation > 0, deviation, 1.0)
    channel = Channel("observation", -1, "all observation dimensions", "standard deviations")
    summaries = []
    for context in DREAM_CONTEXTS:
        scaled = (dreams.dreamt[context][..., picked] - truth)[:, OBSERVED:] / deviation
        summaries.append(_summarize(channel, context, np.sqrt(np.mean(scaled**2, axis=-1))))
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
