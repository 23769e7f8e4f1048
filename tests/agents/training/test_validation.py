"""Validation: every episode once, whatever the number of environments; seeds of its own."""

import numpy as np
import pytest
import torch
from training_run import tiny_config

from agents.environments import Reset
from agents.training import build
from agents.training.learner import Learner
from agents.training.validation import Episode, Validator, environment_seed, validation_episodes

CONTEXTS = [{"gravity": float(gravity)} for gravity in range(5, 12)]


def make_validator(num_envs, episodes):
    config = tiny_config()
    vector = build.make_vector(config, num_envs)
    agent = build.build_agent(config, vector)
    state = agent.initial_state(1)
    for name, value in state["parameters"].items():  # so that the actions depend on what is seen
        if name.startswith("actor"):
            value.mul_(30.0)
    learner = Learner(agent, state, seed=0, device=torch.device("cpu"))
    return Validator(learner, vector, episodes)


def run_alone(validator, episode):
    """Play one episode on one environment, by hand."""
    vector, learner = build.make_vector(tiny_config(), 1), validator.learner
    carry, total, length = learner.agent.initial_carry(1), 0.0, 0
    command = Reset(episode.seed, episode.context, episode.context_id)
    while True:
        records = vector.step([command])
        total += float(records["reward"][0])
        if records["is_last"][0]:
            return total, length
        action, carry = learner.act(carry, records, None)
        command, length = action[0], length + 1


@pytest.mark.parametrize("num_envs", [1, 2, 5, 8])
def test_results_are_those_of_episodes_played_alone(num_envs):
    episodes = validation_episodes(CONTEXTS, 5, seed=2)
    validator = make_validator(num_envs, episodes)
    validator.run(episodes)
    results = [(result.episode_return, result.length) for result in validator.pop_results()]
    assert results == [run_alone(validator, episode) for episode in episodes]
    assert len(set(results)) > 1  # the episodes do differ
    assert validator.pop_results() == []


def test_episodes_are_fixed_and_spread_over_the_contexts():
    episodes = validation_episodes(CONTEXTS, 16, seed=2)
    assert episodes == validation_episodes(CONTEXTS, 16, seed=2)
    counts = np.bincount([episode.context_id for episode in episodes], minlength=7)
    assert sorted(counts) == [2, 2, 2, 2, 2, 3, 3]
    assert all(episode.context == CONTEXTS[episode.context_id] for episode in episodes)
    assert [e.context_id for e in episodes[:7]] != [e.context_id for e in validation_episodes(CONTEXTS, 7, seed=3)]


def test_no_seed_of_training_is_one_of_validation():
    validation = {episode.seed for episode in validation_episodes(CONTEXTS, 200, seed=0)}
    training = {environment_seed(0, "environment", episode) for episode in range(2000)}
    assert len(validation) == 200
    assert not validation & training
    assert all(0 <= seed < 2**31 for seed in validation | training)


def test_an_episode_names_its_world():
    episode = Episode({"gravity": 5.0}, 3, 7)
    validator = make_validator(1, [episode])
    seen = []
    step = validator.vector.step
    validator.vector.step = lambda commands: seen.append(commands[0]) or step(commands)
    validator.run([episode])
    assert seen[0] == Reset(seed=7, context={"gravity": 5.0}, context_id=3)
