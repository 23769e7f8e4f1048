"""The arena: memory that is shared, grows in place, is freed, and may lie in a file or on a device."""

import os
import tracemalloc

import numpy as np
import pytest
import torch

from agents.errors import UserError
from agents.replay import DeviceStorage, MemoryMappedStorage, PageStore, RamStorage, Replay

NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU with CUDA")


def live_a_little(tools, store, folder):
    """Append, fork, evict, drop, save and load on a store; return what can be sampled in the end."""
    feeder = tools.Feeder(Replay(tools.specs, capacity=90, streams=3, page_length=10, store=store))
    feeder(27)
    forks = [tools.Feeder(feeder.replay.fork()) for _ in range(4)]
    for number, fork in enumerate(forks):
        fork.count = feeder.count + 100 * (number + 1)
        fork(30 + number)
        fork.replay.drop_open_episode(1)
    feeder(8)
    manifests = [member.replay.save(folder) for member in (feeder, *forks)]
    loaded = [Replay.load(manifest, folder, store=store) for manifest in manifests]
    members = [member.replay for member in (feeder, *forks)] + loaded
    samples = [member.sample(5, 12, np.random.default_rng(3)) for member in members]
    return manifests, [tools.all_sequences(member, 6) for member in members], samples


@pytest.mark.parametrize("kind", ["mapped", "cpu", pytest.param("cuda", marks=NEEDS_CUDA)])
def test_storages_are_alike(tools, tmp_path, kind):
    if kind == "mapped":
        storage = MemoryMappedStorage(tools.specs, tmp_path / "arena")
    else:
        storage = DeviceStorage(tools.specs, kind)
    ram = PageStore(tools.specs, 10)
    expected = live_a_little(tools, ram, tmp_path / "ram")
    found = live_a_little(tools, PageStore(tools.specs, 10, storage), tmp_path / kind)
    assert ram.storage.rows > 130  # several segments
    assert found[:2] == expected[:2]
    for one, other in zip(found[2], expected[2], strict=True):
        assert all(torch.equal(one[key], other[key]) for key in other)


def test_growing_leaves_rows_where_they_are(tools):
    storage = RamStorage(tools.specs)
    store = PageStore(tools.specs, 10, storage)
    members = [tools.Feeder(Replay(tools.specs, capacity=60, streams=2, page_length=10, store=store))]
    members[0](25)
    first = storage._segments[0]["reward"]
    address, rows = first.ctypes.data, storage.rows
    for number in range(1, 6):
        members.append(tools.Feeder(members[0].replay.fork()))
        members[-1].count = members[0].count + 100 * number
        members[-1](25)
    assert storage.rows > rows and storage._segments[0]["reward"].ctypes.data == address
    for member in members:
        sequences = tools.all_sequences(member.replay, 5)
        assert len(sequences) == member.replay.num_starts(5)
        assert sequences[-1] == tuple(1000 + int(member.count[1]) - 5 + step for step in range(5))


def test_evicted_pages_are_used_again(tools):
    feeder = tools.Feeder(Replay(tools.specs, capacity=60, streams=2, page_length=10))
    rows = feeder.replay.store.storage.rows
    feeder(400)
    assert feeder.replay.store.storage.rows == rows
    assert 50 <= len(feeder.replay) <= 60
    assert feeder.replay.store.pages_in_use <= 8


def test_page_lives_while_a_member_holds_it(tools):
    parent = tools.Feeder(Replay(tools.specs, capacity=60, streams=2, page_length=10))
    parent(25)
    store = parent.replay.store
    assert store.pages_in_use == 6
    child = parent.replay.fork()
    assert store.pages_in_use == 6
    held = tools.all_sequences(child, 7)
    parent(200)  # evicts everything that the child holds
    assert tools.all_sequences(child, 7) == held
    alone = parent.replay._pages[0].table.all_slots()
    assert store.pages_in_use == 6 + len(alone)
    del child
    assert store.pages_in_use == len(alone)


def test_fork_takes_no_memory(tools):
    feeder = tools.Feeder(Replay(tools.specs, capacity=100_000, streams=2, page_length=10))
    feeder(2000)
    used = feeder.replay.store.pages_in_use
    tracemalloc.start()
    forks = [feeder.replay.fork() for _ in range(10)]
    memory, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert feeder.replay.store.pages_in_use == used
    assert memory / len(forks) < 400 * 8 * 6  # table slots and serials with room to grow; records would be 120 kB


def test_large_capacity_is_not_touched_in_advance(tools):
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    if not os.path.exists("/proc/self/statm"):
        pytest.skip("needs /proc")
    before = resident()
    feeder = tools.Feeder(Replay(tools.specs, capacity=20_000_000, streams=2))  # 540 MB
    feeder(10)
    assert resident() - before < 60e6


def test_mapped_arena_leaves_no_files(tools, tmp_path):
    store = PageStore(tools.specs, 10, MemoryMappedStorage(tools.specs, tmp_path))
    feeder = tools.Feeder(Replay(tools.specs, capacity=60, streams=2, page_length=10, store=store))
    feeder(20)
    assert list(tmp_path.iterdir()) == []


def test_no_room_is_one_error(tools, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"no memory for .* GiB.*replay.capacity"):
        Replay(tools.specs, capacity=10**15, streams=1)

    def full(descriptor, offset, size):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    store = PageStore(tools.specs, 10, MemoryMappedStorage(tools.specs, tmp_path))
    with pytest.raises(UserError, match="No space left on device.*replay.capacity"):
        Replay(tools.specs, capacity=100, streams=1, page_length=10, store=store)


def test_storage_for_other_records_is_refused(tools):
    storage = RamStorage({"reward": tools.specs["reward"]})
    with pytest.raises(ValueError, match="other records"):
        PageStore(tools.specs, 10, storage)
