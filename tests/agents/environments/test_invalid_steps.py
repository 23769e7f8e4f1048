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


@pytest.fixture(params=[SerialVector, SubprocessVector])
def make_vector(request):
    """Return a function that makes a vector, which is closed in the end."""
    made = []

    def make(num_envs, on_invalid, **settings):
        made.append(request.param([faulty.Faulty] * num_envs, on_invalid=on_invalid, **settings))
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
    run = set()
    environments = make_vector(3, "drop", told=run)
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
        same, another = make_vector(1, "drop", told=run), make_vector(1, "drop")  # such as one that validates
        for command in (Reset(0, {"fault": faulty.NAN}), STEP, STEP):
            lost = [other.step([command])["lost"].item() for other in (same, another)]
        assert lost == [True, True]
    messages = [record.getMessage() for record in caplog.records]
    assert [message.split(" at step 2 in context ")[0] for message in messages] == [
        "environment faulty: observation 'count' is NaN or infinite",
        "environment faulty: reward is NaN or infinite",
        "environment faulty: observation 'count' is NaN or infinite",  # in another run
    ]
    assert all("its episode is dropped" in message for message in messages)


def test_what_never_gets_anywhere_is_given_up(make_vector, monkeypatch):
    monkeypatch.setattr(vector, "_MOST_DROPPED", 3)
    environments = make_vector(1, "drop")
    hopeless, broken = Reset(0, {"fault": faulty.NAN_AT_RESET}), [Reset(0, {"fault": faulty.NAN}), STEP, STEP]
    for command in (hopeless, *broken, Reset(0), *[STEP] * 10):  # the valid end begins the count anew
        records = environments.step([command])
    assert records["is_last"].all() and not records["lost"].any()
    for command in (*broken, *broken, Reset(0), STEP, STEP, STEP):  # a valid step does not
        records = environments.step([command])
    assert not records["lost"].any()
    with pytest.raises(UserError, match=": 3 episodes in a row were dropped, and none ended validly$"):
        environments.step([hopeless])


def test_a_world_that_breaks_at_its_third_step_does_not_lose_everything_in_silence(make_vector):
    environments, steps = make_vector(1, "drop"), 0
    with pytest.raises(UserError, match=": 32 episodes in a row were dropped, and none ended validly$"):
        for steps in range(1000):
            environments.step([STEP if steps % 3 else Reset(0, {"fault": faulty.NAN})])
    assert steps == 32 * 3 - 1


def test_judged_episodes_are_not_given_up(monkeypatch):
    monkeypatch.setattr(vector, "_MOST_DROPPED", 3)
    environments = SerialVector([faulty.Faulty], on_invalid="drop", give_up=False)
    assert all(environments.step([Reset(0, {"fault": faulty.NAN_AT_RESET})])["lost"] for _ in range(10))


def test_a_reward_that_overflows_in_the_records_is_infinite(monkeypatch):
    environments = SerialVector([faulty.Faulty])
    step = faulty.Faulty._step_world
    for reward, told in ((3e38, None), (1e39, "too large for float32"), (-1e39, "too large for float32")):
        monkeypatch.setattr(faulty.Faulty, "_step_world", lambda *args, r=reward: (step(*args)[0], r, False, False))
        environments.step([Reset(0)])
        if told is None:
            assert environments.step([STEP])["reward"] == np.float32(reward)
        else:
            with pytest.raises(UserError, match=f"^environment faulty: reward is {told} at step 1 in"):
                environments.step([STEP])


def test_an_invalid_step_survives_the_way_from_a_process():
    error = pickle.loads(pickle.dumps(InvalidStep("it broke at step 3", "it broke")))
    assert (type(error), str(error), error.kind) == (InvalidStep, "it broke at step 3", "it broke")
