"""The learner: noise by counters, metrics averaged."""

import numpy as np
import pytest
import torch
from training_run import tiny_config

from agents.replay import Replay
from agents.seeding import numpy_generator, torch_generator
from agents.training import build
from agents.training.collector import Collector
from agents.training.learner import Learner


def test_metrics_are_means_over_the_updates_since_they_were_taken():
    """Three updates against the same ones by hand, each with the noise that its number tells."""
    config = tiny_config()
    vector = build.make_vector(config, 2)
    agent = build.build_agent(config, vector)
    learner = Learner(agent, agent.initial_state(5), seed=5, device=torch.device("cpu"))
    replay = Replay(build.record_specs(vector), capacity=100, streams=2, page_length=16)
    collector = Collector(learner, vector, replay, build.training_distribution(config), seed=5)
    for _ in range(20):
        collector.tick()
    batches = [replay.sample(4, 6, numpy_generator(5, "sample", number)) for number in range(3)]
    state, by_hand = agent.initial_state(5), []
    for number, batch in enumerate(batches):
        noise = agent.update_noise(4, 6, torch_generator(5, "update", number))
        state, metrics, _ = agent.update(state, batch, noise)
        by_hand.append({name: value.item() for name, value in metrics.items()})
    assert by_hand[0]["loss/total"] != by_hand[1]["loss/total"]

    assert learner.pop_metrics() == {}
    learner.update(batches[0])
    learner.update(batches[1])
    means = {name: np.mean([by_hand[0][name], by_hand[1][name]]) for name in by_hand[0]}
    assert learner.pop_metrics() == pytest.approx(means, rel=1e-6)
    assert learner.pop_metrics() == {}
    learner.update(batches[2])
    assert learner.pop_metrics() == pytest.approx(by_hand[2], rel=1e-6)
    assert learner.updates == 3
