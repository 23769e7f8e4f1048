"""Classic control: the original at the default, the textbook's equations elsewhere."""

import math

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from agents.environments import make_environment
from agents.errors import UserError

ORIGINALS = {
    "cartpole": "CartPole-v1",
    "pendulum": "Pendulum-v1",
    "acrobot": "Acrobot-v1",
    "mountain_car": "MountainCar-v0",
    "mountain_car_continuous": "MountainCarContinuous-v0",
}
FEATURES = [(name, feature.name, feature.default) for name in ORIGINALS for feature in make_environment(name).features]


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
    generator, space = np.random.default_rng(seed), env.action_space
    if isinstance(space, gymnasium.spaces.Discrete):
        return [int(action) for action in generator.integers(space.n, size=count)]
    return list(generator.uniform(space.low, space.high, (count, 1)).astype(np.float32))


@pytest.mark.parametrize(("name", "original"), ORIGINALS.items())
def test_default_equals_gymnasium_step_for_step(name, original):
    ours, theirs = make_environment(name), gymnasium.make(original)
    for seed in range(5):
        actions = some_actions(ours, 1000, seed)
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


@pytest.mark.parametrize("name", ORIGINALS)
@pytest.mark.filterwarnings("ignore:.*(infinity|not normalized|symmetric).*")
def test_gymnasium_accepts_it(name):
    check_env(make_environment(name))


@pytest.mark.parametrize(("name", "feature", "default"), FEATURES)
@pytest.mark.parametrize("factor", [0.7, 1.4])
def test_every_feature_changes_the_trajectory(name, feature, default, factor):
    env = make_environment(name)
    actions = swinging(env) if name.startswith("mountain_car") else some_actions(env, 20)
    before, _ = rollout(env, 3, actions, {})
    value = min(factor * default, {f.name: f.high for f in env.features}[feature])
    if feature == "max_speed":  # more than the default is never reached
        value = 0.5 * factor * default
    after, _ = rollout(env, 3, actions, {feature: value})
    np.testing.assert_array_equal(before[0], after[0])  # the first state does not depend on the context
    length = min(len(before), len(after))
    if feature == "goal_position":  # which ends an episode earlier or later, and does nothing else
        np.testing.assert_array_equal(before[:length], after[:length])
        assert len(after) < len(before) if factor < 1 else len(after) > len(before)
    else:
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


def swinging(env):
    """Actions that push the car along for ten swings at the default context, to the goal and on."""
    env.reset(seed=3, options={"context": {}})
    actions, velocity = [], 0.0
    for _ in range(180):
        action = np.sign(velocity) or 1.0
        actions.append(int(action) + 1 if env.name == "mountain_car" else np.array([action], np.float32))
        observation, _, terminated, *_ = env.step(actions[-1])
        velocity = observation["state"][1]
        if terminated:
            return actions + actions[-1:] * 30
    raise AssertionError("the car does not come to the goal")


