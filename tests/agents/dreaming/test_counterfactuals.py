"""Counterfactual truth and dreams against CartPole by hand: who knows the simulator is right, and nobody else."""

import numpy as np
import pytest
import torch
from numpy_cartpole import (
    Blind,
    Contrary,
    Early,
    Late,
    Simulator,
    balanced,
    make_grid,
    make_vector,
    push,
    record,
    upright,
)

from agents.dreaming.channels import channels_of
from agents.dreaming.counterfactuals import (
    Swap,
    channel_moments,
    endings,
    make_yardstick,
    play_swapped,
    swap_source,
    vector_moments,
)
from agents.dreaming.dreams import OBSERVED
from agents.dreaming.moments import direction, distance, effect_skill, part, skill
from agents.environments import ContextualEnv
from agents.errors import UserError

HERE, THERE = {"gravity": 9.8, "length": 0.5}, {"gravity": 19.6, "length": 0.25}
GRID = make_grid([(9.8, 0.5), (4.9, 0.5), (9.8, 0.7), (19.6, 0.25)])
HORIZON = 20


@pytest.fixture(scope="module")
def vector():
    return make_vector()


@pytest.fixture(scope="module")
def episodes(vector):
    return [record(vector, HERE, seed, balanced(OBSERVED + HORIZON - 1, seed)) for seed in range(3)]


def swaps_of(agent, vector, episodes, grid=GRID, horizon=HORIZON, **options):
    channels = channels_of("cartpole", episodes[0].records)
    conditions = [torch.tensor(list(c.values())).expand(len(episodes), -1) for c in grid.contexts]
    source = grid.sources[0]
    return swap_source(agent, None, vector, grid, source, episodes, conditions, channels, horizon, **options), channels


def pooled(swaps, channels):
    yardstick = make_yardstick(swaps, channels)
    return [vector_moments(swap, yardstick).sum((0, 1)) for swap in swaps]


def by_hand(episode, change_at, context):
    """States of a recorded episode's actions, the context changed just before step ``change_at``."""
    states = [episode.records["observation/state"][0].astype(np.float64)]
    for step, action in enumerate(episode.records["action"][:-1], start=1):
        now = context if step >= change_at else HERE
        states.append(push(states[-1], action[1] > 0.5, **now))
    return np.stack(states)


def test_counterfactual_truth_is_the_simulator_by_hand(vector, episodes):
    for episode in episodes:
        played = play_swapped(vector, episode, THERE)
        truth = by_hand(episode, OBSERVED, THERE)
        alive = np.flatnonzero(~upright(truth))[0] + 1 if not upright(truth).all() else len(truth)
        assert OBSERVED + 3 < alive == len(played["is_last"])
        np.testing.assert_allclose(played["observation/state"], truth[:alive], atol=2e-6)
        np.testing.assert_array_equal(played["is_terminal"], ~upright(truth[:alive]))
        np.testing.assert_array_equal(
            played["observation/state"][:OBSERVED], episode.records["observation/state"][:OBSERVED]
        )
        for wrong in (OBSERVED - 1, OBSERVED + 1):
            shifted = by_hand(episode, wrong, THERE)[:alive]
            assert np.abs(shifted - played["observation/state"]).max() > 0.01
        expected = [list(HERE.values())] * OBSERVED + [list(THERE.values())] * (alive - OBSERVED)
        np.testing.assert_array_equal(played["context"], np.float32(expected))


def test_the_same_context_changes_nothing(vector, episodes):
    played = play_swapped(vector, episodes[0], HERE)
    for key in ("observation/state", "reward", "is_last"):
        np.testing.assert_array_equal(played[key], episodes[0].records[key])


def test_who_is_the_simulator_is_right(vector, episodes):
    swaps, channels = swaps_of(Simulator(), vector, episodes)
    assert [(swap.source, swap.target) for swap in swaps] == [(0, 1), (0, 2), (0, 3)]
    for sums in pooled(swaps, channels):
        assert skill(sums) == pytest.approx(1, abs=1e-6) and direction(sums) == pytest.approx(1, abs=1e-6)
        assert distance(sums) == pytest.approx(1, abs=1e-4) and effect_skill(sums) == pytest.approx(1, abs=1e-6)
        assert part(sums, "true_happened") < 1e-6 * part(sums, "real")
        assert skill(sums, "default") == skill(sums)  # the true context is the default one
    far, near = pooled(swaps, channels)[2], pooled(swaps, channels)[0]
    assert part(far, "real") > 10 * part(near, "real") > 0


def test_who_ignores_the_context_gets_exactly_nothing(vector, episodes):
    swaps, channels = swaps_of(Blind(), vector, episodes)
    for sums in pooled(swaps, channels):
        assert skill(sums) == 0 and direction(sums) == 0 and effect_skill(sums) == 0 and distance(sums) == 0


def test_who_moves_the_wrong_way_is_worse_than_nothing(vector, episodes):
    swaps, channels = swaps_of(Contrary(), vector, episodes, make_grid([(9.8, 0.5), (7, 0.5), (12, 0.5), (9.8, 0.6)]))
    for sums in pooled(swaps, channels):
        assert skill(sums) < -1 and direction(sums) < -0.8 and effect_skill(sums) < -1


