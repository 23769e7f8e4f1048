"""The whole control suite: the original at the default, and every feature acts."""

import functools

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from agents.environments import InvalidStep, make_environment
from agents.environments.dmc import DmControl, _no_drawing
from agents.environments.headless import mujoco, suite
from agents.errors import UserError

TASKS = [f"{domain}/{task}" for domain, task in suite.ALL_TASKS]
ALL = {
    "gravity",
    "actuator_strength",
    "joint_damping",
    "geom_friction",
    "density",
    "viscosity",
    "body_mass",
}
NO_GRAVITY = {"finger", "fish"}  # switched off in the model
HORIZONTAL = {"lqr", "point_mass", "reacher", "swimmer"}  # no joint moves up or down


@functools.lru_cache(maxsize=1)  # a model takes long to compile; the tests of one task come one after another
def environment(task):
    return make_environment(f"dmc/{task}")


def actions(env, count, seed=0):
    shape = env.action_space.shape
    return np.random.default_rng(seed).uniform(-1, 1, (count, *shape)).astype(np.float32)


def rollout(env, seed, commands, context):
    """Return flat observations [n+1, ...] and rewards [n]."""
    observation, _ = env.reset(seed=seed, options={"context": context})
    observations, rewards = [observation], []
    for action in commands:
        observation, reward, *_ = env.step(action)
        observations.append(observation)
        rewards.append(reward)
    flat = [np.concatenate([value.ravel() for value in entry.values()]) for entry in observations]
    return np.array(flat), np.array(rewards)


@pytest.mark.parametrize("task", TASKS)
def test_default_equals_dm_control_step_for_step(task):
    env = environment(task)
    env.reset(seed=5, options={"context": {"body_mass": 1.5, "viscosity": 0.1}})  # leaves no trace
    env.step(actions(env, 1)[0])
    original = suite.load(*task.split("/"), task_kwargs={"random": 0})
    original.task.random.seed(3)
    commands = actions(env, 15)
    ours, rewards = rollout(env, 3, commands, {})
    with _no_drawing(original.physics):
        expected = original.reset()
    for step in range(16):
        flat = [np.ravel(value).astype(np.float32) for value in expected.observation.values()]
        np.testing.assert_array_equal(ours[step], np.concatenate(flat))
        if step:
            assert rewards[step - 1] == expected.reward
        if step < 15:
            expected = original.step(commands[step])
    if not task.startswith("lqr"):  # endless
        assert original._step_limit == 1000
    assert env.observation_space.contains(env.step(commands[0])[0])


@pytest.mark.parametrize("task", TASKS)
def test_exactly_the_features_that_can_act_are_there_and_they_do(task):
    env = environment(task)
    domain, model = task.split("/")[0], env.physics.model.ptr
    expected = set(ALL)
    if domain in NO_GRAVITY | HORIZONTAL:
        expected.remove("gravity")
    if not model.dof_damping.any():
        expected.remove("joint_damping")
    switched_off = mujoco.mjtDisableBit.mjDSBL_CONTACT | mujoco.mjtDisableBit.mjDSBL_CONSTRAINT
    if model.opt.disableflags & int(switched_off):
        expected.remove("geom_friction")
    assert {feature.name for feature in env.features} == expected
    # Some features need a contact, which may take long.
    attempts = [actions(env, 5), *(np.repeat(actions(env, 30, seed), 10, axis=0) for seed in range(12))]
    before: list[np.ndarray] = []
    for feature in env.features:
        value = 1.5 * feature.default or {"density": 10.0, "viscosity": 0.1}[feature.name]
        for number, commands in enumerate(attempts):
            if number == len(before):
                before.append(rollout(env, 1, commands, {})[0])
            after, _ = rollout(env, 1, commands, {feature.name: value})
            if np.abs(before[number] - after).max() > 1e-6:
                break
        else:
            pytest.fail(f"{feature.name} does not act on {task}")


def test_seeds_as_in_suite_load():
    for domain, task in (("walker", "walk"), ("ball_in_cup", "catch")):
        env = environment(f"{domain}/{task}")
        for seed in (0, 2**32 - 1):
            expected = suite.load(domain, task, task_kwargs={"random": seed}).reset().observation
            observation, _ = env.reset(seed=seed)
            for key, value in expected.items():
                np.testing.assert_array_equal(observation[key], np.atleast_1d(value).astype(np.float32))


def test_reset_reproduces_with_any_seed_and_continues_its_stream():
    env, other = make_environment("dmc/reacher/easy"), make_environment("dmc/reacher/easy")
    firsts = []
    for seed in (0, 1, 2**32, 2**32 + 1, 2**63 - 1):
        episodes = [env.reset(seed=seed)[0]["position"], env.reset()[0]["position"]]
        again = [other.reset(seed=seed)[0]["position"], other.reset()[0]["position"]]
        np.testing.assert_array_equal(episodes, again)
        assert (episodes[0] != episodes[1]).all()
        firsts.append(tuple(episodes[0]))
    assert len(set(firsts)) == 5
    fresh = [make_environment("dmc/reacher/easy").reset()[0]["position"] for _ in range(2)]
    assert (fresh[0] != fresh[1]).all()  # without any seed, chance


