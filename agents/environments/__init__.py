"""Contextual Gymnasium environments, context distributions and environment vectors."""

from agents.environments.actions import ActionCodec
from agents.environments.base import Change, ContextualEnv, Feature, InvalidStep, Observations
from agents.environments.distributions import (
    ContextDistribution,
    FixedContexts,
    RoundRobin,
    UniformContexts,
    change_steps,
    changes_in_turn,
    draw_contexts,
)
from agents.environments.registry import ENVIRONMENTS, make_environment
from agents.environments.subprocess_vector import SubprocessVector
from agents.environments.vector import OnInvalid, Reset, SerialVector, VectorEnvironment

__all__ = [
    "ENVIRONMENTS",
    "ActionCodec",
    "Change",
    "ContextDistribution",
    "ContextualEnv",
    "Feature",
    "FixedContexts",
    "InvalidStep",
    "Observations",
    "OnInvalid",
    "Reset",
    "RoundRobin",
    "SerialVector",
    "SubprocessVector",
    "UniformContexts",
    "VectorEnvironment",
    "change_steps",
    "changes_in_turn",
    "draw_contexts",
    "make_environment",
]
