"""Gymnasium's MuJoCo environments with contexts."""

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
from gymnasium.envs.registration import EnvSpec

from agents.environments.base import Observation
from agents.environments.gym import GymnasiumEnv, make_world
from agents.environments.headless import mujoco
from agents.environments.mujoco_model import ModelEditor
from agents.environments.mujoco_picture import FREE_CAMERA, MujocoPicture

_RENDERING = "gymnasium.envs.mujoco.mujoco_rendering"
_DIVERGED = ("mjWARN_BADQPOS", "mjWARN_BADQVEL", "mjWARN_BADQACC", "mjWARN_BADCTRL")


class GymnasiumMujoco(GymnasiumEnv):
    """One of Gymnasium's MuJoCo environments, such as ``HalfCheetah-v5``, with contexts.

    The features are those that can act on the model (`ModelEditor`), with the masses of its bodies and the floor's
    friction among them. A simulation that diverges, which the original sets back silently, is an `InvalidStep`.
    Pictures follow the body where the model has a camera called "track". Arguments: see `GymnasiumEnv`.
    """

    def __init__(self, spec: EnvSpec, **settings: Any) -> None:
        with _without_windows():
            world = make_world(spec)
        original: Any = world.unwrapped
        self._model, self._data = original.model, original.data
        self._editor = ModelEditor(self._model, parts=True)
        super().__init__(spec, world, self._editor.features, **settings)
        track = mujoco.mj_name2id(self._model, mujoco.mjtObj.mjOBJ_CAMERA, "track")
        camera = FREE_CAMERA if track < 0 else track
        self._drawing = MujocoPicture(self.name, self._model, self._data, camera, self._free_camera())

    def draw(self, size: int, camera: int | None = None) -> np.ndarray:
        """See `ContextualEnv.draw`."""
        return self._drawing.draw(size, camera)

    def _apply_context(self, context: Mapping[str, float]) -> None:
        self._editor.apply(context)

    def _reset_world(self, seed: int | None) -> Observation:
        observation = super()._reset_world(seed)
        self._check_simulation()
        return observation

    def _step_world(self, action: Any) -> tuple[Observation, float, bool, bool]:
        result = super()._step_world(action)
        self._check_simulation()
        return result

    def _free_camera(self) -> dict[str, Any]:
        """Return how Gymnasium places the free camera: by the world at rest, but for what it says itself."""
        data = mujoco.MjData(self._model)
        mujoco.mj_forward(self._model, data)
        original: Any = self._world.unwrapped
        placed = {"lookat": np.median(data.geom_xpos, axis=0), "distance": self._model.stat.extent}
        return {"azimuth": 90.0, "elevation": -45.0} | placed | original.mujoco_renderer.free_camera

    def _check_simulation(self) -> None:
        for name in _DIVERGED:
            if self._data.warning[getattr(mujoco.mjtWarning, name)].number:
                raise self._invalid(f"the simulation diverged ({name})")


class _NoWindow:
    """Stands for Gymnasium's renderer; it only keeps how the environment places the free camera."""

    def __init__(self, model: Any, data: Any, camera: Mapping[str, Any] | None = None, *_: Any, **__: Any) -> None:
        self.free_camera = dict(camera or {})

    def close(self) -> None:
        """Nothing was opened."""


@contextmanager
def _without_windows() -> Iterator[None]:
    """Keep an environment from importing GLFW and imageio, which only Gymnasium's own windows and videos need.

    And from warning of outdated words in Gymnasium's models, about which nobody here can do anything.
    """
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    stand_in = ModuleType(_RENDERING)
    stand_in.__dict__["MujocoRenderer"] = _NoWindow
    original = sys.modules.get(_RENDERING)
    sys.modules[_RENDERING] = stand_in
    try:
        yield
    finally:
        logger.setLevel(level)
        del sys.modules[_RENDERING]
        if original is not None:
            sys.modules[_RENDERING] = original
