"""Context features of a compiled MuJoCo model, edited in place.

A model that is compiled anew takes tens of milliseconds, editing its arrays tens of microseconds. All edits
start from a copy of the arrays' defaults and multiplying by 1.0 changes no bit, so going back is exact.
Names of fields and their meaning: https://mujoco.readthedocs.io/en/stable/APIreference/APItypes.html#mjmodel
"""

import copy
import math
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np

from agents.environments.base import Feature
from agents.environments.headless import mujoco

# What mj_setConst derives from masses and inertias.
_MASS_FIELDS = (
    "body_mass",
    "body_inertia",
    "body_subtreemass",
    "body_invweight0",
    "dof_M0",
    "dof_invweight0",
    "tendon_invweight0",
    "actuator_acc0",
)
# Forces of actuators with fixed or affine gain and bias (the suite has no others) are linear in these fields.
_FACTOR_FIELDS = {
    "joint_damping": ("dof_damping", "dof_dampingpoly"),
    "geom_friction": ("geom_friction", "pair_friction"),
    "actuator_strength": ("actuator_gainprm", "actuator_biasprm", "actuator_forcerange", "jnt_actfrcrange"),
}
_PROBES = 64  # random states in which a feature may show that it acts, and as many of a motion
_PROBE_STEPS = 16  # of the simulation between two states of the motion
_RELATIVE_CHANGE = 1e-6  # of accelerations; below it is rounding


