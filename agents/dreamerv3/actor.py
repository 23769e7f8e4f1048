"""The policy's network and its distributions (danijar/dreamerv3 at e3f0224).

Symbols: N any leading dimensions; I input width; A action width.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from worldmodels.layers import MLP, Linear, full_precision

LOW_DEVIATION, HIGH_DEVIATION = 0.1, 1.0
OUTPUT_SCALE = 0.01


@dataclass(frozen=True)
class ActionSpec:
    """Width of the action: classes of one discrete action (one-hot), or dimensions of a continuous one."""

    size: int
    discrete: bool


class Actor(nn.Module):
    """Maps features to the parameters of a policy.

    Discrete: {"logits": [..., A]}, categorical. Continuous: {"mean", "deviation": [..., A]},
    Normal(tanh(mean), 0.9 sigmoid(deviation + 2) + 0.1), not squashed: the environment clips.
    """

    def __init__(self, inputs: int, units: int, layers: int, action: ActionSpec) -> None:
        super().__init__()
        self.action = action
        self.mlp = MLP(inputs, units, layers)
        names = ["logits"] if action.discrete else ["mean", "deviation"]
        self.outputs = nn.ModuleDict({name: Linear(units, action.size, OUTPUT_SCALE) for name in names})

    def forward(self, features: Float[Tensor, "*N I"]) -> dict[str, Float[Tensor, "*N A"]]:
        """Return the policy's parameters."""
        hidden = self.mlp(features)
        raw = {name: full_precision(output(hidden)) for name, output in self.outputs.items()}
        if self.action.discrete:
            return raw
        spread = HIGH_DEVIATION - LOW_DEVIATION
        return {
            "mean": torch.tanh(raw["mean"]),
            "deviation": spread * torch.sigmoid(raw["deviation"] + 2.0) + LOW_DEVIATION,
        }

    def sample(self, policy: dict[str, Tensor], noise: Float[Tensor, "*N A"] | None) -> Float[Tensor, "*N A"]:
        """Draw actions without gradient: Gumbel noise for discrete ones, standard normal noise for continuous ones.

        Zero noise, or None, gives the mode.
        """
        if self.action.discrete:
            scores = policy["logits"].detach()
            scores = scores if noise is None else scores + noise
            index = scores.argmax(-1, keepdim=True)
            return (index == torch.arange(self.action.size, device=scores.device)).to(scores.dtype)
        mean = policy["mean"].detach()
        return mean if noise is None else mean + policy["deviation"].detach() * noise

    def log_prob_and_entropy(
        self, policy: dict[str, Tensor], action: Float[Tensor, "*N A"]
    ) -> tuple[Float[Tensor, "*N"], Float[Tensor, "*N"]]:
        """Log-probability of detached actions and the entropy, in nats, summed over dimensions."""
        if self.action.discrete:
            logs = F.log_softmax(policy["logits"], -1)
            return (logs * action).sum(-1), -(logs.exp() * logs).sum(-1)
        mean, deviation = policy["mean"], policy["deviation"]
        logs = -0.5 * ((action - mean) / deviation).square() - deviation.log() - 0.5 * math.log(2 * math.pi)
        entropy = deviation.log() + 0.5 * math.log(2 * math.pi * math.e)
        return logs.sum(-1), entropy.sum(-1)
