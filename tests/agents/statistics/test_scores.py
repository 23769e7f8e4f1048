"""Aggregates, profiles and their intervals against rliable's numbers and against numbers by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from agents.statistics import (
    average_score_profile,
    bootstrap,
    difference_of_means,
    interquartile_mean,
    mean,
    median,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
    seed_interval,
    seeds_for_power,
    stratified_interval,
)

RLIABLE = json.loads(Path(__file__).with_name("fixtures").joinpath("rliable.json").read_text())
X, Y = np.array(RLIABLE["x"]), np.array(RLIABLE["y"])
THRESHOLDS = RLIABLE["thresholds"]


def aggregates(scores):
    parts = [mean(scores), median(scores), interquartile_mean(scores), optimality_gap(scores)]
    return np.stack([*parts, optimality_gap(scores, gamma=0.5)], axis=-1)


def generator(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", ["x", "y"])
def test_aggregates_are_rliables(name):
    expected, scores = RLIABLE["aggregates"], np.array(RLIABLE[name])
    np.testing.assert_allclose(aggregates(scores), expected["point"][name], rtol=1e-12)
    interval = stratified_interval(scores, aggregates, generator(), resamples=20_000)
    theirs = np.array(expected["interval"][name])
    # Scores are multiples of 0.1, and so their means of 0.1 / N: a percentile may fall on the neighbouring one.
    differences = np.abs(interval - theirs)
    assert differences.max() <= 0.1 / (scores.size / 2) + 1e-9
    assert (differences > 1e-9).mean() <= 0.2


def test_probability_of_improvement_is_rliables():
    expected = RLIABLE["improvement"]
    assert probability_of_improvement(X, Y) == pytest.approx(expected["x over y"], abs=1e-12)
    assert probability_of_improvement(Y, X) == pytest.approx(expected["y over x"], abs=1e-12)
    interval = stratified_interval((X, Y), probability_of_improvement, generator(), resamples=20_000)
    low, high = expected["interval"]
    np.testing.assert_allclose(interval, [low, high], atol=0.06 * (high - low))


@pytest.mark.parametrize("profile", [performance_profile, average_score_profile])
def test_profiles_are_rliables(profile):
    expected = RLIABLE[profile.__name__]
    np.testing.assert_allclose(profile(X, THRESHOLDS), expected["point"], rtol=1e-12)
    interval = stratified_interval(X, lambda x: profile(x, THRESHOLDS), generator(), resamples=20_000)
    # Shares are multiples of 1/40 and 1/8: a percentile may fall on the neighbouring one.
    step = 1 / X.size if profile is performance_profile else 1 / X.shape[1]
    differences = np.abs(interval - expected["interval"])
    assert differences.max() <= step + 1e-9
    assert (differences > 1e-9).mean() <= 0.1


def test_aggregates_by_hand():
    scores = [[0.0, 1.0, 5.0], [1.0, 3.0, 7.0]]
    assert mean(scores) == pytest.approx(17 / 6)
    assert median(scores) == 2.0  # of 0.5, 2 and 6
    assert interquartile_mean(scores) == 2.5  # (1 + 1 + 3 + 5) / 4: of six scores one is left out at each end
    assert optimality_gap(scores) == pytest.approx(1 / 6)  # only the 0 falls short
    assert optimality_gap(scores, gamma=4.0) == pytest.approx(4 - (0 + 1 + 4 + 1 + 3 + 4) / 6)
    np.testing.assert_allclose(performance_profile(scores, [0.0, 1.0, 6.9]), [5 / 6, 3 / 6, 1 / 6])
    np.testing.assert_allclose(average_score_profile(scores, [0.4, 0.5, 2.0]), [1, 2 / 3, 1 / 3])


def test_probability_of_improvement_by_hand():
    # First task: 2 > 1, 2 = 2, 3 > 1, 3 > 2: 3.5 of 4. Second: 0 < 1, 0 < 1, 5 > 1, 5 > 1: 2 of 4.
    assert probability_of_improvement([[2, 0], [3, 5]], [[1, 1], [2, 1]]) == pytest.approx((3.5 + 2) / 8)
    with pytest.raises(ValueError, match="tasks"):
        probability_of_improvement([[1, 2]], [[1]])


def test_leading_dimensions_give_a_statistic_each():
    stack = np.stack([Y, Y[::-1] * 2, Y + 1])
    np.testing.assert_allclose(aggregates(stack), [aggregates(scores) for scores in stack])
    np.testing.assert_allclose(
        probability_of_improvement(stack, Y), [probability_of_improvement(scores, Y) for scores in stack]
    )


def test_runs_are_resampled_within_tasks_or_as_a_whole():
    # Run 0 scores 0 everywhere, run 1 scores 1. Whole runs: the mean is 0, 1/2 or 1 with 1/4, 1/2, 1/4. Within T
    # tasks it is binomial: its standard deviation is sqrt(1/4 / 2T), which 100 tasks make small.
    scores = np.repeat([[0.0], [1.0]], 100, axis=1)
    np.testing.assert_array_equal(seed_interval(scores, mean, generator(), confidence=0.6), [0.0, 1.0])
    np.testing.assert_array_equal(seed_interval(scores, mean, generator(), confidence=0.4), [0.5, 0.5])
    low, high = stratified_interval(scores, mean, generator(), resamples=20_000)
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 200), rel=0.05)


def test_two_agents_are_resampled_independently():
    # Equal agents: P(improvement) of whole resampled runs {0, 1} against {0, 1} is 1 with probability
    # P(1,1) P(0,0) = 1/16 and 0 as often; a resampling of both by the same numbers would always give 1/2.
    scores = np.array([[0.0], [1.0]])
    for interval in (seed_interval, stratified_interval):
        inner = interval((scores, scores), probability_of_improvement, generator(), confidence=0.9)
        np.testing.assert_array_equal(inner, [0.0, 1.0])  # 5% lies within the 1/16 at each end
        outer = interval((scores, scores), probability_of_improvement, generator(), confidence=0.8)
        np.testing.assert_array_equal(outer, [0.25, 0.75])  # the next values, 1/4 and 3/4, have 1/4 each


def test_intervals_follow_their_seed(monkeypatch):
    first = stratified_interval(X, interquartile_mean, generator(4))
    np.testing.assert_array_equal(stratified_interval(X, interquartile_mean, generator(4)), first)
    assert (stratified_interval(X, interquartile_mean, generator(5)) != first).any()
    whole = seed_interval((X, Y), probability_of_improvement, generator(4))
    monkeypatch.setattr(bootstrap, "_CHUNK_VALUES", 500)  # a dozen resamples at a time
    np.testing.assert_allclose(seed_interval((X, Y), probability_of_improvement, generator(4)), whole, atol=0.05)


@pytest.mark.parametrize("interval", [seed_interval, stratified_interval])
def test_what_intervals_refuse(interval):
    assert np.isnan(interval(X[:1], mean, generator())).all()
    assert np.isnan(interval((X, Y[:1]), probability_of_improvement, generator())).all()
    with pytest.raises(ValueError, match="finite"):
        interval([[1.0, np.nan], [1.0, 2.0]], mean, generator())
    with pytest.raises(ValueError, match="confidence"):
        interval(X, mean, generator(), confidence=95)
    with pytest.raises(ValueError, match="at least one run"):
        interval(np.zeros((0, 3)), mean, generator())


def test_differences_are_scipys():
    x, y = X.mean(axis=1), Y.mean(axis=1)
    for confidence in (0.95, 0.8):
        ours = difference_of_means(X, Y, confidence=confidence)
        theirs = scipy.stats.ttest_ind(x, y, equal_var=False).confidence_interval(confidence)
        np.testing.assert_allclose((ours.mean, ours.low, ours.high), (x.mean() - y.mean(), *theirs), rtol=1e-10)
        ours = difference_of_means(X[:4], Y, confidence=confidence, paired=True)
        theirs = scipy.stats.ttest_rel(x[:4], y).confidence_interval(confidence)
        np.testing.assert_allclose((ours.mean, ours.low, ours.high), (x[:4].mean() - y.mean(), *theirs), rtol=1e-10)


def test_differences_without_spread():
    one = difference_of_means(X[:1], Y)
    assert one.mean == pytest.approx(X[0].mean() - Y.mean())
    assert np.isnan([one.low, one.high]).all()
    same = difference_of_means([[3.0], [3.0]], [[1.0], [1.0]])
    assert same.mean == 2.0 and np.isnan([same.low, same.high]).all()  # two equal runs do not tell how runs vary
    with pytest.raises(ValueError, match="equally many"):
        difference_of_means(X, Y, paired=True)
    with pytest.raises(ValueError, match="confidence"):
        difference_of_means(X, Y, confidence=1.0)


def test_welch_covers_what_it_says_from_three_runs():
    draws = generator(1).normal(size=(2000, 2, 3, 1)) * np.array([1.0, 4.0])[:, None, None]
    covered = [one.low <= 0 <= one.high for one in (difference_of_means(*draw) for draw in draws)]
    assert 0.93 <= np.mean(covered) <= 0.98


def test_seeds_for_power_by_simulation():
    # Variances 1 and 4, difference 1.5: n = 5 (1.96 + 0.8416)^2 / 2.25 = 17.4.
    x, y = np.array([[-1.0], [1.0], [0.0]]), np.array([[-0.5], [3.5], [1.5]])
    count = seeds_for_power(x, y)
    assert count == 18
    drawn = generator(2)
    p = scipy.stats.ttest_ind(
        drawn.normal(0.0, 1.0, (4000, count)), drawn.normal(1.5, 2.0, (4000, count)), axis=1, equal_var=False
    ).pvalue
    assert np.mean(p < 0.05) == pytest.approx(0.8, abs=0.04)
    assert seeds_for_power(x, x) is None
    assert seeds_for_power(x[:1], y) is None
