"""Latents at chosen moments of recorded episodes: posterior, inferred, imagined, and what is seen without a model.

Symbols: E episodes; T records; N moments; D width of what is read; H imagined steps; K what conditions a dream.

A record at step t holds the observation at t and the action chosen after it. A posterior at t has seen records up to t.
Imagination from the posterior at t takes the recorded actions of t, t+1, ...; its h-th state is that of step t+h.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int, Num
from numpy import ndarray
from torch import Tensor

from agents.dreaming.dreams import OBSERVED, DreamingAgent, collate
from agents.evaluation.rollout import Episode
from agents.latent_analysis.probe import MIN_CONTEXTS

#: Moments of an episode whose posteriors are probed together, evenly spread from the step OBSERVED - 1 on.
SPREAD = 6
#: Dreams that begin in an episode.
STARTS = 3
#: Points at which the steps of episodes and the horizons of dreams are looked at one by one, beside 0.
POINTS = 9
#: Share of the contexts that must be left where points are compared: those whose episodes end sooner are in none.
LEFT = 0.75

#: What is read. `BOTH` is deter and stoch together, `HISTORY` the last OBSERVED observations and the actions between.
DETER, STOCH, BOTH, CODE, OBSERVATION, HISTORY = "deter", "stoch", "both", "code", "observation", "history"

_ROWS = 2048  # records that are observed at once: images take much memory
_POOLED = 8  # images stand for themselves in 8 x 8 means


class ReadableAgent(DreamingAgent, Protocol):
    """The part of an agent that the analysis uses; see ``agents.dreamerv3``."""

    @property
    def infers(self) -> bool:
        """Whether the agent infers the context, instead of being told it."""
        ...

    def condition(self, state: Any, batch: Mapping[str, Tensor]) -> Tensor:
        """The context at every step [E, T, K], in the form that ``imagine`` takes."""
        ...


@dataclass(frozen=True)
class Latents:
    """What is to be read at N moments.

    Attributes:
        episode: int64 [N], index of the episode.
        step: int64 [N], step of the episode.
        series: int64 [N], number of what the moment belongs to: an episode, or a dream of one.
        values: float32 [N, D] by what it is, such as ``BOTH``.
    """

    episode: ndarray
    step: ndarray
    series: ndarray
    values: dict[str, ndarray]

    def __getitem__(self, rows: ndarray) -> "Latents":
        """Return some of the moments."""
        values = {name: value[rows] for name, value in self.values.items()}
        return Latents(self.episode[rows], self.step[rows], self.series[rows], values)


@dataclass(frozen=True)
class Collection:
    """Latents of E episodes.

    Attributes:
        posterior: posteriors evenly spread over each episode, with everything that can be read at them.
        by_step: by step of the episode, what can be read there: ``BOTH``, ``OBSERVATION`` and, if inferred, ``CODE``.
        imagined: by horizon, imagined states (``BOTH``); horizon 0 is the posterior they start from.
    """

    posterior: Latents
    by_step: dict[int, Latents]
    imagined: dict[int, Latents]


def spread_points(last: int) -> list[int]:
    """Points from 0 to ``last``, dense in the beginning: 0 and at most POINTS whole numbers in geometric steps."""
    return [0, *np.unique(np.geomspace(1, max(last, 1), POINTS).round().astype(int)).tolist()]


def read_latents(
    agent: ReadableAgent, state: Any, episodes: Sequence[Episode], first: int, steps: int, horizon: int
) -> Collection:
    """Read the latents of recorded episodes.

    Args:
        agent: observes and imagines in modes, without noise.
        state: the agent's state tree.
        episodes: with records, each of OBSERVED - 1 steps at least.
        first: index of the first one, for ``Latents.episode``.
        steps: the steps of a whole episode.
        horizon: H.
    """
    group = max(1, _ROWS // max(1 + episode.length for episode in episodes))
    parts = [
        _read(agent, state, episodes[begin : begin + group], first + begin, steps, horizon)
        for begin in range(0, len(episodes), group)
    ]
    return join(parts)


def join(parts: Sequence[Collection]) -> Collection:
    """Put the collections of different episodes together."""
    return Collection(
        _concatenate([part.posterior for part in parts]),
        {step: _concatenate([part.by_step[step] for part in parts]) for step in parts[0].by_step},
        {h: _concatenate([part.imagined[h] for part in parts]) for h in parts[0].imagined},
    )


def comparable(points: Mapping[int, Latents], groups: Int[ndarray, " E"]) -> dict[int, Latents]:
    """Return the points that can be compared, each with the moments that go on to the last of them.

    That last one is the farthest that a share LEFT of the contexts reaches, and as many as a probe needs. Whatever ends
    sooner is left out at every point, so that no difference between points is one between contexts.

    Args:
        points: moments by steps after a start, such as horizons; they get fewer as episodes end.
        groups: the context of each episode, MIN_CONTEXTS of them at the first point.
    """
    left = {point: len(np.unique(groups[at.episode])) for point, at in points.items()}
    enough = max(LEFT * left[min(left)], MIN_CONTEXTS)
    reached = [point for point in left if left[point] >= enough]
    last = points[max(reached)].series
    return {point: points[point][np.isin(points[point].series, last)] for point in sorted(reached)}


def _read(
    agent: ReadableAgent, state: Any, episodes: Sequence[Episode], first: int, steps: int, horizon: int
) -> Collection:
    """Read the latents of episodes that fit into memory together."""
    lengths = np.array([episode.length for episode in episodes])
    batch, _ = collate([episode.records for episode in episodes], 1 + int(lengths.max()))
    tensors = {key: torch.from_numpy(value) for key, value in batch.items()}
    posterior = agent.observe(state, tensors)
    given = agent.condition(state, tensors)
    readable = _flat(posterior) | {OBSERVATION: flat_observations(batch)}
    if agent.infers:
        readable[CODE] = given.float().cpu().numpy()

    def pick(episode: ndarray, step: ndarray, names: Sequence[str]) -> Latents:
        values = {name: readable[name][episode, step] for name in names if name in readable}
        return Latents(first + episode, step, first + episode, values)

    spread = [np.unique(np.linspace(OBSERVED - 1, length, SPREAD).round().astype(int)) for length in lengths]
    episode, step = _pairs(spread)
    moments = pick(episode, step, (DETER, STOCH, BOTH, CODE, OBSERVATION))
    moments.values[HISTORY] = recent(readable[OBSERVATION], batch["action"], episode, step)
    by_step = {
        point: pick(reached, np.full(len(reached), point), (BOTH, CODE, OBSERVATION))
        for point in spread_points(steps)
        for reached in [np.flatnonzero(lengths >= point)]
    }
    return Collection(
        moments, by_step, _imagine(agent, state, posterior, given, batch["action"], lengths, first, horizon)
    )


def _imagine(
    agent: ReadableAgent,
    state: Any,
    posterior: Mapping[str, Tensor],
    given: Tensor,
    actions: ndarray,
    lengths: ndarray,
    first: int,
    horizon: int,
) -> dict[int, Latents]:
    """Dream on from moments of each episode; by horizon, the states of steps that were recorded too."""
    begins = [
        np.unique(np.linspace(OBSERVED - 1, max(OBSERVED - 1, length - horizon), STARTS).round().astype(int))
        for length in lengths
    ]
    episode, begin = _pairs(begins)
    series = (first + episode) * STARTS + np.concatenate([np.arange(len(some)) for some in begins])
    padded = np.pad(actions, ((0, 0), (0, horizon), (0, 0)))
    taken = padded[episode[:, None], begin[:, None] + np.arange(horizon)]
    start = {key: posterior[key][episode, begin] for key in ("deter", "stoch")}
    dreamt = agent.imagine(state, start, torch.from_numpy(taken), given[episode, begin])
    flat = _flat({key: torch.cat([start[key][:, None], dreamt[key]], 1) for key in start})[BOTH]  # [B, 1 + H, D]
    imagined = {}
    for point in spread_points(horizon):
        rows = np.flatnonzero(begin + point <= lengths[episode])
        values = {BOTH: flat[rows, point]}
        imagined[point] = Latents(first + episode[rows], begin[rows] + point, series[rows], values)
    return imagined


def flat_observations(records: Mapping[str, ndarray]) -> Float[ndarray, "E T O"]:
    """Return all observations of records [E, T, ...] side by side, images as means of 8 x 8 regions, in [0, 1]."""
    columns = []
    for key in sorted(key for key in records if key.startswith("observation/")):
        value = records[key]
        if value.ndim == 5:
            episodes, steps, height, width, colors = value.shape
            shape = (episodes, steps, _POOLED, height // _POOLED, _POOLED, width // _POOLED, colors)
            value = value.reshape(shape).mean((3, 5), dtype=np.float32) / 255
        columns.append(value.reshape(*value.shape[:2], -1).astype(np.float32))
    return np.concatenate(columns, -1)


def recent(
    observations: Float[ndarray, "E T O"],
    actions: Num[ndarray, "E T A"],
    episode: Int[ndarray, " N"],
    step: Int[ndarray, " N"],
) -> Float[ndarray, "N W"]:
    """Return the last OBSERVED observations at moments, and the actions between them, side by side."""
    seen = [observations[episode, step - back] for back in range(OBSERVED)]
    done = [actions[episode, step - back].astype(np.float32) for back in range(1, OBSERVED)]
    return np.concatenate([*seen, *done], -1)


def _flat(latent: Mapping[str, Tensor]) -> dict[str, ndarray]:
    """Latents [..., ...] as they are read: float32 [E, T, D]."""
    deter = latent["deter"].float().cpu().numpy()
    stoch = latent["stoch"].float().flatten(2).cpu().numpy()
    return {DETER: deter, STOCH: stoch, BOTH: np.concatenate([deter, stoch], -1)}


def _pairs(steps: Sequence[ndarray]) -> tuple[ndarray, ndarray]:
    """Indices of episodes and their steps, one after the other."""
    return np.repeat(np.arange(len(steps)), [len(some) for some in steps]), np.concatenate(steps)


def _concatenate(parts: Sequence[Latents]) -> Latents:
    values = {name: np.concatenate([part.values[name] for part in parts]) for name in parts[0].values}
    episode, step, series = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("episode", "step", "series")
    )
    return Latents(episode, step, series, values)
