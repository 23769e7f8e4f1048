"""Pages of an arena: which are in use, by how many members, and what their files are called."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from agents.replay.storage import Array, RamStorage, Spec, Storage

Index = npt.NDArray[np.int64]


class PageStore:
    """Fixed-length pages with reference counts, shared by any number of replays.

    A page is a *slot*: ``page_length`` consecutive rows of the storage. One rule makes sharing safe: rows are
    written only into a page with a single reference (``writable`` copies a shared one first). So a page that
    two members refer to never changes, whether it is full or not.

    A page may carry the name of the file that holds exactly its content; the name goes when a row is written.

    Args:
        specs: what one record holds.
        page_length: records per page.
        storage: the arena; main memory where none is given.
    """

    def __init__(self, specs: Mapping[str, Spec], page_length: int, storage: Storage | None = None) -> None:
        self.storage: Storage = RamStorage(specs) if storage is None else storage
        if dict(self.storage.specs) != dict(specs):
            raise ValueError("the storage was made for other records than the page store")
        if page_length < 1:
            raise ValueError(f"page_length must be positive, got {page_length}")
        self.specs = dict(specs)
        self.page_length = page_length
        self._references: Index = np.zeros(0, np.int64)
        self._free: list[int] = []
        self._unused = 0  # slots from here on were never handed out; their memory is untouched
        self._names: dict[int, str] = {}
        self._slots_by_name: dict[str, int] = {}

    @property
    def pages_in_use(self) -> int:
        """Pages that at least one member refers to."""
        return self._unused - len(self._free)

    def reserve(self, pages: int) -> None:
        """Make room for ``pages`` pages in one piece, from which sampling is fastest; only for a new arena.

        A replay does so for itself alone. Who knows that there will be several members should ask for all.
        """
        if self.storage.rows == 0:
            self._grow(pages)

    def allocate(self, count: int) -> Index:
        """Return ``count`` free slots [count], each with one reference and arbitrary content."""
        slots = np.empty(count, np.int64)
        for position in range(count):
            if self._free:
                slots[position] = self._free.pop()
                continue
            if self._unused == len(self._references):
                self._grow(max(16, self._unused))
            slots[position] = self._unused
            self._unused += 1
        self._references[slots] = 1
        return slots

    def retain(self, slots: Index) -> None:
        """Add one reference for each entry of ``slots`` [N]."""
        np.add.at(self._references, slots, 1)

    def release(self, slots: Index) -> None:
        """Take away one reference for each entry of ``slots`` [N]; free the pages that have none left."""
        np.subtract.at(self._references, slots, 1)
        for slot in np.unique(slots[self._references[slots] == 0]).tolist():
            self._forget_name(slot)
            self._free.append(slot)

    def writable(self, slots: Index, rows: Index) -> Index:
        """Return slots [N] with the same first ``rows`` [N] rows as ``slots`` [N], which may be written.

        A page that others refer to is copied, and the caller's reference moves to the copy.
        """
        shared = self._references[slots] > 1
        if shared.any():
            slots = slots.copy()
            for position in np.flatnonzero(shared).tolist():
                source = int(slots[position])
                if self._references[source] == 1:  # the other reference was an earlier entry of this call
                    continue
                target = int(self.allocate(1)[0])
                first, copied = source * self.page_length, target * self.page_length
                self.storage.copy(first, copied, int(rows[position]))
                self._references[source] -= 1
                slots[position] = target
        if self._names:
            for slot in slots.tolist():
                self._forget_name(slot)
        return slots

    def read(self, slot: int, rows: int) -> dict[str, Array]:
        """Return the first ``rows`` records of a page as host arrays [rows, ...]."""
        first = slot * self.page_length
        index = torch.arange(first, first + rows, device=self.storage.device)
        return {key: value.cpu().numpy() for key, value in self.storage.gather(index).items()}

    def write(self, slot: int, records: Mapping[str, Array], rows: int) -> None:
        """Fill the first ``rows`` rows of a page from ``records`` [rows, ...]."""
        first = slot * self.page_length
        self.storage.write(np.arange(first, first + rows), records)

    def name(self, slot: int) -> str | None:
        """Return the name of the file that holds exactly this full page, if that is known."""
        return self._names.get(slot)

    def set_name(self, slot: int, name: str) -> None:
        """Note that file ``name`` holds exactly this full page."""
        self._names[slot] = name
        self._slots_by_name.setdefault(name, slot)

    def find(self, name: str) -> int | None:
        """Return a slot whose page is known to have the content of file ``name``."""
        return self._slots_by_name.get(name)

    def _forget_name(self, slot: int) -> None:
        name = self._names.pop(slot, None)
        if name is not None and self._slots_by_name.get(name) == slot:
            del self._slots_by_name[name]

    def _grow(self, pages: int) -> None:
        self.storage.grow(pages * self.page_length)
        self._references = np.concatenate([self._references, np.zeros(pages, np.int64)])