def acrobot_accelerations(q, v, torque, context):
    """Spong (1995): M(q) a + C(q, v) v + G(q) = (0, torque), angles from hanging; the forces of Coriolis from the
    derivatives of M by their definition, Christoffel's symbols, with differences instead of calculus."""
    g, l1, l2, m1, m2, f1, f2, moi = list(context.values())[:8]
    c1, c2 = f1 * l1, f2 * l2

    def potential(q):
        height_1 = -c1 * math.cos(q[0])
        height_2 = -l1 * math.cos(q[0]) - c2 * math.cos(q[0] + q[1])
        return g * (m1 * height_1 + m2 * height_2)

    def mass(q):
        # Of the Jacobians of both centers of mass and of both angles.
        j1 = np.array([[c1 * math.cos(q[0]), 0.0], [c1 * math.sin(q[0]), 0.0]])
        both = [math.cos(q[0] + q[1]), math.sin(q[0] + q[1])]
        own = [math.cos(q[0]), math.sin(q[0])]
        j2 = np.array([[l1 * own[i] + c2 * both[i], c2 * both[i]] for i in range(2)])
        w1, w2 = np.array([1.0, 0.0]), np.array([1.0, 1.0])
        return m1 * j1.T @ j1 + m2 * j2.T @ j2 + moi * (np.outer(w1, w1) + np.outer(w2, w2))

    step = 1e-5
    unit = np.eye(2) * step
    gravity = np.array([(potential(q + unit[i]) - potential(q - unit[i])) / (2 * step) for i in range(2)])
    slopes = np.array([(mass(q + unit[k]) - mass(q - unit[k])) / (2 * step) for k in range(2)])  # [k, i, j]
    coriolis = np.einsum("kij,j,k->i", slopes, v, v) - 0.5 * np.einsum("ijk,j,k->i", slopes, v, v)
    return np.linalg.solve(mass(q), np.array([0.0, torque]) - coriolis - gravity)


def test_acrobot_follows_the_equations_of_motion():
    context = {
        "gravity": 3.0,
        "link_length_1": 0.7,
        "link_length_2": 1.6,
        "link_mass_1": 1.4,
        "link_mass_2": 0.6,
        "link_com_1": 0.4,
        "link_com_2": 0.8,
        "link_moi": 0.5,
        "torque": 2.5,
        "dt": 0.1,
    }
    env = make_environment("acrobot")
    assert list(context) == [feature.name for feature in env.features]
    env.reset(seed=0, options={"context": context})
    q, v = env._world.state[:2].astype(float), env._world.state[2:].astype(float)
    for action in (2, 2, 0, 1, 2, 0, 0, 2, 2, 2):
        torque = 2.5 * (action - 1)
        for _ in range(100):  # small steps of the midpoint rule against one of Runge and Kutta
            middle = q + 0.0005 * v, v + 0.0005 * acrobot_accelerations(q, v, torque, context)
            q, v = q + 0.001 * middle[1], v + 0.001 * acrobot_accelerations(*middle, torque, context)
        observation, reward, terminated, *_ = env.step(action)
        expected = [math.cos(q[0]), math.sin(q[0]), math.cos(q[1]), math.sin(q[1]), *v]
        np.testing.assert_allclose(observation["state"], expected, atol=2e-4)
        assert (reward, terminated) == (-1.0, False)
    assert np.abs(v).max() > 0.5  # it has come to move


def test_mountain_car_follows_its_equations():
    """Sutton and Barto (2018), section 10.1, with every number varied; v' = v + force - gravity cos(3 x)."""
    shared = {"gravity": 0.004, "max_speed": 0.02, "min_position": -0.75}
    for name, engine in (("mountain_car", "force"), ("mountain_car_continuous", "power")):
        env = make_environment(name)
        observation, _ = env.reset(seed=1, options={"context": shared | {engine: 0.002, "goal_position": -0.3}})
        x, v = (float(value) for value in observation["state"])
        walls = fast = 0
        for step in range(400):
            push = -1.0 if step < 40 else 1.0 if v >= 0 else -1.0
            v = min(max(v + 0.002 * push - 0.004 * math.cos(3 * x), -0.02), 0.02)
            fast += abs(v) == 0.02
            x = max(x + v, -0.75)
            if x == -0.75 and v < 0:
                walls, v = walls + 1, 0.0
            action = int(push) + 1 if engine == "force" else np.array([push], np.float32)
            observation, reward, terminated, *_ = env.step(action)
            np.testing.assert_allclose(observation["state"], [x, v], atol=1e-5)
            x, v = (float(value) for value in observation["state"]) if engine == "power" else (x, v)  # it is rounded
            assert terminated == (x >= -0.3)
            if terminated:
                break
        assert walls and fast and terminated
        assert reward == pytest.approx(-1.0 if engine == "force" else 99.9)


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
