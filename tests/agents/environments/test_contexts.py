"""What contexts may be, how they are told and where they come from."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.environments import (
    FixedContexts,
    RoundRobin,
    UniformContexts,
    change_steps,
    draw_contexts,
    make_environment,
)
from agents.errors import UserError


def test_context_is_complete_and_told_in_the_order_of_the_features():
    env = make_environment("cartpole", features=["length", "gravity"])
    assert [feature.name for feature in env.features] == ["length", "gravity"]
    assert env.context == {"length": 0.5, "gravity": 9.8}
    _, info = env.reset(seed=0, options={"context": {"gravity": 4.9}, "context_id": 3})
    assert env.context == {"length": 0.5, "gravity": 4.9}
    for info_now in (info, env.step(0)[4], env.reset()[1]):  # a reset without options keeps the context
        assert info_now["context_id"] == 3
        assert info_now["context"].dtype == np.float32
        np.testing.assert_array_equal(info_now["context"], np.float32([0.5, 4.9]))
    _, info = env.reset(options={"context": {"length": 0.7}})  # the others return to their default
    assert env.context == {"length": 0.7, "gravity": 9.8}
    assert info["context_id"] == -1


def test_features_that_are_not_exposed_stay_at_their_default():
    partly, fully = make_environment("cartpole", features=["gravity"]), make_environment("cartpole")
    for env in (partly, fully):
        env.reset(seed=0, options={"context": {"gravity": 5.0}})
    for action in (0, 1, 1):
        np.testing.assert_array_equal(partly.step(action)[0]["state"], fully.step(action)[0]["state"])
    with pytest.raises(UserError, match="'length'; valid: gravity$"):
        partly.set_context({"length": 0.5})


def test_set_context_acts_at_once():
    env, other = make_environment("cartpole"), make_environment("cartpole")
    for one in (env, other):
        one.reset(seed=0)
    env.set_context({"force_mag": 1.0})
    assert abs(env.step(1)[0]["state"][1]) < 0.2 * abs(other.step(1)[0]["state"][1])


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ({"gravty": 9.0}, "unknown context feature 'gravty'; valid: gravity, masscart, .*, tau"),
        ({"gravity": 1e3}, "context feature gravity is 1000.0, but must be a number from 0.1 to 100"),
        ({"gravity": 0.0999}, "context feature gravity is 0.0999, but must be .*"),
        ({"length": math.nan}, "context feature length is nan, but must be a number from 0.05 to 5"),
        ({"length": math.inf}, "context feature length is inf, but must be .*"),
        ({"tau": "fast"}, "context feature tau is 'fast', but must be .*"),
        ({"tau": None}, "context feature tau is None, but must be .*"),
    ],
)
def test_a_bad_context_is_one_line_and_changes_nothing(context, message):
    env = make_environment("cartpole")
    env.reset(seed=0, options={"context": {"gravity": 5.0}, "context_id": 2})
    for attempt in (env.set_context, env.complete_context, lambda c: env.reset(options={"context": c})):
        with pytest.raises(UserError, match=f"^environment cartpole: {message}$") as caught:
            attempt(context)
        assert "\n" not in str(caught.value)
    assert env.context["gravity"] == 5.0


def test_bounds_are_inclusive():
    env = make_environment("cartpole")
    for feature in env.features:
        assert feature.low < feature.default < feature.high
        for value in (feature.low, feature.high):
            assert env.complete_context({feature.name: value})[feature.name] == value


def test_unknown_option_and_feature_and_environment():
    with pytest.raises(UserError, match="unknown reset option 'contxt'; valid: context, context_id, changes"):
        make_environment("cartpole").reset(options={"contxt": {}})
    with pytest.raises(UserError, match="unknown feature 'mass'; valid: g, m, l, dt"):
        make_environment("pendulum", features=["mass"])
    with pytest.raises(UserError, match="feature 'm' is listed twice"):
        make_environment("pendulum", features=["m", "g", "m"])
    for name in ("carpole", "cartpole/swingup", "dmc", "dmc/walker", "dmc/walker/walk/fast", ""):
        with pytest.raises(UserError, match="valid: cartpole, pendulum, .*dmc/<domain>/<task>, gym/<id>, .*"):
            make_environment(name)


def test_fixed_contexts_take_turns():
    distribution = FixedContexts([{"gravity": 1.0}, {}])
    assert [distribution.context(episode) for episode in (0, 1, 2, 7)] == [
        ({"gravity": 1.0}, 0),
        ({}, 1),
        ({"gravity": 1.0}, 0),
        ({}, 1),
    ]


@settings(deadline=None, derandomize=True)  # the first call imports torch
@given(count=st.integers(1, 8), seed=st.integers(0, 2**63 - 1), turn=st.integers(0, 10**6))
def test_round_robin_serves_everyone_once_per_pass(count, seed, turn):
    distribution = RoundRobin([{"gravity": float(value)} for value in range(count)], seed)
    served = [distribution.context(turn * count + place) for place in range(count)]
    assert sorted(index for _, index in served) == list(range(count))
    assert all(context == {"gravity": index} for context, index in served)


def test_round_robin_shuffles_each_pass_anew_and_by_seed():
    contexts = [{"gravity": float(value)} for value in range(5)]

    def orders(seed):
        distribution = RoundRobin(contexts, seed)
        return [tuple(distribution.context(5 * turn + place)[1] for place in range(5)) for turn in range(600)]

    counts = Counter(orders(0))
    assert len(counts) > 110  # of 120 orders; 600 * 1/120 = 5 expected of each
    assert max(counts.values()) < 20
    assert orders(0) == orders(0) != orders(1)


@pytest.mark.parametrize("episodes", [[5, 2, 9, 2], [2]])
def test_uniform_contexts_depend_on_the_episode_alone(episodes):
    ranges = {"gravity": (4.9, 14.7), "length": (0.35, 0.75)}
    alone = UniformContexts(ranges, 7).context(2)
    assert alone[1] == -1
    distribution = UniformContexts(ranges, 7)
    assert {episode: distribution.context(episode) for episode in episodes}[2] == alone


def test_uniform_contexts_are_uniform_and_independent():
    ranges = {"gravity": (4.0, 14.0), "length": (0.3, 0.7)}
    distribution = UniformContexts(ranges, 0)
    values = np.array([list(distribution.context(episode)[0].values()) for episode in range(2000)])
    unit = (values - [4.0, 0.3]) / [10.0, 0.4]
    assert unit.min() >= 0 and unit.max() <= 1
    # standard errors: mean 0.289 / sqrt(2000) = 0.0065, variance of a uniform 1/12, correlation 0.022
    np.testing.assert_allclose(unit.mean(axis=0), 0.5, atol=0.026)
    np.testing.assert_allclose(unit.var(axis=0), 1 / 12, atol=0.008)
    assert abs(np.corrcoef(unit.T)[0, 1]) < 0.09


def test_drawn_contexts_are_stable_under_growth():
    gravity = {"gravity": (4.9, 14.7)}
    drawn = draw_contexts(gravity, 100, 0)
    assert len({context["gravity"] for context in drawn}) == 100
    assert draw_contexts(gravity, 10, 0) == drawn[:10]
    assert draw_contexts(gravity, 10, 1) != drawn[:10]
    both = draw_contexts({"length": (0.35, 0.75), **gravity}, 10, 0)
    assert [{"gravity": context["gravity"]} for context in both] == drawn[:10]
    fresh = UniformContexts(gravity, 0)
    assert fresh.context(0)[0] != drawn[0]
    assert draw_contexts({"gravity": (3.0, 3.0)}, 1, 0) == [{"gravity": 3.0}]


def test_the_contexts_given_out_are_copies():
    distribution = FixedContexts([{"gravity": 1.0}])
    distribution.context(0)[0]["gravity"] = 2.0
    assert distribution.context(0) == ({"gravity": 1.0}, 0)


@pytest.mark.parametrize("bounds", [(2.0, 1.0), (0.0, math.inf), (math.nan, 1.0), (1.0,), (1.0, 2.0, 3.0)])
def test_a_bad_range_is_refused(bounds):
    for attempt in (lambda r: UniformContexts(r, 0), lambda r: draw_contexts(r, 1, 0)):
        with pytest.raises(UserError, match="^contexts: range of gravity is .* two finite numbers, low first$"):
            attempt({"gravity": bounds})


def test_no_contexts_are_refused():
    with pytest.raises(UserError, match="the list is empty"):
        FixedContexts([])
    with pytest.raises(UserError, match="the list is empty"):
        RoundRobin([], 0)
    with pytest.raises(UserError, match="count is 0, but must be at least 1"):
        draw_contexts({"gravity": (1, 2)}, 0, 0)


LISTED = [{"gravity": float(value)} for value in range(4)]


@pytest.mark.parametrize(
    "distribution",
    [FixedContexts(LISTED), RoundRobin(LISTED, 3), UniformContexts({"gravity": (0.0, 1.0)}, 3)],
    ids=lambda distribution: type(distribution).__name__,
)
def test_changes_within_episodes_are_a_function_of_episode_and_number(distribution):
    drawn = {(e, k): distribution.context(e, k) for e in range(30) for k in range(1, 9)}
    assert {key: distribution.context(*key) for key in reversed(drawn)} == drawn
    if isinstance(distribution, UniformContexts):
        values = [context["gravity"] for context, _ in drawn.values()]
        assert len(set(values)) == len(values) and 0.4 < np.mean(values) < 0.6
        assert {index for _, index in drawn.values()} == {-1}
    else:
        assert all(context == LISTED[index] for context, index in drawn.values())
        for episode in range(30):  # each context once in a pass, and the first pass is followed by a second
            for start in (1, 5):
                assert {drawn[episode, start + k][1] for k in range(4)} == set(range(4))
    if isinstance(distribution, RoundRobin):  # every episode has orders of its own
        assert len({tuple(drawn[episode, k][1] for k in range(1, 9)) for episode in range(30)}) > 25
    assert distribution.context(5) == distribution.context(5, 0)


def test_fixed_contexts_change_to_the_next_in_the_list():
    assert [FixedContexts(LISTED).context(2, change)[1] for change in range(5)] == [2, 3, 0, 1, 2]


def test_the_context_changes_after_every_so_many_steps():
    assert list(change_steps(4, 12)) == [5, 9]
    assert list(change_steps(4, 13)) == [5, 9, 13]
    assert list(change_steps(1, 3)) == [2, 3]
    assert list(change_steps(5, 5)) == list(change_steps(None, 100)) == []
