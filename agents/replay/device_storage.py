"""Rows on a device: batches are gathered where they are used, and nothing ever waits for a copy.

No GPU has run this yet: the tests use it with the CPU as its device (tests/gpu waits for one).
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from agents.errors import UserError
from agents.replay.storage import Array, Spec, by_segment, torch_dtype
from agents.transfer import to_device


class DeviceStorage:
    """Rows in tensors of a device, one for each key and segment.

    Growing adds a segment, so rows stay where they are. Reading from several segments takes one gather for each,
    since which rows lie where is not known to the host without waiting: ask for all rows at once where possible.

    Args:
        specs: what one record holds.
        device: where the rows lie.
    """

    def __init__(self, specs: Mapping[str, Spec], device: torch.device | str) -> None:
        self.specs: Mapping[str, Spec] = dict(specs)
        self.device = torch.device(device)
        self.rows = 0
        self._segments: list[dict[str, Tensor]] = []
        self._starts: list[int] = []

    def grow(self, rows: int) -> None:
        try:
            segment = {
                key: torch.empty((rows, *spec.shape), dtype=torch_dtype(spec.dtype), device=self.device)
                for key, spec in self.specs.items()
            }
        except RuntimeError as error:  # torch.OutOfMemoryError on CUDA is one
            size = rows * sum(spec.nbytes for spec in self.specs.values())
            raise UserError(
                f"replay: no memory on {self.device} for {rows:,} records ({size / 2**30:.1f} GiB); lower "
                "replay.capacity or set replay.storage to ram"
            ) from error
        self._segments.append(segment)
        self._starts.append(self.rows)
        self.rows += rows

    def write(self, index: npt.NDArray[np.int64], values: Mapping[str, Array]) -> None:
        # Converted to the records' types on the host, so that the copy is as small as the rows.
        tensors = {
            key: torch.from_numpy(np.ascontiguousarray(values[key], spec.dtype)) for key, spec in self.specs.items()
        }
        self.overwrite(index, tensors)

    def overwrite(self, index: npt.NDArray[np.int64], values: Mapping[str, Tensor]) -> None:
        values = {key: to_device(values[key], self.device) for key in self.specs}
        for number, chosen in by_segment(self._starts, index):
            rows = to_device(torch.from_numpy(index[chosen] - self._starts[number]), self.device)
            source = values
            if len(chosen) < len(index):
                picked = to_device(torch.from_numpy(chosen), self.device)
                source = {key: value.index_select(0, picked) for key, value in values.items()}
            for key, tensor in self._segments[number].items():
                tensor.index_copy_(0, rows, source[key])

    def gather(self, index: Tensor) -> dict[str, Tensor]:
        if len(self._segments) == 1:
            return {key: tensor.index_select(0, index) for key, tensor in self._segments[0].items()}
        gathered: dict[str, Tensor] = {}
        for start, segment in zip(self._starts, self._segments, strict=True):
            rows = len(next(iter(segment.values())))
            local = index - start
            inside = (local >= 0) & (local < rows)
            local = local.clamp(0, rows - 1)
            for key, tensor in segment.items():
                taken = tensor.index_select(0, local)
                if start:
                    mask = inside.view(-1, *[1] * (taken.dim() - 1))
                    taken = torch.where(mask, taken, gathered[key])
                gathered[key] = taken
        return gathered

    def copy(self, source: int, target: int, rows: int) -> None:
        (from_segment, _), (to_segment, _) = (by_segment(self._starts, np.array([row]))[0] for row in (source, target))
        read, write = source - self._starts[from_segment], target - self._starts[to_segment]
        for key, tensor in self._segments[to_segment].items():
            tensor[write : write + rows] = self._segments[from_segment][key][read : read + rows]
