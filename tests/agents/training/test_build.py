"""From the configuration to contexts: which, in which order, and the ranges that the agent is told."""

from types import SimpleNamespace

import pytest
from gymnasium.spaces import Box, Dict, Discrete
from training_run import tiny_config

from agents.errors import UserError
from agents.training import build


def order(config, episodes=20):
    distribution = build.training_distribution(config)
    return [distribution.context(episode) for episode in range(episodes)]


def with_contexts(seed=3, **training):
    ranges = {"gravity": (4.9, 14.7)}
    return tiny_config(seed=seed, contexts={"training": {"ranges": ranges, **training}})


def test_the_runs_seed_decides_the_order_of_the_contexts_and_not_the_list():
    runs = [with_contexts(seed, distribution="round_robin", count=5) for seed in (3, 4)]
    lists = [build.training_contexts(config) for config in runs]
    assert lists[0] == lists[1]
    assert order(runs[0]) == order(runs[0])
    assert order(runs[0]) != order(runs[1])
    for config in runs:
        assert {context_id for _, context_id in order(config)} == set(range(5))


def test_the_runs_seed_decides_contexts_that_are_drawn_afresh():
    runs = [with_contexts(seed, distribution="uniform", count=5) for seed in (3, 4)]
    assert order(runs[0]) == order(runs[0])
    assert order(runs[0]) != order(runs[1])


@pytest.mark.parametrize("distribution", ["round_robin", "uniform"])
def test_the_agent_is_told_the_configured_ranges(distribution):
    """Not those of the few contexts that were drawn; a feature that does not vary stays at its default."""
    config = with_contexts(distribution=distribution, count=5)
    vector = build.make_vector(config, 1)
    spec = build.context_spec(config, vector)
    default = next(feature.default for feature in vector.features if feature.name == "length")
    assert spec.names == ("gravity", "length")
    assert spec.low == (4.9, default)
    assert spec.high == (14.7, default)


def test_the_ranges_of_listed_contexts_are_their_extremes():
    contexts = ({"gravity": 5.0, "length": 1.0}, {"gravity": 12.0}, {"gravity": 7.0, "length": 0.25})
    config = tiny_config(contexts={"training": {"distribution": "fixed", "contexts": contexts}})
    spec = build.context_spec(config, build.make_vector(config, 1))
    assert (spec.low, spec.high) == ((5.0, 0.25), (12.0, 1.0))
    assert [context for context, _ in order(config, 4)] == [*contexts, contexts[0]]


def test_observations_that_no_world_model_reads_are_told_in_one_line():
    config = tiny_config()
    space = Dict({"picture": Box(0, 255, (60, 80, 3), "uint8")})
    features = build.make_vector(config, 1).features
    vector = SimpleNamespace(observation_space=space, action_space=Discrete(2), features=features)
    with pytest.raises(UserError, match=r"environment cartpole: observation 'picture' has shape \(60, 80, 3\); valid"):
        build.build_agent(config, vector)
