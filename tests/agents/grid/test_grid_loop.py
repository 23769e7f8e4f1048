"""Which runs are worked on, and what is shown of it: with processes that are pretended and folders filled by hand."""

import io
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest
from rich.console import Console

from agents.errors import UserError
from agents.grid import GridRun, grid, loop
from agents.grid.display import Display, duration, render
from agents.grid.loop import GridLoop, View
from agents.grid.state import Progress
from agents.run_folder import RunFolder
from tests.agents.grid.runs_of_grids import STEPS, judged, make_run, trained


class Pretended:
    """Stands for the process of a run: it ends at the third look, having done what it was told to.

    Args:
        run: the run.
        failure: why it fails, if it does; it then does nothing.
        busy: it ends at once, since another process works in the folder.
    """

    def __init__(self, run: GridRun, failure: str | None = None, busy: bool = False) -> None:
        self.run, self._failure, self.busy = run, failure, busy
        self.looks = 0
        self.calls: list[str] = []

    def ended(self) -> bool:
        self.looks += 1
        if self.looks == 3 and self._failure is None and not self.busy:
            trained(self.run)
            judged(self.run)
        return self.looks >= 3

    def failure(self) -> str | None:
        return self._failure

    def interrupt(self) -> None:
        self.calls.append("interrupt")

    def wait_or_kill(self, deadline: float) -> None:
        self.calls.append("wait")


class Office:
    """Starts pretended processes and remembers them."""

    def __init__(self, **failures: str) -> None:
        self.failures = failures
        self.started: list[Pretended] = []

    def __call__(self, run: GridRun) -> Pretended:
        self.started.append(Pretended(run, self.failures.get(run.variant)))
        return self.started[-1]

    @property
    def labels(self) -> list[str]:
        return [process.run.label for process in self.started]


@pytest.fixture(autouse=True)
def no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "TICK", 0.0)
    monkeypatch.setattr(loop, "LOOK", 0.0)


def statuses(looped: GridLoop) -> dict[str, str]:
    return {view.run.label: view.status for view in looped.views()}


def make_runs(folder: Path, *variants: str, seeds: int = 1) -> list[GridRun]:
    return [make_run(folder, variant, seed) for seed in range(seeds) for variant in variants]


def test_as_many_at_a_time_as_asked_for_in_order_and_nothing_that_is_done(tmp_path: Path) -> None:
    runs = make_runs(tmp_path, "a", "b", "c", seeds=2)
    trained(runs[1])
    judged(runs[1])
    office = Office()
    looped = GridLoop(runs, 2, office)
    most = 0

    def show(now: GridLoop) -> None:
        nonlocal most
        most = max(most, sum(status == "training" for status in statuses(now).values()))

    looped.execute(show)
    assert most == 2
    assert office.labels == ["a/seed0", "c/seed0", "a/seed1", "b/seed1", "c/seed1"]
    assert set(statuses(looped).values()) == {"done"} and looped.failures == {}
    GridLoop(runs, 2, office).execute(lambda now: None)  # the same again does nothing
    assert len(office.started) == 5


def test_a_failure_is_told_once_and_stops_no_other(tmp_path: Path) -> None:
    runs = make_runs(tmp_path, "a", "bad", "c")
    office = Office(bad="training diverged")
    looped = GridLoop(runs, 1, office)
    looped.execute(lambda now: None)
    assert office.labels == ["a/seed0", "bad/seed0", "c/seed0"]
    assert looped.failures == {"bad/seed0": "training diverged"}
    assert statuses(looped) == {"a/seed0": "done", "bad/seed0": "failed", "c/seed0": "done"}


def test_a_run_whose_process_ends_without_having_done_it_has_failed(tmp_path: Path) -> None:
    class Lazy(Pretended):
        def ended(self) -> bool:
            return True

    looped = GridLoop(make_runs(tmp_path, "a"), 1, Lazy)
    looped.execute(lambda now: None)
    assert looped.failures == {"a/seed0": "ended before it was done"}


