"""One member's replay buffer: an index into shared pages."""

import os
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from agents.errors import Damaged, UserError
from agents.files import atomic_write, sync_folder
from agents.replay import files
from agents.replay.storage import Array, Spec
from agents.replay.store import Index, PageStore
from agents.replay.table import PageTable

_FORMAT = 1


class Replay:
    """Experience of E environments (*streams*), sampled as sequences of consecutive records.

    The records of a stream follow each other without a gap. Sequences cross episodes (``is_first`` tells a
    world model where to start anew) and pages, and reach into the page that is still being filled.

    Fresh data comes first, as in the DreamerV3 reference: each block of ``length`` consecutive records of a
    stream that no sample has served yet is served once, the stream with the most unserved records first;
    the rest of a batch is uniform over all valid starts. What is unserved is part of the state: it is copied
    by ``fork`` and kept by ``save``. Records that are evicted or dropped are no longer served.

    When there are more than ``capacity`` records, the oldest full pages go, whichever stream they belong to.
    The page that a stream is filling always stays.

    Not safe for concurrent use by several threads, nor are several members on one page store.

    Args:
        specs: what one record holds. ``is_first`` and ``is_last`` (both bool, shape ()) must be among it.
        capacity: most records that are kept; at least ``streams * page_length``.
        streams: number of environments, E.
        page_length: records per page.
        store: where the pages lie, which several replays may share; a new one in main memory if not given.

    Raises:
        UserError: if the capacity is too small, or there is no room for the pages.
    """

    def __init__(
        self,
        specs: Mapping[str, Spec],
        *,
        capacity: int,
        streams: int,
        page_length: int = 512,
        store: PageStore | None = None,
    ) -> None:
        for key in ("is_first", "is_last"):
            if specs.get(key) != Spec((), bool):
                raise ValueError(f"records need {key!r} as a bool of shape ()")
        if min(streams, page_length) < 1:
            raise ValueError(f"streams and page_length must be positive, got {streams} and {page_length}")
        if capacity < streams * page_length:
            raise UserError(
                f"replay.capacity {capacity} is less than one page of {page_length} records for each of "
                f"{streams} environments; it must be at least {streams * page_length} (or lower "
                "replay.page_length)"
            )
        store = PageStore(specs, page_length) if store is None else store
        if (store.specs, store.page_length) != (dict(specs), page_length):
            raise ValueError("the page store was made for other records or another page length")
        store.reserve(-(-capacity // page_length) + streams + 1)
        self._assemble(store, PageTable(streams, page_length), capacity)
        self._length: Index = np.zeros(streams, np.int64)  # [E] records present
        self._unserved: Index = np.zeros(streams, np.int64)  # [E] how many of the last ones are unserved

    def _assemble(self, store: PageStore, table: PageTable, capacity: int) -> None:
        self.store = store
        self.specs = store.specs
        self.page_length = store.page_length
        self.capacity = capacity
        self._table = table
        # Members come and go: their pages are released when nobody holds them any more.
        weakref.finalize(self, _release, store, table).atexit = False

    @property
    def streams(self) -> int:
        """Number of streams, E."""
        return len(self._length)

    def __len__(self) -> int:
        """Return the number of records present."""
        return int(self._length.sum())

    def num_starts(self, length: int) -> int:
        """Return at how many places a sequence of ``length`` records can start."""
        return int(np.maximum(self._length - (length - 1), 0).sum())

    # Writing

    def append(self, records: Mapping[str, Array], mask: npt.NDArray[np.bool_] | None = None) -> None:
        """Append one record to each selected stream.

        Args:
            records: [E, ...] for each key of the specs; other keys are ignored.
            mask: [E] bool, which streams get their record; all if not given.

        Raises:
            ValueError: if an entry has another shape, or a type that does not fit.
        """
        everyone = mask is None or bool(np.all(mask))
        streams = np.arange(self.streams) if mask is None else np.flatnonzero(mask)
        if len(streams) == 0:
            return
        values = {}
        for key, spec in self.specs.items():
            value = np.asarray(records[key])
            if value.shape != (self.streams, *spec.shape):
                raise ValueError(f"{key!r} must be {(self.streams, *spec.shape)}, got {value.shape}")
            if value.dtype != spec.dtype and not np.can_cast(value.dtype, spec.dtype, "same_kind"):
                raise ValueError(f"{key!r} must be {spec.dtype}, got {value.dtype}")
            values[key] = value if everyone else value[streams]
        rows = self._length[streams] % self.page_length
        slots = self._pages_to_write(streams, rows)
        self.store.storage.write(slots * self.page_length + rows, values)
        self._length[streams] += 1
        self._unserved[streams] += 1
        while len(self) > self.capacity:
            self._evict()

    def _pages_to_write(self, streams: Index, rows: Index) -> Index:
        """Return slots [N] into whose ``rows`` [N] the next records of ``streams`` [N] may be written."""
        begun = rows > 0
        if not begun.all():
            opened = streams[~begun]
            self._table.push(opened, self.store.allocate(len(opened)))
        slots = self._table.last(streams)
        writable = self.store.writable(slots, rows)
        if writable is not slots:
            self._table.set_last(streams, writable)
        return writable

    def _evict(self) -> None:
        """Remove the oldest full page; there is one, as the open pages alone never reach the capacity."""
        stream = self._table.oldest(self._length >= self.page_length)
        self.store.release(self._table.pop_first(stream))
        length = self._length[stream] - self.page_length
        self._length[stream] = length
        self._unserved[stream] = min(self._unserved[stream], length)

    def drop_open_episode(self, stream: int) -> None:
        """Remove the records of a stream's unfinished episode, from its ``is_first`` on.

        All of them that are present go, also from full pages. Nothing happens where the last record is an
        ``is_last``. Records that were already served stay counted as served: those appended next are fresh.
        Forks made before keep theirs.
        """
        before = int(self._length[stream])
        length = self._open_episode_start(stream)
        self.store.release(self._table.truncate(stream, -(-length // self.page_length)))
        self._length[stream] = length
        self._unserved[stream] = max(0, int(self._unserved[stream]) - (before - length))

    def _open_episode_start(self, stream: int) -> int:
        """Return the position of the first present record of a stream's unfinished episode."""
        end = int(self._length[stream])
        for slot in self._table.slots(stream)[::-1].tolist():
            begin = (end - 1) // self.page_length * self.page_length
            page = self.store.read(slot, end - begin)
            starts = np.concatenate([np.flatnonzero(page["is_first"]), np.flatnonzero(page["is_last"]) + 1])
            if len(starts) > 0:
                return begin + int(starts.max())
            end = begin
        return 0

    # Reading

    def sample(
        self,
        batch: int,
        length: int,
        generator: np.random.Generator,
        *,
        device: torch.device | str = "cpu",
    ) -> dict[str, Tensor]:
        """Return ``batch`` sequences of ``length`` consecutive records: fresh ones first, then uniform ones.

        The result depends on nothing but the buffer's state and the generator.

        Args:
            batch: number of sequences, B; drawn with replacement.
            length: records per sequence, T.
            generator: draws the uniform starts.
            device: where the result goes.

        Returns:
            [B, T, ...] for each key of the specs, flags as recorded.

        Raises:
            UserError: if no stream has ``length`` records.
        """
        streams, starts = self._draw(batch, length, generator)
        rows = self._table.rows(streams, starts[:, None] + np.arange(length))
        storage = self.store.storage
        gathered = storage.gather(torch.from_numpy(rows.reshape(-1)).to(storage.device))
        return {key: value.view(batch, length, *value.shape[1:]).to(device) for key, value in gathered.items()}

    def _draw(self, batch: int, length: int, generator: np.random.Generator) -> tuple[Index, Index]:
        """Return streams [B] and positions [B] of starts; takes the fresh blocks off the queue."""
        if min(batch, length) < 1:
            raise ValueError(f"batch and length must be positive, got {batch} and {length}")
        counts = np.maximum(self._length - (length - 1), 0)
        ends = counts.cumsum()
        if ends[-1] == 0:
            raise UserError(
                f"replay: no stream has {length} consecutive records to sample yet (the longest has "
                f"{int(self._length.max())}); collect more first, or lower the sequence length or raise "
                f"replay.capacity ({self.capacity})"
            )
        fresh_streams, fresh_starts = self._take_fresh(batch, length)
        draws = generator.integers(ends[-1], size=batch - len(fresh_streams))
        streams = ends.searchsorted(draws, side="right")
        starts = draws - (ends - counts)[streams]
        return np.concatenate([fresh_streams, streams]), np.concatenate([fresh_starts, starts])

    def _take_fresh(self, batch: int, length: int) -> tuple[Index, Index]:
        """Return streams [N] and positions [N] of the next N <= batch fresh blocks, and mark them served."""
        streams: list[int] = []
        starts: list[int] = []
        while len(streams) < batch:
            stream = int(self._unserved.argmax())
            if self._unserved[stream] < length:
                break
            streams.append(stream)
            starts.append(int(self._length[stream] - self._unserved[stream]))
            self._unserved[stream] -= length
        return np.array(streams, np.int64), np.array(starts, np.int64)

    # Sharing and keeping

    def fork(self) -> Self:
        """Return an equal replay on the same pages; later changes to either are invisible to the other.

        Copies the page table and counters and nothing else: a page that is being filled is copied when
        one of the two first writes into it.
        """
        other = type(self).__new__(type(self))
        table = self._table.copy()
        self.store.retain(table.all_slots())
        other._assemble(self.store, table, self.capacity)
        other._length = self._length.copy()
        other._unserved = self._unserved.copy()
        return other

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the page files that ``folder`` lacks; return the manifest that names all of them.

        A manifest is plain JSON data. Any number of manifests may share a folder; the caller keeps them and
        removes unneeded files by ``collect_garbage``. A full page is written once.

        Raises:
            UserError: if a file cannot be written. Buffer and earlier manifests are unharmed.
        """
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            present = set(os.listdir(folder))
        except OSError as error:
            raise UserError(f"{folder}: cannot keep replay pages here: {error.strerror}") from error
        pages = []
        for stream, length in enumerate(self._length.tolist()):
            sizes = [min(self.page_length, length - begin) for begin in range(0, length, self.page_length)]
            slots = self._table.slots(stream).tolist()
            pages.append([self._save_page(*page, folder, present) for page in zip(slots, sizes, strict=True)])
        sync_folder(folder)
        return {
            "format": _FORMAT,
            "specs": {key: [list(spec.shape), np.dtype(spec.dtype).name] for key, spec in self.specs.items()},
            "capacity": self.capacity,
            "page_length": self.page_length,
            "pages": pages,
            "serials": [self._table.serials(stream).tolist() for stream in range(self.streams)],
            "next_serial": self._table.next_serial,
            "length": self._length.tolist(),
            "unserved": self._unserved.tolist(),
        }

    def _save_page(self, slot: int, rows: int, folder: Path, present: set[str]) -> str:
        """Write one page unless ``present`` names it; return its file name."""
        full = rows == self.page_length
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

    @classmethod
    def load(cls, manifest: Mapping[str, Any], folder: Path, *, store: PageStore | None = None) -> Self:
        """Return the replay that ``save`` described; it goes on exactly as the saved one would have.

        Args:
            manifest: as returned by ``save``.
            folder: where the page files lie.
            store: where to put the pages. Full pages that it has already (of another member) are shared.

        Raises:
            Damaged: the manifest is damaged, or a page file is missing or damaged.
            UserError: another version wrote the manifest, a page cannot be read, or there is no room for the pages.
        """
        if manifest.get("format", _FORMAT) != _FORMAT:
            raise UserError(
                f"{folder}: replay manifest of format {manifest['format']}; this version reads {_FORMAT}, "
                "so continue with the one that wrote it"
            )
        try:
            specs = {key: Spec(tuple(shape), dtype) for key, (shape, dtype) in manifest["specs"].items()}
            counters = np.array([manifest["length"], manifest["unserved"]], np.int64)
            page_length = int(manifest["page_length"])
            capacity, pages, serials = int(manifest["capacity"]), manifest["pages"], manifest["serials"]
            needed = (-(-counters[0] // page_length)).tolist()
            if not pages or not [len(names) for names in pages] == [len(numbers) for numbers in serials] == needed:
                raise ValueError("its pages do not match its lengths")
            next_serial = int(manifest["next_serial"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise Damaged(f"{folder}: damaged replay manifest: {error!r}; use another checkpoint") from error
        replay = cls(specs, capacity=capacity, streams=len(pages), page_length=page_length, store=store)
        for stream, names in enumerate(pages):
            for number, name in enumerate(names):
                rows = min(page_length, int(counters[0, stream]) - number * page_length)
                slot = replay._load_page(Path(folder), name, rows)
                replay._table.restore(np.array([stream]), slot, np.array(serials[stream][number]))
        replay._table.next_serial = next_serial
        replay._length, replay._unserved = counters[0].copy(), counters[1].copy()
        return replay

    def _load_page(self, folder: Path, name: str, rows: int) -> Index:
        """Return a slot [1] that holds the page of a file, with a reference for this member."""
        known = self.store.find(name) if rows == self.page_length else None
        if known is not None:
            slot = np.array([known])
            self.store.retain(slot)
            return slot
        records = files.read_page(folder, name, self.specs, rows)
        slot = self.store.allocate(1)
        self.store.write(int(slot[0]), records, rows)
        if rows == self.page_length:
            self.store.set_name(int(slot[0]), name)
        return slot


def _release(store: PageStore, table: PageTable) -> None:
    store.release(table.all_slots())
