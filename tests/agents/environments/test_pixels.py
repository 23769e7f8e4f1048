"""Pixels: what is drawn, by whom and in which world; and one line where nothing can be drawn."""

import ctypes.util
import functools
import os
import subprocess
import sys

import numpy as np
import pytest
from gymnasium import spaces

from agents.environments import ContextualEnv, Feature, InvalidStep, Reset, SerialVector, SubprocessVector
from agents.environments import make_environment as make
from agents.errors import UserError

WALKER = "dmc/walker/walk"
draws = pytest.mark.skipif(ctypes.util.find_library("EGL") is None, reason="no EGL on this machine")


def python(script, **variables):
    """Run a script without a display; return what came of it."""
    environment = {key: value for key, value in os.environ.items() if key not in ("MUJOCO_GL", "DISPLAY")} | variables
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    return subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120)


def pictures(env, seed, steps=2, context=None):
    """Return the images [steps + 1, H, W, 3] of an episode under constant actions."""
    observation, _ = env.reset(seed=seed, options={"context": context or {}})
    images = [observation["image"]]
    for _ in range(steps):
        images.append(env.step(np.full(env.action_space.shape, 0.5, np.float32))[0]["image"])
    return np.stack(images)


@draws
def test_what_observations_hold():
    own = make(WALKER).observation_space
    assert make(WALKER, observations="state").observation_space == own
    both = make(WALKER, observations="both", image_size=32)
    assert set(both.observation_space) == {*own, "image"}
    pixels = make(WALKER, observations="pixels", image_size=32)
    assert set(pixels.observation_space) == {"image"}
    assert pixels.observation_space["image"] == spaces.Box(0, 255, (32, 32, 3), np.uint8)
    plain = make(WALKER)
    action = np.full(6, 0.3, np.float32)
    for env in (both, pixels):
        for reset in (True, False):
            observation = env.reset(seed=3)[0] if reset else env.step(action)[0]
            state = plain.reset(seed=3)[0] if reset else plain.step(action)[0]
            assert observation["image"].dtype == np.uint8 and observation["image"].std() > 10
            assert env.observation_space.contains(observation)
            if env is both:  # drawing changes nothing in the world
                assert all(np.array_equal(observation[key], value) for key, value in state.items())


ORIGINAL = """
import numpy as np
from agents.environments import make_environment
for task, camera in (("walker/walk", 0), ("quadruped/escape", 2), ("fish/swim", 0)):
    for seed in (1, 2):
        env = make_environment(f"dmc/{task}", observations="pixels", image_size=48)
        first = env.reset(seed=seed)[0]["image"]
        image = env.step(env.action_space.low)[0]["image"]
        print(np.array_equal(image, env.physics.render(48, 48, camera_id=camera)), (image != first).any())
"""


@draws
def test_the_pixels_are_dm_controls_own_from_the_references_camera():
    done = python(ORIGINAL)  # in a process of its own, since dm_control and MuJoCo end EGL twice
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True"] * 12


@draws
def test_a_process_that_draws_ends_silently_and_without_a_display():
    script = "from agents.environments import make_environment as make\n"
    script += f"print(make({WALKER!r}, observations='pixels').reset(seed=0)[0]['image'].shape)"
    done = python(script)
    assert (done.returncode, done.stdout, done.stderr) == (0, "(64, 64, 3)\n", "")


@draws
def test_the_camera_can_be_chosen():
    by_camera = {
        camera: make(WALKER, observations="pixels", camera=camera).reset(seed=0)[0] for camera in (None, 0, 1, -1)
    }
    images = {camera: observation["image"] for camera, observation in by_camera.items()}
    assert np.array_equal(images[None], images[0])
    assert (images[0] != images[1]).any() and (images[0] != images[-1]).any() and (images[1] != images[-1]).any()
    with pytest.raises(UserError, match=r"^environment dmc/walker/walk: camera is 2; valid: -1 \(free\) to 1$"):
        make(WALKER, observations="pixels", camera=2).reset(seed=0)


