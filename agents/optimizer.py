"""Adaptive gradient clipping followed by LaProp, on lists of tensors and nothing else.

Source: danijar/dreamerv3 at e3f0224 (``opt.clip_by_agc``, ``scale_by_rms``, ``scale_by_momentum``); AGC without the
unit-wise norms of arXiv 2102.06171, LaProp of arXiv 2002.04839. A population's tensors have a leading member
dimension M, its counters and rates are [M]; norms are then per tensor *and* member.
"""

from typing import NamedTuple

import torch
from torch import Tensor

RMS_DECAY = 0.999
MOMENTUM_DECAY = 0.9
EPSILON = 1e-20
PARAMETER_NORM_FLOOR = 1e-3


class StepNorms(NamedTuple):
    """Norms of one step over all tensors, [] or [M]."""

    gradient: Tensor  # before clipping
    clip: Tensor  # the smallest clipping factor


def laprop_step(
    parameters: list[Tensor],
    gradients: list[Tensor],
    rms: list[Tensor],
    momentum: list[Tensor],
    count: Tensor,
    learning_rate: Tensor,
    clip: Tensor,
) -> StepNorms:
    """Update ``parameters``, ``rms`` and ``momentum`` in place.

    Args:
        parameters, gradients, rms, momentum: tensors of equal shapes, [...] or [M, ...].
        count: number of this step, from 1; [] or [M].
        learning_rate: step size in effect; [] or [M].
        clip: largest ratio of a gradient's norm to its parameter's, [] or [M].
    """
    members = count.dim()
    gradient_norms = tensor_norms(gradients, members)
    floors = [norm.clamp_min(PARAMETER_NORM_FLOOR) for norm in tensor_norms(parameters, members)]
    scales = [1 / (norm / (clip * floor)).clamp_min(1.0) for norm, floor in zip(gradient_norms, floors, strict=True)]
    clipped = multiply(gradients, scales)

    torch._foreach_mul_(rms, RMS_DECAY)
    torch._foreach_addcmul_(rms, clipped, clipped, value=1 - RMS_DECAY)
    rms_correction = 1 / (1 - RMS_DECAY ** count.to(learning_rate.dtype))
    deviations = multiply(rms, [rms_correction] * len(rms))
    torch._foreach_sqrt_(deviations)
    torch._foreach_add_(deviations, EPSILON)
    torch._foreach_div_(clipped, deviations)
    torch._foreach_lerp_(momentum, clipped, 1 - MOMENTUM_DECAY)
    step = learning_rate / (1 - MOMENTUM_DECAY ** count.to(learning_rate.dtype))
    torch._foreach_sub_(parameters, multiply(momentum, [step] * len(momentum)))

    total = torch.stack(gradient_norms).square().sum(0).sqrt()
    return StepNorms(total, torch.stack(scales).amin(0))


def tensor_norms(tensors: list[Tensor], members: int) -> list[Tensor]:
    """Euclidean norm of each tensor, per member where ``members`` leading dimensions stand for members."""
    if not members:
        return list(torch._foreach_norm(tensors))
    return [torch.linalg.vector_norm(tensor.flatten(members), dim=-1) for tensor in tensors]


def multiply(tensors: list[Tensor], factors: list[Tensor]) -> list[Tensor]:
    """New tensors, each times its factor [] or [M]."""
    shaped = [
        factor.reshape(factor.shape + (1,) * (tensor.dim() - factor.dim()))
        for tensor, factor in zip(tensors, factors, strict=True)
    ]
    return list(torch._foreach_mul(tensors, shaped))
