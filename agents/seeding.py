"""Randomness as a pure function of (seed, stream, counters).

Nothing draws from a generator that lives longer than one use, so an exact resume needs no generator
state: the counters that are saved anyway (updates, ticks, episodes) determine every random number.
"""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def seed_for(seed: int, stream: str, *counters: int) -> int:
    """Return a 63-bit seed that depends on every argument (torch's CPU generator uses 32 bits of it).

    Args:
        seed: the run's seed.
        stream: what the randomness is for, such as ``"update"`` or ``"environment"``.
        counters: position in the stream, such as (environment, episode).
    """
    text = "/".join([str(int(seed)), stream, *(str(int(counter)) for counter in counters)])
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def numpy_generator(seed: int, stream: str, *counters: int) -> np.random.Generator:
    """Return a NumPy generator for one use at (seed, stream, counters)."""
    return np.random.Generator(np.random.PCG64(seed_for(seed, stream, *counters)))


def torch_generator(seed: int, stream: str, *counters: int, device: "torch.device | str" = "cpu") -> "torch.Generator":
    """Return a torch generator on ``device`` for one use at (seed, stream, counters)."""
    import torch  # environment workers and the table of a grid do without

    return torch.Generator(device=device).manual_seed(seed_for(seed, stream, *counters))
