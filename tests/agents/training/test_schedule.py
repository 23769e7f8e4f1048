"""The timetable: updates follow the train ratio exactly, and never before they are due."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.training.schedule import Schedule


def schedule(**changes):
    values = {
        "num_envs": 4,
        "environment_steps": 1200,
        "epoch_steps": 400,
        "train_ratio": 128.0,
        "batch_size": 8,
        "batch_length": 32,
        "start_steps": 256,
    }
    return Schedule(**{**values, **changes})


def test_numbers_by_hand():
    plan = schedule()
    assert (plan.ticks, plan.epoch_length, plan.epochs) == (300, 100, 3)
    assert plan.first_tick == 64  # 256 records / 4 environments
    assert [plan.updates(tick) for tick in (0, 63, 64, 65, 66, 300)] == [0, 0, 0, 2, 4, 472]  # 128*4/256 = 2


def test_ratio_below_one_update_per_tick_is_spread():
    plan = schedule(train_ratio=32.0)  # half an update per tick
    assert [plan.updates(64 + tick) for tick in range(6)] == [0, 0, 1, 1, 2, 2]


def test_a_sequence_must_fit_into_every_stream_before_the_first_update():
    assert schedule(start_steps=1).first_tick == 32


def test_fractions_do_not_drift():
    # 0.1 has no exact floating-point value: summed in floats, ten tenths fall short of one.
    plan = schedule(num_envs=1, train_ratio=0.1, batch_size=1, batch_length=2, start_steps=2)
    assert plan.updates_per_tick == Fraction(1, 20)
    assert [plan.updates(2 + 20 * count) for count in (1, 2, 3, 1_000_000)] == [1, 2, 3, 1_000_000]
    assert plan.updates(2 + 20 * 3 - 1) == 2


@given(
    num_envs=st.integers(1, 32),
    ratio=st.floats(0.01, 2000, allow_nan=False),
    batch_size=st.integers(1, 32),
    batch_length=st.integers(2, 64),
    start_steps=st.integers(1, 5000),
    tick=st.integers(0, 100_000),
)
def test_replayed_steps_stay_within_one_batch_of_the_ratio(
    num_envs, ratio, batch_size, batch_length, start_steps, tick
):
    plan = schedule(
        num_envs=num_envs,
        train_ratio=ratio,
        batch_size=batch_size,
        batch_length=batch_length,
        start_steps=start_steps,
    )
    replayed = plan.updates(tick) * batch_size * batch_length
    earned = Fraction(str(ratio)) * num_envs * max(0, tick - plan.first_tick)
    assert 0 <= earned - replayed < batch_size * batch_length


@pytest.mark.parametrize("ticks", [1, 7, 100])
def test_no_updates_without_the_records_to_start_with(ticks):
    assert schedule(start_steps=400).updates(ticks) == 0
