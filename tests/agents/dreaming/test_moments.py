"""Scores of counterfactual dreams by hand."""

import math

import numpy as np
import pytest

from agents.dreaming.moments import (
    MOMENTS,
    clear,
    direction,
    distance,
    effect_skill,
    moments,
    part,
    root_mean_square,
    skill,
)

HAPPENED = np.array([[[0.0, 0.0], [1.0, 1.0]]])  # one episode, two steps, two quantities
COUNTERFACTUAL = np.array([[[2.0, 0.0], [1.0, 5.0]]])
DREAMT = {
    "true": np.array([[[1.0, 0.0], [1.0, 1.0]]]),
    "swapped": np.array([[[2.0, 1.0], [1.0, 2.0]]]),
    "default": np.array([[[0.0, 0.0], [0.0, 5.0]]]),
}


def test_moments_by_hand():
    values = moments(HAPPENED, COUNTERFACTUAL, DREAMT)
    assert values.shape == (1, 2, len(MOMENTS))
    expected = {
        "count": [1, 1],
        "true_counterfactual": [0.5, 8],
        "swapped_counterfactual": [0.5, 4.5],
        "default_counterfactual": [2, 0.5],
        "true_happened": [0.5, 0],
        "swapped_happened": [2.5, 0.5],
        "default_happened": [0, 8.5],
        "real": [2, 8],  # of (2, 0) and (0, 4)
        "moved": [1, 0.5],  # of (1, 1) and (0, 1)
        "product": [1, 2],
    }
    assert {name: part(values, name)[0].tolist() for name in MOMENTS} == expected


def test_scores_by_hand():
    sums = moments(HAPPENED, COUNTERFACTUAL, DREAMT).sum((0, 1))
    assert skill(sums) == pytest.approx(1 - 5 / 8.5)
    assert skill(sums, "default") == pytest.approx(1 - 5 / 2.5)
    assert direction(sums) == pytest.approx(3 / math.sqrt(10 * 1.5))
    # What happened plus the dreams' difference is (1, 1) and (1, 2): off by (1, 1) and (0, 3), of (2, 0) and (0, 4).
    assert effect_skill(sums) == pytest.approx(1 - (1 + 1 + 9) / (4 + 16))
    assert distance(sums) == pytest.approx(math.sqrt(1.5 / 10))
    assert root_mean_square(sums, "real") == pytest.approx(math.sqrt(5))
    assert clear(sums) and not clear(sums * np.where(np.array(MOMENTS) == "real", 0.04, 1.0))


def test_steps_without_either_truth_count_for_nothing():
    cut = COUNTERFACTUAL.copy()
    cut[0, 1] = np.nan
    values = moments(HAPPENED, cut, DREAMT)
    assert (values[0, 1] == 0).all() and part(values, "count").tolist() == [[1, 0]]
    np.testing.assert_array_equal(values[0, 0], moments(HAPPENED, COUNTERFACTUAL, DREAMT)[0, 0])
    assert (moments(np.full_like(HAPPENED, np.nan), COUNTERFACTUAL, DREAMT) == 0).all()


def test_worlds_that_do_not_differ_have_no_direction():
    sums = moments(HAPPENED, HAPPENED, DREAMT).sum((0, 1))
    assert np.isnan(direction(sums)) and np.isnan(effect_skill(sums)) and np.isnan(distance(sums))
    assert skill(sums) == pytest.approx(1 - 3 / 0.5)
    exact = moments(HAPPENED, HAPPENED, {**DREAMT, "true": HAPPENED}).sum((0, 1))
    assert np.isnan(skill(exact)) and np.isnan(root_mean_square(0 * exact, "real"))


def test_dreams_that_a_swap_leaves_alone():
    sums = moments(HAPPENED, COUNTERFACTUAL, {**DREAMT, "swapped": DREAMT["true"]}).sum((0, 1))
    assert skill(sums) == 0 and direction(sums) == 0 and effect_skill(sums) == 0 and distance(sums) == 0


def test_images_are_averaged_over_pixels():
    happened, counterfactual = np.zeros((1, 1, 2, 2, 3)), np.ones((1, 1, 2, 2, 3))
    dreamt = {name: happened + value for name, value in (("true", 0.0), ("swapped", 0.5), ("default", 1.0))}
    sums = moments(happened, counterfactual, dreamt)[0, 0]
    assert skill(sums) == 0.75 and direction(sums) == 1 and distance(sums) == 0.5 and part(sums, "real") == 1
