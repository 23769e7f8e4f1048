"""CartPole and Pendulum: the original at the default, the textbook's equations elsewhere."""

import math

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from agents.environments import make_environment
from agents.errors import UserError

FEATURES = [
    (name, feature.name, feature.default)
    for name in ("cartpole", "pendulum")
    for feature in make_environment(name).features
]


def rollout(env, seed, actions, context=None):
    """Return observations [n+1, ...] and rewards [n] of at most len(actions) steps."""
    observation, _ = env.reset(seed=seed, options=None if context is None else {"context": context})
    observations, rewards = [observation["state"]], []
    for action in actions:
        observation, reward, terminated, truncated, _ = env.step(action)
        observations.append(observation["state"])
        rewards.append(reward)
        if terminated or truncated:
            break
    return np.array(observations), np.array(rewards)


def some_actions(env, count, seed=0):
    generator = np.random.default_rng(seed)
    if isinstance(env.action_space, gymnasium.spaces.Discrete):
        return [int(action) for action in generator.integers(2, size=count)]
    return list(generator.uniform(-2, 2, (count, 1)).astype(np.float32))


@pytest.mark.parametrize(("name", "original"), [("cartpole", "CartPole-v1"), ("pendulum", "Pendulum-v1")])
def test_default_equals_gymnasium_step_for_step(name, original):
    ours, theirs = make_environment(name), gymnasium.make(original)
    for seed in range(5):
        actions = some_actions(ours, 600, seed)
        observation, _ = ours.reset(seed=seed)
        expected, _ = theirs.reset(seed=seed)
        np.testing.assert_array_equal(observation["state"], expected, strict=True)
        for action in actions:
            observation, *rest, _ = ours.step(action)
            expected, *expected_rest, _ = theirs.step(action)
            np.testing.assert_array_equal(observation["state"], expected, strict=True)
            assert rest == expected_rest
            if rest[1] or rest[2]:
                break
        else:
            pytest.fail("neither ended")
        observation, _ = ours.reset()  # the second episode follows from the same seed
        np.testing.assert_array_equal(observation["state"], theirs.reset()[0])


def test_default_equals_gymnasium_up_to_the_time_limit():
    ours, theirs = make_environment("cartpole"), gymnasium.make("CartPole-v1")
    observation, _ = ours.reset(seed=1)
    theirs.reset(seed=1)
    for step in range(1, 501):
        x, v, angle, spin = observation["state"]
        action = int(3 * angle + spin + 0.05 * x + 0.1 * v > 0)  # balances
        observation, _, *ended, _ = ours.step(action)
        assert ended == list(theirs.step(action)[2:4]) == [False, step == 500]


@pytest.mark.parametrize("name", ["cartpole", "pendulum"])
@pytest.mark.filterwarnings("ignore:.*(infinity|not normalized|symmetric).*")
def test_gymnasium_accepts_it(name):
    check_env(make_environment(name))


@pytest.mark.parametrize(("name", "feature", "default"), FEATURES)
@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_every_feature_changes_the_trajectory(name, feature, default, factor):
    env = make_environment(name)
    actions = some_actions(env, 20)
    before, _ = rollout(env, 3, actions, {})
    after, _ = rollout(env, 3, actions, {feature: factor * default})
    np.testing.assert_array_equal(before[0], after[0])  # the first state does not depend on the context
    length = min(len(before), len(after))
    assert np.abs(before[:length] - after[:length]).max() > 1e-4
    again, _ = rollout(env, 3, actions, {})
    np.testing.assert_array_equal(before, again)


def test_cartpole_follows_the_equations_of_motion():
    """Florian (2007), equations 23 and 24 without friction, with the half length l and explicit Euler."""
    context = {
        "gravity": 3.0,
        "masscart": 2.5,
        "masspole": 0.4,
        "length": 1.3,
        "force_mag": 17.0,
        "tau": 0.03,
    }
    env = make_environment("cartpole")
    observation, _ = env.reset(seed=0, options={"context": context})
    x, v, angle, spin = (float(value) for value in observation["state"])
    g, mc, mp, half, push, dt = context.values()
    for action in (1, 1, 0, 1, 0, 0, 1):
        force = push if action else -push
        sine, cosine = math.sin(angle), math.cos(angle)
        fraction = (-force - mp * half * spin**2 * sine) / (mc + mp)
        spin_rate = (g * sine + cosine * fraction) / (half * (4 / 3 - mp * cosine**2 / (mc + mp)))
        v_rate = (force + mp * half * (spin**2 * sine - spin_rate * cosine)) / (mc + mp)
        x, v, angle, spin = x + dt * v, v + dt * v_rate, angle + dt * spin, spin + dt * spin_rate
        observation, *_ = env.step(action)
        np.testing.assert_allclose(observation["state"], [x, v, angle, spin], rtol=1e-5, atol=1e-7)


def test_pendulum_follows_the_equations_of_motion():
    """A rod of mass m and length l: inertia m l^2 / 3, weight at l / 2, semi-implicit Euler."""
    g, m, length, dt = 4.0, 0.5, 1.7, 0.02
    env = make_environment("pendulum")
    observation, _ = env.reset(seed=0, options={"context": {"g": g, "m": m, "l": length, "dt": dt}})
    cosine, sine, spin = (float(value) for value in observation["state"])
    angle = math.atan2(sine, cosine)
    for torque in (1.0, -2.0, 0.5, 2.0):
        wrapped = (angle + math.pi) % (2 * math.pi) - math.pi
        expected_reward = -(wrapped**2 + 0.1 * spin**2 + 0.001 * torque**2)
        spin += dt * (m * g * length / 2 * math.sin(angle) + torque) / (m * length**2 / 3)
        angle += dt * spin
        observation, reward, *_ = env.step(np.array([torque], np.float32))
        np.testing.assert_allclose(observation["state"], [math.cos(angle), math.sin(angle), spin], rtol=1e-5)
        assert reward == pytest.approx(expected_reward, rel=1e-5)


def test_time_limit_truncates_and_counts_original_steps():
    env = make_environment("pendulum", time_limit=7, action_repeat=3)
    single = make_environment("pendulum")
    env.reset(seed=0)
    single.reset(seed=0)
    action = np.array([1.5], np.float32)
    repeats = [3, 3, 1]  # the last is cut short by the limit
    for call, repeat in enumerate(repeats):
        observation, reward, terminated, truncated, _ = env.step(action)
        expected = [single.step(action) for _ in range(repeat)]
        np.testing.assert_array_equal(observation["state"], expected[-1][0]["state"])
        assert reward == sum(step[1] for step in expected)
        assert (terminated, truncated) == (False, call == 2)


def test_action_repeat_stops_at_a_terminal_state():
    env = make_environment("cartpole", action_repeat=1000)
    env.reset(seed=0)
    _, reward, terminated, truncated, _ = env.step(1)
    assert (terminated, truncated) == (True, False)
    assert 5 <= reward <= 15  # pushed one way only, the pole falls after about ten steps, one point each


def test_step_needs_reset_first_and_after_the_end():
    env = make_environment("pendulum", time_limit=1)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(1, np.float32))
    env.reset(seed=0)
    env.step(np.zeros(1, np.float32))
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(1, np.float32))


@pytest.mark.parametrize("key", ["time_limit", "action_repeat"])
def test_a_limit_below_one_is_refused(key):
    with pytest.raises(UserError, match=f"^environment cartpole: {key} is 0, but must be at least 1$"):
        make_environment("cartpole", **{key: 0})
