"""Groups of swaps: what is pooled, and what is resampled together."""

import numpy as np
import pytest
from numpy_cartpole import make_grid

from agents.dreaming.counterfactuals import Swap
from agents.dreaming.moments import MOMENTS
from agents.dreaming.scores import make_group, make_groups, single_groups


def swap(source, target):
    empty = np.zeros((1, 1, 1))
    return Swap(source, target, empty, empty, {}, {})


def episode(*steps):
    """Moments [H, M] of steps given as (squared error of the true dream, of the swapped dream), or None if over."""
    rows = []
    for step in steps:
        values = dict.fromkeys(MOMENTS, 0.0)
        if step is not None:
            values |= {"count": 1.0, "true_counterfactual": step[0], "swapped_counterfactual": step[1]}
        rows.append(list(values.values()))
    return np.array(rows)


def group(places, swaps, moments, confidence=0.95):
    return make_group("some", places, swaps, moments, 0, confidence)


def test_skill_pools_squares_over_episodes_steps_and_swaps():
    swaps = [swap(0, 1), swap(0, 2), swap(3, 1)]
    moments = [
        np.stack([episode((1, 1), (3, 2)), episode((5, 4), None)]),
        np.stack([episode((2, 0), (2, 1)), episode((1, 1), (0, 7))]),
        np.stack([episode((10, 1), (10, 1))]),
    ]
    whole = group([0, 1, 2], swaps, moments)
    assert whole.value("skill", 1) == pytest.approx(1 - (1 + 4 + 0 + 1 + 1) / (1 + 5 + 2 + 1 + 10))
    assert whole.value("skill", 2) == pytest.approx(1 - (7 + 2 + 1 + 7 + 1) / (19 + 3 + 2 + 0 + 10))
    assert whole.score("skill", 2).value == whole.value("skill", 2)
    assert whole.error("true_counterfactual", 2).value == pytest.approx(np.sqrt((3 + 2 + 0 + 10) / 4))
    assert whole.going().tolist() == [1, 4 / 5] and whole.episodes == 5
    assert [stratum.tolist() for stratum in whole.strata] == [[0, 1], [2]]
    assert group([1], swaps, moments).value("skill", 1) == pytest.approx(1 - 1 / 3)


def test_interval_of_two_episodes_by_hand():
    """Resamples of a and b are a a, a b, b a, b b, so the quantiles are known."""
    moments = [np.stack([episode((2, 1)), episode((8, 1))])]
    both = 1 - 2 / 10
    wide = group([0], [swap(0, 1)], moments).score("skill", 1)
    assert (wide.value, wide.low, wide.high) == pytest.approx((both, 1 - 1 / 2, 1 - 1 / 8))
    narrow = group([0], [swap(0, 1)], moments, confidence=0.4).score("skill", 1)
    assert (narrow.low, narrow.high) == pytest.approx((both, both))


def test_swaps_of_an_episode_are_resampled_together():
    """Each swap varies between episodes, but what they add up to does not."""
    swaps = [swap(0, 1), swap(0, 2)]
    moments = [np.stack([episode((2, 1)), episode((8, 1))]), np.stack([episode((8, 2)), episode((2, 2))])]
    pooled = group([0, 1], swaps, moments).score("skill", 1)
    assert (pooled.value, pooled.low, pooled.high) == pytest.approx((0.7, 0.7, 0.7))
    assert single_groups(swaps, moments, 0, 0.95)[0].score("skill", 1).low < 0.55


def test_one_episode_has_no_interval():
    estimate = group([0], [swap(0, 1)], [np.stack([episode((2, 1))])]).score("skill", 1)
    assert estimate.value == 0.5 and np.isnan(estimate.low) and np.isnan(estimate.high)


def test_groups_by_place_and_by_what_differs():
    # The training range is gravity 5 to 15 and length 0.3 to 0.8.
    grid = make_grid([(10, 0.5), (12, 0.5), (20, 0.5), (20, 1.0), (10, 0.7)])
    swaps = [swap(0, target) for target in range(1, 5)]
    moments = [np.stack([episode((1, 1))])] * 4
    members = {group.name: group.swaps for group in make_groups(grid, swaps, moments, 0, 0.95)}
    assert members == {
        "all swaps": (0, 1, 2, 3),
        "inside": (0, 3),
        "one outside": (1,),
        "more outside": (2,),
        "gravity alone": (0, 1),
        "length alone": (3,),
    }
