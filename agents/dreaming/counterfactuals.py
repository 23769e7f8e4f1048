"""Counterfactual dreams and counterfactual truth: the same episode, had its context changed after OBSERVED steps.

The truth is the simulator's. An episode that was recorded in one context, its source, is played again from the same
seed with the same actions, but just before agent step OBSERVED, which leads to the first step that a dream imagines,
the world gets the other context, the target. Until then both are the same record by record, so the state at the moment
of the swap is the same, and nothing has to be copied out of a simulator. Dreams start from the posterior of those
OBSERVED steps; see ``agents.dreaming.dreams`` for which action leads where.

Sizes: E episodes of a source, T = OBSERVED + H steps, H imagined steps, K channels, Z numbers of a condition, G
contexts, M moments.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.dreaming.channels import Channel, image_keys
from agents.dreaming.dreams import OBSERVED, DreamingAgent, collate, displayed, open_loop, read_channels
from agents.dreaming.grid import ContextGrid
from agents.dreaming.moments import NAMES, moments
from agents.environments import Change, Reset, VectorEnvironment
from agents.errors import UserError
from agents.evaluation.rollout import Episode

Records = dict[str, NDArray]


@dataclass(frozen=True)
class Swap:
    """Episodes of one source, had their context changed to one target.

    Attributes:
        source, target: places in the grid.
        happened: float64 [E, T, K], the records; NaN after an episode's last one.
        counterfactual: float64 [E, T, K], the same episodes in the simulator with the target from step OBSERVED on;
            NaN after the last record, also where the episode itself went on, and from OBSERVED on where the simulation
            came to an invalid step.
        dreamt: by NAMES float64 [E, T, K]; until OBSERVED reconstructions, then imagined. Not cut at an end.
        images: moments [E, H, M] by key of image observations, intensities in [0, 1].
        shown: by key of image observations, of the first episode, uint8 [T, Y, X, C] each by ``happened``,
            ``counterfactual`` and NAMES; empty unless asked for.
    """

    source: int
    target: int
    happened: NDArray[np.float64]
    counterfactual: NDArray[np.float64]
    dreamt: dict[str, NDArray[np.float64]]
    images: dict[str, NDArray[np.float64]]
    shown: dict[str, dict[str, NDArray[np.uint8]]] = field(default_factory=dict)


def play_swapped(vector: VectorEnvironment, episode: Episode, target: Mapping[str, float]) -> Records:
    """Play a recorded episode again, in another context from step OBSERVED on.

    Args:
        vector: one environment.
        episode: with its records.
        target: the other context, raw units.

    Returns:
        Records [T_e, ...], none of them after the end of either episode, and none from an invalid step on.

    Raises:
        UserError: the environment refuses the context or to change it within an episode, or does not repeat the
            OBSERVED steps before the swap.
    """
    job = episode.job
    change = Change(step=OBSERVED, context=target)
    history: list[Records] = []
    for command in (Reset(job.seed, job.context, job.context_id, (change,)), *episode.records["action"][:-1]):
        record = {key: value[0].copy() for key, value in vector.step([command]).items()}
        if record.pop("lost"):
            break
        history.append(record)
        if record["is_last"]:
            break
    records = {key: np.stack([record[key] for record in history]) for key in history[0]}
    for key, values in records.items():
        if not np.array_equal(values[:OBSERVED], episode.records[key][:OBSERVED]):
            raise UserError(
                f"the environment does not repeat an episode from its seed and actions ({key} differs before the "
                "context is swapped), so what would have happened cannot be known"
            )
    return records


def swap_source(
    agent: DreamingAgent,
    state: Any,
    vector: VectorEnvironment,
    grid: ContextGrid,
    source: int,
    episodes: Sequence[Episode],
    conditions: Sequence[Tensor],
    channels: Sequence[Channel],
    horizon: int,
    *,
    shown: Sequence[int] = (),
    on_swap: Callable[[], None] | None = None,
) -> list[Swap]:
    """Swap the context of a source's episodes for every other context of the grid.

    Args:
        agent: observes, imagines and decodes, in modes.
        state: the agent's state tree.
        vector: one environment, to play the counterfactual truth.
        grid: the contexts.
        source: place of the context that the episodes were recorded in.
        episodes: E of them with their records, at least OBSERVED + 1 each.
        conditions: by place [E, Z], what the agent is given to dream in each context.
        channels: the K quantities.
        horizon: H.
        shown: targets whose images are kept.
        on_swap: called after each episode and target, for progress.

    Raises:
        UserError: see `play_swapped`.
    """
    length = OBSERVED + horizon
    batch, valid = collate([episode.records for episode in episodes], length)
    tensors = _tensors(batch)
    happened = _truth(tensors, valid, channels)
    keys = image_keys(episodes[0].records)
    targets = [target for start, target in grid.pairs() if start == source]
    under = {"true": source, "default": grid.default} | {f"target {place}": place for place in targets}
    given = {name: conditions[place] for name, place in under.items()}
    values: dict[str, NDArray[np.float64]] = {}
    images: dict[str, dict[str, Tensor]] = {}
    swaps = []
    for name, decoded in open_loop(agent, state, tensors, given):
        place, role = under[name], name if name in NAMES else "swapped"
        values[role] = read_channels(decoded, channels)
        images[role] = {key: decoded[key] for key in keys}
        if role != "swapped":
            continue
        played = []
        for episode in episodes:
            played.append(play_swapped(vector, episode, grid.contexts[place]))
            if on_swap is not None:
                on_swap()
        other, going = collate(played, length)
        swaps.append(
            Swap(
                source,
                place,
                happened,
                _truth(_tensors(other), going, channels),
                dict(values),
                {key: _image_moments(batch[key], other[key], images, key, going) for key in keys},
                {key: _first(batch[key], other[key], images, key) for key in keys} if place in shown else {},
            )
        )
    return swaps


def _tensors(batch: Mapping[str, NDArray]) -> dict[str, Tensor]:
    return {key: torch.from_numpy(value) for key, value in batch.items()}


def _truth(tensors: Mapping[str, Tensor], valid: NDArray[np.bool_], channels: Sequence[Channel]) -> NDArray[np.float64]:
    """The channels of records [E, T, ...], NaN where there is none."""
    with_continue = {**tensors, "continue": 1.0 - tensors["is_terminal"].float()}
    return np.where(valid[..., None], read_channels(with_continue, channels), np.nan)


def _image_moments(
    happened: NDArray[np.uint8],
    counterfactual: NDArray[np.uint8],
    dreamt: Mapping[str, Mapping[str, Tensor]],
    key: str,
    going: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """Moments [E, H, M] of images [E, T, Y, X, C]."""
    unit = {name: dreamt[name][key][:, OBSERVED:].numpy() / 255 for name in NAMES}
    both = (happened[:, OBSERVED:] / np.float32(255), counterfactual[:, OBSERVED:] / np.float32(255))
    return np.where(going[:, OBSERVED:, None], moments(*both, unit), 0.0)


def _first(
    happened: NDArray[np.uint8],
    counterfactual: NDArray[np.uint8],
    dreamt: Mapping[str, Mapping[str, Tensor]],
    key: str,
) -> dict[str, NDArray[np.uint8]]:
    """Images [T, Y, X, C] of the first episode as they are shown."""
    truths = {"happened": happened[0], "counterfactual": counterfactual[0]}
    return truths | {name: displayed(dreamt[name][key][0]) for name in NAMES}


@dataclass(frozen=True)
class Yardstick:
    """How the dimensions of vector observations are put together, the same for all swaps of a run.

    Attributes:
        picked: which of the K channels they are.
        deviation: the standard deviation of each over both truths of all swaps, in its unit; 1 where nothing varies.
        weight: their shares in errors, adding up to 1: proportional to the mean squared real difference of the two
            truths, in standard deviations. A dimension that the context hardly moves cannot show whether the swap
            moved the dream in the right direction; all it could add are errors that every dream makes.
    """

    picked: tuple[int, ...]
    deviation: NDArray[np.float64]
    weight: NDArray[np.float64]

    @property
    def factor(self) -> NDArray[np.float64]:
        """What values are multiplied by, so that a plain mean over dimensions is the weighted one."""
        return np.sqrt(len(self.picked) * self.weight) / self.deviation


def make_yardstick(swaps: Sequence[Swap], channels: Sequence[Channel]) -> Yardstick | None:
    """Return the yardstick of a run's swaps; None without vector observations."""
    picked = [index for index, channel in enumerate(channels) if channel.key.startswith("observation/")]
    if not picked:
        return None
    happened, counterfactual = (
        np.concatenate([getattr(swap, name)[:, OBSERVED:, picked].reshape(-1, len(picked)) for swap in swaps])
        for name in ("happened", "counterfactual")
    )
    deviation = np.nanstd(np.concatenate([happened, counterfactual]), axis=0)
    deviation = np.where(deviation > 0, deviation, 1.0)
    real = np.nanmean(((counterfactual - happened) / deviation) ** 2, axis=0)
    weight = real / real.sum() if real.sum() > 0 else np.full(len(picked), 1 / len(picked))
    return Yardstick(tuple(picked), deviation, weight)


