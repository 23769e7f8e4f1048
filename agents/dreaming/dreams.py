"""Dreams of recorded episodes, aligned with what happened.

Sizes: E episodes, T = OBSERVED + H steps, H imagined steps, K channels (scalars), Z numbers of a condition; images
[Y, X, C].

A *condition* is what the agent is given as the context of imagination: the raw context for agents that are told it, and
what it makes of transitions for one that infers it.

Alignment. A record at step t holds the observation at t, the reward received on arriving there, and the
action chosen after it. The agent observes steps 0 .. OBSERVED-1; imagination starts from the posterior at
step OBSERVED-1 and takes the recorded actions of steps OBSERVED-1, OBSERVED, ...; the state after the action
of step t is the state at t+1, so what is decoded from it is compared with the record at t+1.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.dreaming.channels import Channel, image_keys

#: Steps that the agent observes before it dreams.
OBSERVED = 5
#: The contexts a dream is given: the recorded one, and another episode's.
DREAM_CONTEXTS = ("true", "swapped")

_DECODED_ROWS = 256  # latents decoded at once


class DreamingAgent(Protocol):
    """The part of an agent that dreams use; see ``agents.dreamerv3``."""

    def condition(self, state: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """Conditions [E, T, Z] at every step of records [E, T, ...]; later records change none of them."""
        ...

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
class ImageDreams:
    """Recorded and dreamt images of E episodes under one observation key.

    Attributes:
        truth: uint8 [E, T, Y, X, C]; zero after an episode's last record.
        dreamt: for each context that was dreamt under, uint8 [E, T, Y, X, C], the decoded images cut to 0 .. 255 and
            rounded down, as the reference shows them; zero where there is no record.
        errors: for each context float64 [E, T], the mean squared error per pixel and color, intensities in [0, 1], of
            the decoded images before rounding; NaN where there is no record.
    """

    truth: NDArray[np.uint8]
    dreamt: dict[str, NDArray[np.uint8]]
    errors: dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Dreams:
    """Recorded and dreamt values of E episodes.

    Attributes:
        channels: the K quantities.
        truth: float64 [E, T, K]; NaN after an episode's last record.
        dreamt: for each of ``DREAM_CONTEXTS`` float64 [E, T, K]; the first OBSERVED steps are reconstructions
            from the posterior (under the true context), the others imagined. NaN where ``truth`` is.
        images: by key, such as ``observation/image``; empty for agents that see vectors only.
    """

    channels: tuple[Channel, ...]
    truth: NDArray[np.float64]
    dreamt: dict[str, NDArray[np.float64]]
    images: dict[str, ImageDreams] = field(default_factory=dict)

    @property
    def recorded(self) -> NDArray[np.bool_]:
        """Bool [E, T]: true where there is a record."""
        return ~np.isnan(self.truth[:, :, 0])

    @property
    def swap_matters(self) -> bool:
        """Whether the swapped context changed anything in any dream."""
        same = np.array_equal(self.dreamt["true"], self.dreamt["swapped"], equal_nan=True)
        pairs = [images.dreamt for images in self.images.values()]
        return not (same and all(np.array_equal(pair["true"], pair["swapped"]) for pair in pairs))


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
    swapped: Tensor,
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
        swapped: [E, Z], the conditions to swap in, such as those of other episodes (see ``final_conditions``).
        channels: what to compare, beside the images.
        horizon: H, imagined steps.
    """
    batch, valid = collate(episodes, OBSERVED + horizon)
    tensors = {key: torch.from_numpy(value) for key, value in batch.items()}
    conditions = dict(zip(DREAM_CONTEXTS, (observed_conditions(agent, state, tensors), swapped), strict=True))
    dreamt, images = {}, {key: ImageDreams(batch[key], {}, {}) for key in image_keys(episodes[0])}
    for name, decoded in open_loop(agent, state, tensors, conditions):
        dreamt[name] = np.where(valid[..., None], read_channels(decoded, channels), np.nan)
        for key, image in images.items():
            image.dreamt[name] = displayed(decoded[key]) * valid[..., None, None, None]
            image.errors[name] = np.where(valid, squared_error(decoded[key], tensors[key]), np.nan)
    truth_tensors = {**tensors, "continue": 1.0 - tensors["is_terminal"].float()}
    truth = np.where(valid[..., None], read_channels(truth_tensors, channels), np.nan)
    return Dreams(tuple(channels), truth, dreamt, images)


