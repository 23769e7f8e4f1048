"""The tables and TensorBoard's events."""

import errno

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

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


def scalars(folder):
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_events_after_the_checkpoint_are_purged_on_resume(tmp_path):
    board = TensorBoard(tmp_path, 0)
    for steps in (10.0, 20.0, 30.0):
        board.write({"epoch": 1.0, "env_steps": steps, "loss/reward": steps})
    board.close()
    assert scalars(tmp_path)["loss/reward"] == [(10, 10.0), (20, 20.0), (30, 30.0)]
    board = TensorBoard(tmp_path, 20)  # the checkpoint was at 20 steps
    board.write({"epoch": 1.0, "env_steps": 30.0, "loss/reward": -1.0})
    board.close()
    assert scalars(tmp_path) == {"loss/reward": [(10, 10.0), (20, 20.0), (30, -1.0)]}


def test_a_full_disk_costs_the_events_and_not_the_run(tmp_path, monkeypatch, caplog):
    board = TensorBoard(tmp_path, 0)

    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(board._writer, "flush", full)
    for steps in (1.0, 2.0):
        board.write({"env_steps": steps, "kl": 1.0})
    board.close()
    assert len([record for record in caplog.records if "TensorBoard" in record.message]) == 1


def test_curve_is_a_picture_and_depends_on_the_rows(tmp_path):
    row = {"env_steps": 10.0, "validation/return": 1.0, "validation/return_std": 0.5}
    draw_curve([row], tmp_path / "a.png", "run")
    draw_curve([row, row | {"env_steps": 20.0, "train/return": 3.0}], tmp_path / "b.png", "run")
    draw_curve([], tmp_path / "c.png", "run")
    contents = [(tmp_path / name).read_bytes() for name in ("a.png", "b.png", "c.png")]
    assert all(content.startswith(b"\x89PNG") for content in contents)
    assert len(set(contents)) == 3
