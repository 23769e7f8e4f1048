"""Policies that references are made of: a random one, and for CartPole a controller that knows the context."""

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from agents.environments.base import ContextualEnv, InvalidStep, Observation
from agents.environments.classic import CARTPOLE_FEATURES

#: Maps an observation to an action of the environment's own space.
Policy = Callable[[Observation], Any]

# Weights of the squared state: position, velocity, angle, angular velocity. With a push of one size only the ratio to
# the weight of the force matters little; these keep the cart near the middle before it runs out of track.
_STATE_WEIGHTS = (1.0, 1.0, 10.0, 1.0)
_FORCE_WEIGHT = 0.1


def random_policy(space: gymnasium.Space[Any], seed: int) -> Policy:
    """Return a policy that draws every action uniformly from the action space (a bounded one)."""
    space.seed(seed)
    return lambda observation: space.sample()


def cartpole_dynamics(context: Mapping[str, float]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return CartPole's dynamics linearized about the upright pole: s' = A s + B u.

    The state s is [position m, velocity m/s, angle rad, angular velocity rad/s], u the force in N, a step is Euler's
    over tau seconds, as in Gymnasium; R. V. Florian, "Correct equations for the dynamics of the cart-pole system"
    (2007), without friction, sines and cosines to first order.

    Args:
        context: values by feature, raw units; features left out are at their default.

    Returns:
        A [4, 4] and B [4, 1].
    """
    values = {feature.name: feature.default for feature in CARTPOLE_FEATURES} | dict(context)
    total, length, tau = values["masscart"] + values["masspole"], values["length"], values["tau"]
    lever = values["masspole"] * length / total  # m
    inertia = length * (4.0 / 3.0 - values["masspole"] / total)  # m
    fall, push = values["gravity"] / inertia, -1.0 / (total * inertia)  # angular acceleration per rad, per N
    rates = np.array([[0, 1, 0, 0], [0, 0, -lever * fall, 0], [0, 0, 0, 1], [0, 0, fall, 0]], dtype=np.float64)
    force = np.array([[0.0], [1.0 / total - lever * push], [0.0], [push]])
    return np.eye(4) + tau * rates, tau * force


def cartpole_gain(context: Mapping[str, float]) -> NDArray[np.float64]:
    """Return the gain K [1, 4] of the linear-quadratic regulator u = -K s for a context of CartPole."""
    a, b = cartpole_dynamics(context)
    r = np.array([[_FORCE_WEIGHT]])
    cost = scipy.linalg.solve_discrete_are(a, b, np.diag(_STATE_WEIGHTS), r)
    return np.asarray(np.linalg.solve(r + b.T @ cost @ b, b.T @ cost @ a))


def cartpole_controller(context: Mapping[str, float]) -> Policy:
    """Return CartPole's regulator for a context: it pushes to the side that u = -K s points to."""
    gain = cartpole_gain(context)[0]
    return lambda observation: int(gain @ observation["state"] < 0.0)


def play(env: ContextualEnv, policy: Policy, context: Mapping[str, float], seed: int) -> float | None:
    """Return the undiscounted return of one episode, or None if it came to an invalid step."""
    try:
        observation, _ = env.reset(seed=seed, options={"context": context})
        total, over = 0.0, False
        while not over:
            observation, reward, terminated, truncated, _ = env.step(policy(observation))
            total, over = total + float(reward), terminated or truncated
    except InvalidStep:
        return None
    return total
