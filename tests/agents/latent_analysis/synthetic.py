"""Episodes of a world in which an agent's latents are known."""

import numpy as np
import torch

from agents.evaluation.episodes import Job
from agents.evaluation.rollout import Episode


def make_episode(length, context, seed=0):
    """x grows by the action; the observation is [x, step]."""
    actions = np.random.default_rng(seed).uniform(-1, 1, (length + 1, 1)).astype(np.float32)
    x = np.concatenate([[0], np.cumsum(actions[:-1, 0])]).astype(np.float32)
    records = {
        "observation/state": np.stack([x, np.arange(length + 1)], -1).astype(np.float32),
        "action": actions,
        "reward": np.zeros(length + 1, np.float32),
        "is_first": np.arange(length + 1) == 0,
        "context": np.full((length + 1, 1), context, np.float32),
    }
    return Episode(Job("training", 0, {"gravity": float(context)}, seed), 0.0, length, records)


class KnownAgent:
    """Its deter is [x, context, step] in the posterior; a dream counts its steps in hundreds; it infers 10 context."""

    def __init__(self, infers=False):
        self.infers = infers
        self.groups = []

    def observe(self, state, batch, noise=None):
        seen = batch["observation/state"]
        self.groups.append(len(seen))
        deter = torch.stack([seen[..., 0], batch["context"][..., 0], seen[..., 1]], -1)
        return {"deter": deter, "stoch": seen[..., :1, None].expand(*seen.shape[:2], 1, 2)}

    def condition(self, state, batch):
        return 10 * batch["context"] if self.infers else batch["context"]

    def imagine(self, state, start, actions, context, noise=None):
        x = start["deter"][:, :1] + actions[..., 0].cumsum(1)
        steps = start["deter"][:, 2:] + 100 * torch.arange(1, actions.shape[1] + 1)
        deter = torch.stack([x, context.expand_as(x), steps], -1)
        return {"deter": deter, "stoch": torch.zeros(*x.shape, 1, 2)}
