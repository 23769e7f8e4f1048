"""One member's pages, stream by stream, and the arithmetic from (stream, position) to arena rows."""

from typing import Self

import numpy as np

from agents.replay.store import Index


class PageTable:
    """For each of E streams the slots of its pages, oldest first.

    Every page of a stream but its last is full, so that record ``position`` of a stream lies in its page
    ``position // page_length``. Each page has a serial, which grows with the time at which it was opened.

    Args:
        streams: number of streams, E.
        page_length: records per page.
    """

    def __init__(self, streams: int, page_length: int) -> None:
        self.page_length = page_length
        self.next_serial = 0
        self._slots: Index = np.zeros((streams, 4), np.int64)  # [E, width], in use from first to first+count
        self._serials: Index = np.zeros((streams, 4), np.int64)
        self._first: Index = np.zeros(streams, np.int64)
        self._count: Index = np.zeros(streams, np.int64)

    def copy(self) -> Self:
        """Return an independent copy."""
        other = type(self)(0, self.page_length)
        other.next_serial = self.next_serial
        other._slots, other._serials = self._slots.copy(), self._serials.copy()
        other._first, other._count = self._first.copy(), self._count.copy()
        return other

    def rows(self, streams: Index, positions: Index) -> Index:
        """Return the arena rows [N, T] of ``positions`` [N, T] in ``streams`` [N]."""
        pages = positions // self.page_length
        starts = streams * self._slots.shape[1] + self._first[streams]
        slots = self._slots.ravel().take(pages + starts[:, None])
        # slot * length + (position - page * length), with one multiplication
        return (slots - pages) * self.page_length + positions

    def slots(self, stream: int) -> Index:
        """Return the slots of a stream's pages, oldest first."""
        first = self._first[stream]
        return self._slots[stream, first : first + self._count[stream]]

    def serials(self, stream: int) -> Index:
        """Return the serials of a stream's pages, oldest first."""
        first = self._first[stream]
        return self._serials[stream, first : first + self._count[stream]]

    def all_slots(self) -> Index:
        """Return the slots of all pages, once for each time that a stream refers to one."""
        return np.concatenate([self.slots(stream) for stream in range(len(self._first))])

    def last(self, streams: Index) -> Index:
        """Return the slots of the last pages of ``streams`` [N]; each must have one."""
        return self._slots[streams, self._first[streams] + self._count[streams] - 1]

    def set_last(self, streams: Index, slots: Index) -> None:
        """Replace the last pages of ``streams`` [N]."""
        self._slots[streams, self._first[streams] + self._count[streams] - 1] = slots

    def get(self, streams: Index, pages: Index) -> Index:
        """Return the slots [N] of ``pages`` [N], counted from the oldest one, of ``streams`` [N]."""
        return self._slots[streams, self._first[streams] + pages]

    def set(self, streams: Index, pages: Index, slots: Index) -> None:
        """Replace ``pages`` [N] of ``streams`` [N] by ``slots`` [N]."""
        self._slots[streams, self._first[streams] + pages] = slots

    def push(self, streams: Index, slots: Index) -> None:
        """Add a page with a new serial behind the others of each of ``streams`` [N] (no duplicates)."""
        self.restore(streams, slots, self.next_serial + np.arange(len(streams)))
        self.next_serial += len(streams)

    def restore(self, streams: Index, slots: Index, serials: Index) -> None:
        """Add a page with a given serial behind the others of each of ``streams`` [N] (no duplicates)."""
        column = self._first[streams] + self._count[streams]
        if (column >= self._slots.shape[1]).any():
            self._widen()
            column = self._first[streams] + self._count[streams]
        self._slots[streams, column] = slots
        self._serials[streams, column] = serials
        self._count[streams] += 1

    def oldest(self, full: np.ndarray) -> int:
        """Return the stream with the oldest first page among those with ``full`` [E] bool; one must be."""
        column = np.minimum(self._first, self._slots.shape[1] - 1)
        serials = self._serials[np.arange(len(column)), column]
        return int(np.where(full, serials, np.iinfo(np.int64).max).argmin())

    def pop_first(self, stream: int) -> Index:
        """Remove a stream's oldest page; return its slot [1]."""
        slots = self.slots(stream)[:1].copy()
        self._first[stream] += 1
        self._count[stream] -= 1
        return slots

    def truncate(self, stream: int, pages: int) -> Index:
        """Keep the first ``pages`` pages of a stream; return the slots of the others."""
        slots = self.slots(stream)[pages:].copy()
        self._count[stream] = pages
        return slots

    def _widen(self) -> None:
        """Move every stream to the left edge of wider arrays: twice what the longest stream needs."""
        width = 2 * (int(self._count.max()) + 2)
        slots = np.zeros((len(self._first), width), np.int64)
        serials = np.zeros_like(slots)
        for stream, count in enumerate(self._count.tolist()):
            slots[stream, :count] = self.slots(stream)
            serials[stream, :count] = self.serials(stream)
        self._slots, self._serials = slots, serials
        self._first[:] = 0