def test_a_process_that_cannot_be_started_is_a_failure_of_its_run(tmp_path: Path) -> None:
    def start(run: GridRun) -> Pretended:
        if run.variant == "a":
            raise UserError("log: cannot be written")
        return Pretended(run)

    looped = GridLoop(make_runs(tmp_path, "a", "b"), 1, start)
    looped.execute(lambda now: None)
    assert looped.failures == {"a/seed0": "log: cannot be written"}
    assert statuses(looped)["b/seed0"] == "done"


def test_the_folder_of_another_configuration_is_a_failure_and_left_alone(tmp_path: Path) -> None:
    run = make_run(tmp_path, "a")
    trained(make_run(tmp_path, "a", training={"train_ratio": 9.0}), 60)
    office = Office()
    looped = GridLoop([run, make_run(tmp_path, "b")], 1, office)
    looped.execute(lambda now: None)
    assert office.labels == ["b/seed0"]
    assert "the run of another configuration" in looped.failures["a/seed0"]


@pytest.mark.parametrize("finishes", [True, False])
def test_a_run_of_another_process_is_waited_for(finishes: bool, tmp_path: Path) -> None:
    """It finishes the run, or is killed, which lets go of the folder: then the run is gone on with."""
    runs = make_runs(tmp_path, "a", "b")
    trained(runs[0], 60)
    office, shown = Office(), []
    with ExitStack() as stack:
        stack.enter_context(RunFolder(runs[0].folder).lock())

        def show(now: GridLoop) -> None:
            shown.append(statuses(now)["a/seed0"])
            (view,) = [view for view in now.views() if view.run.variant == "a"]
            assert shown[-1] != "elsewhere" or view.note == f"process {os.getpid()}"
            if len(shown) == 12:
                if finishes:
                    trained(runs[0])
                    judged(runs[0])
                stack.close()

        looped = GridLoop(runs, 2, office)
        looped.execute(show)
    assert set(shown[:12]) == {"elsewhere"}
    assert set(statuses(looped).values()) == {"done"} and looped.failures == {}
    assert office.labels == (["b/seed0"] if finishes else ["b/seed0", "a/seed0"])


