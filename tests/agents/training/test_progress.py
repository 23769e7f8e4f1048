"""The bar on a terminal and the lines elsewhere."""

import io

from rich.console import Console

from agents.training import progress
from agents.training.progress import ProgressReport

ROW = {"env_steps": 400.0, "updates": 50.0, "train/return": 12.34, "validation/return": 56.78}
TIMING = {"env_steps_per_second": 100.0}


def test_a_line_per_epoch_without_a_terminal():
    text = io.StringIO()
    with ProgressReport(1000, 0, Console(file=text, width=40)) as report:
        report.steps(200, [(1.0, 5)])
        report.epoch({"env_steps": 200.0, "updates": 0.0, "train/return": 1.0}, TIMING, kept=False)
        report.epoch(ROW, TIMING, kept=True)
        report.epoch({"env_steps": 1000.0, "updates": 99.0, "validation/return": -1.0}, TIMING, kept=False)
    assert text.getvalue() == (
        "200/1000 steps, 0 updates, 100 steps/s, collecting the first records; train return 1.0\n"
        "400/1000 steps, 50 updates, 100 steps/s, 0:06 left; train return 12.3, validation return 56.8 (kept)\n"
        "1000/1000 steps, 99 updates, 100 steps/s, 0:00 left; validation return -1.0\n"
    )


def test_a_bar_on_a_terminal(monkeypatch):
    monkeypatch.setattr(progress, "REFRESH_SECONDS", 1e-6)
    text = io.StringIO()
    with ProgressReport(1000, 300, Console(file=text, width=160, force_terminal=True)) as report:
        report.steps(350, [(2.0, 5), (4.0, 5)])
        report.epoch(ROW, TIMING, kept=False)
        report.steps(450, [])
    shown = text.getvalue()
    assert "450/1000" in shown
    assert "steps/s" in shown
    assert "train return 12.3, validation return 56.8" in shown
    assert "updates" not in shown


def test_hours_minutes_seconds():
    assert [progress._duration(seconds) for seconds in (5, 65, 3725)] == ["0:05", "1:05", "1:02:05"]
