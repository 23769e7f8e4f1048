"""What is recorded, and that open episodes are rebuilt exactly."""

import json
from functools import partial

import numpy as np
import pytest
import torch
from training_run import tiny_config

from agents.environments import Reset, SerialVector, make_environment
from agents.errors import UserError
from agents.replay import Replay
from agents.training import build
from agents.training.collector import Collector
from agents.training.learner import Learner
from agents.training.scaling import ScaledVector
from agents.training.validation import environment_seed


class Scripted:
    """Two environments whose episodes have 2 and 3 steps; observation: 10 * environment + step; no end is a
    terminal in environment 1. It checks the protocol and remembers its commands."""

    num_envs = 2
    features = ()

    def __init__(self, lose_at=None):
        self.commands = []
        self.lose_at = lose_at
        self.step_of = [None, None]
        self.context_id = [-1, -1]

    def step(self, commands):
        self.commands.append(list(commands))
        records = {
            "observation/state": np.zeros((2, 1), np.float32),
            "reward": np.zeros(2, np.float32),
            "is_first": np.zeros(2, bool),
            "is_terminal": np.zeros(2, bool),
            "is_last": np.zeros(2, bool),
            "lost": np.zeros(2, bool),
            "context": np.zeros((2, 0), np.float32),
        }
        for env, command in enumerate(commands):
            if isinstance(command, Reset):
                self.step_of[env] = 0
                records["is_first"][env] = True
                self.context_id[env] = command.context_id
            else:
                assert self.step_of[env] is not None, "an action where a reset is due"
                self.step_of[env] += 1
                records["reward"][env] = 1 + env
            if (len(self.commands) - 1, env) == self.lose_at:
                records["lost"][env] = True
                self.step_of[env] = None
                continue
            records["observation/state"][env] = 10 * env + self.step_of[env]
            if self.step_of[env] == 2 + env:
                records["is_last"][env] = True
                records["is_terminal"][env] = env == 0
                self.step_of[env] = None
        return records | {"context_id": np.array(self.context_id, np.int32)}


class Countdown:
    """Stands for a learner: its actions are -1, -2, ... and it remembers what it saw."""

    device = torch.device("cpu")

    def __init__(self):
        self.agent = self
        self.calls = []

    def initial_carry(self, num_envs):
        return {"memory": torch.zeros(num_envs, 1)}

    def act(self, carry, records, tick):
        self.calls.append((tick, records["observation/state"].copy()))
        return np.full((2, 1), -1.0 - tick, np.float32), {"memory": carry["memory"] + 1}


class Contexts:
    """Numbers the episodes by their context's id."""

    def context(self, episode):
        return {}, episode


KEYS = ("observation/state", "action", "reward", "is_first", "is_terminal", "is_last", "context_id")


def scripted_replay():
    from agents.replay import Spec

    kinds = {"is_first": bool, "is_terminal": bool, "is_last": bool, "context_id": "int32"}
    shapes = {"observation/state": (1,), "action": (1,)}
    specs = {key: Spec(shapes.get(key, ()), kinds.get(key, "float32")) for key in KEYS}
    return Replay(specs, capacity=100, streams=2, page_length=8)


def content(replay, env):
    """Return the records of one stream as rows of KEYS."""
    length = int(replay._length[env])
    rows = replay._pages[0].table.rows(np.array([env]), np.arange(length)[None])
    gathered = replay.store.storage.gather(torch.from_numpy(rows.reshape(-1)))
    return [tuple(float(gathered[key][row].item()) for key in KEYS) for row in range(length)]


def test_records_by_hand():
    vector, learner, replay = Scripted(), Countdown(), scripted_replay()
    collector = Collector(learner, vector, replay, Contexts(), seed=7)
    for _ in range(5):
        collector.tick()
    # observation, action chosen after it (0 at the last record), reward on arriving, flags, episode
    assert content(replay, 0) == [
        (0, -1, 0, 1, 0, 0, 0),
        (1, -2, 1, 0, 0, 0, 0),
        (2, 0, 1, 0, 1, 1, 0),
        (0, -4, 0, 1, 0, 0, 2),
        (1, -5, 1, 0, 0, 0, 2),
    ]
    assert content(replay, 1) == [
        (10, -1, 0, 1, 0, 0, 1),
        (11, -2, 2, 0, 0, 0, 1),
        (12, -3, 2, 0, 0, 0, 1),
        (13, 0, 2, 0, 0, 1, 1),
        (10, -5, 0, 1, 0, 0, 3),
    ]
    assert collector.pop_finished() == [(2.0, 2), (6.0, 3)]
    assert collector.pop_finished() == []
    assert [tick for tick, _ in learner.calls] == [0, 1, 2, 3, 4]
    assert float(collector.carry["memory"][0]) == 5
    # The command of a tick is the action of the tick before, or a reset after a last record.
    given = [["reset" if isinstance(c, Reset) else float(c[0]) for c in pair] for pair in vector.commands]
    assert given == [["reset", "reset"], [-1, -1], [-2, -2], ["reset", -3], [-4, "reset"]]
    resets = [command for pair in vector.commands for command in pair if isinstance(command, Reset)]
    seeds = [reset.seed for reset in resets]
    assert seeds == [environment_seed(7, "environment", episode) for episode in range(4)]
    assert [reset.context_id for reset in resets] == [0, 1, 2, 3]


