"""Validation: every episode once, whatever the number of environments; seeds of its own."""

import numpy as np
import pytest
import torch
from training_run import tiny_config

from agents.environments import Reset
from agents.evaluation.episodes import Job
from agents.training import build
from agents.training.learner import Learner
from agents.training.validation import Validator, environment_seed, validation_jobs

CONTEXTS = [{"gravity": float(gravity)} for gravity in range(5, 12)]


def make_validator(num_envs, jobs):
    config = tiny_config()
    environments = [build.make_vector(config, 1) for _ in range(num_envs)]
    agent = build.build_agent(config, environments[0])
    state = agent.initial_state(1)
    for name, value in state["parameters"].items():  # so that the actions depend on what is seen
        if name.startswith("actor"):
            value.mul_(30.0)
    learner = Learner(agent, state, seed=0, device=torch.device("cpu"))
    return Validator(learner, environments, jobs)


def run_alone(validator, job):
    """Play one episode on one environment, by hand."""
    vector, learner = build.make_vector(tiny_config(), 1), validator.learner
    carry, total, length = learner.agent.initial_carry(1), 0.0, 0
    command = Reset(job.seed, job.context, job.context_id)
    while True:
        records = vector.step([command])
        total += float(records["reward"][0])
        if records["is_last"][0]:
            return total, length
        tensors = {key: torch.tensor(value) for key, value in records.items()}
        action, carry = learner.agent.act(learner.state, carry, tensors, None)
        command, length = action[0].numpy(), length + 1


@pytest.mark.parametrize("num_envs", [1, 2, 5, 8])
def test_results_are_those_of_episodes_played_alone(num_envs):
    jobs = validation_jobs(CONTEXTS, 5, seed=2)
    validator = make_validator(num_envs, jobs)
    validator.run(jobs)
    results = [(episode.episode_return, episode.length) for episode in validator.pop_episodes()]
    assert results == [run_alone(validator, job) for job in jobs]
    assert len(set(results)) > 1  # the episodes do differ
    assert validator.pop_episodes() == []


def test_episodes_are_fixed_and_spread_over_the_contexts():
    episodes = validation_jobs(CONTEXTS, 16, seed=2)
    assert episodes == validation_jobs(CONTEXTS, 16, seed=2)
    counts = np.bincount([episode.context_id for episode in episodes], minlength=7)
    assert sorted(counts) == [2, 2, 2, 2, 2, 3, 3]
    assert all(episode.context == CONTEXTS[episode.context_id] for episode in episodes)
    assert [e.context_id for e in episodes[:7]] != [e.context_id for e in validation_jobs(CONTEXTS, 7, seed=3)]


def test_no_seed_of_training_is_one_of_validation():
    validation = {episode.seed for episode in validation_jobs(CONTEXTS, 200, seed=0)}
    training = {environment_seed(0, "environment", episode) for episode in range(2000)}
    assert len(validation) == 200
    assert not validation & training
    assert all(0 <= seed < 2**31 for seed in validation | training)


def test_an_episode_is_played_in_its_world():
    job = Job("validation", 3, {"gravity": 5.0}, 7)
    validator = make_validator(1, [job])
    seen = []
    (environment,) = validator.environments
    step = environment.step
    environment.step = lambda commands: seen.append(commands[0]) or step(commands)
    validator.run([job])
    assert seen[0] == Reset(seed=7, context={"gravity": 5.0}, context_id=3)
