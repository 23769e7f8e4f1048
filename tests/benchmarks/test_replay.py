"""How long replay takes: a million records of a 24-dimensional state, 16 environments.

Measurements, not tests: run ``pytest tests/benchmarks/test_replay.py``. TorchRL's slice sampler is timed
beside ours on equal data. Everything runs on one thread; compare figures of one sitting only.
"""

import tracemalloc

import numpy as np
import pytest
import torch

from agents.replay import MemoryMappedStorage, PageStore, Replay, Spec

RECORDS, STREAMS, EPISODE = 1_000_000, 16, 1000
SHAPES = [pytest.param(16, 64, id="16x64"), pytest.param(256, 4, id="256x4")]
SPECS = {
    "observation/state": Spec((24,), "float32"),
    "action": Spec((6,), "float32"),
    "reward": Spec((), "float32"),
    "is_first": Spec((), bool),
    "is_terminal": Spec((), bool),
    "is_last": Spec((), bool),
    "context": Spec((2,), "float32"),
    "context_id": Spec((), "int32"),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def records(step: int) -> dict[str, np.ndarray]:
    """Return one record for each stream."""
    generator = np.random.default_rng(step)
    drawn = {key: generator.random((STREAMS, *spec.shape)).astype(spec.dtype) for key, spec in SPECS.items()}
    drawn["is_first"][:] = step % EPISODE == 0
    drawn["is_last"][:] = step % EPISODE == EPISODE - 1
    drawn["is_terminal"][:] = False
    return drawn


def fill(store: PageStore) -> Replay:
    replay = Replay(SPECS, capacity=RECORDS + STREAMS * 512, streams=STREAMS, store=store)
    episode = [records(step) for step in range(EPISODE)]
    for step in range(RECORDS // STREAMS):
        replay.append(episode[step % EPISODE])
    generator = np.random.default_rng(0)
    for length in (64, 1):  # what is fresh is served first: time uniform sampling
        while (replay._unserved >= length).any():
            replay.sample(1000, length, generator)
    return replay


@pytest.fixture(scope="module")
def ram():
    return fill(PageStore(SPECS, 512))


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    return fill(PageStore(SPECS, 512, MemoryMappedStorage(SPECS, tmp_path_factory.mktemp("arena"))))


@pytest.fixture(scope="module")
def grown():
    """An arena that has grown twice, as in a family of forks."""
    store = PageStore(SPECS, 512)
    store.reserve(RECORDS // 512 // 3)
    replay = fill(store)
    assert len(store.storage._segments) == 3
    return replay


@pytest.mark.parametrize(("batch", "length"), SHAPES)
@pytest.mark.parametrize("kind", ["ram", "mapped", "grown"])
def test_sample(benchmark, request, kind, batch, length):
    replay = request.getfixturevalue(kind)
    generator = np.random.default_rng(0)
    sampled = benchmark(replay.sample, batch, length, generator)
    assert sampled["observation/state"].shape == (batch, length, 24)


@pytest.mark.parametrize("cached", [False, True], ids=["after-appends", "nothing-appended"])
@pytest.mark.parametrize(("batch", "length"), SHAPES)
def test_torchrl_slice_sampler(benchmark, batch, length, cached):
    """Its cache of where episodes lie holds until something is appended, so training runs without."""
    data = pytest.importorskip("torchrl.data")
    tensordict = pytest.importorskip("tensordict")
    source = tensordict.TensorDict(
        {
            key: torch.zeros(RECORDS, *spec.shape, dtype=torch.from_numpy(np.empty(0, spec.dtype)).dtype)
            for key, spec in SPECS.items()
        },
        batch_size=[RECORDS],
    )
    source["episode"] = torch.arange(RECORDS) // EPISODE
    buffer = data.TensorDictReplayBuffer(
        storage=data.LazyTensorStorage(RECORDS),
        sampler=data.SliceSampler(slice_len=length, traj_key="episode", cache_values=cached),
        batch_size=batch * length,
    )
    buffer.extend(source)
    assert benchmark(buffer.sample).numel() == batch * length


def test_fork(benchmark, ram):
    benchmark.pedantic(ram.fork, rounds=50, warmup_rounds=1)
    pages = ram.store.pages_in_use
    tracemalloc.start()
    fork = ram.fork()
    benchmark.extra_info["kB"] = round(tracemalloc.get_traced_memory()[0] / 1024)
    tracemalloc.stop()
    assert len(fork) == len(ram) and ram.store.pages_in_use == pages


def test_first_append_after_fork(benchmark, ram):
    """Copies one open page for each of the 16 streams."""
    step = records(1)
    benchmark.pedantic(lambda fork: fork.append(step), setup=lambda: ((ram.fork(),), {}), rounds=30)


@pytest.mark.parametrize("capacity", [RECORDS, 50_000], ids=["filling", "evicting"])
def test_append(benchmark, capacity):
    replay = Replay(SPECS, capacity=capacity, streams=STREAMS)
    step = records(1)
    benchmark.pedantic(replay.append, (step,), rounds=100, iterations=300, warmup_rounds=15)
    benchmark.extra_info["records per second"] = round(STREAMS / benchmark.stats.stats.median)


def test_save_everything(benchmark, ram, tmp_path_factory):
    benchmark.pedantic(
        lambda fork, folder: fork.save(folder),
        setup=lambda: ((ram.fork(), tmp_path_factory.mktemp("pages")), {}),
        rounds=2,
    )


def test_save_the_news(benchmark, ram, tmp_path):
    """A million records, of which 16,000 are new since the last save."""
    replay = ram.fork()
    replay.save(tmp_path)
    step = records(1)

    def news():
        for _ in range(1000):
            replay.append(step)
        return (tmp_path,), {}

    benchmark.pedantic(replay.save, setup=news, rounds=5)


def test_load(benchmark, ram, tmp_path):
    manifest = ram.save(tmp_path)
    loaded = benchmark.pedantic(Replay.load, (manifest, tmp_path), rounds=3)
    assert len(loaded) == len(ram)
