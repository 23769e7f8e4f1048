"""Which latents are read where, in a world where they are known."""

import numpy as np
import pytest
from synthetic import KnownAgent, make_episode

from agents.dreaming.dreams import OBSERVED
from agents.latent_analysis import collection
from agents.latent_analysis.collection import (
    BOTH,
    CODE,
    DETER,
    HISTORY,
    OBSERVATION,
    STARTS,
    STOCH,
    Latents,
    comparable,
    flat_observations,
    read_latents,
    recent,
    spread_points,
)

LENGTHS = (30, 12, 4, 21)
EPISODES = [make_episode(length, 5 + index, index) for index, length in enumerate(LENGTHS)]


@pytest.fixture(scope="module")
def found():
    return read_latents(KnownAgent(infers=True), None, EPISODES, first=100, steps=30, horizon=10)


def x_of(latents):
    return np.array(
        [
            EPISODES[e - 100].records["observation/state"][s, 0]
            for e, s in zip(latents.episode, latents.step, strict=True)
        ]
    )


def test_points_are_dense_in_the_beginning():
    assert spread_points(100) == [0, 1, 2, 3, 6, 10, 18, 32, 56, 100]
    assert spread_points(3) == [0, 1, 2, 3] and spread_points(1) == [0, 1]


def test_posteriors_are_spread_over_each_episode(found):
    posterior = found.posterior
    steps = {e: posterior.step[posterior.episode == 100 + e].tolist() for e in range(4)}
    assert steps == {0: [4, 9, 14, 20, 25, 30], 1: [4, 6, 7, 9, 10, 12], 2: [4], 3: [4, 7, 11, 14, 18, 21]}
    deter = posterior.values[DETER]
    np.testing.assert_array_equal(deter[:, 0], x_of(posterior))
    np.testing.assert_array_equal(deter[:, 1], posterior.episode - 95)
    np.testing.assert_array_equal(deter[:, 2], posterior.step)
    np.testing.assert_array_equal(posterior.values[BOTH], np.concatenate([deter, posterior.values[STOCH]], 1))
    np.testing.assert_array_equal(posterior.values[STOCH], np.stack([x_of(posterior)] * 2, 1))
    np.testing.assert_array_equal(posterior.values[CODE][:, 0], 10 * (posterior.episode - 95))
    np.testing.assert_array_equal(posterior.values[OBSERVATION], deter[:, [0, 2]])


def test_history_is_what_was_seen_and_done_up_to_the_step(found):
    posterior = found.posterior
    for row in (0, 8, 15):
        records, step = EPISODES[posterior.episode[row] - 100].records, posterior.step[row]
        seen = records["observation/state"][step - OBSERVED + 1 : step + 1][::-1].reshape(-1)
        done = records["action"][step - OBSERVED + 1 : step][::-1].reshape(-1)
        np.testing.assert_array_equal(posterior.values[HISTORY][row], np.concatenate([seen, done]))


def test_by_step_there_are_the_episodes_that_reach_it(found):
    assert list(found.by_step) == spread_points(30)
    for step, at in found.by_step.items():
        assert at.episode.tolist() == [100 + e for e, length in enumerate(LENGTHS) if length >= step]
        assert set(at.step) == {step} and set(at.values) == {BOTH, CODE, OBSERVATION}
        np.testing.assert_array_equal(at.values[BOTH][:, 0], x_of(at))


def test_dreams_follow_the_recorded_actions(found):
    starts = {0: [4, 12, 20], 1: [4], 2: [4], 3: [4, 8, 11]}
    assert list(found.imagined) == spread_points(10)
    for horizon, at in found.imagined.items():
        expected = [
            (100 + e, start + horizon, (100 + e) * STARTS + place)
            for e, some in starts.items()
            for place, start in enumerate(some)
            if start + horizon <= LENGTHS[e]
        ]
        assert list(zip(at.episode.tolist(), at.step.tolist(), at.series.tolist(), strict=True)) == expected
        # The dream after the actions of `start` .. `step - 1` is where the episode was at `step`.
        np.testing.assert_allclose(at.values[BOTH][:, 0], x_of(at), atol=1e-5)
        np.testing.assert_array_equal(at.values[BOTH][:, 2], at.step - horizon + 100 * horizon)
        context = (at.episode - 95) * (10 if horizon else 1)  # it dreams under the code, not under the context
        np.testing.assert_array_equal(at.values[BOTH][:, 1], context)


def test_episodes_are_observed_some_at_a_time(monkeypatch, found):
    monkeypatch.setattr(collection, "_ROWS", 62)
    agent = KnownAgent(infers=True)
    parts = read_latents(agent, None, EPISODES, first=100, steps=30, horizon=10)
    assert agent.groups == [2, 2]
    for points, expected in ((parts.by_step, found.by_step), (parts.imagined, found.imagined)):
        for point, at in points.items():
            np.testing.assert_array_equal(at.values[BOTH], expected[point].values[BOTH])
            np.testing.assert_array_equal(at.series, expected[point].series)
    np.testing.assert_array_equal(parts.posterior.values[HISTORY], found.posterior.values[HISTORY])


def test_an_agent_that_is_told_the_context_has_no_code():
    told = read_latents(KnownAgent(), None, EPISODES, first=0, steps=30, horizon=10)
    assert CODE not in told.posterior.values and CODE not in told.by_step[0].values


def moments(episodes, series):
    """Moments with these episodes and series, whatever they hold."""
    values = {BOTH: np.array(series, np.float32)[:, None]}
    return Latents(np.array(episodes), np.zeros(len(episodes), int), np.array(series), values)


def test_points_are_compared_over_the_same_moments():
    groups = np.array([0, 1, 2, 3, 4, 5, 6, 7, 0])  # episodes 0 and 8 share a context
    points = {
        0: moments([*range(9), 3], [*range(9), 30]),
        5: moments([0, 1, 2, 3, 4, 5], [0, 1, 2, 30, 4, 5]),  # six of eight contexts: enough
        9: moments([0, 1, 2, 3, 8], [0, 1, 2, 30, 8]),  # four
    }
    chosen = comparable(points, groups)
    assert list(chosen) == [0, 5]
    assert chosen[0].series.tolist() == [0, 1, 2, 4, 5, 30] and chosen[5].series.tolist() == [0, 1, 2, 30, 4, 5]
    np.testing.assert_array_equal(chosen[0].values[BOTH][:, 0], chosen[0].series)


def test_images_are_read_as_means_of_regions():
    image = np.arange(16 * 32, dtype=np.uint8).reshape(1, 1, 16, 32, 1) % 251
    records = {"observation/image": image, "observation/a": np.full((1, 1, 2), 7.0, np.float32), "reward": image}
    flat = flat_observations(records)
    assert flat.shape == (1, 1, 2 + 64)
    assert flat[0, 0, :2].tolist() == [7, 7]
    assert flat[0, 0, 2 + 8 * 3 + 5] == pytest.approx(image[0, 0, 6:8, 20:24, 0].mean() / 255)


def test_recent_by_hand():
    observations = np.arange(6, dtype=np.float32).reshape(1, 6, 1)
    actions = 10 * np.arange(6).reshape(1, 6, 1)
    rows = recent(observations, actions, np.array([0]), np.array([5]))
    assert rows.tolist() == [[5, 4, 3, 2, 1, 40, 30, 20, 10]]
