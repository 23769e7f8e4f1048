"""Copies from the host to a device that nobody waits for."""

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Return ``tensor`` on ``device``; from the host to CUDA the copy runs while the host goes on.

    Such a copy goes through page-locked memory, where ``tensor`` does not lie there already: from ordinary memory
    it would wait for everything that the device has been given so far. Page-locked memory is used again only after
    the copy out of it is done (torch's caching allocator sees to that), so the caller may forget ``tensor`` at once.

    Args:
        tensor: on any device. If it is page-locked, it must not be written again before the copy is done.
        device: where the result goes.
    """
    if torch.device(device).type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
