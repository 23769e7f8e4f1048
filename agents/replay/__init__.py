"""Paged replay: experience as references to shared, immutable pages.

* ``storage.py``: the arena that holds the bytes (RAM, memory-mapped file).
* ``device_storage.py``: the same on a device.
* ``store.py``: which pages of the arena are in use, by how many members, and under which file name.
* ``table.py``: one member's pages, stream by stream: the whole index arithmetic.
* ``pages.py``: one member's pages of one kind: those of its records, those of their latents.
* ``files.py``: page files, named by their content, shared by all manifests of a folder.
* ``manifest.py``: what names the pages of a saved replay.
* ``replay.py``: one member's buffer: append, sample, fork, save and load.
"""

from agents.replay.device_storage import DeviceStorage
from agents.replay.files import collect_garbage
from agents.replay.replay import Places, Replay
from agents.replay.storage import MemoryMappedStorage, RamStorage, Spec, Storage
from agents.replay.store import PageStore

__all__ = [
    "DeviceStorage",
    "MemoryMappedStorage",
    "PageStore",
    "Places",
    "RamStorage",
    "Replay",
    "Spec",
    "Storage",
    "collect_garbage",
]