class ModelEditor:
    """Writes contexts into a compiled model.

    Args:
        model: a ``mujoco.MjModel`` at its defaults.
        parts: whether there are also features of single parts: ``<body>_mass`` of every body with a name and a mass,
            with its inertia in proportion, and ``floor_friction``.

    Attributes:
        features: those that can act on this model, see `_acting`.
    """

    def __init__(self, model: Any, *, parts: bool = False) -> None:
        self._model = model
        fields = [*_MASS_FIELDS, *(field for fields in _FACTOR_FIELDS.values() for field in fields)]
        self._defaults = {field: getattr(model, field).copy() for field in fields}
        self._written = dict(self._defaults)
        self._gravity = model.opt.gravity.copy()
        self._mass_model = copy.copy(model)  # where derived masses are computed, lest other fields change
        self._mass_data = mujoco.MjData(self._mass_model)
        self._bodies = self._massive_bodies() if parts else {}
        self._floors, floor_friction = self._floor() if parts else (np.zeros(0, int), None)
        self._factors = {"body_mass": 1.0, **dict.fromkeys(self._bodies, 1.0)}  # on masses, at present
        self._frictions = {"geom_friction": 1.0, "floor_friction": 1.0}  # factors, at present
        masses = {name: float(self._defaults["body_mass"][body]) for name, body in self._bodies.items()}
        self._units = {"body_mass": 1.0, "geom_friction": 1.0, "floor_friction": floor_friction or 1.0, **masses}
        candidates = self._candidates() + self._candidates_of_parts(floor_friction)
        names = self._acting(candidates)
        self.features = tuple(feature for feature in candidates if feature.name in names)

    def apply(self, context: Mapping[str, float]) -> None:
        """Write the context's features (raw units) and what is derived from them; leave the others alone."""
        for name, value in context.items():
            if name in self._factors:
                self._factors[name] = value / self._units[name]
            elif name in self._frictions:
                self._frictions[name] = value / self._units[name]
            elif name in _FACTOR_FIELDS:
                for field in _FACTOR_FIELDS[name]:
                    self._write(field, self._defaults[field] * value)
            elif name == "gravity":
                self._set_gravity(value)
            else:  # density, viscosity
                setattr(self._model.opt, name, value)
        if self._factors.keys() & context:
            self._set_masses()
        if self._frictions.keys() & context:
            self._set_frictions()

    def overwritten(self) -> bool:
        """Return whether someone else has changed an array since `apply`."""
        return any(not np.array_equal(getattr(self._model, field), value) for field, value in self._written.items())

    def _write(self, field: str, value: np.ndarray) -> None:
        getattr(self._model, field)[:] = value
        self._written[field] = value

    def _set_gravity(self, value: float) -> None:
        size = math.hypot(*self._gravity)
        self._model.opt.gravity[:] = self._gravity * (value / size) if size else (0.0, 0.0, 0.0 - value)

    def _set_masses(self) -> None:
        """Scale each body's mass and inertia alike, so that shapes for fluid forces stay, and derive what follows."""
        factors = np.full(self._model.nbody, self._factors["body_mass"])
        for name, body in self._bodies.items():
            factors[body] *= self._factors[name]
        source: Any = self._defaults
        if (factors != 1.0).any():
            model = self._mass_model
            model.body_mass[:] = self._defaults["body_mass"] * factors
            model.body_inertia[:] = self._defaults["body_inertia"] * factors[:, None]
            mujoco.mj_setConst(model, self._mass_data)
            source = {field: getattr(model, field).copy() for field in _MASS_FIELDS}
        for field in _MASS_FIELDS:
            self._write(field, source[field])

    def _set_frictions(self) -> None:
        for field in _FACTOR_FIELDS["geom_friction"]:
            value = self._defaults[field] * self._frictions["geom_friction"]
            if field == "geom_friction":
                value[self._floors, 0] *= self._frictions["floor_friction"]
            self._write(field, value)

    def _massive_bodies(self) -> dict[str, int]:
        """Return the body of every feature ``<body>_mass``."""
        named = {f"{self._model.body(body).name}_mass": body for body in range(1, self._model.nbody)}
        named.pop("_mass", None)  # those without a name
        return {name: body for name, body in named.items() if self._model.body_mass[body] > 0.0}

    def _floor(self) -> tuple[np.ndarray, float | None]:
        """Return the world's own geoms that may be touched and their sliding friction; None if it is no one number."""
        model = self._model
        floors = np.flatnonzero((model.geom_bodyid == 0) & ((model.geom_contype != 0) | (model.geom_conaffinity != 0)))
        frictions = set(model.geom_friction[floors, 0].tolist())
        return floors, frictions.pop() if len(frictions) == 1 else None

    def _candidates_of_parts(self, floor_friction: float | None) -> tuple[Feature, ...]:
        masses = [
            Feature(name, "kg", self._units[name], 1e-3, 1e3, "mass of this body, before the factor body_mass")
            for name in self._bodies
        ]
        floor = "sliding friction of the floor, before geom_friction; of its two geoms' a contact has the larger one"
        floors = [Feature("floor_friction", "1", floor_friction, 0.0, 100.0, floor)] if floor_friction else []
        return (*masses, *floors)

    def _candidates(self) -> tuple[Feature, ...]:
        option = self._model.opt
        gravity = math.hypot(*self._gravity)
        return (
            Feature("gravity", "m/s^2", gravity, min(0.1, gravity), 100.0, "acceleration of free fall"),
            Feature("actuator_strength", "1", 1.0, 0.01, 100.0, "factor on the actuators' forces"),
            Feature("joint_damping", "1", 1.0, 0.0, 100.0, "factor on the damping of all joints"),
            Feature("geom_friction", "1", 1.0, 0.0, 100.0, "factor on all friction coefficients of contacts"),
            Feature("density", "kg/m^3", option.density, 0.0, 1e4, "density of the medium"),
            Feature("viscosity", "Pa s", option.viscosity, 0.0, 100.0, "viscosity of the medium"),
            Feature("body_mass", "1", 1.0, 0.1, 10.0, "factor on masses and inertias of all bodies"),
        )

    def _acting(self, candidates: tuple[Feature, ...]) -> set[str]:
        """Return the names of the features that change an acceleration in at least one of many states.

        So a task without contacts has no friction feature, one that moves in a horizontal plane no gravity.
        """
        data = mujoco.MjData(self._model)
        undecided = list(candidates)
        defaults = {feature.name: feature.default for feature in candidates}
        acting: set[str] = set()
        for state in chain(self._random_states(), self._visited_states()):
            before = self._acceleration(data, state)
            for feature in tuple(undecided):
                self.apply({feature.name: self._probe(feature)})
                change = np.abs(self._acceleration(data, state) - before)
                if (change > _RELATIVE_CHANGE * (1.0 + np.abs(before).max())).any():
                    acting.add(feature.name)
                    undecided.remove(feature)
                self.apply({feature.name: defaults[feature.name]})
            if not undecided:
                break
        return acting

    def _probe(self, feature: Feature) -> float:
        """Return a value at which the feature shows that it acts: a floor's friction only above that of the others."""
        frictions = self._defaults["geom_friction"][:, 0]
        largest = frictions.max() if feature.name == "floor_friction" else feature.default
        return 2.0 * largest or 1.0

    def _acceleration(self, data: Any, state: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the accelerations of all degrees of freedom, float64 [nv], in one state."""
        mujoco.mj_resetData(self._model, data)
        for field, value in state.items():
            getattr(data, field)[:] = value
        mujoco.mj_forward(self._model, data)
        return data.qacc.copy()

    def _random_states(self) -> Iterator[dict[str, np.ndarray]]:
        """Yield states of any joint angles, positions near the initial one, velocities and controls.

        Generator seed 0, so that a model always has the same features.
        """
        model, generator = self._model, np.random.default_rng(0)
        for _ in range(_PROBES):
            qpos = model.qpos0.copy()
            for joint in range(model.njnt):
                start, kind = model.jnt_qposadr[joint], model.jnt_type[joint]
                if kind == mujoco.mjtJoint.mjJNT_FREE:
                    qpos[start : start + 3] += generator.uniform(-0.5, 0.5, 3)
                    qpos[start + 3 : start + 7] = generator.normal(size=4)
                elif kind == mujoco.mjtJoint.mjJNT_BALL:
                    qpos[start : start + 4] = generator.normal(size=4)
                elif model.jnt_limited[joint]:
                    qpos[start] = generator.uniform(*model.jnt_range[joint])
                else:
                    reach = math.pi if kind == mujoco.mjtJoint.mjJNT_HINGE else 0.5
                    qpos[start] += generator.uniform(-reach, reach)
            mujoco.mj_normalizeQuat(model, qpos)
            yield {
                "qpos": qpos,
                "qvel": generator.normal(size=model.nv),
                "ctrl": generator.uniform(-1.0, 1.0, model.nu),
                "act": generator.uniform(-1.0, 1.0, model.na),
            }

    def _visited_states(self) -> Iterator[dict[str, np.ndarray]]:
        """Yield states of a motion from the initial pose under random controls, with contacts that it makes."""
        model, generator = self._model, np.random.default_rng(0)
        data = mujoco.MjData(model)
        for _ in range(_PROBES):
            data.ctrl[:] = generator.uniform(-1.0, 1.0, model.nu)
            mujoco.mj_step(model, data, _PROBE_STEPS)
            yield {field: getattr(data, field).copy() for field in ("qpos", "qvel", "ctrl", "act")}
