"""Records that tell where they come from, for all replay tests."""

import numpy as np
import pytest

from agents.replay import Replay, Spec

SPECS = {
    "observation/state": Spec((3,), "float32"),
    "observation/image": Spec((2, 2, 1), "uint8"),
    "reward": Spec((), "float32"),
    "is_first": Spec((), bool),
    "is_terminal": Spec((), bool),
    "is_last": Spec((), bool),
    "context_id": Spec((), "int32"),
}


def make_records(numbers, is_first, is_last):
    """Return records whose every entry is a function of ``numbers`` and the flags (all of one shape)."""
    numbers = np.asarray(numbers)
    return {
        "observation/state": np.stack([numbers, -numbers, numbers / 8], -1).astype(np.float32),
        "observation/image": (numbers[..., None, None, None] + np.arange(4).reshape(2, 2, 1)).astype(np.uint8),
        "reward": (numbers / 2).astype(np.float32),
        "is_first": np.asarray(is_first, bool),
        "is_terminal": np.asarray(is_last, bool) & (numbers % 2 == 0),
        "is_last": np.asarray(is_last, bool),
        "context_id": numbers.astype(np.int32),
    }


class Feeder:
    """Appends numbered records to a replay: stream e's t-th record has the number e * 1000 + t."""

    def __init__(self, replay: Replay, episode: int = 7) -> None:
        self.replay = replay
        self.episode = episode
        self.count = np.zeros(replay.streams, int)

    def __call__(self, steps: int, mask=None) -> None:
        selected = np.ones(self.replay.streams, bool) if mask is None else np.asarray(mask)
        for _ in range(steps):
            step = self.count % self.episode
            numbers = np.arange(self.replay.streams) * 1000 + self.count
            self.replay.append(make_records(numbers, step == 0, step == self.episode - 1), mask)
            self.count += selected


class EveryStart:
    """Stands in for a generator: its draws are 0, 1, 2, ..., so a large enough batch shows every start."""

    def integers(self, high, size):
        assert size == high
        return np.arange(size)


def all_sequences(replay: Replay, length: int) -> list[tuple[int, ...]]:
    """Return the numbers of every sequence that uniform sampling can give, leaving the replay as it is."""
    starts = replay.num_starts(length)
    if starts == 0:
        return []
    reader = replay.fork()
    while (reader._unserved >= length).any():  # serve what is fresh
        reader.sample(1, length, np.random.default_rng(0))
    batch = reader.sample(starts, length, EveryStart())
    check_entries(batch)
    return [tuple(numbers) for numbers in batch["context_id"].tolist()]


def check_entries(batch) -> None:
    """Check that all entries of each record in a batch belong together."""
    numbers = batch["context_id"].numpy()
    expected = make_records(numbers, batch["is_first"].numpy(), batch["is_last"].numpy())
    assert set(batch) == set(expected)
    for key, value in expected.items():
        assert batch[key].numpy().dtype == value.dtype, key
        np.testing.assert_array_equal(batch[key].numpy(), value, err_msg=key)


class Tools:
    """What tests need, as one fixture (test folders are not importable packages)."""

    specs = SPECS
    Feeder = Feeder
    make_records = staticmethod(make_records)
    all_sequences = staticmethod(all_sequences)
    check_entries = staticmethod(check_entries)


@pytest.fixture(scope="session")
def tools() -> type[Tools]:
    return Tools
