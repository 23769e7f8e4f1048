"""The reference's formulas in plain NumPy and float64, one number at a time, and a small agent to hold against them.

Nothing here calls the packages' mathematics. Sources: danijar/dreamerv3 at e3f0224, named at each function.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from tensordict import TensorDict
from torch import Tensor
from torch.func import functional_call

from agents.dreamerv3 import ActionSpec, DreamerV3, DreamerV3Config, losses
from worldmodels.context import ContextSpec

SMALL = {"deter": 16, "hidden": 8, "units": 8, "stoch": 4, "classes": 3, "blocks": 2, "context": "hidden"}


def log_sum_exp(logits: Sequence[float]) -> float:
    top = max(logits)
    return top + math.log(sum(math.exp(x - top) for x in logits))


def two_hot(target: float, bins: Sequence[float]) -> list[float]:
    """Weights of the two bins around a target, in inverse proportion to the distance (``outs.TwoHot.loss``)."""
    weights = [0.0] * len(bins)
    if target <= bins[0]:
        weights[0] = 1.0
    elif target >= bins[-1]:
        weights[-1] = 1.0
    else:
        above = next(k for k, value in enumerate(bins) if value > target)
        gap = bins[above] - bins[above - 1]
        weights[above - 1] = (bins[above] - target) / gap
        weights[above] = (target - bins[above - 1]) / gap
    return weights


def two_hot_cross_entropy(logits: Sequence[float], target: float, bins: Sequence[float]) -> float:
    total = log_sum_exp(logits)
    return -sum(weight * (x - total) for weight, x in zip(two_hot(target, bins), logits, strict=True))


def two_hot_mean(logits: Sequence[float], bins: Sequence[float]) -> float:
    """Expected bin (``outs.TwoHot.pred``), summed without rounding."""
    total = log_sum_exp(logits)
    return math.fsum(math.exp(x - total) * value for x, value in zip(logits, bins, strict=True))


def lambda_returns(reward: np.ndarray, live: np.ndarray, trace: np.ndarray, bootstrap: np.ndarray) -> np.ndarray:
    """The forward view: the sum over where the return stops, no recursion. All [T], of the state arrived at.

    The return from t goes on past state k with weight live_k trace_k, and stops there on the bootstrap with weight
    live_k (1 - trace_k); past the last state only the bootstrap is left (``agent.lambda_return``).
    """
    steps = len(reward)
    returns = np.zeros(steps)
    for t in range(steps):
        for k in range(t, steps):
            reached = math.prod(live[j] * trace[j] for j in range(t, k))
            stop = 1.0 if k == steps - 1 else 1.0 - trace[k]
            returns[t] += reached * (reward[k] + live[k] * stop * bootstrap[k])
    return returns


def unimix(logits: np.ndarray, share: float = 0.01) -> np.ndarray:
    """Softmax over the last axis with ``share`` of the uniform distribution (``outs.Categorical``)."""
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return (1 - share) * weights / weights.sum(-1, keepdims=True) + share / logits.shape[-1]


def disturbed_agent(
    discrete: bool = True, horizon: int = 3, scale: float = 0.3, **hyperparameters: float
) -> tuple[DreamerV3, TensorDict]:
    """An agent in float64 whose weights are of no special kind: no zero outputs, no unit scales."""
    config = {"world_model": SMALL, "horizon": horizon, "hyperparameters": hyperparameters}
    spec = ActionSpec(3, discrete)
    agent = DreamerV3(DreamerV3Config.model_validate(config), {"state": (4,)}, spec, ContextSpec(), dtype=torch.float64)
    state = agent.initial_state(0)
    rng = np.random.default_rng(7)
    for branch in ("parameters", "slow"):
        for value in state[branch].values():
            value += scale * torch.from_numpy(rng.normal(size=value.shape))
    return agent, state


def batch(discrete: bool = True, rows: int = 3, length: int = 5) -> dict[str, Tensor]:
    """Records with a terminal, a time-out and a reset in the middle."""
    rng = np.random.default_rng(3)
    action = rng.normal(size=(rows, length, 3))
    is_last, is_terminal = np.zeros((2, rows, length), bool)
    is_last[0, 2] = is_terminal[0, 2] = True  # the world ends
    is_last[1, 1] = True  # time is up
    data = {
        "observation/state": rng.normal(size=(rows, length, 4)),
        "action": np.eye(3)[action.argmax(-1)] if discrete else action,
        "reward": rng.normal(size=(rows, length)) * 3,
        "is_first": np.concatenate([np.ones((rows, 1), bool), is_last[:, :-1]], 1),
        "is_last": is_last,
        "is_terminal": is_terminal,
        "context": np.zeros((rows, length, 0)),
    }
    return {name: torch.from_numpy(value) for name, value in data.items()}


def traced(agent: DreamerV3, state: TensorDict, data: dict[str, Tensor], noise: dict[str, Tensor]) -> tuple[dict, dict]:
    """Everything of one update, and the leaves by which its losses can be differentiated."""
    leaves = {
        name: value.detach().clone().requires_grad_()
        for branch in ("parameters", "slow")
        for name, value in state[branch].items()
    }
    hyperparameters, normalizer = dict(state["hyperparameters"].items()), dict(state["normalizer"].items())
    arguments = (losses.update_trace, data, hyperparameters, normalizer, noise, agent.config.horizon)
    return functional_call(agent.networks, leaves, arguments), leaves
