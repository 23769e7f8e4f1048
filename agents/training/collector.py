"""Steps the environments with the agent, records every step, and can be continued exactly.

A tick is: every environment takes the command chosen for it (a reset, or the action of the tick before),
the agent acts on the records that come back, and records and actions are appended to replay. What is still
to be done between two ticks is therefore the agent's carry and, for every environment, either the actions
of its open episode or a reset. An open episode is saved as its seed, context and actions and rebuilt by
playing them again; the rebuilt record must equal the saved one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from agents.dreamerv3 import compact
from agents.environments import Change, ContextDistribution, Reset, VectorEnvironment
from agents.errors import UserError
from agents.replay import Replay
from agents.training.learner import Learner
from agents.training.validation import environment_seed


@dataclass
class OpenEpisode:
    """An episode that has begun: all that is needed to play it again, and its return so far."""

    reset: Reset
    actions: list[np.ndarray] = field(default_factory=list)  # float32 [A]; the last is still to be executed
    episode_return: float = 0.0


class Collector:
    """Feeds replay from a vector of environments.

    Args:
        learner: chooses the actions, sampling, with its state as it is at each tick.
        vector: the E environments.
        replay: where the records go, one stream per environment, and the latents that the agent acted on, if it
            keeps any.
        contexts: the training distribution: the context of each episode by its number.
        seed: the run's seed. Episode ``n`` starts from (seed, "environment", n).
        change_steps: of the agent in an episode, >= 1 and rising, just before which the context changes to another
            one of the training distribution.
        timeouts: ``terminal`` records every last step as a terminal, also those that were cut by time.
    """

    def __init__(
        self,
        learner: Learner,
        vector: VectorEnvironment,
        replay: Replay,
        contexts: ContextDistribution,
        *,
        seed: int,
        change_steps: Sequence[int] = (),
        timeouts: Literal["truncate", "terminal"] = "truncate",
    ) -> None:
        self.learner = learner
        self.vector = vector
        self.replay = replay
        self.contexts = contexts
        self.seed = seed
        self.change_steps = change_steps
        self.timeouts = timeouts
        self.ticks = 0
        self.episodes = 0  # episodes begun
        self.open: list[OpenEpisode | None] = [None] * vector.num_envs  # None: begins with the next tick
        self.carry: dict[str, torch.Tensor] = learner.agent.initial_carry(vector.num_envs)
        self.records: dict[str, np.ndarray] = {}  # of the last tick, [E, ...]
        self.finished: list[tuple[float, int]] = []  # (return, length) of episodes finished in this epoch
        self.dropped = 0  # episodes dropped in this epoch, for an invalid step or a lost worker

    def tick(self) -> None:
        """Step every environment once, choose the next actions and append the E records to replay."""
        commands = [self._command(env) for env in range(self.vector.num_envs)]
        records = self.vector.step(commands)
        action, self.carry = self.learner.act(self.carry, records, self.ticks)
        lost = records.pop("lost")
        records["action"] = np.where(records["is_last"][:, None], np.float32(0), action)
        self.replay.append(records | self._latents() | self._terminals(records), ~lost)
        for env in range(self.vector.num_envs):
            self._account(env, records, bool(lost[env]))
        self.records = records
        self.ticks += 1

    def _terminals(self, records: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return ``is_terminal`` [E] of records with every last one a terminal, if time-outs count as such."""
        return {"is_terminal": records["is_last"]} if self.timeouts == "terminal" else {}

    def _latents(self) -> dict[str, np.ndarray]:
        """Return the compact posteriors [E, ...] of the records acted on, if replay keeps them."""
        if not self.replay.keeps_latents:
            return {}
        latents = compact(self.carry["deter"], self.carry["stoch"])
        return {key: value.cpu().numpy() for key, value in latents.items()}

    def _command(self, env: int) -> Reset | np.ndarray:
        episode = self.open[env]
        if episode is not None:
            return episode.actions[-1]
        context, context_id = self.contexts.context(self.episodes)
        seed = environment_seed(self.seed, "environment", self.episodes)
        changes = tuple(
            Change(step, *self.contexts.context(self.episodes, number))
            for number, step in enumerate(self.change_steps, 1)
        )
        self.episodes += 1
        reset = Reset(seed=seed, context=context, context_id=context_id, changes=changes)
        self.open[env] = OpenEpisode(reset)
        return reset

    def _account(self, env: int, records: dict[str, np.ndarray], lost: bool) -> None:
        episode = self.open[env]
        assert episode is not None
        if lost:
            self.replay.drop_open_episode(env)
            self.open[env] = None
            self.dropped += 1
            return
        episode.episode_return += float(records["reward"][env])
        if records["is_last"][env]:
            self.finished.append((episode.episode_return, len(episode.actions)))
            self.open[env] = None
        else:
            episode.actions.append(records["action"][env].copy())

    def pop_finished(self) -> list[tuple[float, int]]:
        """Return (return, length in environment steps) of the episodes finished since the last call."""
        finished, self.finished = self.finished, []
        return finished

    def pop_dropped(self) -> int:
        """Return the number of episodes dropped since the last call."""
        dropped, self.dropped = self.dropped, 0
        return dropped

    def save(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """Return what continues this collector: JSON-able data and tensors (actions, carry, last records)."""
        tensors = {f"carry/{key}": value for key, value in self.carry.items()}
        tensors |= {f"record/{key}": torch.from_numpy(value.copy()) for key, value in self.records.items()}
        episodes: list[dict[str, Any] | None] = []
        for env, episode in enumerate(self.open):
            episodes.append(None)
            if episode is not None:
                reset = episode.reset
                episodes[env] = {
                    "seed": reset.seed,
                    "context": _numbers(reset.context),
                    "context_id": reset.context_id,
                    "changes": [[c.step, _numbers(c.context), c.context_id] for c in reset.changes],
                }
                tensors[f"actions/{env}"] = torch.from_numpy(np.stack(episode.actions))
        return {"ticks": self.ticks, "episodes": self.episodes, "open": episodes}, tensors

    def restore(self, saved: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        """Continue where ``save`` was called; the environments are played back to where they stood.

        Raises:
            UserError: an environment does not come back to the record that was saved.
        """
        self.ticks, self.episodes = saved["ticks"], saved["episodes"]
        self.carry = {key: tensors[f"carry/{key}"].to(self.learner.device) for key in self.carry}
        self.records = {
            key.removeprefix("record/"): value.numpy() for key, value in tensors.items() if key.startswith("record/")
        }
        self.open = [
            None if entry is None else OpenEpisode(_saved_reset(entry), list(tensors[f"actions/{env}"].numpy()))
            for env, entry in enumerate(saved["open"])
        ]
        self._replay_open_episodes()

    def _replay_open_episodes(self) -> None:
        """Play the open episodes again, all ending on the same step, and compare their last records."""
        episodes = {env: episode for env, episode in enumerate(self.open) if episode is not None}
        steps = max((len(episode.actions) for episode in episodes.values()), default=0)
        begins = {env: steps - len(episode.actions) for env, episode in episodes.items()}
        filler = _Filler(self.contexts, self.records["action"].shape[1])
        records: dict[str, np.ndarray] = {}
        for step in range(steps):
            commands: list[Reset | np.ndarray] = []
            for env in range(self.vector.num_envs):
                if step < begins.get(env, steps):
                    commands.append(filler.command(records, env))
                elif step == begins[env]:
                    commands.append(episodes[env].reset)
                else:
                    commands.append(episodes[env].actions[step - begins[env] - 1])
            records = self.vector.step(commands)
            if any(records["lost"][env] and step >= begin for env, begin in begins.items()):
                raise UserError("an environment worker died while open episodes were rebuilt; run this again")
            for env, episode in episodes.items():
                if step >= begins[env]:
                    episode.episode_return += float(records["reward"][env])
        for env in episodes:
            self._compare(env, records)

    def _compare(self, env: int, records: dict[str, np.ndarray]) -> None:
        differing = [
            key
            for key, saved in self.records.items()
            if key != "action" and not np.array_equal(records[key][env], saved[env])
        ]
        if differing:
            raise UserError(
                f"environment {env}: playing its open episode again gave another {', '.join(differing)}; "
                "exact resume needs the packages and the machine type that the run was started with"
            )


def _numbers(context: Mapping[str, float]) -> dict[str, float]:
    """Return a context as JSON holds it."""
    return {name: float(value) for name, value in context.items()}


def _saved_reset(entry: Mapping[str, Any]) -> Reset:
    """Return the reset that `Collector.save` wrote; what was saved before contexts could change has no changes."""
    changes = tuple(Change(*change) for change in entry.get("changes", ()))
    return Reset(entry["seed"], entry["context"], entry["context_id"], changes)


class _Filler:
    """Commands for an environment that has nothing to do: a reset when it must, else a zero action."""

    def __init__(self, contexts: ContextDistribution, action_size: int) -> None:
        context, context_id = contexts.context(0)
        self.reset = Reset(seed=0, context=context, context_id=context_id)
        self.action = np.zeros(action_size, np.float32)

    def command(self, records: dict[str, np.ndarray], env: int) -> Reset | np.ndarray:
        ready = bool(records) and not records["is_last"][env] and not records["lost"][env]
        return self.action if ready else self.reset


def summarize(finished: Sequence[tuple[float, int]], dropped: int) -> dict[str, float]:
    """Return mean return, mean length and number of finished episodes (means only if there are any).

    Where episodes were dropped, their number is in ``train/dropped``.
    """
    summary = {"train/episodes": float(len(finished))}
    if finished:
        summary["train/return"] = float(np.mean([episode_return for episode_return, _ in finished]))
        summary["train/length"] = float(np.mean([length for _, length in finished]))
    if dropped:
        summary["train/dropped"] = float(dropped)
    return summary