@pytest.mark.parametrize("agent", [Late(), Early()])
def test_who_is_a_step_off_is_caught(agent, vector, episodes):
    exact, channels = swaps_of(Simulator(), vector, episodes)
    shifted, _ = swaps_of(agent, vector, episodes)
    for right, wrong in zip(pooled(exact, channels), pooled(shifted, channels), strict=True):
        assert part(right, "swapped_counterfactual") < 1e-6 * part(wrong, "swapped_counterfactual")
        assert part(wrong, "swapped_counterfactual") > 0.05 * part(wrong, "real")
        assert skill(wrong) < 0.9


def test_the_default_dream_is_of_the_default_context(vector):
    grid = make_grid([(9.8, 0.5), (19.6, 0.25), (4.9, 0.7)], sources=(1,))
    episode = record(vector, grid.contexts[1], 3, balanced(OBSERVED + 9, 3))
    (to_default, to_other), channels = swaps_of(Simulator(), vector, [episode], grid, 10)
    assert (to_default.target, to_other.target) == (0, 2)
    np.testing.assert_array_equal(to_default.dreamt["default"], to_default.dreamt["swapped"])
    np.testing.assert_array_equal(to_default.dreamt["default"], to_other.dreamt["default"])
    assert not np.array_equal(to_other.dreamt["default"], to_other.dreamt["swapped"])
    sums = pooled([to_default, to_other], channels)
    assert skill(sums[0], "default") == 0 and skill(sums[1], "default") == pytest.approx(1, abs=1e-6)


def test_a_world_that_ends_sooner_is_compared_as_long_as_it_goes(vector):
    pushes = [0, 1] * 2 + [0] + [1, 0, 1] * 8
    episode = record(vector, HERE, 0, pushes)
    steps = len(episode.records["is_last"])
    (*_, far), channels = swaps_of(Simulator(), vector, [episode])
    going = (~np.isnan(far.counterfactual[0, :, 0])).sum()
    assert OBSERVED < going < steps  # the short pole falls sooner
    assert (~np.isnan(far.happened[0, :, 0])).sum() == min(steps, OBSERVED + HORIZON)
    last = [channel.key for channel in channels].index("continue")
    assert far.counterfactual[0, :going, last].tolist() == [1] * (going - 1) + [0]
    values = vector_moments(far, make_yardstick([far], channels))
    assert part(values, "count")[0].tolist() == [1] * (going - OBSERVED) + [0] * (OBSERVED + HORIZON - going)
    assert (values[0, going - OBSERVED :] == 0).all()
    told = endings([far], channels)
    assert (told.swaps, told.ended) == (1, 1)
    assert told.at_end == {"true": 1.0, "swapped": 0.0, "default": 1.0}
    assert told.before["swapped"] == 1.0


def test_nobody_ends_sooner(vector, episodes):
    swaps, channels = swaps_of(Simulator(), vector, [episodes[0]], make_grid([(9.8, 0.5), (9.9, 0.5)]), 3)
    told = endings(swaps, channels)
    assert told.ended == 0 and np.isnan(told.at_end["true"]) and told.before["true"] == 1.0


def test_progress_counts_every_swapped_episode(vector, episodes):
    ticks = []
    swaps_of(Simulator(), vector, episodes, on_swap=lambda: ticks.append(1))
    assert len(ticks) == 3 * 3


def test_worlds_that_do_not_repeat_themselves_are_refused(vector, episodes):
    first = episodes[0]
    observed = first.records["observation/state"].copy()
    observed[2] += 1e-6
    other = type(first)(first.job, 0.0, first.length, {**first.records, "observation/state": observed})
    with pytest.raises(UserError, match="does not repeat an episode.*observation/state differs"):
        play_swapped(vector, other, THERE)


def test_worlds_whose_context_only_acts_at_a_reset_are_refused(episodes, monkeypatch):
    monkeypatch.setattr(ContextualEnv, "live_context", False)
    with pytest.raises(UserError, match="cartpole"):
        play_swapped(make_vector(), episodes[0], THERE)


def test_weights_of_dimensions_by_hand():
    channels = channels_of("fake", {"observation/state": np.zeros((2, 3)), "reward": np.zeros(2)})
    happened = np.zeros((1, OBSERVED + 2, 5))
    happened[0, OBSERVED:, :3] = [[1, 10, 5], [-1, -10, 5]]
    counterfactual = happened.copy()
    counterfactual[0, OBSERVED:, :3] = [[3, 10, 5], [-3, -10, 5]]
    swap = Swap(0, 1, happened, counterfactual, {name: happened for name in ("true", "swapped", "default")}, {})
    yardstick = make_yardstick([swap], channels)
    assert yardstick.picked == (0, 1, 2)
    np.testing.assert_allclose(yardstick.deviation, [np.sqrt(5), 10, 1])  # of 1, -1, 3, -3; the third never varies
    assert yardstick.weight.tolist() == [1, 0, 0]
    # The second and third weigh nothing; the first differs by 2 of sqrt(5): a squared error of 0.8 at both steps.
    np.testing.assert_allclose(part(vector_moments(swap, yardstick), "swapped_counterfactual"), [[0.8, 0.8]])
    np.testing.assert_allclose(part(channel_moments(swap, 0), "real"), [[4, 4]])
    still = Swap(0, 1, happened, happened, swap.dreamt, {})
    assert make_yardstick([still], channels).weight.tolist() == [1 / 3] * 3
    assert make_yardstick([swap], channels[3:]) is None