def test_a_lost_episode_is_dropped_and_another_begun():
    vector, replay = Scripted(lose_at=(1, 1)), scripted_replay()
    collector = Collector(Countdown(), vector, replay, Contexts(), seed=0)
    for _ in range(3):
        collector.tick()
    assert len(content(replay, 0)) == 3
    assert content(replay, 1) == [(10, -3, 0, 1, 0, 0, 2)]
    assert collector.pop_finished() == [(2.0, 2)]


def make_collector(name="cartpole", seed=3):
    environment = {"name": name, "num_envs": 3, "features": ("gravity",), "time_limit": 30}
    config = tiny_config(seed=seed, environment=environment, replay={"capacity": 1000})
    vector = build.make_vector(config, 3)
    agent = build.build_agent(config, vector)
    state = agent.initial_state(seed)
    for key, value in state["parameters"].items():  # so that the actions depend on the carry
        if key.startswith("actor"):
            value.mul_(30.0)
    learner = Learner(agent, state, seed=seed, device=torch.device("cpu"))
    replay = Replay(build.record_specs(vector), capacity=1000, streams=3, page_length=16)
    return Collector(learner, vector, replay, build.training_distribution(config), seed=seed)


@pytest.mark.parametrize(
    ("name", "ticks"),
    [("cartpole", 1), ("cartpole", 2), ("cartpole", 17), ("cartpole", 40), ("dmc/walker/walk", 40)],
)
def test_continues_exactly(name, ticks):
    collector = make_collector(name)
    for _ in range(ticks):
        collector.tick()
    saved, tensors = collector.save()
    saved = json.loads(json.dumps(saved))
    tensors = {name: value.clone() for name, value in tensors.items()}
    other = make_collector(name)
    other.restore(saved, tensors)
    assert [e and e.episode_return for e in other.open] == [e and e.episode_return for e in collector.open]
    assert all(torch.equal(value, other.carry[key]) for key, value in collector.carry.items())
    collector.pop_finished()
    for _ in range(60):
        collector.tick()
        other.tick()
        for key, value in collector.records.items():
            assert np.array_equal(value, other.records[key]), key
        assert collector.carry.keys() == other.carry.keys()
        for key, value in collector.carry.items():
            assert torch.equal(value, other.carry[key]), key
    assert collector.pop_finished() == other.pop_finished() != []
    assert collector.episodes == other.episodes


class Changing:
    """Tells every context by its id."""

    def context(self, episode, change=0):
        return {"gravity": 5.0 + (episode + 3 * change) % 7}, episode + 100 * change


@pytest.mark.parametrize("ticks", [2, 3, 4, 17])
def test_changes_of_open_episodes_continue_exactly(ticks):
    def make():
        collector = make_collector()
        collector.contexts = Changing()
        collector.change_steps = (3, 6)
        return collector

    collector = make()
    for _ in range(ticks):
        collector.tick()
    saved, tensors = collector.save()
    saved = json.loads(json.dumps(saved))
    other = make()
    other.change_steps = ()  # of episodes to come; the open ones have their changes saved
    other.restore(saved, {name: value.clone() for name, value in tensors.items()})
    assert [episode.reset for episode in other.open if episode] == [e.reset for e in collector.open if e]
    other.change_steps = (3, 6)
    seen = set()
    for _ in range(20):
        collector.tick()
        other.tick()
        seen |= {int(number) // 100 for number in collector.records["context_id"]}
        for key, value in collector.records.items():
            assert np.array_equal(value, other.records[key]), key
    assert seen == {0, 1, 2}  # both changes happened


def test_a_checkpoint_from_before_contexts_could_change_is_continued():
    collector = make_collector()
    for _ in range(9):
        collector.tick()
    saved, tensors = collector.save()
    for entry in saved["open"]:
        assert entry is None or entry.pop("changes") == []
    other = make_collector()
    other.restore(saved, tensors)
    assert [episode and episode.reset for episode in other.open] == [e and e.reset for e in collector.open]


def test_an_environment_that_does_not_come_back_is_told():
    collector = make_collector()
    for _ in range(5):
        collector.tick()
    saved, tensors = collector.save()
    tensors["record/observation/state"] = tensors["record/observation/state"] + 1e-6
    with pytest.raises(UserError, match="observation/state") as told:
        make_collector().restore(saved, tensors)
    assert "\n" not in str(told.value)


def test_scaled_observations():
    make = partial(make_environment, "cartpole")
    plain, scaled = SerialVector([make] * 2), ScaledVector(SerialVector([make] * 2), {"state": [2, 4, 0.5, 1]})
    for command in (Reset(seed=5), np.array([1, 0], np.float32), np.array([0, 1], np.float32)):
        records, divided = plain.step([command] * 2), scaled.step([command] * 2)
        expected = records["observation/state"] / np.array([2, 4, 0.5, 1], np.float32)
        assert np.array_equal(divided["observation/state"], expected)
        assert np.array_equal(divided["reward"], records["reward"])
    assert scaled.observation_space["state"].high[0] == plain.observation_space["state"].high[0] / 2
    with pytest.raises(UserError, match="valid: state"):
        ScaledVector(plain, {"position": [1.0]})
    with pytest.raises(UserError, match="2 numbers"):
        ScaledVector(plain, {"state": [1.0, 2.0]})