def observed_conditions(agent: DreamingAgent, state: Any, batch: Mapping[str, Tensor]) -> Tensor:
    """Return what the agent knows of the context at the last observed step of records [E, T, ...]: [E, Z]."""
    return agent.condition(state, {key: value[:, :OBSERVED] for key, value in batch.items()})[:, -1]


def final_conditions(agent: DreamingAgent, state: Any, episodes: Sequence[Mapping[str, NDArray]]) -> Tensor:
    """Return what the agent knows of the context at the end of E episodes, records [T_e, ...] each: [E, Z]."""
    lengths = [len(episode["is_first"]) for episode in episodes]
    batch, _ = collate(episodes, max(lengths))
    conditions = agent.condition(state, {key: torch.from_numpy(value) for key, value in batch.items()})
    return conditions[torch.arange(len(lengths)), torch.tensor(lengths) - 1]


def open_loop(
    agent: DreamingAgent, state: Any, batch: Mapping[str, Tensor], conditions: Mapping[str, Tensor]
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Observe OBSERVED steps, then imagine the others from the recorded actions, under each of some conditions.

    Args:
        agent: dreams in modes.
        state: the agent's state tree.
        batch: records [E, T, ...], padded where an episode is shorter.
        conditions: by name [E, Z]; constant while the agent imagines.

    Yields:
        Each condition's name and what ``agent.decode`` makes of the T steps, [E, T, ...] on the CPU.
    """
    seen = {key: value[:, :OBSERVED] for key, value in batch.items()}
    posterior = agent.observe(state, seen)  # [E, OBSERVED, ...]
    start = {key: posterior[key][:, -1] for key in ("deter", "stoch")}
    actions = batch["action"][:, OBSERVED - 1 : -1]  # [E, H, A], from that of the last observed step
    reconstruction = _decode(agent, state, posterior, agent.condition(state, seen))
    for name, given in conditions.items():
        imagined = agent.imagine(state, start, actions, given)  # [E, H, ...]: steps OBSERVED .. OBSERVED+H-1
        dream = _decode(agent, state, imagined, given[:, None].expand(-1, actions.shape[1], -1))
        yield name, {key: torch.cat([reconstruction[key], dream[key]], 1) for key in dream}


def _decode(agent: DreamingAgent, state: Any, latent: Mapping[str, Tensor], context: Tensor) -> dict[str, Tensor]:
    """Decode latents [E, n, ...] some steps at a time: an image decoder needs much memory for a row."""
    steps = max(1, _DECODED_ROWS // len(context))
    parts = []
    for begin in range(0, context.shape[1], steps):
        piece = slice(begin, begin + steps)
        some = {key: value[:, piece] for key, value in latent.items()}
        parts.append(agent.decode(state, some, context[:, piece]))
    return {key: torch.cat([part[key].detach().cpu() for part in parts], 1) for key in parts[0]}


def displayed(decoded: Tensor) -> NDArray[np.uint8]:
    """Decoded images, in 0 .. 255, as they are shown: cut to that range and rounded down, like the reference's."""
    return decoded.clamp(0, 255).to(torch.uint8).numpy()


def squared_error(decoded: Tensor, truth: Tensor) -> NDArray[np.float64]:
    """Mean squared error of images [E, T, Y, X, C] over pixels and colors, intensities in [0, 1]: float64 [E, T]."""
    return ((decoded - truth) / 255).square().mean((-3, -2, -1), dtype=torch.float64).numpy()


def read_channels(values: Mapping[str, Tensor], channels: Sequence[Channel]) -> NDArray[np.float64]:
    """Pick the channels out of a batch or decoded values [E, T, ...], in their units: float64 [E, T, K]."""
    columns = []
    for channel in channels:
        value = values[channel.key].double().numpy()
        columns.append(value.reshape(*value.shape[:2], -1)[..., channel.dimension] * channel.scale)
    return np.stack(columns, axis=-1)