def vector_moments(swap: Swap, yardstick: Yardstick) -> NDArray[np.float64]:
    """Return the moments [E, H, M] over the dimensions of vector observations, in standard deviations, weighted."""
    return _moments(swap, list(yardstick.picked), yardstick.factor)


def channel_moments(swap: Swap, index: int) -> NDArray[np.float64]:
    """Return the moments [E, H, M] of one channel, in its unit."""
    return _moments(swap, [index], np.ones(1))


def _moments(swap: Swap, picked: list[int], factor: NDArray[np.float64]) -> NDArray[np.float64]:
    happened, counterfactual = (
        values[:, OBSERVED:, picked] * factor for values in (swap.happened, swap.counterfactual)
    )
    return moments(
        happened, counterfactual, {name: values[:, OBSERVED:, picked] * factor for name, values in swap.dreamt.items()}
    )


@dataclass(frozen=True)
class Endings:
    """What dreams said at the steps at which a swapped world ended and the true one did not.

    Attributes:
        swaps: swapped episodes.
        ended: how many of them so ended within the horizon.
        at_end: by NAMES the mean predicted probability that the world goes on, at these steps; NaN if there is none.
        before: the same at all other imagined steps that have a record in both worlds.
    """

    swaps: int
    ended: int
    at_end: dict[str, float]
    before: dict[str, float]


def endings(swaps: Sequence[Swap], channels: Sequence[Channel]) -> Endings:
    """Sum up how dreams foresaw the ends of swapped worlds."""
    index = [channel.key for channel in channels].index("continue")
    happened, counterfactual = (
        np.concatenate([getattr(swap, name)[:, OBSERVED:, index] for swap in swaps])
        for name in ("happened", "counterfactual")
    )
    end = (counterfactual == 0) & (happened == 1)
    other = ~np.isnan(counterfactual) & ~end
    dreamt = {name: np.concatenate([swap.dreamt[name][:, OBSERVED:, index] for swap in swaps]) for name in NAMES}
    return Endings(
        len(happened),
        int(end.sum()),
        {name: float(values[end].mean()) if end.any() else float("nan") for name, values in dreamt.items()},
        {name: float(values[other].mean()) for name, values in dreamt.items()},
    )
