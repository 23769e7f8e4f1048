"""dm_control and MuJoCo, imported without OpenGL.

Both choose and load an OpenGL library when they are imported, though only pictures need one; where the
chosen library is missing, the import fails. So they are imported with rendering switched off, and what would
have been chosen (``MUJOCO_GL`` of the user; EGL where there is neither that nor a display) is loaded when
something is first drawn.
"""

import atexit
import functools
import importlib
import os
import sys
from types import ModuleType
from typing import Any

from agents.errors import UserError

_SWITCHED_OFF = ("disable", "disabled", "off", "false", "0")  # values of MUJOCO_GL that mean no rendering


def _load_when_drawing(module: ModuleType, name: str) -> Any:
    """Return a stand-in for the class ``name`` of ``module`` that reloads the module at its first use."""

    def create(*args: Any, **kwargs: Any) -> Any:
        _prefer_egl()
        importlib.reload(module)
        return getattr(module, name)(*args, **kwargs)

    return create


def _prefer_egl() -> None:
    """Choose EGL where there is no display and nothing else has been chosen."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        os.environ.setdefault("MUJOCO_GL", "egl")


def _import_headless() -> tuple[ModuleType, ModuleType]:
    """Return the modules (mujoco, dm_control.suite)."""
    chosen = os.environ.get("MUJOCO_GL")
    deferred = [
        (module, name)
        for module, name in (
            ("mujoco.rendering.classic.gl_context", "GLContext"),
            ("dm_control._render", "Renderer"),
        )
        if module not in sys.modules and (chosen or "").lower().strip() not in _SWITCHED_OFF
    ]
    try:
        os.environ["MUJOCO_GL"] = "disabled"
        mujoco = importlib.import_module("mujoco")
        suite = importlib.import_module("dm_control.suite")
    finally:
        if chosen is None:
            del os.environ["MUJOCO_GL"]
        else:
            os.environ["MUJOCO_GL"] = chosen
    for path, name in deferred:
        module = sys.modules[path]
        setattr(module, name, _load_when_drawing(module, name))
    return mujoco, suite


mujoco, suite = _import_headless()
PhysicsError: type[Exception] = importlib.import_module("dm_control.rl.control").PhysicsError


@functools.cache
def opengl() -> Any:
    """Return this process's OpenGL context (``mujoco.GLContext``), in which all pictures are drawn.

    Raises:
        UserError: drawing is switched off, or no OpenGL library can be loaded.
    """
    if os.environ.get("MUJOCO_GL", "").lower().strip() in _SWITCHED_OFF:
        raise UserError(f"MUJOCO_GL is {os.environ['MUJOCO_GL']}, so nothing can be drawn; unset it, or choose egl")
    _prefer_egl()
    try:
        # Anew, for who imported MuJoCo before us made it choose GLFW, which needs a display.
        module = importlib.reload(importlib.import_module("mujoco.rendering.classic.gl_context"))
        context = module.GLContext(64, 64)
        context.make_current()
    except Exception as error:  # each library fails in its own way, PyOpenGL with an AttributeError
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"no OpenGL library can be loaded ({reason}), so nothing can be drawn; on Debian or Ubuntu: apt-get "
            "install libegl1 libgl1; valid MUJOCO_GL: egl, glfw (with a display), osmesa (with libosmesa6)"
        ) from error
    atexit.register(context.free)  # before the library's own end, which was registered earlier
    return context