@draws
def test_the_same_seed_gives_the_same_pixels_in_any_process():
    """Whatever was played before: exact resume plays open episodes again and compares."""
    settings = {"observations": "pixels", "image_size": 32, "time_limit": 3}
    makes = [functools.partial(make, WALKER, **settings)] * 2
    serial, parallel = SerialVector(makes), SubprocessVector(makes)
    try:
        used, fresh = (pictures(make(WALKER, **settings), 5) for _ in range(2))
        assert np.array_equal(used, fresh)
        commands = [[Reset(5), Reset(6)], *[[np.full(6, 0.5, np.float32)] * 2] * 2]
        for step, command in enumerate(commands):
            one, other = serial.step(command), parallel.step(command)
            assert one["observation/image"].dtype == np.uint8 and one["observation/image"].shape == (2, 32, 32, 3)
            assert np.array_equal(one["observation/image"], other["observation/image"])
            assert np.array_equal(one["observation/image"][0], used[step])
            assert not np.array_equal(one["observation/image"][0], one["observation/image"][1])
    finally:
        parallel.close()
        serial.close()


@draws
def test_worlds_of_one_model_share_what_was_uploaded_but_not_their_terrain():
    from agents.environments import mujoco_picture

    first, second = (make("dmc/quadruped/escape", observations="pixels", image_size=32) for _ in range(2))
    one, other = first.reset(seed=1)[0]["image"], second.reset(seed=2)[0]["image"]
    assert first._drawing._key == second._drawing._key in mujoco_picture._uploaded
    assert (one != other).mean() > 0.1
    assert np.array_equal(first.draw(32), one)
    assert np.array_equal(second.draw(32), other)
    domains = ("cartpole/swingup", "pendulum/swingup", "acrobot/swingup", "reacher/easy", "point_mass/easy")
    for task in domains:  # more models than are kept
        make(f"dmc/{task}", observations="pixels", image_size=16).reset(seed=0)
    assert len(mujoco_picture._uploaded) == mujoco_picture._MAX_UPLOADED
    assert first._drawing._key not in mujoco_picture._uploaded
    assert np.array_equal(first.draw(32), one)


@draws
def test_worlds_of_different_models_are_drawn_in_turns():
    """Each into a buffer of its own, whichever was drawn or uploaded last."""
    tasks = ("walker/walk", "pendulum/swingup", "cartpole/balance")
    worlds = [make(f"dmc/{task}", observations="pixels", image_size=32) for task in tasks]
    alone = [world.reset(seed=0)[0]["image"] for world in worlds]
    for index in (0, 0, 1, 0, 2, 1, 2, 0):
        np.testing.assert_array_equal(worlds[index].draw(32), alone[index])
    assert (alone[0] != alone[1]).mean() > 0.3


@draws
def test_a_picture_may_be_larger_than_the_models_buffer():
    env = make("dmc/pendulum/swingup", observations="pixels", image_size=1024)
    image = env.reset(seed=0)[0]["image"]
    assert image.shape == (1024, 1024, 3)
    small = make("dmc/pendulum/swingup", observations="pixels", image_size=16).reset(seed=0)[0]["image"]
    means = image.reshape(16, 64, 16, 64, 3).mean((1, 3))
    assert np.abs(means - small).mean() < 10  # the same scene


@draws
def test_geometry_is_drawn_as_it_is_in_the_present_context():
    """No shipped feature of MuJoCo changes a shape, but what does is drawn, in a copy that others share."""
    env, other = (make("dmc/cartpole/swingup", observations="pixels") for _ in range(2))
    before, rods = env.reset(seed=0)[0]["image"], env.physics.named.model
    same = other.reset(seed=0)[0]["image"]
    rods.geom_size["pole_1", 1] *= 0.5
    assert (env.reset(seed=0)[0]["image"] != before).sum() > 50
    assert np.array_equal(other.reset(seed=0)[0]["image"], same)


def test_a_longer_pole_looks_longer():
    pytest.importorskip("pygame")
    for name, context in (("cartpole", {"length": 1.0}), ("gym/CartPole-v1", {})):
        env = make(name, observations="pixels")
        image = env.reset(seed=0, options={"context": context})[0]["image"]
        assert image.shape == (64, 64, 3) and image.dtype == np.uint8
    env = make("cartpole", observations="both")

    def pole(length):
        image = env.reset(seed=0, options={"context": {"length": length}})[0]["image"].astype(int)
        return np.flatnonzero((image[..., 0] - image[..., 2] > 40).any(1))  # the rows in which there is brown

    assert len(pole(0.25)) < len(pole(0.5)) < len(pole(1.0))
    upright = make("pendulum", observations="pixels").reset(seed=0)[0]["image"]
    assert upright.std() > 5


