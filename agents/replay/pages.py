"""One member's pages of one page store: what it appends, rewrites, shares and keeps on disk."""

import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from agents.files import atomic_write
from agents.replay import files
from agents.replay.storage import Array
from agents.replay.store import Index, PageStore
from agents.replay.table import PageTable
from agents.transfer import to_device


class Pages:
    """A page table into a page store, and the references that it holds there until nobody holds the pages.

    Pages are never written while another member refers to them: they are copied first.

    Args:
        store: where the pages lie.
        table: which of them are this member's; the references to those in it must have been taken.
    """

    def __init__(self, store: PageStore, table: PageTable) -> None:
        self.store = store
        self.table = table
        weakref.finalize(self, _release, store, table).atexit = False

    def fork(self) -> Self:
        """Return the same pages for another member."""
        table = self.table.copy()
        self.store.retain(table.all_slots())
        return type(self)(self.store, table)

    def append(self, streams: Index, rows: Index, values: Mapping[str, Array]) -> None:
        """Write one record behind the others of each of ``streams`` [N] (no duplicates).

        Args:
            rows: [N], where it goes in the last page; row 0 opens a new one.
            values: [N, ...] by key.
        """
        begun = rows > 0
        if not begun.all():
            opened = streams[~begun]
            self.table.push(opened, self.store.allocate(len(opened)))
        slots = self.table.last(streams)
        writable = self.store.writable(slots, rows)
        if writable is not slots:
            self.table.set_last(streams, writable)
        self.store.storage.write(writable * self.store.page_length + rows, values)

    def overwrite(self, streams: Index, positions: Index, values: Mapping[str, Tensor]) -> None:
        """Replace records that are there; of several for the same place the last one stays.

        Args:
            streams, positions: [N], which records.
            values: [N, ...] by key, on any device.
        """
        length = self.store.page_length
        owners, pages = np.unique(np.stack([streams, positions // length]), axis=1)
        slots = self.table.get(owners, pages)
        writable = self.store.writable(slots, np.full(len(slots), length))
        if writable is not slots:
            self.table.set(owners, pages, writable)
        rows = self.table.rows(streams, positions[:, None])[:, 0]
        _, from_behind = np.unique(rows[::-1], return_index=True)
        last = len(rows) - 1 - from_behind
        if len(last) < len(rows):
            chosen = torch.from_numpy(last)
            values = {key: value[to_device(chosen, value.device)] for key, value in values.items()}
            rows = rows[last]
        self.store.storage.overwrite(rows, values)

    def gather(self, streams: Index, positions: Index, device: torch.device | str) -> dict[str, Tensor]:
        """Return copies [N, T, ...] of the records at ``positions`` [N, T] in ``streams`` [N], on ``device``."""
        storage = self.store.storage
        rows = torch.from_numpy(self.table.rows(streams, positions).reshape(-1))
        gathered = storage.gather(to_device(rows, storage.device))
        shaped = {key: value.view(*positions.shape, *value.shape[1:]) for key, value in gathered.items()}
        return {key: to_device(value, device) for key, value in shaped.items()}

    def pop_first(self, stream: int) -> None:
        """Let go of a stream's oldest page."""
        self.store.release(self.table.pop_first(stream))

    def truncate(self, stream: int, pages: int) -> None:
        """Keep the first ``pages`` pages of a stream."""
        self.store.release(self.table.truncate(stream, pages))

    def save(self, lengths: Sequence[int], folder: Path, present: set[str]) -> list[list[str]]:
        """Write the page files that are not ``present`` in a folder yet; return their names, stream by stream.

        Args:
            lengths: records of each stream.
            present: names of the files there; those written are added.

        Raises:
            UserError: a file cannot be written.
        """
        size = self.store.page_length
        names = []
        for stream, length in enumerate(lengths):
            rows = [min(size, length - begin) for begin in range(0, length, size)]
            slots = self.table.slots(stream).tolist()
            names.append([self._save_page(*page, folder, present) for page in zip(slots, rows, strict=True)])
        return names

    def _save_page(self, slot: int, rows: int, folder: Path, present: set[str]) -> str:
        """Write one page unless ``present`` names it; return its file name."""
        full = rows == self.store.page_length
        name = self.store.name(slot) if full else None
        if name in present:
            return str(name)
        name, content = files.encode_page(self.store.read(slot, rows))
        if full:
            self.store.set_name(slot, name)
        if name not in present:
            atomic_write(folder / name, content, sync_parent=False)
            present.add(name)
        return name

    def load(
        self,
        folder: Path,
        names: Sequence[Sequence[str]],
        serials: Sequence[Sequence[int]],
        next_serial: int,
        lengths: Sequence[int],
    ) -> None:
        """Take over the pages that ``save`` named; full ones that the store has already are shared.

        Args:
            names: as returned by ``save``.
            serials: of each page, as they were in the table.
            next_serial: of the table.
            lengths: records of each stream.

        Raises:
            Damaged: a page file is missing or damaged.
            UserError: a page file cannot be read, or there is no room for the pages.
        """
        size = self.store.page_length
        for stream, length in enumerate(lengths):
            for number, name in enumerate(names[stream]):
                slot = self._load_page(folder, name, min(size, length - number * size))
                self.table.restore(np.array([stream]), slot, np.array(serials[stream][number]))
        self.table.next_serial = next_serial

    def _load_page(self, folder: Path, name: str, rows: int) -> Index:
        """Return a slot [1] that holds the page of a file, with a reference for this member."""
        known = self.store.find(name) if rows == self.store.page_length else None
        if known is not None:
            slot = np.array([known])
            self.store.retain(slot)
            return slot
        records = files.read_page(folder, name, self.store.specs, rows)
        slot = self.store.allocate(1)
        self.store.write(int(slot[0]), records, rows)
        if rows == self.store.page_length:
            self.store.set_name(int(slot[0]), name)
        return slot


def _release(store: PageStore, table: PageTable) -> None:
    store.release(table.all_slots())
