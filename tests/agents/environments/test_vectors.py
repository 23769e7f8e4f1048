"""Vectors: records as agreed, the same in this process and in others, and no fault that goes unheard."""

import functools
import logging
import os
import signal
import time

import faulty
import numpy as np
import pytest

from agents.environments import (
    ActionCodec,
    Reset,
    SerialVector,
    SubprocessVector,
    make_environment,
    subprocess_vector,
)
from agents.errors import UserError

STEP = np.array([1, 0], np.float32)


def makes(name, count, **settings):
    return [functools.partial(make_environment, name, **settings)] * count


def processes(vector):
    return [worker._process for worker in vector._workers]


@pytest.fixture
def three():
    """Three faulty environments in processes, and their first records' check that all is well."""
    vector = SubprocessVector([faulty.Faulty] * 3, timeout=20.0)
    yield vector
    vector.close()


def play(vector, ticks):
    """Return the records of episodes in changing contexts under random agent actions."""
    codec, generator = ActionCodec(vector.action_space), np.random.default_rng(0)
    commands = [Reset(seed, {vector.features[0].name: 3.0 + seed}, seed) for seed in range(vector.num_envs)]
    history = []
    for tick in range(ticks):
        records = vector.step(commands)
        history.append(records)
        commands = [
            Reset(100 * tick + index)
            if last
            else np.eye(codec.size, dtype=np.float32)[generator.integers(codec.size)]
            if codec.discrete
            else generator.uniform(-1, 1, codec.size).astype(np.float32)
            for index, last in enumerate(records["is_last"])
        ]
    return history


@pytest.mark.parametrize("name", ["cartpole", "dmc/cartpole/balance"])
def test_subprocesses_give_the_same_records(name):
    serial = SerialVector(makes(name, 2, time_limit=15))
    parallel = SubprocessVector(makes(name, 2, time_limit=15))
    try:
        assert parallel.observation_space == serial.observation_space
        assert parallel.action_space == serial.action_space
        assert parallel.features == serial.features
        assert parallel.num_envs == serial.num_envs == 2
        for one, other in zip(play(serial, 60), play(parallel, 60), strict=True):
            assert one.keys() == other.keys()
            for key in one:
                np.testing.assert_array_equal(one[key], other[key], strict=True)
    finally:
        parallel.close()
        serial.close()


def test_records_of_an_episode():
    vector = SerialVector(makes("cartpole", 2, features=["length", "gravity"], time_limit=5))
    single = make_environment("cartpole", features=["length", "gravity"], time_limit=5)
    observation, _ = single.reset(seed=4, options={"context": {"length": 0.25}})
    records = vector.step([Reset(4, {"length": 0.25}, 7), Reset(5)])
    assert {key: (value.dtype.name, value.shape) for key, value in records.items()} == {
        "observation/state": ("float32", (2, 4)),
        "reward": ("float32", (2,)),
        "is_first": ("bool", (2,)),
        "is_terminal": ("bool", (2,)),
        "is_last": ("bool", (2,)),
        "lost": ("bool", (2,)),
        "context": ("float32", (2, 2)),
        "context_id": ("int32", (2,)),
    }
    np.testing.assert_array_equal(records["context"], np.float32([[0.25, 9.8], [0.5, 9.8]]))
    np.testing.assert_array_equal(records["context_id"], [7, -1])
    np.testing.assert_array_equal(records["observation/state"][0], observation["state"])
    assert records["is_first"].all() and not records["reward"].any() and not records["is_last"].any()
    for step in range(1, 6):
        observation, *_ = single.step(1)
        records = vector.step([np.array([0, 1], np.float32)] * 2)
        np.testing.assert_array_equal(records["observation/state"][0], observation["state"])
        assert (records["reward"] == 1).all() and not records["is_first"].any()
        assert not records["is_terminal"].any()  # a time limit is no end of the world
        assert (records["is_last"] == (step == 5)).all()
    with pytest.raises(RuntimeError, match="environment 0 must be reset first"):
        vector.step([STEP, STEP])


def test_terminal_is_also_last():
    vector = SerialVector(makes("cartpole", 1))
    records = vector.step([Reset(0)])
    for _ in range(20):
        records = vector.step([STEP])
        if records["is_last"][0]:
            break
    assert records["is_terminal"][0] and records["reward"][0] == 1.0


def test_records_of_different_steps_share_no_memory():
    vector = SerialVector(makes("pendulum", 1))
    first = vector.step([Reset(0)])
    copy = {key: value.copy() for key, value in first.items()}
    vector.step([np.ones(1, np.float32)])
    for key, value in first.items():
        np.testing.assert_array_equal(value, copy[key])


@pytest.mark.parametrize("kind", [SerialVector, SubprocessVector])
def test_misuse_is_refused(kind):
    with pytest.raises(ValueError, match="at least one environment"):
        kind([])
    vector = kind([faulty.Faulty])
    try:
        with pytest.raises(ValueError, match="2 commands for 1 environments"):
            vector.step([Reset(0), Reset(1)])
        with pytest.raises(RuntimeError, match="environment 0 must be reset first"):
            vector.step([STEP])
        with pytest.raises(UserError, match="^environment faulty: unknown context feature 'gravity'; valid: fault$"):
            vector.step([Reset(0, {"gravity": 1.0})])
        with pytest.raises(RuntimeError, match="environment 0 must be reset first"):
            vector.step([STEP])
        assert vector.step([Reset(0)])["is_first"].all()
    finally:
        vector.close()


