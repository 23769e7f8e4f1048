"""Whole runs of seconds: the order of things, determinism, learning, errors, and what a person is told."""

import csv
import errno
import os
import shutil
import signal
import warnings
from functools import partial

import pytest
import torch
from training_run import TINY_AGENT, Beacon, beacon_config, board_scalars, table_scalars, tiny_config

from agents import seeding
from agents import train as entry
from agents.environments import ENVIRONMENTS
from agents.errors import Damaged, UserError
from agents.run_folder import RunFolder
from agents.seeding import numpy_generator
from agents.train import train
from agents.training.build import load_agent
from agents.training.metrics import TensorBoard
from agents.training.session import Session


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    train(tiny_config(), folder)
    return folder


def test_nothing_is_produced_ahead(tmp_path, monkeypatch):
    """Under Lightning, each tick acts after the updates before it, each batch is sampled after the update before."""
    happened = []

    def assemble(config, run):
        session = Session(config, run)
        tick, update, sample = session.collector.tick, session.learner.update, session.replay.draw

        def spy(name, real):
            def call(*arguments, **keywords):
                updates = int(session.learner.state["counters", "updates"])
                happened.append((name, session.collector.ticks, updates))
                return real(*arguments, **keywords)

            return call

        session.collector.tick = spy("tick", tick)
        session.learner.update = spy("update", update)
        session.replay.draw = spy("sample", sample)
        return session

    monkeypatch.setattr(entry, "Session", assemble)
    config = tiny_config(training={"train_ratio": 20.0})
    train(config, tmp_path / "run")
    expected, updates = [], 0
    for ticks in range(60):  # 120 environment steps, 2 environments
        expected.append(("tick", ticks, updates))
        # from tick 10 (20 records) on, 20 * 2 / (4 * 6) = 5/3 updates a tick
        while updates < max(0, ticks + 1 - 10) * 5 // 3:
            expected += [("sample", ticks + 1, updates), ("update", ticks + 1, updates)]
            updates += 1
    assert happened == expected
    assert updates == 83


def test_no_randomness_is_used_twice(tmp_path, monkeypatch):
    """Every update, action and sample draws from a stream and counter of its own."""
    drawn, real = [], seeding.seed_for

    def seed_for(seed, stream, *counters):
        drawn.append((seed, stream, *counters))
        return real(seed, stream, *counters)

    monkeypatch.setattr(seeding, "seed_for", seed_for)  # what every generator gets its seed from
    train(tiny_config(), tmp_path)
    once = [key for key in drawn if key[1] in ("update", "act", "sample")]
    assert len(once) == len(set(once))
    expected = {"update": 33, "act": 60, "sample": 33}  # ticks of 2 environment steps
    assert set(once) == {(3, stream, number) for stream, count in expected.items() for number in range(count)}
    # Contexts are looked up more than once, each time the same; no other stream is drawn from again.
    assert {key[1] for key in drawn if drawn.count(key) > 1} <= {"contexts/order", "contexts/drawn/gravity"}


def test_tensorboard_shows_the_tables(finished):
    shown = board_scalars(finished / "tensorboard")
    assert shown == table_scalars(finished / "metrics.csv") | table_scalars(finished / "timing.csv")
    assert [step for step, _ in shown["validation/return"]] == [30, 60, 90, 120]
    assert {"loss/total", "env_steps_per_second"} <= shown.keys()


@pytest.mark.parametrize("steps", [60, 120])
def test_killed_before_tensorboard_knows_what_the_checkpoint_does(steps, finished, tmp_path, monkeypatch):
    """The events of that epoch come with the next start, also if there is nothing left to train."""

    class Killed(BaseException):
        pass

    def write(board, row, real=TensorBoard.write):
        if row["env_steps"] == steps:
            raise Killed
        real(board, row)

    with monkeypatch.context() as patch:
        patch.setattr(TensorBoard, "write", write)
        with pytest.raises(Killed):
            train(tiny_config(), tmp_path)
    assert len(board_scalars(tmp_path / "tensorboard")["updates"]) == len(rows(tmp_path)) - 1
    train(tiny_config(), tmp_path)
    assert (tmp_path / "metrics.csv").read_bytes() == (finished / "metrics.csv").read_bytes()
    metrics, timing = table_scalars(tmp_path / "metrics.csv"), table_scalars(tmp_path / "timing.csv")
    assert board_scalars(tmp_path / "tensorboard") == metrics | timing


