"""Nothing that needs no picture loads OpenGL, and pictures still work."""

import os
import subprocess
import sys

import pytest

STEP = """
import os, sys
before = os.environ.get("MUJOCO_GL")
from agents.environments import make_environment
env = make_environment("dmc/quadruped/escape")
env.reset(seed=0)
env.step(env.action_space.sample())
assert os.environ.get("MUJOCO_GL") == before
libraries = ("libGL.", "libEGL", "libOSMesa", "libglfw", "libOpenGL")
print([line.split()[-1] for line in open("/proc/self/maps") if any(name in line for name in libraries)])
print([name for name in sys.modules if name.split(".")[0] in ("OpenGL", "glfw", "torch")])
"""

DRAW = """
from agents.environments import make_environment
env = make_environment("dmc/pendulum/swingup")
env.reset(seed=0)
print(env.physics.render(24, 32).std() > 1)
import mujoco
with mujoco.Renderer(env.physics.model.ptr, 24, 32) as renderer:
    renderer.update_scene(env.physics.data.ptr, camera=0)
    print(renderer.render().std() > 1)
"""

PLAIN = """
import dm_control.suite
env = dm_control.suite.load("pendulum", "swingup")
env.physics.render(24, 32)
"""


def python(script, mujoco_gl):
    environment = {key: value for key, value in os.environ.items() if key != "MUJOCO_GL"}
    if mujoco_gl is not None:
        environment["MUJOCO_GL"] = mujoco_gl
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    return subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("mujoco_gl", [None, "egl", "disabled"])
def test_stepping_loads_no_opengl(mujoco_gl):
    done = python(STEP, mujoco_gl)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["[]", "[]"]


def test_drawing_works_where_it_works_without_us():
    if python(PLAIN, "egl").returncode != 0:
        pytest.skip("no EGL on this machine")
    done = python(DRAW, "egl")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "True"]
