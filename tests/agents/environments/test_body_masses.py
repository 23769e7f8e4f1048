"""Masses of single bodies and the floor's friction: as a model compiled anew, and acting in the suite's worlds."""

import numpy as np
import pytest

from agents.environments import make_environment
from agents.environments.headless import mujoco
from agents.environments.mujoco_model import ModelEditor

XML = """
<mujoco>
  <worldbody>
    <geom name="floor" type="plane" size="5 5 1" friction="{floor} 0.1 0.1"/>
    <body name="torso" pos="0 0 0.29">
      <freejoint/>
      <inertial pos="0 0 0" mass="{torso}" diaginertia="{i1} {i1} {i1}"/>
      <geom name="ball" size="0.3" friction="0.8 0.1 0.1"/>
      <body name="leg" pos="0.5 0 0">
        <joint axis="0 1 0" armature="0.1"/>
        <inertial pos="0.2 0 0" mass="{leg}" diaginertia="{i2} {i2} {i2}"/>
      </body>
      <body pos="-0.5 0 0"><joint axis="0 1 0"/><geom size="0.05" contype="0" conaffinity="0"/></body>
    </body>
  </worldbody>
</mujoco>
"""
DERIVED = (
    *("body_mass", "body_inertia", "body_subtreemass", "body_invweight0", "dof_M0", "dof_invweight0", "geom_friction"),
)


def compiled(torso=2.0, leg=0.5, floor=0.4):
    """Inertias are in proportion to the masses."""
    return mujoco.MjModel.from_xml_string(XML.format(torso=torso, leg=leg, floor=floor, i1=torso / 8, i2=leg / 4))


def assert_equal(model, expected, fields=DERIVED):
    for field in fields:
        np.testing.assert_allclose(getattr(model, field), getattr(expected, field), rtol=1e-12, err_msg=field)


def test_bodies_edited_equal_bodies_compiled_anew():
    model = compiled()
    pristine = {field: getattr(model, field).copy() for field in DERIVED}
    editor = ModelEditor(model, parts=True)
    defaults = {feature.name: feature.default for feature in editor.features}
    assert {name: defaults[name] for name in defaults if name.endswith("_mass")} == {
        "body_mass": 1.0,
        "torso_mass": 2.0,
        "leg_mass": 0.5,  # the third body has no name, and so no feature
    }
    editor.apply({"torso_mass": 7.0})
    assert_equal(model, compiled(torso=7.0))
    editor.apply({"leg_mass": 0.1, "torso_mass": 2.0})
    assert_equal(model, compiled(leg=0.1))
    editor.apply({"floor_friction": 1.5})
    assert_equal(model, compiled(leg=0.1, floor=1.5))
    editor.apply(defaults)
    for field, value in pristine.items():
        np.testing.assert_array_equal(getattr(model, field), value, err_msg=field)


def test_factors_on_everything_multiply_those_of_parts():
    model = compiled()
    ModelEditor(model, parts=True).apply(
        {"torso_mass": 3.0, "body_mass": 2.0, "geom_friction": 0.5, "floor_friction": 3}
    )
    unnamed = compiled().body_mass[3]
    np.testing.assert_allclose(model.body_mass[1:], [6.0, 1.0, 2 * unnamed], rtol=1e-12)
    np.testing.assert_allclose(model.geom_friction[:2], [[1.5, 0.05, 0.05], [0.4, 0.05, 0.05]], rtol=1e-12)


@pytest.mark.parametrize(("floor", "contact"), [(0.2, 0.8), (0.8, 0.8), (2.5, 2.5)])
def test_a_contact_has_the_larger_friction(floor, contact):
    model = compiled()
    ModelEditor(model, parts=True).apply({"floor_friction": floor})
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    assert data.ncon == 1 and data.contact[0].friction[0] == pytest.approx(contact)


def test_floors_of_unlike_friction_have_no_feature():
    wall = '<geom type="box" size="1 1 1" pos="5 5 5" friction="0.9 0.1 0.1"/><body name="torso"'
    model = mujoco.MjModel.from_xml_string(
        XML.format(torso=1, leg=1, floor=0.4, i1=0.1, i2=0.1).replace('<body name="torso"', wall)
    )
    assert "floor_friction" not in {feature.name for feature in ModelEditor(model, parts=True).features}


WORLDS = ["Ant", "HalfCheetah", "Hopper", "HumanoidStandup", "InvertedPendulum", "Walker2d"]


@pytest.mark.parametrize("world", WORLDS)
def test_every_mass_and_the_floor_act_in_the_suites_worlds(world):
    env = make_environment(f"gym/{world}-v5")
    names = [name for name in (f.name for f in env.features) if name.endswith("_mass") or name == "floor_friction"]
    bodies = {"Ant": 9, "HalfCheetah": 7, "Hopper": 4, "HumanoidStandup": 13, "InvertedPendulum": 2, "Walker2d": 7}
    assert len(names) == bodies[world] + 1 + (world != "InvertedPendulum")  # body_mass, and the floor
    generator = np.random.default_rng(0)
    space = env.action_space
    commands = generator.uniform(space.low, space.high, (60, *space.shape)).astype(np.float32)

    def rollout(context):
        states = [env.reset(seed=3, options={"context": context})[0]["state"]]
        for command in commands:
            state, _, terminated, *_ = env.step(command)
            states.append(state["state"])
            if terminated:
                break
        return np.array(states)

    before = rollout({})
    for name in names:
        default = next(feature.default for feature in env.features if feature.name == name)
        after = rollout({name: 9.0 if name == "floor_friction" else 1.5 * default})
        length = min(len(before), len(after))
        assert np.abs(after[:length] - before[:length]).max() > 1e-6, name
    np.testing.assert_array_equal(rollout({}), before)


def test_less_friction_of_the_floor_than_of_the_foot_changes_nothing():
    """What the suite's configurations of Hopper and Walker2d say: their feet have 2.0 and 1.9."""
    env = make_environment("gym/Hopper-v5", features=["floor_friction"])
    states = []
    for friction in (0.1, 1.9, 2.1):
        env.reset(seed=1, options={"context": {"floor_friction": friction}})
        states.append([env.step(np.full(3, 0.3, np.float32))[0]["state"] for _ in range(20)])
    np.testing.assert_array_equal(states[0], states[1])
    assert np.abs(np.array(states[0]) - states[2]).max() > 1e-8