def test_a_drawing_of_classic_control_needs_pygame(monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    for name in ("cartpole", "gym/Acrobot-v1"):
        with pytest.raises(UserError, match=f"^environment {name} cannot be drawn: pygame is not installed") as told:
            make(name, observations="pixels").reset(seed=0)
        assert "\n" not in str(told.value)
    with pytest.raises(UserError, match="^environment pendulum: camera is 1, but there is no choice; valid: null$"):
        make("pendulum", observations="pixels", camera=1).reset(seed=0)


NO_EGL = """
import ctypes.util
from OpenGL.platform import ctypesloader
ctypesloader.loadLibrary = lambda *_, **__: (_ for _ in ()).throw(OSError("no such library: EGL"))
import agents.environments as environments
environments.make_environment("dmc/walker/walk").reset(seed=0)
try:
    environments.make_environment("dmc/walker/walk", observations="pixels").reset(seed=0)
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("mujoco_gl", ["egl", "disabled", "nonsense"])
def test_without_opengl_there_is_one_line(mujoco_gl):
    """Where no library loads, where drawing is switched off, and where another is asked for."""
    done = python(NO_EGL, MUJOCO_GL=mujoco_gl)
    assert done.returncode == 0 and done.stdout.count("\n") == 1, done.stderr
    expected = {
        "egl": "no OpenGL library can be loaded (",
        "disabled": "MUJOCO_GL is disabled, so nothing can be drawn; unset it, or choose egl",
        "nonsense": "no OpenGL library can be loaded (invalid value for environment variable MUJOCO_GL: nonsense)",
    }
    assert done.stdout.startswith(f"UserError {expected[mujoco_gl]}")
    if mujoco_gl != "disabled":
        assert "apt-get install libegl1 libgl1" in done.stdout


class Painted(ContextualEnv):
    """Its own observation is an image, of the size, type and keys that it is told to give."""

    def __init__(self, image, **settings):
        self.image = image
        space = spaces.Dict({"image": spaces.Box(0, 255, (16, 16, 1), np.uint8)})
        feature = Feature("tint", "1", 0.0, 0.0, 1.0, "nothing")
        limits = {"features": None, "time_limit": 9, "action_repeat": 1}
        super().__init__("painted", [feature], space, spaces.Discrete(2), **limits)

    def _apply_context(self, context):
        pass

    def _reset_world(self, seed):
        return {"image": self.image}

    def _step_world(self, action):
        return {"image": self.image}, 0.0, False, False


def test_an_image_of_the_wrong_size_or_type_is_refused_with_one_line():
    good = np.zeros((16, 16, 1), np.uint8)
    env = Painted(good)
    env.reset(seed=0)
    for bad, words in (
        (good[:8], r"uint8 \[8, 16, 1\]"),
        (np.zeros((16, 16, 3), np.uint8), r"uint8 \[16, 16, 3\]"),
        (good.astype(np.float32), r"float32 \[16, 16, 1\]"),
        (good.tolist(), "list"),
    ):
        env.image = bad
        expected = rf"^environment painted: observation 'image' is {words} instead of uint8 \[16, 16, 1\] at step \d in"
        with pytest.raises(InvalidStep, match=expected):
            env.step(0)
        with pytest.raises(InvalidStep, match=expected):
            env.reset(seed=0)
        env.image = good
        env.reset(seed=0)


def test_a_drawn_image_is_checked_too():
    class Drawn(Painted):
        def _reset_world(self, seed):
            return {"state": np.zeros(1, np.float32)}

        def draw(self, size, camera=None):
            return np.zeros((size, size, 4), np.uint8)

    env = Drawn(None)
    env._world_space = spaces.Dict({"state": spaces.Box(-1, 1, (1,), np.float32)})
    env.observe("pixels", 16)
    with pytest.raises(InvalidStep, match=r"observation 'image' is uint8 \[16, 16, 4\] instead of uint8 \[16, 16, 3\]"):
        env.reset(seed=0)


def test_a_world_that_shows_itself_has_pixels_of_its_own():
    env = Painted(np.full((16, 16, 1), 7, np.uint8))
    env.observe("pixels")
    assert (env.reset(seed=0)[0]["image"] == 7).all()
    for observations in ("state", "both"):
        with pytest.raises(
            UserError, match="^environment painted has no state to observe; valid observations: pixels$"
        ):
            env.observe(observations)
    with pytest.raises(UserError, match="^environment painted cannot be drawn; valid observations: state$"):
        env.draw(64)