def test_a_checkpoint_that_contradicts_itself_is_refused(finished, monkeypatch):
    def contradict(session, checkpoint, real=Session._restore):
        checkpoint.progress["updates"] -= 1
        real(session, checkpoint)

    monkeypatch.setattr(Session, "_restore", contradict)
    with pytest.raises(Damaged, match="tells 32 updates, its agent 33") as told:
        Session(tiny_config(), RunFolder(finished))
    assert "\n" not in str(told.value)


def test_a_torn_note_on_the_kept_agent_stops_a_resume(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    note = tmp_path / "run" / "checkpoints" / "best" / "best.json"
    note.write_bytes(note.read_bytes()[:-20])
    before = sorted(path.name for path in note.parent.iterdir())
    with pytest.raises(UserError, match="best.json: damaged"):
        train(tiny_config(), tmp_path / "run")
    assert sorted(path.name for path in note.parent.iterdir()) == before


def test_epochs_without_updates_come_before_the_start(tmp_path):
    train(tiny_config(training={"start_steps": 60, "environment_steps": 90}), tmp_path)
    table = rows(tmp_path)
    assert [row["updates"] for row in table] == ["0", "0", "10"]
    assert [row["env_steps"] for row in table] == ["30", "60", "90"]
    assert [row["loss/reward"] != "" for row in table] == [False, False, True]


def weights(folder):
    _, state, _ = load_agent(RunFolder(folder))
    return torch.cat([value.reshape(-1) for value in state["parameters"].values()])


def test_same_seed_same_run_and_another_seed_another(finished, tmp_path):
    train(tiny_config(), tmp_path / "same")
    assert (tmp_path / "same" / "metrics.csv").read_bytes() == (finished / "metrics.csv").read_bytes()
    assert torch.equal(weights(tmp_path / "same"), weights(finished))
    train(tiny_config(seed=4), tmp_path / "other")
    assert (tmp_path / "other" / "metrics.csv").read_bytes() != (finished / "metrics.csv").read_bytes()
    assert not torch.equal(weights(tmp_path / "other"), weights(finished))


def test_environments_in_processes_give_the_same_run(finished, tmp_path):
    train(tiny_config(environment={"vector": "subprocess"}), tmp_path)
    assert (tmp_path / "metrics.csv").read_bytes() == (finished / "metrics.csv").read_bytes()


def test_a_longer_run_goes_on_from_a_finished_one(finished, tmp_path):
    """Raising the number of steps continues; the result is that of the longer run from the start."""
    train(tiny_config(training={"environment_steps": 60}), tmp_path)
    assert len(rows(tmp_path)) == 2
    train(tiny_config(), tmp_path)
    assert (tmp_path / "metrics.csv").read_bytes() == (finished / "metrics.csv").read_bytes()


def test_a_torn_checkpoint_is_passed_over_and_trained_again(finished, tmp_path, caplog):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    torn = folder / "checkpoints" / "step-000000000120" / "agent.safetensors"
    content = torn.read_bytes()
    torn.write_bytes(content[:1000])
    Session(tiny_config(), RunFolder(folder)).close()
    assert "step-000000000120" in caplog.text
    assert len(rows(folder)) == 3  # the table tells no more than the checkpoint that is continued
    train(tiny_config(), folder)
    assert torn.read_bytes() == content
    assert (folder / "metrics.csv").read_bytes() == (finished / "metrics.csv").read_bytes()


def test_hyperparameters_after_a_load_are_the_receivers(finished, tmp_path):
    """They are read back from what the update really did: without learning rate, no weight moves."""
    config = RunFolder(finished).config()
    _, loaded, _ = load_agent(RunFolder(finished))
    assert float(loaded["hyperparameters", "entropy"]) == pytest.approx(3e-3)
    hyperparameters = {**TINY_AGENT["hyperparameters"], "learning_rate": 1e-30, "entropy": 0.5}
    changed = tiny_config(agent={"hyperparameters": hyperparameters})
    assert changed != config
    session = Session(changed, RunFolder(finished))
    try:
        assert session.learner.updates == 33  # continued, not new
        tree = session.learner.state["hyperparameters"]
        assert float(tree["entropy"]) == 0.5
        assert float(tree["learning_rate"]) == pytest.approx(1e-30)
        before = {name: value.clone() for name, value in session.learner.state["parameters"].items()}
        session.learner.update(session.replay.sample(4, 6, numpy_generator(0, "sample")))
        after = session.learner.state["parameters"]
        assert all(torch.equal(value, after[name]) for name, value in before.items())
        assert session.learner.pop_metrics()["loss/total"] > 0
    finally:
        session.close()


@pytest.mark.parametrize("answer", ["light", "sign"])
def test_masters_a_trivial_world(answer, tmp_path, monkeypatch):
    """What is right is told by the observation at every step, or by the context for a whole episode."""
    monkeypatch.setitem(ENVIRONMENTS, f"beacon-{answer}", partial(Beacon, answer))
    train(beacon_config(answer, seed=0), tmp_path)
    assert float(rows(tmp_path)[-1]["validation/return_min"]) == 6.0


def test_what_a_person_sees_without_a_terminal(tmp_path, capfd):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(tiny_config(), tmp_path)
    captured = capfd.readouterr()
    lines = captured.out.splitlines()
    assert len(lines) == 4 + 2
    assert lines[0].startswith("30/120 steps, 3 updates, ")
    assert "validation return" in lines[0]
    assert lines[3].startswith("120/120 steps, 33 updates, ")
    assert lines[4].startswith("kept: the agent of ")
    assert lines[5] == f"curve: {tmp_path / 'curve.png'}"
    assert captured.err == ""
    assert [str(warning.message) for warning in caught if "lightning" in str(warning.filename)] == []
    train(tiny_config(), tmp_path)
    assert capfd.readouterr().out.splitlines()[0] == f"{tmp_path}: finished before (120 steps), nothing to train"


def test_a_full_disk_is_one_line_and_loses_nothing(finished, tmp_path, monkeypatch):
    real, calls = os.fsync, iter(range(25))

    def full(descriptor):
        if next(calls, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="No space left|disk is full") as told:
            train(tiny_config(), tmp_path)
    assert "\n" not in str(told.value)
    train(tiny_config(), tmp_path)
    assert (tmp_path / "metrics.csv").read_bytes() == (finished / "metrics.csv").read_bytes()


def test_a_run_that_diverges_is_told(tmp_path, monkeypatch):
    def poisoned(config, run):
        session = Session(config, run)
        update = session.learner.update

        def call(batch):
            update(batch)
            if session.learner.updates == 5:
                session.learner.state["parameters"].apply_(lambda value: value.fill_(float("nan")))

        session.learner.update = call
        return session

    monkeypatch.setattr(entry, "Session", poisoned)
    with pytest.raises(UserError, match="learning_rate"):
        train(tiny_config(), tmp_path)
    assert torch.isfinite(weights(tmp_path)).all()


@pytest.fixture
def listening():
    """Interrupts raise KeyboardInterrupt, also where a shell has started the tests deaf to them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_and_the_same_command_goes_on(number, listening, finished, tmp_path, monkeypatch):
    handler = signal.getsignal(number)

    def interrupted(config, run):
        session = Session(config, run)
        tick = session.collector.tick

        def call():
            if session.collector.ticks == 40:
                os.kill(os.getpid(), number)
            tick()

        session.collector.tick = call
        return session

    with monkeypatch.context() as patch:
        patch.setattr(entry, "Session", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(tiny_config(), tmp_path)
    assert signal.getsignal(number) == handler
    assert len(rows(tmp_path)) == 2  # 40 ticks are 80 steps, epochs have 30
    train(tiny_config(), tmp_path)
    assert (tmp_path / "metrics.csv").read_bytes() == (finished / "metrics.csv").read_bytes()


def test_bfloat16_trains(tmp_path):
    for precision in ("float32", "bfloat16"):
        train(tiny_config(training={"precision": precision, "environment_steps": 30}), tmp_path / precision)
    _, state, _ = load_agent(RunFolder(tmp_path / "bfloat16"))
    assert all(value.dtype == torch.float32 for value in state["parameters"].values())
    assert not torch.equal(weights(tmp_path / "bfloat16"), weights(tmp_path / "float32"))
    (full,), (half,) = rows(tmp_path / "float32"), rows(tmp_path / "bfloat16")
    assert full["updates"] == half["updates"] == "3"
    assert full["loss/total"] != half["loss/total"]
    for name in (name for name in full if name.startswith("loss/")):
        assert float(half[name]) == pytest.approx(float(full[name]), rel=0.01, abs=1e-4), name
