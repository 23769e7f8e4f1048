"""Invalid steps: each is named; they stop a vector or cost it an episode, and never run in circles."""

import logging
import pickle

import faulty
import numpy as np
import pytest

from agents.environments import InvalidStep, Reset, SerialVector, SubprocessVector, vector
from agents.errors import UserError

STEP = np.array([1, 0], np.float32)
FAULTS = {
    faulty.NAN: "observation 'count' is NaN or infinite",
    faulty.INFINITE_REWARD: "reward is NaN or infinite",
    faulty.SHAPE: r"observation 'count' is float32 \[1, 1\] instead of float32 \[1\]",
    faulty.TYPE: r"observation 'count' is float64 \[1\] instead of float32 \[1\]",
    faulty.KEYS: "observation has the keys 'number' instead of 'count'",
}


@pytest.fixture(autouse=True)
def nothing_told_yet(monkeypatch):
    monkeypatch.setattr(vector, "_told", set())


@pytest.fixture(params=[SerialVector, SubprocessVector])
def make_vector(request):
    """Return a function that makes a vector, which is closed in the end."""
    made = []

    def make(num_envs, on_invalid):
        made.append(request.param([faulty.Faulty] * num_envs, on_invalid=on_invalid))
        return made[-1]

    yield make
    for environments in made:
        environments.close()


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_named_with_environment_key_step_and_context(fault):
    environments = SerialVector([faulty.Faulty])
    environments.step([Reset(0, {"fault": fault})])
    environments.step([STEP])
    expected = (
        rf"^environment faulty: {FAULTS[fault]} at step 2 in context {{'fault': {fault}.0}}; choose a less .* drop$"
    )
    with pytest.raises(UserError, match=expected) as told:
        environments.step([STEP])
    assert "\n" not in str(told.value)


def test_a_step_that_stops_the_run(make_vector):
    environments = make_vector(2, "stop")
    environments.step([Reset(0), Reset(0, {"fault": faulty.SHAPE})])
    environments.step([STEP, STEP])
    with pytest.raises(
        UserError, match=r"^environment faulty: observation 'count' is .* at step 2 in .*; choose a less"
    ):
        environments.step([STEP, STEP])
    with pytest.raises(UserError, match="is NaN or infinite at step 0 in"):
        environments.step([Reset(0), Reset(0, {"fault": faulty.NAN_AT_RESET})])


def test_a_dropped_episode_is_lost_and_told_once(make_vector, caplog):
    environments = make_vector(3, "drop")
    with caplog.at_level(logging.WARNING):
        environments.step([Reset(0), Reset(0, {"fault": faulty.NAN}), Reset(0, {"fault": faulty.NAN})])
        environments.step([STEP] * 3)
        records = environments.step([STEP] * 3)
        assert records["lost"].tolist() == [False, True, True]
        assert records["observation/count"].ravel().tolist() == [2, 0, 0]
        assert records["reward"].tolist() == [1, 0, 0] and not records["is_last"].any()
        with pytest.raises(RuntimeError, match="environment 1 must be reset first"):
            environments.step([STEP] * 3)
        records = environments.step([STEP, Reset(9), Reset(9, {"fault": faulty.INFINITE_REWARD})])
        assert records["is_first"].tolist() == [False, True, True] and not records["lost"].any()
        assert records["observation/count"].ravel().tolist() == [3, 0, 0]
        environments.step([STEP] * 3)
        assert environments.step([STEP] * 3)["lost"].tolist() == [False, False, True]
        other = make_vector(1, "drop")  # such as one that validates
        for command in (Reset(0, {"fault": faulty.NAN}), STEP, STEP):
            records = other.step([command])
        assert records["lost"].all()
    messages = [record.getMessage() for record in caplog.records]
    assert [message.split(" at step 2 in context ")[0] for message in messages] == [
        "environment faulty: observation 'count' is NaN or infinite",
        "environment faulty: reward is NaN or infinite",
    ]
    assert all("its episode is dropped" in message for message in messages)


def test_what_never_gets_anywhere_is_given_up(make_vector, monkeypatch):
    monkeypatch.setattr(vector, "_MOST_DROPPED", 3)
    environments = make_vector(1, "drop")
    hopeless = Reset(0, {"fault": faulty.NAN_AT_RESET})
    for command in (hopeless, hopeless, Reset(0), STEP):  # the valid step begins the count anew
        environments.step([command])
    for command in (Reset(0, {"fault": faulty.NAN}), STEP, STEP, hopeless):
        records = environments.step([command])
    assert records["lost"].all()
    environments.step([Reset(0)])  # which is no step
    with pytest.raises(UserError, match=": 3 episodes in a row ended before their first valid step$"):
        environments.step([hopeless])


def test_an_invalid_step_survives_the_way_from_a_process():
    error = pickle.loads(pickle.dumps(InvalidStep("it broke at step 3", "it broke")))
    assert (type(error), str(error), error.kind) == (InvalidStep, "it broke at step 3", "it broke")
