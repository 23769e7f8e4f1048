"""Rows in tensors of a device, here of the CPU: the same rows as in main memory, whichever segment they lie in."""

import numpy as np
import pytest
import torch

from agents.errors import UserError
from agents.replay import DeviceStorage, PageStore, RamStorage, Replay

ROWS = (7, 4, 9)  # of three segments


@pytest.fixture
def storages(tools):
    """A storage of each kind, with three segments, every row written."""
    pair = RamStorage(tools.specs), DeviceStorage(tools.specs, "cpu")
    total = sum(ROWS)
    records = tools.make_records(np.arange(total), np.zeros(total), np.zeros(total))
    for storage in pair:
        for rows in ROWS:
            storage.grow(rows)
        order = np.random.default_rng(0).permutation(total)
        storage.write(order, {key: value[order] for key, value in records.items()})
    return pair


def assert_alike(storages, index):
    ram, device = (storage.gather(torch.from_numpy(np.asarray(index))) for storage in storages)
    assert ram.keys() == device.keys()
    for key, value in ram.items():
        assert device[key].dtype == value.dtype and torch.equal(device[key], value)


def test_rows_of_all_segments_are_written_and_gathered(storages, tools):
    everything = storages[1].gather(torch.arange(20))
    tools.check_entries(everything)
    assert everything["context_id"].tolist() == list(range(20))
    assert_alike(storages, [19, 0, 7, 10, 11, 6, 7])
    assert_alike(storages, [8])


def test_rows_are_overwritten_from_tensors(storages, tools):
    index = np.array([2, 8, 19, 12])
    records = tools.make_records(np.array([100, 101, 102, 103]), np.ones(4), np.zeros(4))
    for storage in storages:
        storage.overwrite(index, {key: torch.from_numpy(value) for key, value in records.items()})
    assert storages[1].gather(torch.tensor([12, 8]))["context_id"].tolist() == [103, 101]
    assert_alike(storages, np.arange(20))


@pytest.mark.parametrize(("source", "target"), [(0, 3), (1, 7), (12, 0), (7, 16)])
def test_rows_are_copied_within_and_between_segments(storages, source, target):
    for storage in storages:
        storage.copy(source, target, 3)
    assert storages[1].gather(torch.arange(target, target + 3))["context_id"].tolist() == [*range(source, source + 3)]
    assert_alike(storages, np.arange(20))


def test_types_are_those_of_the_records(tools):
    """float64 rewards and int64 numbers become what the records hold."""
    storage = DeviceStorage(tools.specs, "cpu")
    storage.grow(2)
    records = tools.make_records(np.arange(2), np.zeros(2), np.zeros(2))
    records |= {"reward": records["reward"].astype(np.float64), "context_id": records["context_id"].astype(np.int64)}
    storage.write(np.arange(2), records)
    tools.check_entries(storage.gather(torch.arange(2)))


def test_growing_moves_nothing(tools):
    storage = DeviceStorage(tools.specs, "cpu")
    storage.grow(5)
    places = {key: tensor.data_ptr() for key, tensor in storage._segments[0].items()}
    storage.grow(50)
    assert {key: tensor.data_ptr() for key, tensor in storage._segments[0].items()} == places
    assert storage.rows == 55


def test_saved_pages_come_back(tools, tmp_path):
    """What a device keeps can be read into main memory, and the other way round."""
    kinds = {"ram": RamStorage, "device": lambda specs: DeviceStorage(specs, "cpu")}
    for name, other in (("device", "ram"), ("ram", "device")):
        store = PageStore(tools.specs, 10, kinds[name](tools.specs))
        feeder = tools.Feeder(Replay(tools.specs, capacity=100, streams=2, page_length=10, store=store))
        feeder(37)
        manifest = feeder.replay.save(tmp_path / name)
        loaded = Replay.load(manifest, tmp_path / name, store=PageStore(tools.specs, 10, kinds[other](tools.specs)))
        assert tools.all_sequences(loaded, 6) == tools.all_sequences(feeder.replay, 6)
        tools.check_entries(loaded.sample(4, 6, np.random.default_rng(0)))


def test_no_room_is_one_error(tools):
    with pytest.raises(UserError, match=r"no memory on cpu for .* records .*GiB\); lower replay.capacity .*ram"):
        DeviceStorage(tools.specs, "cpu").grow(10**15)
