"""One member's replay buffer: an index into shared pages."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from agents.errors import UserError
from agents.files import sync_folder
from agents.replay.manifest import Kind, Manifest
from agents.replay.pages import Pages
from agents.replay.storage import Array, Spec
from agents.replay.store import Index, PageStore
from agents.replay.table import PageTable
from agents.transfer import to_device


class Places(NamedTuple):
    """Where B sampled sequences lie; to be used with the replay that drew them, or its forks."""

    streams: Index  # [B]
    starts: Index  # [B] the first record's number in its stream, counted from the first that is not dropped again
    drops: Index  # [B] how often records of the stream had been dropped
    length: int


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

    Records never change. Latents do, which a learner may keep beside them: ``append`` stores the first ones with
    the record, ``write_back`` renews them. They lie in pages of their own, in a second table of the same geometry, so
    that neither a fork nor a save touches the records' pages because latents have changed.

    Not safe for concurrent use by several threads, nor are several members on one page store.

    Args:
        specs: what one record holds. ``is_first`` and ``is_last`` (both bool, shape ()) must be among it.
        capacity: most records that are kept; at least ``streams * page_length``.
        streams: number of environments, E.
        page_length: records per page.
        store: where the pages lie, which several replays may share; a new one in main memory if not given.
        latents: where the pages of the latents lie, which may be shared likewise, and what a latent holds (keys that no
            record has); none are kept if not given.

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
        latents: PageStore | None = None,
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
        if latents is not None and (latents.page_length != page_length or latents.specs.keys() & specs.keys()):
            raise ValueError("the latents' page store has another page length or entries of the records")
        stores = [store] if latents is None else [store, latents]
        for kind in stores:
            kind.reserve(-(-capacity // page_length) + streams + 1)
        self._assemble([Pages(kind, PageTable(streams, page_length)) for kind in stores], capacity)
        self._length: Index = np.zeros(streams, np.int64)  # [E] records present
        self._unserved: Index = np.zeros(streams, np.int64)  # [E] how many of the last ones are unserved
        self._evicted: Index = np.zeros(streams, np.int64)  # [E] records evicted
        self._drops: Index = np.zeros(streams, np.int64)  # [E] how often records were dropped

    def _assemble(self, pages: list[Pages], capacity: int) -> None:
        self._pages = pages  # of the records; of the latents, if they are kept
        self.store = pages[0].store
        self.specs = self.store.specs
        self.page_length = self.store.page_length
        self.capacity = capacity

    @property
    def keeps_latents(self) -> bool:
        """Whether there are latents beside the records."""
        return len(self._pages) > 1

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
            records: [E, ...] for each key of the specs, and of the latents if they are kept; other keys are ignored.
            mask: [E] bool, which streams get their record; all if not given.

        Raises:
            ValueError: if an entry has another shape, or a type that does not fit.
        """
        everyone = mask is None or bool(np.all(mask))
        streams = np.arange(self.streams) if mask is None else np.flatnonzero(mask)
        if len(streams) == 0:
            return
        chosen = None if everyone else streams
        values = [self._check(pages.store.specs, records, chosen) for pages in self._pages]
        rows = self._length[streams] % self.page_length
        for pages, checked in zip(self._pages, values, strict=True):
            pages.append(streams, rows, checked)
        self._length[streams] += 1
        self._unserved[streams] += 1
        while len(self) > self.capacity:
            self._evict()

    def _check(self, specs: Mapping[str, Spec], records: Mapping[str, Array], chosen: Index | None) -> dict[str, Array]:
        """Return the entries that ``specs`` names, of the ``chosen`` streams [N] or of all."""
        values = {}
        for key, spec in specs.items():
            value = np.asarray(records[key])
            if value.shape != (self.streams, *spec.shape):
                raise ValueError(f"{key!r} must be {(self.streams, *spec.shape)}, got {value.shape}")
            if value.dtype != spec.dtype and not np.can_cast(value.dtype, spec.dtype, "same_kind"):
                raise ValueError(f"{key!r} must be {spec.dtype}, got {value.dtype}")
            values[key] = value if chosen is None else value[chosen]
        return values

    def _evict(self) -> None:
        """Remove the oldest full page; there is one, as the open pages alone never reach the capacity."""
        stream = self._pages[0].table.oldest(self._length >= self.page_length)
        for pages in self._pages:
            pages.pop_first(stream)
        length = self._length[stream] - self.page_length
        self._length[stream] = length
        self._evicted[stream] += self.page_length
        self._unserved[stream] = min(self._unserved[stream], length)

    def drop_open_episode(self, stream: int) -> None:
        """Remove the records of a stream's unfinished episode, from its ``is_first`` on.

        All of them that are present go, also from full pages. Nothing happens where the last record is an
        ``is_last``. Records that were already served stay counted as served: those appended next are fresh.
        Forks made before keep theirs.
        """
        before = int(self._length[stream])
        length = self._open_episode_start(stream)
        for pages in self._pages:
            pages.truncate(stream, -(-length // self.page_length))
        self._length[stream] = length
        self._drops[stream] += length < before
        self._unserved[stream] = max(0, int(self._unserved[stream]) - (before - length))

    def _open_episode_start(self, stream: int) -> int:
        """Return the position of the first present record of a stream's unfinished episode."""
        end = int(self._length[stream])
        for slot in self._pages[0].table.slots(stream)[::-1].tolist():
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
        streams, starts = self._draw(batch, length, 0, generator)
        return self._pages[0].gather(streams, starts[:, None] + np.arange(length), device)

    def read(self, places: Places, *, device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """Return the records [B, T, ...] of sequences that were drawn; nothing may have been appended since."""
        positions = (places.starts - self._evicted[places.streams])[:, None] + np.arange(places.length)
        return self._pages[0].gather(places.streams, positions, device)

    def read_latents(self, places: Places, at: int = 0, *, device: torch.device | str = "cpu") -> dict[str, Tensor]:
        """Return the latents [B, ...] of record ``at`` of each sequence; nothing may have been appended since."""
        positions = (places.starts - self._evicted[places.streams])[:, None] + at
        gathered = self._latents().gather(places.streams, positions, device)
        return {key: value[:, 0] for key, value in gathered.items()}

    def write_back(self, places: Places, latents: Mapping[str, Tensor]) -> None:
        """Renew the latents of the last T records of each sequence.

        Where sequences overlap, the later one in the batch stays. Records that have been evicted since are passed
        over, and so are all of a stream of which some have been dropped, since others may be in their places.

        Args:
            places: where the sequences lie.
            latents: [B, T, ...] for each key of the latents, on any device.
        """
        streams = places.streams
        length = next(iter(latents.values())).shape[1]
        first = places.starts - self._evicted[streams] + places.length - length
        positions = first[:, None] + np.arange(length)
        there = (positions >= 0) & (places.drops == self._drops[streams])[:, None]
        values = {key: value.flatten(0, 1) for key, value in latents.items()}
        streams, positions, there = streams.repeat(length), positions.ravel(), there.ravel()
        if not there.all():
            chosen = np.flatnonzero(there)
            streams, positions = streams[chosen], positions[chosen]
            picked = torch.from_numpy(chosen)
            values = {key: value[to_device(picked, value.device)] for key, value in values.items()}
        self._latents().overwrite(streams, positions, values)

    def _latents(self) -> Pages:
        """Return the latents' pages; it is a mistake in the program to ask where none are kept."""
        if not self.keeps_latents:
            raise ValueError("this replay keeps no latents")
        return self._pages[1]

    def draw(self, batch: int, length: int, generator: np.random.Generator, *, before: int = 0) -> Places:
        """Choose sequences as ``sample`` does and take the fresh blocks off the queue.

        Args:
            batch: number of sequences, B.
            length: records that each is wanted for, T.
            generator: draws the uniform starts.
            before: records that each has in front of those, K: they find the state that the others start from. Fresh
                blocks are of T records, so that these parts overlap and still every record is served once; the
                first K records of a stream, which have too few in front of them, are not served as fresh.

        Returns:
            Where the B sequences of K + T records lie.

        Raises:
            UserError: if no stream has K + T records.
        """
        streams, starts = self._draw(batch, length, before, generator)
        return Places(streams, starts + self._evicted[streams], self._drops[streams], before + length)

    def _draw(self, batch: int, fresh: int, before: int, generator: np.random.Generator) -> tuple[Index, Index]:
        """Return streams [B] and positions [B] of the starts of ``before + fresh`` records."""
        if min(batch, fresh) < 1:
            raise ValueError(f"batch and length must be positive, got {batch} and {fresh}")
        length = before + fresh
        counts = np.maximum(self._length - (length - 1), 0)
        ends = counts.cumsum()
        if ends[-1] == 0:
            raise UserError(
                f"replay: no stream has {length} consecutive records to sample yet (the longest has "
                f"{int(self._length.max())}); collect more first, or lower the sequence length or raise "
                f"replay.capacity ({self.capacity})"
            )
        fresh_streams, fresh_starts = self._take_fresh(batch, fresh, before)
        draws = generator.integers(ends[-1], size=batch - len(fresh_streams))
        streams = ends.searchsorted(draws, side="right")
        starts = draws - (ends - counts)[streams]
        return np.concatenate([fresh_streams, streams]), np.concatenate([fresh_starts, starts])

    def _take_fresh(self, batch: int, length: int, before: int) -> tuple[Index, Index]:
        """Return streams [N] and positions [N] of ``before`` records and the next N <= batch fresh blocks behind them.

        The blocks are marked as served.
        """
        streams: list[int] = []
        starts: list[int] = []
        unserved = np.minimum(self._unserved, self._length - before)
        while len(streams) < batch:
            stream = int(unserved.argmax())
            if unserved[stream] < length:
                break
            streams.append(stream)
            starts.append(int(self._length[stream] - unserved[stream]) - before)
            unserved[stream] -= length
            self._unserved[stream] = unserved[stream]
        return np.array(streams, np.int64), np.array(starts, np.int64)

    # Sharing and keeping

    def fork(self) -> Self:
        """Return an equal replay on the same pages; later changes to either are invisible to the other.

        Copies the page tables and counters and nothing else: a page that is being filled, or one of latents, is
        copied when one of the two first writes into it.
        """
        other = type(self).__new__(type(self))
        other._assemble([pages.fork() for pages in self._pages], self.capacity)
        other._length, other._unserved = self._length.copy(), self._unserved.copy()
        other._evicted, other._drops = self._evicted.copy(), self._drops.copy()
        return other

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the page files that ``folder`` lacks; return the manifest that names all of them.

        A manifest is plain JSON data. Any number of manifests may share a folder; the caller keeps them and
        removes unneeded files by ``collect_garbage``. A full page is written once, one of latents once for each time
        that it has changed.

        Raises:
            UserError: if a file cannot be written. Buffer and earlier manifests are unharmed.
        """
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            present = set(os.listdir(folder))
        except OSError as error:
            raise UserError(f"{folder}: cannot keep replay pages here: {error.strerror}") from error
        lengths = self._length.tolist()
        kinds = [Kind(pages.store.specs, pages.save(lengths, folder, present)) for pages in self._pages]
        sync_folder(folder)
        table = self._pages[0].table
        serials = [table.serials(stream).tolist() for stream in range(self.streams)]
        counters = (table.next_serial, lengths, self._unserved.tolist())
        return Manifest(kinds, self.capacity, self.page_length, serials, *counters).told()

    @classmethod
    def load(
        cls,
        manifest: Mapping[str, Any],
        folder: Path,
        *,
        store: PageStore | None = None,
        latents: PageStore | None = None,
    ) -> Self:
        """Return the replay that ``save`` described; it goes on exactly as the saved one would have.

        Args:
            manifest: as returned by ``save``.
            folder: where the page files lie.
            store: where to put the pages. Full pages that it has already (of another member) are shared.
            latents: the same for the latents, which must be in the manifest.

        Raises:
            Damaged: the manifest is damaged, or a page file is missing or damaged.
            UserError: another version wrote the manifest, a page cannot be read, or there is no room for the pages.
        """
        saved = Manifest.understood(manifest, folder)
        kinds = saved.kinds
        if len(kinds) == 2 and latents is None:
            latents = PageStore(kinds[1].specs, saved.page_length)
        if (latents is not None) != (len(kinds) == 2) or (latents is not None and latents.specs != kinds[1].specs):
            raise ValueError("the latents' page store was made for other latents than those of the manifest")
        sizes = {"capacity": saved.capacity, "streams": len(saved.length), "page_length": saved.page_length}
        replay = cls(kinds[0].specs, **sizes, store=store, latents=latents)
        for pages, kind in zip(replay._pages, kinds, strict=True):
            pages.load(Path(folder), kind.pages, saved.serials, saved.next_serial, saved.length)
        replay._length, replay._unserved = np.array([saved.length, saved.unserved], np.int64)
        return replay