@pytest.mark.parametrize("task", ["walker/walk", "cartpole/swingup", "fish/swim"])
@pytest.mark.filterwarnings("ignore:.*(infinity|float64|not normalized|symmetric|alternative render).*")
def test_gymnasium_accepts_it(task):
    check_env(environment(task))


def everything_in(model):
    """Return copies of all numbers in a model."""
    numbers = {}
    for prefix, owner in (("", model), ("opt.", model.opt), ("stat.", model.stat)):
        for name in dir(owner):
            value = None if name.startswith("_") else getattr(owner, name, None)
            if isinstance(value, np.ndarray | int | float):
                numbers[prefix + name] = np.array(value)
    return numbers


def differing(one, other):
    assert one.keys() == other.keys()
    return {name for name in one if one[name].tobytes() != other[name].tobytes()}


@pytest.mark.parametrize("task", ["walker/walk", "quadruped/walk", "fish/swim", "finger/spin", "humanoid/walk"])
def test_the_default_is_restored_bit_for_bit(task):
    env = environment(task)
    env.reset(seed=0, options={"context": {}})
    model = env.physics.model.ptr
    pristine = everything_in(model)
    assert {"body_mass", "dof_damping", "opt.gravity", "opt.viscosity", "stat.meaninertia"} <= pristine.keys()
    generator = np.random.default_rng(0)
    for _ in range(3):
        for feature in env.features:
            low, high = max(feature.low, feature.default / 3), min(feature.high, feature.default * 3 + 0.3)
            env.set_context({feature.name: generator.uniform(low, high)})
            assert differing(pristine, everything_in(model))
        env.set_context({})
        assert differing(pristine, everything_in(model)) == set()


XML = """
<mujoco>
  <option gravity="0 0 {gravity}" density="{density}" viscosity="{viscosity}"/>
  <worldbody>
    <geom name="floor" type="plane" size="1 1 1" friction="{slide} {turn} {roll}"/>
    <body pos="0 0 0.2">
      <joint name="slide" type="slide" axis="0 0 1" damping="{damping}" armature="0.3"/>
      <inertial pos="0 0 0" mass="{mass}" diaginertia="{inertia} {inertia} {inertia}"/>
      <geom name="ball" size="0.1" friction="{slide} {turn} {roll}"/>
      <body pos="0.5 0 0">
        <joint name="hinge" axis="0 1 0" damping="{damping2}" actuatorfrcrange="-{limit} {limit}"/>
        <inertial pos="0.2 0 0" mass="{mass2}" diaginertia="{inertia} {inertia} {inertia}"/>
        <geom name="rod" type="capsule" size="0.05 0.2" friction="{slide} {turn} {roll}"/>
      </body>
    </body>
  </worldbody>
  <contact>
    <pair geom1="floor" geom2="rod" friction="{slide} {slide} {turn} {roll} {roll}"/>
  </contact>
  <actuator>
    <general joint="slide" gainprm="{gain}" biastype="affine" biasprm="{bias} -{gain} -{drag}"
             forcerange="-{limit} {limit}" gear="4"/>
    <motor joint="hinge"/>
  </actuator>
</mujoco>
"""
NUMBERS = {
    "gravity": -8.0, "density": 1.5, "viscosity": 0.25, "damping": 0.5, "damping2": 0.75, "mass": 2.0,
    "mass2": 1.25, "inertia": 0.125, "gain": 20.0, "bias": 3.0, "drag": 0.5, "limit": 6.0, "slide": 0.75,
    "turn": 0.0625, "roll": 0.03125,
}  # fmt: skip
SCALED = {
    "gravity": ("gravity",),
    "joint_damping": ("damping", "damping2"),
    "geom_friction": ("slide", "turn", "roll"),
    "density": ("density",),
    "viscosity": ("viscosity",),
    "body_mass": ("mass", "mass2", "inertia"),
}


def compiled(numbers):
    return mujoco.MjModel.from_xml_string(XML.format(**numbers))


@pytest.mark.parametrize("name", SCALED)
def test_editing_equals_compiling_anew(name):
    from agents.environments.mujoco_model import ModelEditor

    model = compiled(NUMBERS)
    editor = ModelEditor(model)
    assert {feature.name for feature in editor.features} == ALL
    default = {feature.name: feature.default for feature in editor.features}[name]
    expected = compiled({key: value * (2 if key in SCALED[name] else 1) for key, value in NUMBERS.items()})
    pristine = everything_in(model)
    editor.apply({name: 2 * default})
    edited, recompiled = everything_in(model), everything_in(expected)
    changed = differing(pristine, edited)
    assert changed
    # The compiler also derives a scale of the solver's tolerance and of drawing, which contexts leave alone.
    for key in edited.keys() - {"stat.meaninertia", "stat.meanmass"}:
        np.testing.assert_allclose(edited[key], recompiled[key], rtol=1e-12, atol=1e-14, err_msg=key)
    assert differing(pristine, recompiled) - {"stat.meaninertia", "stat.meanmass"} == changed


