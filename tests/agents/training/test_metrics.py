"""The tables and TensorBoard's events."""

import errno
import time

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter
from training_run import board_scalars

from agents.training.curve import draw_curve
from agents.training.metrics import TensorBoard, table, write_table


def test_columns_in_order_of_appearance_and_empty_where_missing():
    rows = [{"epoch": 1.0, "b": 0.5}, {"epoch": 2.0, "a": 1 / 3, "b": 2.0}]
    assert table(rows) == b"epoch,b,a\n1,0.5,\n2,2,0.3333333333333333\n"


def test_numbers_come_back_exactly(tmp_path):
    values = np.random.default_rng(0).normal(size=50) * 10.0 ** np.arange(-25, 25)
    write_table(tmp_path / "metrics.csv", [{"value": float(value)} for value in values])
    lines = (tmp_path / "metrics.csv").read_text().splitlines()[1:]
    assert [float(line) for line in lines] == values.tolist()


def board_row(steps, loss):
    return {"epoch": 1.0, "env_steps": steps, "total_seconds": steps * 2, "loss/reward": loss}


def test_opening_leaves_the_rows_it_is_given_and_nothing_else(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    board = TensorBoard(tmp_path, [])
    for steps in (10.0, 20.0, 30.0):
        board.write(board_row(steps, steps))
    board.close()
    assert board_scalars(tmp_path)["loss/reward"] == [(10, 10.0), (20, 20.0), (30, 30.0)]
    # The checkpoint holds a row that was never written, and not yet the last one.
    board = TensorBoard(tmp_path, [board_row(steps, steps) for steps in (10.0, 15.0, 20.0)])
    board.write(board_row(30.0, -1.0))
    board.close()
    found = board_scalars(tmp_path)
    assert found["loss/reward"] == [(10, 10.0), (15, 15.0), (20, 20.0), (30, -1.0)]
    assert found.keys() == {"loss/reward", "total_seconds"}
    assert (tmp_path / "notes.txt").read_text() == "mine"
    for _ in range(3):
        TensorBoard(tmp_path, [board_row(40.0, 1.0)]).close()
    assert board_scalars(tmp_path)["loss/reward"] == [(40, 1.0)]
    assert len(list(tmp_path.glob("events*"))) == 2  # the one before is empty


def test_who_looks_on_sees_the_new_rows_alone(tmp_path):
    board = TensorBoard(tmp_path, [board_row(10.0, 1.0), board_row(20.0, 2.0)])
    looking_on = EventAccumulator(str(tmp_path)).Reload()
    board.close()
    TensorBoard(tmp_path, [board_row(10.0, 5.0)]).close()
    looking_on.Reload()
    assert [(event.step, event.value) for event in looking_on.Scalars("loss/reward")] == [(10, 5.0)]


def test_wall_times_of_the_events_are_those_of_training(tmp_path):
    TensorBoard(tmp_path, [board_row(10.0, 1.0), board_row(20.0, 2.0), board_row(35.0, 3.0)]).close()
    times = [event.wall_time for event in EventAccumulator(str(tmp_path)).Reload().Scalars("loss/reward")]
    assert np.diff(times) == pytest.approx([20.0, 30.0], abs=1e-3)  # a step took 2 seconds
    assert times[-1] == pytest.approx(time.time(), abs=60)


def test_a_full_disk_costs_the_events_and_not_the_run(tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    def warnings():
        return len([record for record in caplog.records if "TensorBoard" in record.message])

    board = TensorBoard(tmp_path, [])
    monkeypatch.setattr(board._writer, "flush", full)
    for steps in (1.0, 2.0):
        board.write(board_row(steps, 1.0))
    board.close()
    assert warnings() == 1
    monkeypatch.setattr(SummaryWriter, "flush", full)
    board = TensorBoard(tmp_path, [board_row(1.0, 1.0)])
    board.write(board_row(2.0, 1.0))
    board.close()
    assert warnings() == 2


def test_curve_is_a_picture_and_depends_on_the_rows(tmp_path):
    row = {"env_steps": 10.0, "validation/return": 1.0, "validation/return_std": 0.5}
    draw_curve([row], tmp_path / "a.png", "run")
    draw_curve([row, row | {"env_steps": 20.0, "train/return": 3.0}], tmp_path / "b.png", "run")
    draw_curve([], tmp_path / "c.png", "run")
    contents = [(tmp_path / name).read_bytes() for name in ("a.png", "b.png", "c.png")]
    assert all(content.startswith(b"\x89PNG") for content in contents)
    assert len(set(contents)) == 3
