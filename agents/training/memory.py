"""A device without enough memory, told in one line that names what to lower."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from agents.configuration import RunConfig
from agents.errors import UserError

# What CUDA's libraries say where they take memory past torch's allocator.
_WORDS = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


@contextmanager
def memory_errors(advice: str) -> Iterator[None]:
    """Tell a device that has run out of memory as a `UserError`.

    Args:
        advice: what to lower or change.

    Raises:
        UserError: in the place of ``torch.OutOfMemoryError``, also where that was only the cause of another error,
            as while a CUDA graph is recorded.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        shortage = _shortage(error)
        if shortage is None:
            raise
        asked = re.search(r"Tried to allocate ([\d.]+ \w+)", str(shortage))
        size = f" ({asked[1]} more were asked for)" if asked else ""
        raise UserError(f"the device's memory is full{size}; {advice}") from error


def training_advice(config: RunConfig) -> str:
    """Return how a run can go on, and which settings of a new one need less memory."""
    training = config.training
    storage = " or set replay.storage to ram" if config.replay.storage == "device" else ""
    precision = " or training.precision bfloat16" if training.precision == "float32" else ""
    return (
        f"free it of other programs{storage} and give the same command again, which goes on from the last checkpoint; "
        f"or begin a new run with a lower training.batch_size (now {training.batch_size}), training.batch_length "
        f"({training.batch_length}) or agent.horizon ({config.agent.horizon}), a smaller agent{precision}"
    )


ACTING_ADVICE = "free it of other programs, or put CUDA_VISIBLE_DEVICES= before the command to use the CPU"


def _shortage(error: BaseException | None) -> BaseException | None:
    """Return the first error without memory in the chain of causes, None if there is none."""
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _WORDS):
            return error
        error = error.__cause__ or error.__context__
    return None
