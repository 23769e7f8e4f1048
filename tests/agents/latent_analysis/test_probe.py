"""Probes on latents whose content is known."""

import numpy as np
import pytest

from agents.latent_analysis.probe import (
    MIN_CONTEXTS,
    STRENGTHS,
    choose_strengths,
    cross_predict,
    judge,
    r2_interval,
    shuffle_contexts,
)

CONTEXTS, ROWS = 60, 12
GROUPS = np.repeat(np.arange(CONTEXTS), ROWS)
VALUES = np.random.default_rng(1).uniform(0, 10, (CONTEXTS, 1))
TARGETS = VALUES[GROUPS]


def generator():
    return np.random.default_rng(0)


def noise_beside(targets, seed):
    """Noise of variance 1 in each column that is exactly uncorrelated with all of the targets."""
    noise = np.random.default_rng(seed).normal(size=targets.shape)
    known = np.column_stack([np.ones(len(targets)), targets])
    noise -= known @ np.linalg.lstsq(known, noise, rcond=None)[0]
    return noise / noise.std(axis=0)


def read(latents, targets=TARGETS, groups=GROUPS):
    predictions = cross_predict(latents, targets, groups)
    return judge(targets[:, 0], predictions[:, 0], groups, generator(), 0.95)


@pytest.mark.parametrize("noise", [0.5, 2.0, 6.0])
def test_a_noisy_copy_is_read_as_well_as_it_can_be(noise):
    """z = y + noise e: the best linear prediction explains var y / (var y + noise^2)."""
    latents = TARGETS + noise * noise_beside(TARGETS, 2)
    fit = read(latents)
    possible = VALUES.var() / (VALUES.var() + noise**2)
    assert fit.r2 == pytest.approx(possible, abs=0.03)
    assert fit.low < possible < fit.high
    assert fit.rmse == pytest.approx(np.sqrt(VALUES.var() * (1 - possible)), rel=0.05)


def test_two_features_are_read_each_for_itself():
    """The second feature has a column with more noise; the columns' sizes do not matter."""
    contexts = np.random.default_rng(3).normal(size=(CONTEXTS, 2))
    targets = contexts[GROUPS]
    latents = (targets + noise_beside(targets, 4) * [0.3, 1.0]) * [1e-3, 1e3]
    predictions = cross_predict(latents, targets, GROUPS)
    for column, noise in enumerate((0.3, 1.0)):
        variance = contexts[:, column].var()
        fit = judge(targets[:, column], predictions[:, column], GROUPS, generator(), 0.95)
        assert fit.r2 == pytest.approx(variance / (variance + noise**2), abs=0.06)


def test_latents_without_context_tell_nothing():
    assert read(np.random.default_rng(5).normal(size=(len(GROUPS), 20))).r2 <= 0


def test_telling_contexts_apart_is_not_reading_them():
    """Each context has a code of its own, wider than there are contexts: rows of a seen context are read exactly."""
    codes = np.random.default_rng(6).normal(size=(CONTEXTS, 2 * CONTEXTS))
    latents = codes[GROUPS] + 1e-3 * np.random.default_rng(7).normal(size=(len(GROUPS), 2 * CONTEXTS))
    assert read(latents).r2 <= 0
    # The same probe finds everything where the rows of a context are split: the split is what makes the difference.
    assert read(latents, groups=np.arange(len(GROUPS))).r2 > 0.99


def test_no_row_is_predicted_by_a_probe_that_knows_its_context():
    """A context with absurd targets moves the predictions of the others only."""
    latents = TARGETS + np.random.default_rng(8).normal(size=TARGETS.shape)
    absurd = np.where((GROUPS == 7)[:, None], 1e6, TARGETS)
    usual, moved = cross_predict(latents, TARGETS, GROUPS), cross_predict(latents, absurd, GROUPS)
    np.testing.assert_array_equal(moved[GROUPS == 7], usual[GROUPS == 7])
    assert np.abs(moved - usual).max() > 1e3