def test_a_process_that_found_the_folder_taken_has_not_failed(tmp_path: Path) -> None:
    """Both took it for free, and the other one was faster."""
    processes: list[Pretended] = []

    def start(run: GridRun) -> Pretended:
        processes.append(Pretended(run, busy=not processes))
        return processes[-1]

    looped = GridLoop(make_runs(tmp_path, "a"), 1, start)
    looped.execute(lambda now: None)
    assert len(processes) == 2 and looped.failures == {} and statuses(looped) == {"a/seed0": "done"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_whatever_stops_the_loop_stops_the_processes(error: type[BaseException], tmp_path: Path) -> None:
    office = Office()

    def show(now: GridLoop) -> None:
        raise error

    with pytest.raises(error):
        GridLoop(make_runs(tmp_path, "a", "b", "c"), 2, office).execute(show)
    assert [process.calls for process in office.started] == [["interrupt", "wait"]] * 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_to_be_asked_to_end_is_an_interrupt(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("{name: mine, base: smoke, variants: {a: {}}, seeds: [0]}")
    before = signal.signal(number, signal.SIG_DFL)

    def execute(self: GridLoop, show: Callable[[GridLoop], None]) -> None:
        os.kill(os.getpid(), number)

    monkeypatch.setattr(GridLoop, "execute", execute)
    try:
        with pytest.raises(KeyboardInterrupt) as caught:
            grid("mine.yaml")
        assert caught.value.__notes__ == ["give the same command again to go on"]
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_the_time_left_by_hand(tmp_path: Path) -> None:
    runs = make_runs(tmp_path, "a", "b", "c")
    assert GridLoop(runs, 2, Office()).seconds_left() is None
    trained(runs[0])
    judged(runs[0])
    trained(runs[1], 60)
    # A step takes a tenth of a second: 60 of b and 120 of c are left, for two processes.
    assert GridLoop(runs, 2, Office()).seconds_left() == pytest.approx((60 + 120) * 0.1 / 2)
    assert GridLoop(runs[:1], 2, Office()).seconds_left() == 0.0


# ---- what is shown


def view(folder: Path, variant: str, status: loop.Status, progress: Progress, note: str = "") -> View:
    return View(make_run(folder, variant), status, progress, note)


def some_views(folder: Path) -> list[View]:
    return [
        view(folder, "default", "done", Progress("done", STEPS, STEPS)),
        view(folder, "hidden", "evaluating", Progress("evaluate", 1200, 4200, 75.0)),
        view(folder, "crssm", "training", Progress("train", 8000, 14000, 3725.0)),
        view(folder, "concat", "elsewhere", Progress("train", 30, STEPS, 9.0), "process 123"),
        view(folder, "broken", "failed", Progress("train", 0, STEPS), "killed by SIGKILL"),
        view(folder, "inferred", "to train", Progress("train", 0, STEPS)),
    ]


def test_the_table_fits_80_columns_and_says_what_becomes_of_every_run(tmp_path: Path) -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(render("mine", some_views(tmp_path), 4000.0))
    lines = console.export_text().splitlines()
    counts = "mine: 6 runs: 1 done, 1 training, 1 evaluating, 1 elsewhere, 1 to train, 1 failed; about 1:06:40 left"
    assert " ".join(" ".join(lines[:2]).split()) == counts
    rows = {line.split()[0]: line for line in lines if "/seed0" in line}
    assert "1200/4200" in rows["hidden/seed0"] and rows["hidden/seed0"].split()[-1] == "1:15"
    assert "8000/14000" in rows["crssm/seed0"] and rows["crssm/seed0"].split()[-1] == "1:02:05"
    assert "by process 123" in rows["concat/seed0"]
    assert "to train" in rows["inferred/seed0"]
    assert "broken/seed0 failed: killed by SIGKILL" in lines


def test_where_there_is_no_room_for_all_those_at_work_are_shown(tmp_path: Path) -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(render("mine", some_views(tmp_path), None, room=4))
    text = console.export_text()
    assert all(name in text for name in ("hidden/", "crssm/", "concat/")) and "default/" not in text
    assert "and 3 more runs" in text and "broken/seed0 failed" in text and "about" not in text


def test_without_a_terminal_there_is_a_line_for_every_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.StringIO()
    runs = make_runs(tmp_path, "a", "bad")
    display = Display("mine", Console(file=file, width=40))
    looped = GridLoop(runs, 1, Office(bad="x" * 60))
    with display.open():
        looped.execute(display.show)
    assert file.getvalue().splitlines() == [
        "a/seed0: training, 0/120 steps",
        "a/seed0: done",
        "bad/seed0: training, 0/120 steps",
        f"bad/seed0: failed, {'x' * 60}",
    ]


def test_on_a_terminal_the_table_is_drawn_anew_in_its_place(tmp_path: Path) -> None:
    file = io.StringIO()
    console = Console(file=file, width=80, height=30, force_terminal=True, color_system=None)
    display = Display("mine", console)
    with display.open():
        GridLoop(make_runs(tmp_path, "a"), 1, Office()).execute(display.show)
    shown = file.getvalue()
    assert "mine: 1 run: 1 training" in shown and "mine: 1 run: 1 done" in shown
    assert "\x1b[1A" in shown  # the cursor goes up: nothing scrolls by


def test_durations() -> None:
    assert [duration(seconds) for seconds in (0.4, 59.6, 3599, 3600, 36_000)] == [
        "0:00",
        "1:00",
        "59:59",
        "1:00:00",
        "10:00:00",
    ]
