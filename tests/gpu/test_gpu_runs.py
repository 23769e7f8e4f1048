"""Whole runs on a GPU: replay on it and beside it, resuming, and what is said when its memory is full."""

import csv

import numpy as np
import pytest
import torch

from agents.errors import UserError
from agents.evaluate import evaluate
from agents.exit_codes import run
from agents.replay import PageStore, RamStorage, Replay
from agents.run_folder import RunFolder
from agents.train import train
from agents.training.session import Session
from agents.transfer import to_device
from tests.agents.replay.conftest import SPECS, Feeder, check_entries
from tests.agents.training.training_run import tiny_config

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU with CUDA")


def gpu_config(storage="ram", **training):
    return tiny_config(
        training={"device": "cuda", "precision": "bfloat16", **training},
        replay={"storage": storage},
        environment={"vector": "subprocess"},
    )


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("storage", ["ram", "mmap", "device"])
def test_run_is_trained_resumed_and_evaluated(tmp_path, storage):
    folder = tmp_path / "run"
    half = gpu_config(storage, environment_steps=60)
    train(half, folder)
    config = gpu_config(storage)
    train(config, folder)
    table = rows(folder)
    assert [row["env_steps"] for row in table] == ["30", "60", "90", "120"]
    assert table[-1]["updates"] == rows_of_a_cpu_run(tmp_path)[-1]["updates"]
    assert all(np.isfinite(float(value)) for row in table for value in row.values() if value)
    summaries = evaluate(folder, episodes=1)
    assert summaries


def rows_of_a_cpu_run(tmp_path):
    train(tiny_config(), tmp_path / "cpu")
    return rows(tmp_path / "cpu")


def test_session_records_its_updates_on_the_gpu(tmp_path):
    config = gpu_config()
    session = Session(config, RunFolder.prepare(tmp_path / "run", config))
    try:
        while session.learner.updates < 8:
            for batch in session.data.step().batches:
                assert {value.device.type for value in batch.values()} == {"cuda"}
                session.learner.update(batch)
        assert session.learner._captured._replay is not None
        assert {value.device.type for value in session.learner.state.values(True, True)} == {"cuda"}
    finally:
        session.close()


def test_page_locked_batches_are_not_written_before_they_are_copied():
    """Batches are sampled, forgotten and sampled again while the device is held up; each arrives as it was."""
    store = PageStore(SPECS, 16, RamStorage(SPECS, pinned=True))
    feeder = Feeder(Replay(SPECS, capacity=400, streams=2, page_length=16, store=store))
    feeder(100)
    twin = feeder.replay.fork()
    torch.cuda._sleep(int(1e9))  # cycles: about half a second
    sampled = [feeder.replay.sample(8, 10, np.random.default_rng(seed), device="cuda") for seed in range(50)]
    for seed, batch in enumerate(sampled):
        expected = twin.sample(8, 10, np.random.default_rng(seed))
        found = {key: value.cpu() for key, value in batch.items()}
        check_entries(found)
        assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_copies_to_the_device_are_not_waited_for():
    numbers = torch.arange(1000.0)
    torch.cuda._sleep(int(1e9))
    begun = torch.cuda.Event()
    copy = to_device(numbers, "cuda")
    begun.record()
    assert not begun.query()  # the host is here although the device is not
    numbers.zero_()
    assert torch.equal(copy.cpu(), torch.arange(1000.0))


def test_full_memory_is_one_line(tmp_path, capsys):
    train(gpu_config(environment_steps=30), tmp_path / "run")
    capsys.readouterr()
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1e-6)
    try:
        assert run(lambda: train(gpu_config(), tmp_path / "run")) == 2
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    told = capsys.readouterr().err
    assert told.startswith("error: the device's memory is full") and told.count("\n") == 1
    train(gpu_config(), tmp_path / "run")
    assert rows(tmp_path / "run")[-1]["env_steps"] == "120"


def test_replay_too_large_for_the_device_is_one_error(tmp_path):
    config = gpu_config("device").model_copy()
    huge = config.replay.model_copy(update={"capacity": 10**12})
    with pytest.raises(UserError, match="no memory on cuda for .* set replay.storage to ram"):
        train(config.model_copy(update={"replay": huge}), tmp_path / "run")
