"""Paged replay: experience as references to shared, immutable pages.

* ``storage.py``: the arena that holds the bytes (RAM, memory-mapped file; a device's memory plugs in).
* ``store.py``: which pages of the arena are in use, by how many members, and under which file name.
* ``table.py``: one member's pages, stream by stream: the whole index arithmetic.
* ``files.py``: page files, named by their content, shared by all manifests of a folder.
* ``replay.py``: one member's buffer: append, sample, fork, save and load.
"""

from agents.replay.files import collect_garbage
from agents.replay.replay import Replay
from agents.replay.storage import MemoryMappedStorage, RamStorage, Spec, Storage
from agents.replay.store import PageStore

__all__ = [
    "MemoryMappedStorage",
    "PageStore",
    "RamStorage",
    "Replay",
    "Spec",
    "Storage",
    "collect_garbage",
]
