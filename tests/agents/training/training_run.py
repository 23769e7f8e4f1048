"""Runs of seconds for the tests of training: a tiny agent, CartPole, and a world that is trivial to master."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from agents.configuration import RunConfig
from agents.environments import ContextualEnv, Feature

TINY_AGENT = {
    "horizon": 2,
    "actor_layers": 1,
    "critic_layers": 1,
    "world_model": {"deter": 16, "hidden": 8, "stoch": 2, "classes": 4, "units": 16, "blocks": 2},
    "hyperparameters": {"learning_rate": 1e-3, "warmup": 5.0, "entropy": 3e-3},
}


def tiny_config(**sections: Mapping[str, Any]) -> RunConfig:
    """A run of 4 epochs on CartPole: 120 environment steps, 2 environments, 33 updates.

    Args:
        sections: fields of a section that replace those here; other keywords replace top-level values.
    """
    data: dict[str, Any] = {
        "name": "tiny",
        "seed": 3,
        "environment": {"name": "cartpole", "num_envs": 2, "features": ("gravity", "length")},
        "contexts": {"training": {"distribution": "round_robin", "ranges": {"gravity": (4.9, 14.7)}, "count": 5}},
        "agent": TINY_AGENT,
        "replay": {"capacity": 100, "page_length": 16},
        "training": {
            "environment_steps": 120,
            "epoch_steps": 30,
            "start_steps": 20,
            "train_ratio": 8.0,
            "batch_size": 4,
            "batch_length": 6,
            "device": "cpu",
        },
        "evaluation": {"validation_episodes": 3},
    }
    for name, values in sections.items():
        data[name] = {**data[name], **values} if isinstance(values, Mapping) else values
    return RunConfig.model_validate(data)


def board_scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return what TensorBoard shows of a folder: for each metric its (step, value as float32) in order."""
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def table_scalars(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the same of a CSV table, the columns that TensorBoard leaves out aside."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    return {
        name: [(int(row["env_steps"]), float(np.float32(row[name]))) for row in rows if row[name]]
        for name in rows[0].keys() - {"epoch", "env_steps"}
    }


class Beacon(ContextualEnv):
    """Six guesses between two actions, 1 for each right one: a perfect agent gets 6, a random one 3.

    In ``beacon-light`` the light that is on tells which is right, in ``beacon-sign`` only the context does.
    """

    def __init__(self, answer: str, *, features=None, time_limit=None, action_repeat=1) -> None:
        super().__init__(
            "beacon",
            [Feature("sign", "1", 1.0, -1.0, 1.0, "which action is right in beacon-sign")],
            gymnasium.spaces.Dict({"light": gymnasium.spaces.Box(0.0, 1.0, (2,), np.float32)}),
            gymnasium.spaces.Discrete(2),
            features=features,
            time_limit=time_limit or 6,
            action_repeat=action_repeat,
        )
        self._answer = answer

    def _apply_context(self, context: Mapping[str, float]) -> None:
        self._sign = int(context["sign"] > 0)

    def _reset_world(self, seed: int | None) -> dict[str, np.ndarray]:
        return self._observe()

    def _step_world(self, action: int) -> tuple[dict[str, np.ndarray], float, bool, bool]:
        right = self._light if self._answer == "light" else self._sign
        return self._observe(), float(action == right), False, False

    def _observe(self) -> dict[str, np.ndarray]:
        self._light = int(self.np_random.integers(2))
        return {"light": np.eye(2, dtype=np.float32)[self._light]}


def beacon_config(answer: str, seed: int) -> RunConfig:
    """A run of 3 epochs, 260 updates, on ``beacon-<answer>``, in two contexts."""
    world_model = {**TINY_AGENT["world_model"], "context": "crssm", "units": 32, "deter": 32}
    return tiny_config(
        seed=seed,
        environment={"name": f"beacon-{answer}", "num_envs": 8, "features": None},
        contexts={"training": {"distribution": "fixed", "contexts": ({"sign": 1.0}, {"sign": -1.0})}},
        agent={
            "world_model": world_model,
            "hyperparameters": {
                "learning_rate": 1e-2,
                "warmup": 10.0,
                "entropy": 0.1,
                "discount_horizon": 1.5,
                "slow_rate": 0.1,
            },
        },
        training={
            "environment_steps": 1200,
            "epoch_steps": 400,
            "start_steps": 160,
            "train_ratio": 32.0,
            "batch_size": 16,
            "batch_length": 8,
        },
        replay={"capacity": 10000, "page_length": 256},
        evaluation={"validation_episodes": 16},
    )