def test_shuffled_contexts_are_not_read():
    shuffled = shuffle_contexts(TARGETS, GROUPS, generator())
    assert sorted(set(shuffled[:, 0])) == sorted(set(TARGETS[:, 0]))
    assert all(len(set(shuffled[group == GROUPS, 0])) == 1 for group in range(CONTEXTS))
    assert (shuffled != TARGETS).mean() > 0.9
    assert read(TARGETS.copy(), shuffled).r2 <= 0.02
    assert read(TARGETS.copy()).r2 > 0.99


def test_strengths_are_chosen_for_each_feature():
    """The first feature is in a column, without noise: hold back nothing; the second is nowhere: hold back all."""
    nowhere = np.random.default_rng(9).normal(size=(CONTEXTS, 1))[GROUPS]
    latents = np.concatenate([TARGETS, np.random.default_rng(10).normal(size=(len(GROUPS), 30))], 1)
    chosen = choose_strengths(latents, np.concatenate([TARGETS, nowhere], 1), GROUPS)
    assert chosen[0] == STRENGTHS[0] and chosen[1] >= 1e3


def test_ridge_by_hand():
    """One standardized column: slope n / (n + strength) of least squares; here the chosen strength is the smallest."""
    latents = TARGETS * 3 - 5
    predictions = cross_predict(latents, TARGETS, GROUPS)
    assert np.abs(predictions - TARGETS).max() < 1e-3
    constant = cross_predict(np.ones((len(GROUPS), 1)), TARGETS, GROUPS)
    assert len(np.unique(constant.round(9))) == 5, "without anything to read, the mean of each fold's other contexts"
    for group in range(CONTEXTS):
        own = group == GROUPS
        fold = np.isclose(constant[:, 0], constant[own][0, 0])
        assert constant[own][0, 0] == pytest.approx(TARGETS[~fold].mean())


def test_scores_by_hand():
    targets, predictions = np.array([0.0, 0.0, 2.0, 4.0]), np.array([1.0, 0.0, 2.0, 2.0])
    fit = judge(targets, predictions, np.array([0, 0, 1, 2]), generator(), 0.9)
    assert fit.r2 == pytest.approx(1 - 5 / 11)  # mean 1.5: 2.25 + 2.25 + 0.25 + 6.25 = 11
    assert fit.rmse == pytest.approx(np.sqrt(5 / 4))
    same = judge(np.ones(4), predictions, np.array([0, 0, 1, 2]), generator(), 0.9)
    assert np.isnan([same.r2, same.low, same.high]).all() and same.rmse == pytest.approx(np.sqrt(3 / 4))


def test_the_interval_is_that_of_drawn_contexts():
    """The same draws, row by row instead of by sums over contexts."""
    rng = np.random.default_rng(11)
    groups = np.repeat([3, 1, 8, 5], [2, 5, 3, 4])
    targets = rng.normal(size=4)[np.unique(groups, return_inverse=True)[1]]
    predictions = targets + rng.normal(size=len(groups))
    drawn = generator().multinomial(4, np.full(4, 0.25), size=2000)
    values = []
    for counts in drawn:
        rows = np.concatenate(
            [np.tile(np.flatnonzero(groups == group), count) for group, count in zip((1, 3, 5, 8), counts, strict=True)]
        )
        y, p = targets[rows], predictions[rows]
        if len(set(y)) > 1:
            values.append(1 - ((y - p) ** 2).sum() / ((y - y.mean()) ** 2).sum())
    expected = np.quantile(values, [0.05, 0.95])
    assert r2_interval(targets, predictions, groups, generator(), 0.9) == pytest.approx(tuple(expected))


def test_too_few_contexts_are_refused():
    few = np.arange(MIN_CONTEXTS - 1).repeat(3)
    with pytest.raises(ValueError, match="5 contexts cannot be split"):
        cross_predict(np.ones((15, 1)), np.ones((15, 1)), few)
