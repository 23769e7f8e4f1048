"""Layers that the networks are made of.

Symbols: N any leading dimensions; I, O input and output width; G blocks.
"""

import inspect
from typing import Any, Protocol, cast, runtime_checkable

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


def norm_silu(x: Float[Tensor, "*N I"], scale: Float[Tensor, " I"]) -> Float[Tensor, "*N I"]:
    """SiLU of the RMS norm of x times ``scale``, in the scale's precision also where x has less."""
    exact = x.to(scale.dtype)
    activated = _NormSilu.apply(exact, scale)[0] if torch.is_grad_enabled() else _NormSilu.forward(exact, scale)[0]
    return activated.to(x.dtype)


def inverse_rms(x: Float[Tensor, "*N I"]) -> Float[Tensor, "*N 1"]:
    """1 / sqrt(mean(x^2) + 1e-4), from the Euclidean norm, which takes no memory for the squares."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return norm.mul_(norm).div_(x.shape[-1]).add_(EPSILON).rsqrt_()


class _NormSilu(torch.autograd.Function):
    """By hand, since autograd would go through a dozen operations for one layer's norm, forth and back."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        inverse = inverse_rms(x)
        unit = x * inverse
        return F.silu(unit * scale, inplace=True), unit, inverse

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(inputs[1], *output[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: None) -> tuple[Tensor, Tensor]:
        scale, unit, inverse = ctx.saved_tensors
        scaled = torch.ops.aten.silu_backward(gradient, unit * scale)
        of_scale = (scaled * unit).reshape(-1, len(scale)).sum(0)
        weighted = scaled.mul_(scale)
        along = (weighted * unit).sum(-1, keepdim=True)  # vecdot would be in bfloat16 under autocast
        return torch.addcmul(weighted, unit, along, value=-1 / unit.shape[-1]).mul_(inverse), of_scale


# Function.apply asks for the signature at every call, which takes longer than the arithmetic of a small layer.
_NormSilu.forward.__signature__ = inspect.signature(_NormSilu.forward)  # type: ignore[attr-defined]


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

    def layers(self) -> list[tuple[Linear, RMSNorm]]:
        """The linear maps, each with its norm."""
        return cast(list[tuple[Linear, RMSNorm]], list(zip(self.linears, self.norms, strict=True)))

    def forward(self, x: Float[Tensor, "*N I"]) -> Float[Tensor, "*N O"]:
        """Apply all layers."""
        for linear, norm in self.layers():
            x = norm_silu(linear(x), norm.weight)
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
