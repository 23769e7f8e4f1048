"""Box2D worlds: the originals at the default context, and features that the simulator obeys, by its own momenta."""

import math

import gymnasium
import numpy as np
import pytest

from agents.environments import make_environment
from agents.environments.box2d import BIPEDAL_WALKER_FEATURES, LUNAR_LANDER_FEATURES
from tests.extras import needs

pytestmark = needs("box2d")

FPS = 50
ORIGINALS = {
    "box2d/lunar_lander": ("LunarLander-v3", {}),
    "box2d/lunar_lander_continuous": ("LunarLander-v3", {"continuous": True}),
    "box2d/bipedal_walker": ("BipedalWalker-v3", {}),
    "box2d/bipedal_walker_hardcore": ("BipedalWalker-v3", {"hardcore": True}),
}
FEATURES = [("box2d/lunar_lander", feature) for feature in LUNAR_LANDER_FEATURES]
FEATURES += [("box2d/bipedal_walker", feature) for feature in BIPEDAL_WALKER_FEATURES]


def random_action(space, generator):
    return generator.uniform(-1, 1, space.shape).astype(np.float32) if space.shape else int(generator.integers(space.n))


def states(env, context, seed=0, steps=60):
    """Return the states of an episode under random actions."""
    generator = np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed, options={"context": context})
    history = [observation["state"]]
    for _ in range(steps):
        observation, _, terminated, *_ = env.step(random_action(env.action_space, generator))
        history.append(observation["state"])
        if terminated:
            break
    return np.array(history)


def momentum(env):
    """Return the momentum [2] of all bodies, kg m/s."""
    bodies = [body for body in env._world.world.bodies if body.mass > 0.0]
    return sum(body.mass * np.array(body.linearVelocity) for body in bodies), sum(body.mass for body in bodies)


def gained(env, action):
    """Return the force, N, on all bodies together in the next step, weight included, and their mass, kg."""
    before, mass = momentum(env)
    env.step(action)
    return (momentum(env)[0] - before) * FPS, mass


@pytest.mark.parametrize("name", ORIGINALS)
def test_the_default_context_is_the_original(name):
    identity, settings = ORIGINALS[name]
    original, env = gymnasium.make(identity, **settings), make_environment(name)
    assert env.action_space == original.action_space
    assert original.spec.max_episode_steps == env._time_limit or settings.get("hardcore")
    for seed in (3, 4):
        generator = np.random.default_rng(seed)
        expected, _ = original.reset(seed=seed)
        observation, _ = env.reset(seed=seed)
        np.testing.assert_array_equal(observation["state"], expected)
        terminated = False
        while not terminated:
            action = random_action(env.action_space, generator)
            expected, expected_reward, expected_end, *_ = original.step(action)
            observation, reward, terminated, *_ = env.step(action)
            np.testing.assert_array_equal(observation["state"], expected)
            assert (reward, terminated) == (expected_reward, expected_end)
        # The walker's original plays on in a simulator that remembers the episodes before.
        original = gymnasium.make(identity, **settings)


def test_the_hardcore_walker_has_its_own_time_limit():
    assert gymnasium.spec("BipedalWalkerHardcore-v3").max_episode_steps == 2000
    assert make_environment("box2d/bipedal_walker_hardcore")._time_limit == 2000


@pytest.mark.parametrize(("name", "feature"), FEATURES, ids=lambda value: getattr(value, "name", value))
def test_a_feature_changes_the_trajectory_of_its_environment_only(name, feature):
    env, other = make_environment(name), make_environment(name)
    original = states(env, {})
    changed = states(env, {feature.name: feature.default * 0.5 if feature.default else feature.high / 2})
    assert changed.shape != original.shape or not np.array_equal(changed, original)
    np.testing.assert_array_equal(states(other, {}), original)  # while env has another context
    np.testing.assert_array_equal(states(env, {}), original)


@pytest.mark.parametrize(
    ("name", "still"), [("box2d/lunar_lander", 0), ("box2d/bipedal_walker", np.zeros(4, np.float32))]
)
def test_gravity_in_free_fall(name, still):
    env = make_environment(name)
    env.reset(seed=0, options={"context": {"gravity": 3.5}})
    if name == "box2d/bipedal_walker":  # it begins near the ground
        for body in env._world.legs + [env._world.hull]:
            body.position = body.position + (0.0, 5.0)
    force, mass = gained(env, still)
    np.testing.assert_allclose(force, [0.0, -3.5 * mass], atol=0.01 * mass)
    env.set_context({"gravity": 12.5})  # while the episode goes on
    force, mass = gained(env, still)
    np.testing.assert_allclose(force, [0.0, -12.5 * mass], atol=0.01 * mass)


def test_wind_pushes_with_its_power_from_the_step_on_in_which_it_rises():
    env = make_environment("box2d/lunar_lander")
    env.reset(seed=0)
    env.step(0)
    env.set_context({"wind_power": 15.0})
    for index in range(3):
        phase = 0.01 * index
        expected = 15.0 * math.tanh(math.sin(2 * phase) + math.sin(math.pi * phase))
        force, mass = gained(env, 0)
        np.testing.assert_allclose(force, [expected, -10.0 * mass], atol=0.02)
    env.set_context({})
    np.testing.assert_allclose(gained(env, 0)[0][0], 0.0, atol=0.02)


def test_turbulence_turns():
    """The wind's phases are of the seed, so that twice the power makes twice the difference in spin."""

    def spin(power):
        env = make_environment("box2d/lunar_lander")
        env.reset(seed=0, options={"context": {"wind_power": 1e-9, "turbulence_power": power}})
        env.step(0)
        return env._world.lander.angularVelocity

    calm, windy, windier = spin(0.0), spin(2.0), spin(4.0)
    assert abs(windy - calm) > 1e-4
    assert windier - calm == pytest.approx(2 * (windy - calm), rel=0.02)


@pytest.mark.parametrize(
    ("feature", "action", "default"), [("main_engine_power", 2, 13.0), ("side_engine_power", 1, 0.6)]
)
def test_engines_push_with_their_power(feature, action, default):
    def force(value):
        env = make_environment("box2d/lunar_lander")
        env.reset(seed=0)
        env.set_context({feature: value})
        return gained(env, action)[0]

    weight = make_environment("box2d/lunar_lander")
    weight.reset(seed=0)
    coasting = gained(weight, 0)[0]
    push = force(default) - coasting
    assert np.linalg.norm(push) > 1.0
    np.testing.assert_allclose(force(2 * default) - coasting, 2 * push, rtol=0.01, atol=0.05)


def test_the_walkers_torque_and_the_grounds_friction_are_the_simulators():
    env = make_environment("box2d/bipedal_walker")
    env.reset(seed=0, options={"context": {"motors_torque": 123.0, "friction": 0.9}})
    env.step(np.array([1.0, -1.0, 0.5, 0.0], np.float32))
    joints, world = env._world.joints, env._world.world
    assert [joint.GetMaxMotorTorque() for joint in joints] == [123.0, 123.0, 61.5, 0.0]
    assert {round(fixture.friction, 6) for body in env._world.terrain for fixture in body.fixtures} == {0.9}
    for _ in range(20):  # until the feet stand
        env.step(np.zeros(4, np.float32))
    touching = [contact for contact in world.contacts if contact.touching]
    leg = env._world.legs[1].fixtures[0].friction
    for friction in (0.9, 2.0):
        env.set_context({"friction": friction})  # a contact has the geometric mean of the two
        assert touching and {round(contact.friction, 5) for contact in touching} == {
            round(math.sqrt(friction * leg), 5)
        }
