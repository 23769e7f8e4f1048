"""Contexts that change within an episode: when they act, what the records say, what is refused."""

from functools import partial

import mujoco
import numpy as np
import pytest

from agents.environments import Change, Reset, SerialVector, SubprocessVector, make_environment
from agents.errors import UserError

RIGHT = np.array([0, 1], np.float32)


def records_of(vector, reset, actions):
    """Return the records [n + 1] of an episode in a vector of one."""
    return [{key: value[0] for key, value in vector.step([command]).items()} for command in (reset, *actions)]


@pytest.mark.parametrize("repeat", [1, 3])
def test_it_acts_on_the_step_it_names_and_the_record_follows(repeat):
    settings = {"features": ["length", "gravity"], "action_repeat": repeat, "time_limit": 12}
    vector = SerialVector([partial(make_environment, "cartpole", **settings)])
    changes = (Change(2, {"gravity": 30.0}, 5), Change(3, {"length": 1.0}), Change(400, {"gravity": 1.0}, 6))
    records = records_of(vector, Reset(4, {"length": 0.25}, 7, changes), [RIGHT] * 3)
    by_hand = make_environment("cartpole", **settings)  # the context is set by hand between the steps
    observation, _ = by_hand.reset(seed=4, options={"context": {"length": 0.25}})
    expected = [observation["state"]]
    for context in (None, {"gravity": 30.0}, {"length": 1.0}):
        if context:
            by_hand.set_context(context)
        expected.append(by_hand.step(1)[0]["state"])
    np.testing.assert_array_equal([record["observation/state"] for record in records], expected)
    contexts = np.float32([[0.25, 9.8], [0.25, 9.8], [0.5, 30.0], [1.0, 9.8]])
    np.testing.assert_array_equal([record["context"] for record in records], contexts)
    assert [record["context_id"] for record in records] == [7, 7, 5, -1]
    plain = records_of(vector, Reset(4, {"length": 0.25}, 7), [RIGHT] * 3)  # nothing is left of the changes
    assert [record["context_id"] for record in plain] == [7] * 4
    same = [np.array_equal(a["observation/state"], b["observation/state"]) for a, b in zip(plain, records, strict=True)]
    assert same == [True, True, False, False]


def test_a_reset_without_a_context_keeps_the_one_that_was_changed_to_and_no_changes():
    env = make_environment("cartpole", features=["gravity"])
    env.reset(seed=0, options={"changes": [Change(1, {"gravity": 3.0}, 2), Change(2, {"gravity": 4.0}, 9)]})
    env.step(0)
    _, info = env.reset()
    assert (info["context"], info["context_id"]) == (np.float32([3.0]), 2)
    env.step(0)
    assert env.step(0)[4]["context_id"] == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([Change(0, {})], "environment cartpole: a context changes at step 0; valid: 1 or later, each after the one"),
        ([Change(3, {}), Change(3, {})], "environment cartpole: a context changes at step 3; valid"),
        ([Change(1, {}), Change(5, {"gravity": 1e3})], "context feature gravity is 1000.0, but must be"),
        ([Change(1, {"gravty": 1.0})], "unknown context feature 'gravty'"),
    ],
)
def test_bad_changes_are_refused_at_the_reset(changes, message):
    env = make_environment("cartpole")
    env.reset(seed=0, options={"context": {"gravity": 5.0}})
    with pytest.raises(UserError, match=message) as caught:
        env.reset(seed=0, options={"context": {"gravity": 6.0}, "changes": changes})
    assert "\n" not in str(caught.value)
    assert env.context["gravity"] == 5.0


def test_a_world_whose_context_acts_at_a_reset_only_refuses_changes():
    env = make_environment("cartpole")
    env.live_context = False
    env.reset(seed=0, options={"context": {"gravity": 5.0}, "changes": []})
    with pytest.raises(UserError, match="^environment cartpole: its context acts at a reset only"):
        env.reset(seed=0, options={"changes": [Change(1, {})]})


@pytest.mark.parametrize("name", ["dmc/walker/walk", "dmc/fish/swim"])
def test_the_suite_steps_from_the_same_state_in_the_new_world(name):
    """What dm_control prepares for the next step at the end of a step is of the old context, unless made anew."""
    changing, other = make_environment(name), make_environment(name)
    context = {feature.name: 1.5 * feature.default or 1.0 for feature in changing.features}
    generator = np.random.default_rng(0)
    changing.reset(seed=1, options={"changes": [Change(11, context)]})
    for _ in range(10):
        changing.step(generator.uniform(-1, 1, changing.action_space.shape).astype(np.float32))
    other.reset(seed=1, options={"context": context})
    physics, fresh = changing.physics, other.physics
    for field in ("time", "qpos", "qvel", "act", "qacc_warmstart"):
        setattr(fresh.data, field, np.copy(getattr(physics.data, field)))
    mujoco.mj_forward(fresh.model.ptr, fresh.data.ptr)
    fresh.data.qacc_warmstart[:] = physics.data.qacc_warmstart
    action = generator.uniform(-1, 1, changing.action_space.shape).astype(np.float32)
    changing.step(action)
    other.step(action)
    np.testing.assert_allclose(physics.data.qpos, fresh.data.qpos, rtol=0, atol=1e-10)
    np.testing.assert_allclose(physics.data.qvel, fresh.data.qvel, rtol=0, atol=1e-8)


