"""A device without enough memory: one line that names what to lower, exit code 2, and nothing saved is lost."""

import pytest
import torch
from training_run import tiny_config

from agents.dreamerv3 import DreamerV3
from agents.errors import UserError
from agents.evaluate import evaluate
from agents.exit_codes import run
from agents.train import train
from agents.training.learner import Learner
from agents.training.memory import memory_errors, training_advice
from tests.agents.kept_run import keep_agent, make_config

MESSAGE = "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 139.81 GiB\nof which 1 GiB"


def full(*arguments, **keywords):
    raise torch.OutOfMemoryError(MESSAGE)


def test_training_keeps_its_checkpoint_and_goes_on(tmp_path, monkeypatch, capsys):
    """Memory runs out in the third of four epochs; the same command then gives what it would have given at once."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(tiny_config(), whole)
    update = Learner.update

    def update_until_full(learner, batch):
        full() if learner.updates == 17 else update(learner, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "update", update_until_full)
        assert run(lambda: train(tiny_config(), broken)) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert told.startswith("error: the device's memory is full (2.50 GiB more were asked for); free it")
    for words in ("batch_size (now 4)", "batch_length (6)", "agent.horizon (2)", "bfloat16", "last checkpoint"):
        assert words in told
    kept = sorted(path.name for path in (broken / "checkpoints").glob("step-*"))
    assert kept == ["step-000000000030", "step-000000000060"]
    assert run(lambda: train(tiny_config(), broken)) == 0
    assert (broken / "metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()


def test_evaluation_says_how_to_do_without_the_device(tmp_path, monkeypatch, capsys):
    folder = keep_agent(tmp_path / "run", make_config())
    monkeypatch.setattr(DreamerV3, "act", full)
    assert run(lambda: evaluate(folder)) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "CUDA_VISIBLE_DEVICES= " in told


def test_advice_names_what_applies():
    sparing = tiny_config(replay={"storage": "device"}, training={"precision": "bfloat16"})
    assert "or set replay.storage to ram and" in training_advice(sparing)
    assert "bfloat16" not in training_advice(sparing)
    assert "replay.storage" not in training_advice(tiny_config())


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_memory_is_the_cause_however_it_is_told(error):
    with pytest.raises(UserError, match="^the device's memory is full; do less$") as caught, memory_errors("do less"):
        try:
            raise error
        finally:  # as when the recording of a graph ends with an error of its own
            raise RuntimeError("operation failed due to a previous error during capture")
    assert caught.value.__cause__ is not None


def test_other_errors_stay_what_they_are():
    for error in (RuntimeError("CUDA error: an illegal memory access"), UserError("replay: no memory"), KeyError("x")):
        with pytest.raises(type(error)) as caught, memory_errors("do less"):
            raise error from torch.OutOfMemoryError(MESSAGE) if isinstance(error, UserError) else None
        assert caught.value is error
