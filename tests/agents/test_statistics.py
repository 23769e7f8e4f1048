"""Statistics against hand-computed numbers and SciPy's own bootstrap."""

import numpy as np
import pytest
import scipy.stats

from agents.statistics import bootstrap, bootstrap_interval, interquartile_mean, mean, worst_stratum


def test_interquartile_mean_by_hand():
    # Eight values: the two smallest and the two largest are left out, (3 + 4 + 5 + 6) / 4 = 4.5.
    assert interquartile_mean([8, 1, 100, 3, 4, 5, 6, -50]) == 4.5
    # Six values: floor(6 / 4) = 1 is left out at each end, (2 + 3 + 4 + 5) / 4 = 3.5.
    assert interquartile_mean([1, 2, 3, 4, 5, 60]) == 3.5
    # One to three values: nothing can be left out.
    assert interquartile_mean([1, 2, 6]) == 3.0


def test_leading_dimensions_are_kept():
    values = [[[1, 2, 3, 100]], [[4, 8, 6, 0]]]  # [2, R = 1, T = 4]
    np.testing.assert_array_equal(interquartile_mean(values), [2.5, 5.0])
    np.testing.assert_array_equal(mean(values), [26.5, 4.5])


@pytest.mark.parametrize("statistic", [mean, interquartile_mean])
@pytest.mark.parametrize("confidence", [0.95, 0.8])
def test_one_stratum_equals_scipy(statistic, confidence):
    values = np.random.default_rng(3).gamma(2.0, 40.0, size=37)
    expected = scipy.stats.bootstrap(
        (values,),
        lambda sample, axis: statistic(np.moveaxis(sample, axis, -1)[..., None, :]),
        n_resamples=20_000,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(11),
    ).confidence_interval
    interval = bootstrap_interval(
        [values], statistic, np.random.default_rng(5), confidence=confidence, resamples=20_000
    )
    # Two independent bootstraps of 20,000 resamples; the tolerance is 3% of the interval's width.
    np.testing.assert_allclose(interval, expected, atol=0.03 * (expected.high - expected.low))


def test_two_values_by_hand():
    # Resamples of {0, 1} have means 0, 1/2, 1 with probabilities 1/4, 1/2, 1/4: the 60% interval (20th to
    # 80th percentile) is [0, 1] and the 40% interval (30th to 70th percentile) is [1/2, 1/2].
    generator = np.random.default_rng(0)
    assert bootstrap_interval([[0, 1]], mean, generator, confidence=0.6) == (0.0, 1.0)
    assert bootstrap_interval([[0, 1]], mean, generator, confidence=0.4) == (0.5, 0.5)


def test_differences_between_strata_do_not_widen_the_interval():
    # Constant within each stratum: a stratified resample is always the sample itself.
    strata = [[0.0] * 5, [100.0] * 5, [400.0] * 3]
    low, high = bootstrap_interval(strata, mean, np.random.default_rng(0))
    assert low == high == pytest.approx((5 * 100 + 3 * 400) / 13)
    pooled = np.concatenate(strata)
    low, high = bootstrap_interval([pooled], mean, np.random.default_rng(0))
    assert high - low > 100


def test_stratified_width_matches_theory():
    # The bootstrap's standard error of the mean of C strata of n values is sqrt(sum of variances / n) / C,
    # variances dividing by n; a 95% interval is 2 * 1.96 of them wide.
    generator = np.random.default_rng(1)
    strata = [generator.normal(10 * index, 1 + index, size=40) for index in range(5)]
    low, high = bootstrap_interval(strata, mean, generator, resamples=40_000)
    error = np.sqrt(sum(values.var() for values in strata) / 40) / 5
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.03)


def test_reproducible_and_independent_of_chunks(monkeypatch):
    strata = [np.random.default_rng(index).normal(size=7) for index in range(4)]
    first = bootstrap_interval(strata, interquartile_mean, np.random.default_rng(9))
    assert bootstrap_interval(strata, interquartile_mean, np.random.default_rng(9)) == first
    assert bootstrap_interval(strata, interquartile_mean, np.random.default_rng(10)) != first
    monkeypatch.setattr(bootstrap, "_CHUNK_VALUES", 100)  # three resamples at a time
    chunked = bootstrap_interval(strata, interquartile_mean, np.random.default_rng(9))
    width = first[1] - first[0]
    np.testing.assert_allclose(chunked, first, atol=0.15 * width)


def test_single_values_have_no_interval():
    assert np.isnan(bootstrap_interval([[1.0, 2.0], [3.0]], mean, np.random.default_rng(0))).all()


def test_worst_stratum():
    assert worst_stratum([[500, 400], [90, 110], [0, 500]]) == (1, 100.0)
    assert worst_stratum([[1, 3], [2, 2]]) == (0, 2.0)


@pytest.mark.parametrize("strata", [[], [[]], [[1.0, 2.0], []]])
def test_empty_strata_are_refused(strata):
    with pytest.raises(ValueError, match="stratum"):
        bootstrap_interval(strata, mean, np.random.default_rng(0))
    with pytest.raises(ValueError, match="stratum"):
        worst_stratum(strata)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_confidence_outside_its_range_is_refused(confidence):
    with pytest.raises(ValueError, match="confidence"):
        bootstrap_interval([[1.0, 2.0]], mean, np.random.default_rng(0), confidence=confidence)