def other_context(env):
    """A context in which no feature is at its default."""
    return {f.name: 1.2 * f.default if 1.2 * f.default <= f.high else 0.9 * f.default for f in env.features}


@pytest.mark.parametrize("name", ["cartpole", "pendulum", "acrobot", "mountain_car", "mountain_car_continuous"])
def test_classic_worlds_go_on_from_the_same_state_in_the_new_world(name):
    changing, other = make_environment(name), make_environment(name)
    context = other_context(changing)
    changing.reset(seed=1, options={"changes": [Change(6, context)]})
    other.reset(seed=1, options={"context": context})
    changing.action_space.seed(0)
    actions = [changing.action_space.sample() for _ in range(10)]
    for action in actions[:5]:
        changing.step(action)
    plain = changing._world.state
    other._world.state = plain
    for action in actions[5:]:
        state = changing.step(action)[0]["state"]
        np.testing.assert_array_equal(state, other.step(action)[0]["state"])
    other.set_context({})
    other._world.state = plain
    assert not np.array_equal(state, [other.step(action)[0]["state"] for action in actions[5:]][-1])


def test_gymnasiums_mujoco_goes_on_from_the_same_state_in_the_new_world():
    changing, other = make_environment("gym/HalfCheetah-v5"), make_environment("gym/HalfCheetah-v5")
    context = other_context(changing) | {"density": 2.0, "viscosity": 0.1}
    generator = np.random.default_rng(0)
    actions = generator.uniform(-1, 1, (12, 6)).astype(np.float32)
    changing.reset(seed=1, options={"changes": [Change(11, context)]})
    other.reset(seed=1, options={"context": context})
    for action in actions[:10]:
        changing.step(action)
    for field in ("time", "qpos", "qvel", "qacc_warmstart"):
        setattr(other._data, field, np.copy(getattr(changing._data, field)))
    for action in actions[10:]:
        np.testing.assert_array_equal(changing.step(action)[0]["state"], other.step(action)[0]["state"])


def test_a_falling_body_feels_the_new_gravity_in_the_very_next_step():
    env = make_environment("gym/Hopper-v5", features=["gravity"])
    falling = make_environment("dmc/hopper/hop", features=["gravity"])
    for world, data, frames in ((env, env._data, 4), (falling, falling.physics.data, 4)):
        step = world._model.opt.timestep if world is env else world.physics.timestep()
        world.reset(seed=0, options={"changes": [Change(2, {"gravity": 2.0})]})
        world.step(np.zeros(world.action_space.shape, np.float32))
        data.qpos[1] += 5.0  # high above the ground
        data.qvel[:] = 0.0
        if world is falling:
            mujoco.mj_step1(world.physics.model.ptr, world.physics.data.ptr)
        momentum = _vertical_momentum(world, data)
        world.step(np.zeros(world.action_space.shape, np.float32))
        gained = _vertical_momentum(world, data) - momentum
        mass = (world._model if world is env else world.physics.model).body_mass.sum()
        assert gained == pytest.approx(-2.0 * mass * step * frames, rel=1e-4)  # armature


def _vertical_momentum(world, data):
    model = getattr(world, "_model", None) or world.physics.model.ptr
    data = getattr(data, "ptr", data)
    mujoco.mj_forward(model, data)
    mujoco.mj_subtreeVel(model, data)
    return float(data.subtree_linvel[0][2] * model.body_subtreemass[0])


def test_processes_give_the_same_records():
    make = partial(make_environment, "dmc/cartpole/balance", features=["gravity", "body_mass"], time_limit=8)
    reset = Reset(3, {"body_mass": 2.0}, 0, (Change(2, {"gravity": 20.0}, 1), Change(5, {"body_mass": 0.5}, 2)))
    actions = np.random.default_rng(0).uniform(-1, 1, (8, 1)).astype(np.float32)
    vectors = [SerialVector([make]), SubprocessVector([make])]
    try:
        serial, parallel = (records_of(vector, reset, actions) for vector in vectors)
    finally:
        for vector in vectors:
            vector.close()
    assert [record["context_id"] for record in serial] == [0, 0, 1, 1, 1, 2, 2, 2, 2]
    for one, other in zip(serial, parallel, strict=True):
        for key in one:
            np.testing.assert_array_equal(one[key], other[key], strict=True)
