"""Pictures of MuJoCo models.

A process draws everything in one OpenGL context, and worlds whose models look alike share what was uploaded of
them (textures, meshes, buffers): one such copy takes a third of a second and 45 MB where the processor draws.
"""

import atexit
import functools
import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from agents.environments.headless import mujoco, opengl
from agents.errors import UserError

FREE_CAMERA = -1
_MAX_GEOMS = 10_000  # of a scene; drawing fails beyond it
_MAX_UPLOADED = 4  # models; a run draws one
# What an upload reads of a model, but for heightfields, which tasks change at reset.
_UPLOADED_FIELDS = (
    *("mesh_vert", "mesh_normal", "mesh_texcoord", "mesh_face", "mesh_graph", "mesh_facenormal", "mesh_facetexcoord"),
    *("tex_data", "tex_type", "tex_height", "tex_width", "tex_nchannel", "hfield_nrow", "hfield_ncol", "hfield_size"),
    *("skin_vert", "skin_face", "skin_texcoord", "geom_type", "geom_size", "geom_dataid", "light_castshadow"),
)


class _Uploaded:
    """What OpenGL was given of a model."""

    def __init__(self, model: Any) -> None:
        self.context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150)
        self._heights = model.hfield_data.copy()

    def update(self, model: Any) -> None:
        """Upload the heightfields again if they are others."""
        if not np.array_equal(self._heights, model.hfield_data):
            for field in range(model.nhfield):
                mujoco.mjr_uploadHField(model, self.context, field)
            self._heights = model.hfield_data.copy()


_uploaded: dict[bytes, _Uploaded] = {}  # the least recently used first


def _upload(key: bytes, model: Any) -> _Uploaded:
    """Return what was uploaded of the model with this key, which is uploaded now if it has to be."""
    _begin()
    opengl().make_current()
    found = _uploaded.pop(key, None)
    if found is None:
        if len(_uploaded) >= _MAX_UPLOADED:
            _uploaded.pop(next(iter(_uploaded))).context.free()
        found = _Uploaded(model)
    _uploaded[key] = found
    # Every time: another model's buffer may have been bound since.
    mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, found.context)
    found.update(model)
    return found


@functools.cache
def _begin() -> None:
    """Load OpenGL, and only then name our own end, which so comes before its."""
    opengl()
    atexit.register(_free)


def _free() -> None:
    """Give everything back while OpenGL is still there."""
    opengl().make_current()
    while _uploaded:
        _uploaded.popitem()[1].context.free()


class MujocoPicture:
    """Draws one simulation as it stands, whatever has been edited in its model.

    Args:
        name: of the environment, for messages.
        model: a ``mujoco.MjModel``; its offscreen buffer is enlarged where a picture needs it.
        data: its ``mujoco.MjData``.
        camera: number of the model's camera to look through where none is asked for.
        free_camera: attributes of ``mjvCamera`` for the camera -1, which belongs to no model; the others are
            MuJoCo's defaults for the model.
    """

    def __init__(
        self, name: str, model: Any, data: Any, camera: int, free_camera: Mapping[str, Any] | None = None
    ) -> None:
        self._name = name
        self._model = model
        self._data = data
        self._camera = camera
        self._free_camera = dict(free_camera or {})
        self._scene: Any = None
        self._cameras: dict[int, Any] = {}
        self._key = b""

    def draw(self, size: int, camera: int | None) -> np.ndarray:
        """Return the picture, uint8 [size, size, 3], as `ContextualEnv.draw` describes it."""
        view = self._view(self._camera if camera is None else camera)
        model = self._model
        quality = model.vis.global_
        if self._scene is None or size > min(quality.offwidth, quality.offheight):
            quality.offwidth, quality.offheight = max(size, quality.offwidth), max(size, quality.offheight)
            self._scene = mujoco.MjvScene(model, _MAX_GEOMS)
            self._key = self._digest()
        context = _upload(self._key, model).context
        mujoco.mjv_updateScene(model, self._data, _OPTIONS, None, view, mujoco.mjtCatBit.mjCAT_ALL.value, self._scene)
        frame = mujoco.MjrRect(0, 0, size, size)
        mujoco.mjr_render(frame, self._scene, context)
        image = np.empty((size, size, 3), np.uint8)
        mujoco.mjr_readPixels(image, None, frame, context)
        return image[::-1].copy()  # OpenGL's first row is the lowest

    def _view(self, number: int) -> Any:
        if number not in self._cameras:
            if not FREE_CAMERA <= number < self._model.ncam:
                valid = f"{FREE_CAMERA} (free) to {self._model.ncam - 1}"
                raise UserError(f"environment {self._name}: camera is {number}; valid: {valid}")
            camera = mujoco.MjvCamera()
            if number == FREE_CAMERA:
                mujoco.mjv_defaultFreeCamera(self._model, camera)
                for attribute, value in self._free_camera.items():
                    setattr(camera, attribute, value)
            else:
                camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
            camera.fixedcamid = number
            self._cameras[number] = camera
        return self._cameras[number]

    def _digest(self) -> bytes:
        """Return a key that models share if and only if an upload of one serves the other."""
        model, digest = self._model, hashlib.sha256()
        for field in _UPLOADED_FIELDS:
            value = getattr(model, field)
            digest.update(f"{field}{value.shape}".encode())
            digest.update(value.tobytes())
        quality = model.vis.quality
        buffer = (model.vis.global_.offwidth, model.vis.global_.offheight)
        detail = (quality.shadowsize, quality.offsamples, quality.numslices, quality.numstacks, quality.numquads)
        digest.update(repr((buffer, detail, model.vis.map.shadowclip, model.vis.map.shadowscale)).encode())
        return digest.digest()


_OPTIONS = mujoco.MjvOption()
_OPTIONS.flags[mujoco.mjtVisFlag.mjVIS_RANGEFINDER] = False  # no rays of sensors, as in dm_control
