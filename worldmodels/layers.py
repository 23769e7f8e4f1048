"""Layers that the networks are made of.

Symbols: N any leading dimensions; I, O input and output width; G blocks.
"""

from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

EPSILON = 1e-4  # of every RMSNorm; danijar/dreamerv3 at e3f0224
TRUNCATION_CORRECTION = 1.1368  # 1 / (standard deviation of a unit normal cut at +-2)


def truncated_normal_(weight: Tensor, fan_in: int, scale: float, generator: torch.Generator) -> None:
    """Fill ``weight`` with a normal cut at two deviations, of standard deviation scale * sqrt(1 / fan_in)."""
    deviation = scale * TRUNCATION_CORRECTION * fan_in**-0.5
    with torch.no_grad():
        if deviation == 0.0:
            weight.zero_()
        else:
            nn.init.trunc_normal_(weight, 0.0, deviation, -2 * deviation, 2 * deviation, generator=generator)


@runtime_checkable
class Initialized(Protocol):
    """A layer that draws its own initial weights."""

    def initialize(self, generator: torch.Generator) -> None:
        """Set every parameter."""


class Linear(nn.Linear):
    """Affine map y = x W^T + b with DreamerV3's initialization; ``scale`` 0 starts it at zero."""

    def __init__(self, inputs: int, outputs: int, scale: float = 1.0) -> None:
        super().__init__(inputs, outputs)
        self.scale = scale

    def initialize(self, generator: torch.Generator) -> None:
        """Draw the weights; biases are 0."""
        truncated_normal_(self.weight, self.in_features, self.scale, generator)
        nn.init.zeros_(self.bias)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + 1e-4) * weight over the last dimension (danijar/dreamerv3, ``nets.Norm``)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def initialize(self, generator: torch.Generator) -> None:
        """Set the scale to 1."""
        nn.init.ones_(self.weight)

    def forward(self, x: Float[Tensor, "*N I"]) -> Float[Tensor, "*N I"]:
        """Normalize the last dimension, in the weight's precision also where x has less."""
        return F.rms_norm(x.to(self.weight.dtype), self.weight.shape, self.weight, EPSILON).to(x.dtype)


class BlockLinear(nn.Module):
    """G independent affine maps between the G equal slices of input and output.

    ``weight`` is [G, I/G, O/G]. ``shared`` inputs are seen by every block after its own slice: the weight is
    then [G, I/G + shared, O/G]. The initialization's fan-in is the full input width G * weight.shape[1]
    (danijar/dreamerv3, ``nets.BlockLinear``).
    """

    def __init__(self, inputs: int, outputs: int, blocks: int, shared: int = 0) -> None:
        super().__init__()
        self.own = inputs // blocks
        self.weight = nn.Parameter(torch.empty(blocks, self.own + shared, outputs // blocks))
        self.bias = nn.Parameter(torch.empty(outputs))

    def initialize(self, generator: torch.Generator) -> None:
        """Draw the weights; biases are 0."""
        blocks, inputs, _ = self.weight.shape
        truncated_normal_(self.weight, blocks * inputs, 1.0, generator)
        nn.init.zeros_(self.bias)

    def split(self) -> tuple[Tensor, Tensor]:
        """Return (own [G, I/G, O/G], shared [S, O]): the weight as one batched and one dense factor.

        Doing this once per update, outside the time loop, spares a copy of the shared inputs per block.
        """
        own, shared = self.weight[:, : self.own], self.weight[:, self.own :]
        return own, shared.permute(1, 0, 2).flatten(1)

    def forward(self, x: Float[Tensor, "N I"]) -> Float[Tensor, "N O"]:
        """Map the blocks of x; for layers without shared inputs."""
        return block_map(x, self.weight) + self.bias


def block_map(x: Float[Tensor, "N I"], weight: Float[Tensor, "G I_G O_G"]) -> Float[Tensor, "N O"]:
    """Multiply each of the G slices of x with its own matrix."""
    blocks, inputs, _ = weight.shape
    return torch.bmm(x.unflatten(-1, (blocks, inputs)).transpose(0, 1), weight).transpose(0, 1).flatten(1)


class MLP(nn.Module):
    """Layers of Linear -> RMSNorm -> SiLU, all of width ``units``."""

    def __init__(self, inputs: int, units: int, layers: int) -> None:
        super().__init__()
        widths = [inputs] + [units] * layers
        self.linears = nn.ModuleList(Linear(a, b) for a, b in zip(widths, widths[1:], strict=False))
        self.norms = nn.ModuleList(RMSNorm(units) for _ in range(layers))

    def forward(self, x: Float[Tensor, "*N I"]) -> Float[Tensor, "*N O"]:
        """Apply all layers."""
        for linear, norm in zip(self.linears, self.norms, strict=True):
            x = F.silu(norm(linear(x)))
        return x


def full_precision(x: Tensor) -> Tensor:
    """Raise 16-bit floats to float32: logits and predictions, and so all losses, are at least that precise.

    In bfloat16 a continue probability of 1 - 1/333 would round to 1 - 1/256 (danijar/dreamerv3 casts likewise).
    """
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


class Head(nn.Module):
    """An MLP and a linear output of width ``outputs``; ``scale`` multiplies the output's initial weights."""

    def __init__(self, inputs: int, units: int, layers: int, outputs: int, scale: float = 1.0) -> None:
        super().__init__()
        self.mlp = MLP(inputs, units, layers)
        self.output = Linear(units, outputs, scale)

    def forward(self, x: Float[Tensor, "*N I"]) -> Float[Tensor, "*N O"]:
        """Return the raw output, in full precision."""
        return full_precision(self.output(self.mlp(x)))


def initialize(module: nn.Module, generator: torch.Generator) -> None:
    """Draw all weights below ``module``, in the order of its submodules, from one generator."""
    for layer in module.modules():
        if isinstance(layer, Initialized):
            layer.initialize(generator)