@pytest.mark.parametrize("kind", [SerialVector, SubprocessVector])
@pytest.mark.parametrize(
    ("fault", "culprit"), [(faulty.NAN, "observation 'count'"), (faulty.INFINITE_REWARD, "reward")]
)
def test_nan_and_infinity_are_named_with_environment_and_step(kind, fault, culprit):
    vector = kind([faulty.Faulty])
    try:
        vector.step([Reset(0, {"fault": fault})])
        vector.step([STEP])
        with pytest.raises(UserError, match=f"^environment faulty: {culprit} is NaN or infinite at step 2 in"):
            vector.step([STEP])
    finally:
        vector.close()


def test_an_exception_comes_through_with_its_traceback(three):
    three.step([Reset(0), Reset(0, {"fault": faulty.RAISE}), Reset(0)])
    three.step([STEP] * 3)
    with pytest.raises(RuntimeError, match=r"(?s)process raised:.*faulty\.py.*KeyError: 'the world is out of joint'"):
        three.step([STEP] * 3)
    assert three.step([Reset(0)] * 3)["is_first"].all()  # nobody's answer is left over
    np.testing.assert_array_equal(three.step([STEP] * 3)["observation/count"], np.ones((3, 1)))


@pytest.mark.parametrize("moment", ["between steps", "in a step"])
def test_a_killed_worker_is_replaced_and_its_record_lost(three, moment, caplog):
    fault = faulty.DIE if moment == "in a step" else faulty.FINE
    three.step([Reset(0), Reset(0, {"fault": fault}), Reset(0)])
    three.step([STEP] * 3)
    if moment == "between steps":
        os.kill(processes(three)[1].pid, signal.SIGKILL)
    old = processes(three)
    with caplog.at_level(logging.WARNING):
        records = three.step([STEP] * 3)
    np.testing.assert_array_equal(records["lost"], [False, True, False])
    np.testing.assert_array_equal(records["observation/count"], [[2], [0], [2]])
    assert not records["is_last"].any()
    code = 4 if moment == "in a step" else -9
    assert [record.getMessage() for record in caplog.records] == [
        f"the process of environment 1 died (exit code {code}); it is restarted and its open episode dropped"
    ]
    assert [one is other for one, other in zip(old, processes(three), strict=True)] == [True, False, True]
    with pytest.raises(RuntimeError, match="environment 1 must be reset first"):
        three.step([STEP] * 3)
    records = three.step([STEP, Reset(9), STEP])
    assert not records["lost"].any()
    np.testing.assert_array_equal(records["observation/count"], [[3], [0], [3]])
    np.testing.assert_array_equal(records["is_first"], [False, True, False])


def test_a_hanging_worker_is_replaced(caplog):
    vector = SubprocessVector([faulty.Faulty] * 2, timeout=1.0)
    try:
        vector.step([Reset(0, {"fault": faulty.HANG}), Reset(0)])
        vector.step([STEP] * 2)
        with caplog.at_level(logging.WARNING):
            records = vector.step([STEP] * 2)
        np.testing.assert_array_equal(records["lost"], [True, False])
        np.testing.assert_array_equal(records["observation/count"], [[0], [2]])
        assert "environment 0 did not answer in time" in caplog.text
        assert vector.step([Reset(0), STEP])["is_first"][0]
    finally:
        vector.close()


def test_an_environment_that_always_dies_is_given_up(monkeypatch):
    monkeypatch.setattr(subprocess_vector, "_MOST_CRASHES", 2)
    vector = SubprocessVector([faulty.Faulty])
    try:
        assert vector.step([Reset(0, {"fault": faulty.DIE_AT_RESET})])["lost"][0]
        with pytest.raises(RuntimeError, match=r"died \(exit code 3\), 2 times in a row"):
            vector.step([Reset(0, {"fault": faulty.DIE_AT_RESET})])
    finally:
        vector.close()


def test_a_failing_start_is_told_and_leaves_no_process():
    with pytest.raises(UserError, match="^unknown environment 'carpole'; valid: cartpole, "):
        SubprocessVector(makes("carpole", 1))
    with pytest.raises(RuntimeError, match="ZeroDivisionError: no world"):
        SubprocessVector([faulty.refuse])
    with pytest.raises(RuntimeError, match="environment 0 died .exit code 5. while it was starting"):
        SubprocessVector([functools.partial(os._exit, 5)])


def test_close_ends_the_processes_and_may_be_repeated(three):
    alive = processes(three)
    os.kill(alive[0].pid, signal.SIGKILL)
    alive[0].join()
    started = time.monotonic()
    three.close()
    three.close()
    assert time.monotonic() - started < 15
    for process in alive:
        assert process.exitcode is not None
