"""The arena below the page table: rows of records, addressed by number, in RAM or in a mapped file."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from agents.errors import UserError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Spec:
    """Shape and type of one entry of a record, without any leading dimension.

    Attributes:
        shape: such as ``(24,)``; ``()`` for a number.
        dtype: anything that ``numpy.dtype`` accepts, such as ``"float32"`` or ``bool``.
    """

    shape: tuple[int, ...]
    dtype: npt.DTypeLike

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(size) for size in self.shape))
        object.__setattr__(self, "dtype", np.dtype(self.dtype))

    @property
    def nbytes(self) -> int:
        """Bytes of one record's entry."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


class Storage(Protocol):
    """An arena of rows; row ``i`` holds one record, and entries never move once they are written.

    Rows come and go by ``grow`` alone. Which rows are in use is none of a storage's business. An
    implementation for another device keeps tensors there: it takes indices and gives batches on its device.
    """

    specs: Mapping[str, Spec]
    device: torch.device
    rows: int

    def grow(self, rows: int) -> None:
        """Add ``rows`` rows behind the present ones, leaving those in place.

        Raises:
            UserError: if there is no room for them.
        """

    def write(self, index: npt.NDArray[np.int64], values: Mapping[str, Array]) -> None:
        """Write ``values[key]`` [N, ...] into the rows ``index`` [N], a host array without duplicates."""

    def overwrite(self, index: npt.NDArray[np.int64], values: Mapping[str, Tensor]) -> None:
        """Write ``values[key]`` [N, ...], on any device, into the rows ``index`` [N] as ``write`` does."""

    def gather(self, index: Tensor) -> dict[str, Tensor]:
        """Return copies [N, ...] of the rows ``index`` [N] int64; both live on ``self.device``."""

    def copy(self, source: int, target: int, rows: int) -> None:
        """Copy ``rows`` consecutive rows from row ``source`` to row ``target``; both lie in one page each."""


def by_segment(starts: Sequence[int], index: npt.NDArray[np.int64]) -> list[tuple[int, npt.NDArray[np.int64]]]:
    """Return (segment, positions in ``index`` whose rows lie there) for each segment that is touched.

    Args:
        starts: the first row of each segment, ascending.
        index: [N] rows.
    """
    segments = np.searchsorted(np.asarray(starts), index, side="right") - 1
    return [(int(segment), np.flatnonzero(segments == segment)) for segment in np.unique(segments)]


def torch_dtype(dtype: npt.DTypeLike) -> torch.dtype:
    """Return torch's name for a NumPy type."""
    return torch.from_numpy(np.empty(0, dtype)).dtype


class RamStorage:
    """Rows in main memory.

    Memory is taken segment by segment, one array per key; the operating system commits it when a row is
    first written. Growing adds a segment, so nothing is ever copied to make room. Sampling is fastest while
    there is one segment: the first request should be for what one member needs.

    Args:
        specs: what one record holds.
        pinned: gather into page-locked memory, from which a copy to a GPU does not hold up the host.
    """

    def __init__(self, specs: Mapping[str, Spec], *, pinned: bool = False) -> None:
        self.specs: Mapping[str, Spec] = dict(specs)
        self.device = torch.device("cpu")
        self.rows = 0
        self._pinned = pinned
        self._segments: list[dict[str, Array]] = []
        self._starts: list[int] = []

    def grow(self, rows: int) -> None:
        try:
            segment = self._new_segment(rows)
        except (MemoryError, ValueError) as error:
            raise UserError(
                f"replay: no memory for {rows:,} records ({rows * self._record_bytes() / 2**30:.1f} GiB); "
                "lower replay.capacity or use memory-mapped storage"
            ) from error
        self._segments.append(segment)
        self._starts.append(self.rows)
        self.rows += rows

    def write(self, index: npt.NDArray[np.int64], values: Mapping[str, Array]) -> None:
        if len(self._segments) == 1:
            for key, array in self._segments[0].items():
                array[index] = values[key]
            return
        for segment, chosen in by_segment(self._starts, index):
            rows = index[chosen] - self._starts[segment]
            for key, array in self._segments[segment].items():
                array[rows] = values[key][chosen]

    def overwrite(self, index: npt.NDArray[np.int64], values: Mapping[str, Tensor]) -> None:
        self.write(index, {key: value.cpu().numpy() for key, value in values.items()})

    def gather(self, index: Tensor) -> dict[str, Tensor]:
        rows = index.numpy()
        if len(self._segments) == 1 and not self._pinned:  # the usual case, without tensors made first
            return {
                key: torch.from_numpy(array.take(rows, axis=0, mode="clip")) for key, array in self._segments[0].items()
            }
        batch = self._batch(len(rows))
        gathered = {key: value.numpy() for key, value in batch.items()}
        if len(self._segments) == 1:
            # mode="clip" skips the bounds check's extra buffer; the page table only gives valid rows.
            for key, array in self._segments[0].items():
                array.take(rows, axis=0, mode="clip", out=gathered[key])
            return batch
        for segment, chosen in by_segment(self._starts, rows):
            local = rows[chosen] - self._starts[segment]
            for key, array in self._segments[segment].items():
                gathered[key][chosen] = array.take(local, axis=0, mode="clip")
        return batch

    def _batch(self, rows: int) -> dict[str, Tensor]:
        """Return uninitialized records [rows, ...] to gather into."""
        return {
            key: torch.empty((rows, *spec.shape), dtype=torch_dtype(spec.dtype), pin_memory=self._pinned)
            for key, spec in self.specs.items()
        }

    def copy(self, source: int, target: int, rows: int) -> None:
        self.write(
            np.arange(target, target + rows),
            {k: v.numpy() for k, v in self.gather(torch.arange(source, source + rows)).items()},
        )

    def _record_bytes(self) -> int:
        return sum(spec.nbytes for spec in self.specs.values())

    def _new_segment(self, rows: int) -> dict[str, Array]:
        return {key: np.empty((rows, *spec.shape), spec.dtype) for key, spec in self.specs.items()}


class MemoryMappedStorage(RamStorage):
    """Rows in files that are mapped into memory, for buffers larger than RAM.

    The files are scratch space without a name: they vanish with the process, however it ends, and have
    nothing to do with checkpoints. Their disk space is claimed when a segment is added, so that a disk too
    small for the capacity is an error at the start instead of a crash later.

    Args:
        specs: what one record holds.
        folder: where the files lie; on a local disk. Created where it is missing.
        pinned: as for `RamStorage`.
    """

    def __init__(self, specs: Mapping[str, Spec], folder: Path, *, pinned: bool = False) -> None:
        super().__init__(specs, pinned=pinned)
        self._folder = Path(folder)

    def _new_segment(self, rows: int) -> dict[str, Array]:
        return {key: self._map(rows, spec) for key, spec in self.specs.items()}

    def _map(self, rows: int, spec: Spec) -> Array:
        size = max(1, rows * spec.nbytes)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._folder) as file:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, size)
                else:
                    file.truncate(size)
                mapped = np.memmap(file, np.uint8, "r+", shape=(size,))
        except OSError as error:
            raise UserError(
                f"replay: cannot map {rows * self._record_bytes() / 2**30:.1f} GiB in {self._folder}: "
                f"{error.strerror}; lower replay.capacity or use a folder on a larger disk"
            ) from error
        # Plain arrays: np.memmap's own indexing adds microseconds to every operation.
        flat = np.asarray(mapped)[: rows * spec.nbytes]
        return flat.view(spec.dtype).reshape(rows, *spec.shape)
