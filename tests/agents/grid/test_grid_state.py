"""How far a run is, read from its folder; and that it is done only if it is what the grid asks for."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agents.grid import GridRun
from agents.grid.count import count_episodes, read_count
from agents.grid.state import is_judged, is_trained, progress_of
from agents.grid.work import decode, encode
from agents.run_folder import RunFolder
from tests.agents.grid.runs_of_grids import REGIONS, STEPS, judged, make_run, trained


def test_from_nothing_to_done(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert (run.label, run.log) == ("crssm/seed0", tmp_path / "crssm" / "seed0.log")
    nothing = progress_of(run)
    assert (nothing.stage, nothing.done, nothing.total, nothing.pace) == ("train", 0, STEPS, None)
    trained(run, 30)
    assert progress_of(run).seconds_left is None  # the first epoch had no update: its rate tells nothing
    trained(run, 90)
    half = progress_of(run)
    assert (half.stage, half.done, half.total, half.pace) == ("train", 90, STEPS, pytest.approx(0.1))
    assert 2.0 < half.seconds_left <= 3.0  # 30 steps of a tenth of a second, less what has passed
    assert not is_trained(run)
    trained(run)
    unjudged = progress_of(run)
    assert is_trained(run) and not is_judged(run)
    assert (unjudged.stage, unjudged.done, unjudged.total) == ("evaluate", 0, 3 * 2)
    judged(run)
    assert is_judged(run) and progress_of(run).stage == "done"


@pytest.mark.parametrize(
    "fewer",
    [
        lambda run: judged(run, episodes=1),
        lambda run: judged(run, seed=1),  # episodes of another evaluation.seed
        lambda run: judged(run, regions={"interpolation": REGIONS["interpolation"]}),
        lambda run: judged(run, regions=REGIONS | {"extrapolation": [{"gravity": 2.0}]}),
        lambda run: (run.folder / "evaluation.csv").write_text("region,context_id\n"),
        lambda run: (run.folder / "evaluation.csv").unlink(),
        lambda run: os.utime(run.folder / "checkpoints" / "best" / "best.json", (time.time() + 9, time.time() + 9)),
    ],
    ids=["episodes", "seed", "region", "values", "columns", "none", "an older agent's"],
)
def test_an_evaluation_that_is_not_what_is_asked_for_is_to_be_made_anew(
    fewer: Callable[[GridRun], object], tmp_path: Path
) -> None:
    run = make_run(tmp_path)
    trained(run)
    judged(run)
    assert progress_of(run).stage == "done"
    fewer(run)
    assert progress_of(run).stage == "evaluate"


def test_more_than_is_asked_for_is_enough(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    trained(run)
    judged(run, episodes=5, regions={"training": [{"gravity": 9.0}]} | REGIONS)
    assert progress_of(run).stage == "done"
    assert progress_of(replace(run, regions=("extrapolation",))).stage == "done"
    assert progress_of(replace(run, episodes=6)).stage == "evaluate"


def test_the_training_contexts_may_be_asked_for(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    trained(run)
    judged(run)
    run = replace(run, regions=("training", "interpolation"))
    assert progress_of(run).total == (5 + 2) * 2  # five training contexts, two of interpolation, two episodes each


def test_a_folder_of_another_run_is_refused_and_a_longer_one_goes_on(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    trained(run)
    judged(run)
    other = progress_of(make_run(tmp_path, training={"train_ratio": 9.0}))
    assert other.stage == "refused"
    assert "differs in training.train_ratio (8.0 there, 9.0 now)" in other.reason
    shorter = progress_of(make_run(tmp_path, training={"environment_steps": 90}))
    assert shorter.stage == "refused" and "which may be raised, not lowered to 90" in shorter.reason
    longer = progress_of(make_run(tmp_path, training={"environment_steps": 150}))
    assert (longer.stage, longer.done, longer.total) == ("train", 120, 150)
    assert progress_of(make_run(tmp_path, name="another")).stage == "done"  # a name changes no number


def test_a_run_that_failed_before_its_first_checkpoint_may_change(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    RunFolder.prepare(run.folder, run.config)
    assert progress_of(make_run(tmp_path, training={"train_ratio": 9.0})).stage == "train"


def test_episodes_are_counted_for_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("agents.grid.count.time.time", lambda: now[0])
    assert read_count(tmp_path, 10) == (0, None)
    with count_episodes(tmp_path, 10) as on_episode:
        for _ in range(4):
            now[0] += 3.0
            on_episode()
        assert read_count(tmp_path, 10) == (4, 6 * 3.0)
        now[0] += 5.0
        assert read_count(tmp_path, 10) == (4, 6 * 3.0 - 5.0)
    assert list(tmp_path.iterdir()) == []


def test_a_count_is_shown_while_a_process_judges(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    trained(run)
    with count_episodes(run.folder, 6) as on_episode:
        on_episode()
        assert progress_of(run).done == 0  # nobody is at work: it was killed, and begins anew
        with RunFolder(run.folder).lock():
            assert RunFolder(run.folder).occupant() == str(os.getpid())
            assert progress_of(run).done == 1
    assert RunFolder(run.folder).occupant() is None


def test_a_process_is_told_all_of_its_run(tmp_path: Path) -> None:
    run = make_run(tmp_path, variant="a.b", seed=7)
    assert decode(encode(run)) == run
