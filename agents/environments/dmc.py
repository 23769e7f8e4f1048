"""The tasks of dm_control's suite with contexts."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
from gymnasium import spaces

from agents.environments.base import ContextualEnv, Observation
from agents.environments.headless import PhysicsError, mujoco, suite
from agents.environments.mujoco_model import ModelEditor
from agents.environments.mujoco_picture import MujocoPicture
from agents.errors import UserError

STEPS = 1000  # control steps per episode of every task of the suite that has a limit
CAMERAS = {"quadruped": 2}  # the camera that shows the task, where it is not 0 (danijar/dreamerv3 at e3f0224)


class DmControl(ContextualEnv):
    """A task of the DeepMind Control Suite (https://arxiv.org/abs/2006.12983) with contexts.

    Observations: the task's own keys, float32, numbers as shape [1]. Actions: Box in the task's range.
    It terminates where the task says so by a discount of 0. The features are those that can act on the task's
    model (`ModelEditor`). With a seed, the first episode is the one that ``suite.load`` gives with that seed
    (except lqr, whose random stiffnesses are always those of seed 0, for a model is never rebuilt).

    Args:
        domain: such as ``walker``.
        task: such as ``walk``.
        features: see `ContextualEnv`.
        time_limit: control steps until truncation; None means 1000.
        action_repeat: control steps per step.

    Raises:
        UserError: unknown domain or task.
        InvalidStep: in `reset` and `step`, a simulation that diverged.
    """

    def __init__(
        self,
        domain: str,
        task: str,
        *,
        features: Sequence[str] | None = None,
        time_limit: int | None = None,
        action_repeat: int = 1,
    ) -> None:
        name = f"dmc/{domain}/{task}"
        tasks = suite.TASKS_BY_DOMAIN
        if domain not in tasks:
            raise UserError(f"unknown domain in environment {name!r}; valid: {', '.join(tasks)}")
        if task not in tasks[domain]:
            raise UserError(f"unknown task in environment {name!r}; valid: {', '.join(tasks[domain])}")
        self._world = suite.load(domain, task, task_kwargs={"random": 0, "time_limit": float("inf")})
        self._physics = self._world.physics
        self._seeded = False
        with _no_drawing(self._physics):
            self._world.reset()  # some tasks complete their model here, such as finger's damping
        model, data = self._physics.model.ptr, self._physics.data.ptr
        self._editor = ModelEditor(model)
        self._drawing = MujocoPicture(name, model, data, camera=CAMERAS.get(domain, 0))
        observations = self._world.observation_spec()
        actions = self._world.action_spec()
        super().__init__(
            name,
            self._editor.features,
            spaces.Dict(
                {key: spaces.Box(-np.inf, np.inf, spec.shape or (1,), np.float32) for key, spec in observations.items()}
            ),
            spaces.Box(actions.minimum.astype(np.float32), actions.maximum.astype(np.float32), dtype=np.float32),
            features=features,
            time_limit=STEPS if time_limit is None else time_limit,
            action_repeat=action_repeat,
        )

    def draw(self, size: int, camera: int | None = None) -> np.ndarray:
        """See `ContextualEnv.draw`; the same pixels as dm_control's own ``physics.render``."""
        return self._drawing.draw(size, camera)

    @property
    def physics(self) -> Any:
        """The simulation, a ``dm_control.mujoco.Physics``."""
        return self._physics

    def _apply_context(self, context: Mapping[str, float]) -> None:
        self._applied = dict(context)
        self._editor.apply(context)
        if (
            not self._needs_reset
        ):  # within an episode: the suite has the next step's forces ready, but of the old context
            mujoco.mj_step1(self._physics.model.ptr, self._physics.data.ptr)

    def _reset_world(self, seed: int | None) -> Observation:
        if seed is None and not self._seeded:
            seed = int(self.np_random.integers(2**32))
        if seed is not None:
            self._world.task.random.seed(seed if seed < 2**32 else [seed % 2**32, seed >> 32])
            self._seeded = True
        with _no_drawing(self._physics), self._explained():
            observation = self._world.reset().observation
            if self._editor.overwritten():  # the task has set a default anew
                self._editor.apply(self._applied)
                self._physics.forward()
        return _float32(observation)

    def _step_world(self, action: Any) -> tuple[Observation, float, bool, bool]:
        with self._explained():
            step = self._world.step(action)
        terminated = step.last() and step.discount == 0.0
        return _float32(step.observation), float(step.reward), terminated, step.last() and not terminated

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn a simulation that diverged into an error for the user."""
        try:
            yield
        except PhysicsError as error:
            warnings = str(error).splitlines()[0].rpartition(": ")[2]  # the names of MuJoCo's, without the preamble
            raise self._invalid(f"the simulation diverged ({warnings})") from error


def _float32(observation: Mapping[str, Any]) -> Observation:
    """Return the same entries as float32 arrays with at least one dimension."""
    return {key: np.array(value, np.float32, ndmin=1) for key, value in observation.items()}


class _NoDrawing:
    """An OpenGL context that draws nothing."""

    ptr = None

    @contextmanager
    def make_current(self) -> Iterator["_NoDrawing"]:
        yield self

    def call(self, *_: Any) -> None:
        """Do nothing."""


@contextmanager
def _no_drawing(physics: Any) -> Iterator[None]:
    """Keep a task from loading OpenGL at reset, as quadruped/escape does to show its new terrain.

    A context that exists already is used, and one that is created later reads the whole model anyway.
    """
    if physics._contexts is not None:
        yield
        return
    physics._contexts = SimpleNamespace(gl=_NoDrawing(), mujoco=_NoDrawing())
    try:
        yield
    finally:
        physics._contexts = None
