"""The run that notebooks look at: where it lies, that it is trained once, and that two can ask for it at once."""

import threading

import pytest

from agents import example_run as module
from agents.configuration import load_config
from agents.errors import UserError
from agents.example_run import VARIABLE, example_run
from agents.run_folder import RunFolder


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """Trainings that were asked for, none of which takes place."""
    asked = []
    monkeypatch.setattr(module, "train", lambda config, folder: asked.append((config, folder)))
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    return asked


def test_it_lies_in_runs_here_or_above_the_notebooks(trained, tmp_path, monkeypatch):
    assert example_run() == tmp_path / "runs" / "notebook"
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert example_run() == tmp_path / "runs" / "notebook"
    monkeypatch.setenv(VARIABLE, str(tmp_path / "elsewhere"))
    assert example_run() == tmp_path / "elsewhere"
    assert [folder for _, folder in trained] == [tmp_path / "runs" / "notebook"] * 2 + [tmp_path / "elsewhere"]
    assert {config.name for config, _ in trained} == {"notebook"}


def test_it_waits_for_who_is_training_it(monkeypatch, tmp_path):
    run = RunFolder.prepare(tmp_path / "run", load_config("notebook"))
    monkeypatch.setenv(VARIABLE, str(run.path))
    monkeypatch.setattr(module, "_WAIT_SECONDS", 0.01)
    free, tried = threading.Event(), []

    def train(config, folder):
        tried.append(folder)
        if len(tried) == 3:
            lock.__exit__(None, None, None)
            free.set()
        with run.lock():
            pass

    monkeypatch.setattr(module, "train", train)
    lock = run.lock()
    lock.__enter__()
    assert example_run() == run.path
    assert free.is_set() and tried == [run.path] * 3


def test_the_run_of_another_configuration_is_refused(monkeypatch, tmp_path):
    config = load_config("notebook", ["--seed", "7"])
    RunFolder.prepare(tmp_path / "run", config)
    (tmp_path / "run" / "checkpoints" / "step-000000002000").mkdir(parents=True)
    monkeypatch.setenv(VARIABLE, str(tmp_path / "run"))
    with pytest.raises(UserError, match="the run of another configuration; it differs in seed"):
        example_run()