def test_actuator_strength_multiplies_forces_and_their_limits():
    from agents.environments.mujoco_model import ModelEditor

    model = compiled(NUMBERS)
    editor, data = ModelEditor(model), mujoco.MjData(model)

    def forces(control):
        """The servo's force by hand: gain * control + bias - gain * length - drag * velocity, then limits."""
        mujoco.mj_resetData(model, data)
        data.qpos[:], data.qvel[:], data.ctrl[:] = (0.05, 0.3), (0.4, -0.2), control
        mujoco.mj_forward(model, data)
        return data.actuator_force.copy(), data.qfrc_actuator.copy()

    servo = 20 * 0.1 + 3 - 20 * (4 * 0.05) - 0.5 * (4 * 0.4)
    for factor in (1.0, 0.5, 3.0):
        editor.apply({"actuator_strength": factor})
        force, torque = forces((0.1, 0.7))
        np.testing.assert_allclose(force, [factor * servo, factor * 0.7], rtol=1e-12)
        np.testing.assert_allclose(torque, [4 * factor * servo, factor * 0.7], rtol=1e-12)
        force, torque = forces((50.0, 50.0))
        np.testing.assert_allclose(force[0], factor * 6.0)
        np.testing.assert_allclose(torque, [4 * factor * 6.0, factor * 6.0])


def test_the_suite_has_only_actuators_that_strength_is_right_for():
    linear = {int(mujoco.mjtGain.mjGAIN_FIXED), int(mujoco.mjtGain.mjGAIN_AFFINE)}
    for task in ("walker/walk", "quadruped/run", "fish/swim", "dog/run", "manipulator/bring_ball"):
        model = environment(task).physics.model.ptr
        assert set(model.actuator_gaintype) <= linear
        assert set(model.actuator_biastype) <= {
            int(mujoco.mjtBias.mjBIAS_NONE),
            int(mujoco.mjtBias.mjBIAS_AFFINE),
        }


def test_a_task_that_sets_a_default_at_reset_does_not_undo_the_context():
    env = environment("finger/spin")  # sets the damping of the hinge to 0.03 at each reset
    hinge = env.physics.model.name2id("hinge", "joint")
    env.reset(seed=0, options={"context": {"joint_damping": 2.0}})
    assert env.physics.model.dof_damping[hinge] == pytest.approx(0.06)
    env.reset(seed=0, options={"context": {}})
    assert env.physics.model.dof_damping[hinge] == 0.03


def test_the_time_limit_is_no_end_of_the_world():
    env = make_environment("dmc/pendulum/swingup", time_limit=5, action_repeat=2)
    env.reset(seed=0)
    ends = [env.step(np.zeros(1, np.float32))[2:4] for _ in range(3)]
    assert ends == [(False, False), (False, False), (False, True)]


def test_a_discount_of_zero_is_the_end_of_the_world():
    env = environment("lqr/lqr_2_1")
    env.reset(seed=0, options={"context": {}})
    assert env.step(np.zeros(1, np.float32))[2:4] == (False, False)
    env.physics.data.qpos[:] = env.physics.data.qvel[:] = 0.0  # the goal
    env.physics.forward()
    assert env.step(np.zeros(1, np.float32))[2:4] == (True, False)


def test_a_diverged_simulation_is_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = environment("cheetah/run")
    env.reset(seed=0, options={"context": {"gravity": 5.0}})
    env.step(np.zeros(6, np.float32))
    env.physics.data.qvel[0] = np.nan
    expected = r"dmc/cheetah/run: the simulation diverged \(mjWARN_BADQPOS\) at step 2 in .*5.0"
    with pytest.raises(InvalidStep, match=expected) as caught:
        env.step(np.zeros(6, np.float32))
    assert "\n" not in str(caught.value)
    env.reset(seed=0)
    assert list(tmp_path.iterdir()) == []  # no log file of MuJoCo's


def test_unknown_names():
    with pytest.raises(UserError, match="unknown domain in environment 'dmc/wolker/walk'; valid: acrobot, .*"):
        make_environment("dmc/wolker/walk")
    with pytest.raises(UserError, match="unknown task in environment 'dmc/walker/fly'; valid: .*walk, run$"):
        DmControl("walker", "fly")
    with pytest.raises(UserError, match="dmc/acrobot/swingup: unknown context feature 'geom_friction'; valid: gra"):
        make_environment("dmc/acrobot/swingup").set_context({"geom_friction": 2.0})
