"""dm_control and MuJoCo, imported without OpenGL.

Both choose and load an OpenGL library when they are imported, though only pictures need one; where the
chosen library is missing, the import fails. So they are imported with rendering switched off, and what would
have been chosen (``MUJOCO_GL`` of the user) is loaded when something is first drawn.
"""

import importlib
import os
import sys
from types import ModuleType
from typing import Any

_SWITCHED_OFF = ("disable", "disabled", "off", "false", "0")  # values of MUJOCO_GL that mean no rendering


def _load_when_drawing(module: ModuleType, name: str) -> Any:
    """Return a stand-in for the class ``name`` of ``module`` that reloads the module at its first use."""

    def create(*args: Any, **kwargs: Any) -> Any:
        importlib.reload(module)
        return getattr(module, name)(*args, **kwargs)

    return create


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
