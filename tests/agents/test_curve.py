"""The learning curve over seeds: its numbers, the published ones beside it, the picture, and mistakes."""

import csv
import itertools
from pathlib import Path

import numpy as np
import pytest

import tuning.cli
from agents.configuration import RunConfig, save_config
from agents.curve import curve, published_task, read_published
from agents.errors import UserError
from agents.run_folder import RunFolder
from agents.training.curve import combine_seeds, make_seeds_figure
from agents.training.metrics import write_table

PUBLISHED = Path(__file__).resolve().parents[2] / "notebooks" / "results" / "published_dreamerv3.csv"
WALKER = {"name": "dmc/walker/walk", "action_repeat": 2}


def make_config(seed=0, environment=WALKER, **sections):
    return RunConfig.model_validate({"name": "tiny", "seed": seed, "environment": environment, **sections})


def make_run(path, points, **settings):
    """A run folder whose table has these (environment steps, mean return or None)."""
    run = RunFolder(path)
    save_config(make_config(**settings), run.config_file)
    rows = [
        {"epoch": float(epoch), "env_steps": float(steps), "validation/return": -1.0}
        | ({} if value is None else {"train/return": float(value)})
        for epoch, (steps, value) in enumerate(points, 1)
    ]
    write_table(run.metrics, rows)
    return path


def test_mean_of_seeds_by_hand():
    found = combine_seeds("ours", [([10, 20, 40], [0, 10, 30]), ([20, 30, 40, 50], [30, 50, 10, 99])])
    # From step 20, where the second begins, to 40, where the first ends; at 30 the first is halfway from 10 to 30.
    assert found.env_steps.tolist() == [20, 30, 40] and found.seeds == 2
    assert found.mean.tolist() == [20, 35, 20]
    # A quarter of the resamples is twice the lower seed, a quarter twice the higher: the interval spans both.
    assert found.low.tolist() == [10, 20, 10] and found.high.tolist() == [30, 50, 30]


def test_interval_of_five_seeds_against_all_their_resamples():
    values = np.random.default_rng(3).normal(500, 100, (5, 4))
    steps = np.arange(1, 5) * 1000
    found = combine_seeds("ours", [(steps, row) for row in values])
    np.testing.assert_allclose(found.mean, values.mean(0))
    every = values[list(itertools.product(range(5), repeat=5))].mean(1)  # 3125 equally likely means, at each step
    # Of 2000 drawn ones, the share below a quantile has a standard deviation of 0.35%.
    assert np.all((np.quantile(every, 0.015, axis=0) <= found.low) & (found.low <= np.quantile(every, 0.035, axis=0)))
    assert np.all((np.quantile(every, 0.965, axis=0) <= found.high) & (found.high <= np.quantile(every, 0.985, axis=0)))
    alone = combine_seeds("ours", [(steps, values[0])])
    assert alone.mean.tolist() == values[0].tolist() and np.isnan(alone.low).all() and np.isnan(alone.high).all()


@pytest.fixture
def runs(tmp_path):
    points = [
        [(5, None), (10, 0.0), (20, 40.0)],
        [(5, None), (10, 20.0), (20, 60.0)],
        [(5, 7.0), (10, 70.0), (20, 20.0)],
    ]
    return [make_run(tmp_path / f"run{seed}", values, seed=seed) for seed, values in enumerate(points)]


def test_steps_are_those_of_the_original_environment_and_returns_those_of_training(runs, tmp_path):
    (found,) = curve(runs, picture=tmp_path / "a" / "walker.png")
    assert found.env_steps.tolist() == [20, 40]  # action repeat 2
    assert found.mean.tolist() == [30, 40]
    assert (tmp_path / "a" / "walker.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "a" / "walker.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["curve"], row["seeds"], row["env_steps"]) for row in rows] == [
        ("Dreamtune", "3", s) for s in ("20", "40")
    ]
    for name in ("mean", "low", "high"):
        assert [float(row[name]) for row in rows] == getattr(found, name).tolist()


def test_the_files_lie_beside_the_first_run(runs, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    curve([Path("../run1"), runs[0]])
    assert not any(elsewhere.iterdir())
    assert (tmp_path / "learning_curve.png").is_file() and (tmp_path / "learning_curve.csv").is_file()
    monkeypatch.chdir(runs[0])
    (tmp_path / "learning_curve.png").unlink()
    curve([Path()])  # a run's own folder
    assert (tmp_path / "learning_curve.png").is_file()


def test_the_picture_shows_the_numbers(runs):
    ours = combine_seeds("ours", [([1000, 2000], [1, 5]), ([1000, 2000], [3, 9])])
    theirs = combine_seeds("theirs", [([500, 2500], [2, 4])])
    (axes,) = make_seeds_figure([ours, theirs], "walker").axes
    first, second = axes.lines
    assert first.get_xdata().tolist() == [1000, 2000] and first.get_ydata().tolist() == [2, 7]
    assert second.get_xdata().tolist() == [500, 2500] and second.get_ydata().tolist() == [2, 4]
    band = axes.collections[0].get_paths()[0].vertices
    assert {(1000.0, 1.0), (1000.0, 3.0), (2000.0, 5.0), (2000.0, 9.0)} <= {tuple(point) for point in band.tolist()}
    words = [text.get_text() for text in axes.get_legend().get_texts()]
    assert words == ["ours, 2 seeds", "theirs, 1 seed"] and axes.get_title(loc="left") == "walker"


def test_published_curve_stands_beside(runs, tmp_path, capsys):
    given = [str(run) for run in runs]
    picture = tmp_path / "walker.png"
    assert tuning.cli.main(["curve", *given, "--published", str(PUBLISHED), "--picture", str(picture)]) == 0
    printed = capsys.readouterr().out
    for label, final in (("Dreamtune", "40.0"), ("DreamerV3 (published)", "881.0")):
        assert f"{label}: mean return of training episodes {final}" in printed
    with picture.with_suffix(".csv").open() as file:
        assert {row["curve"]: row["seeds"] for row in csv.DictReader(file)} == {
            "Dreamtune": "3",
            "DreamerV3 (published)": "5",
        }


@pytest.mark.parametrize(
    ("environment", "seeds", "last", "final", "late"),
    [
        # Means over seeds of the last value and of the last tenth of the budget, from the reference's own files.
        ({"name": "dmc/walker/walk"}, 5, 490_000, 881.0, 940.8),
        ({"name": "dmc/cartpole/swingup", "observations": "state"}, 5, 490_000, 856.0, 850.8),
        ({"name": "dmc/cheetah/run"}, 5, 490_000, 596.3, 599.9),
        ({"name": "dmc/walker/walk", "observations": "pixels"}, 10, 1_000_000, None, 960.4),
        ({"name": "dmc/cheetah/run", "observations": "pixels"}, 10, 1_000_000, None, 832.2),
    ],
)
def test_published_returns_are_those_of_the_reference(environment, seeds, last, final, late):
    found = read_published(PUBLISHED, make_config(environment=environment))
    assert found.seeds == seeds and found.env_steps[-1] == last
    if final is not None:
        assert found.mean[-1] == pytest.approx(final, abs=0.1)
    tail = found.mean[found.env_steps > 0.9 * found.env_steps[-1]]
    assert tail.mean() == pytest.approx(late, abs=1.5)  # pixels: in bins, whose last tenth begins 5,000 steps later


def test_tasks_by_their_published_names():
    def name(**environment):
        return published_task(make_config(environment=environment))

    assert name(name="dmc/ball_in_cup/catch") == ("dmc_proprio", "dmc_ball_in_cup_catch")
    assert name(name="dmc/walker/run", observations="pixels") == ("dmc_vision", "dmc_walker_run")
    assert name(name="atari/pong", action_repeat=4) == ("atari100k", "atari_pong")


def test_mistakes_are_told_in_one_line(runs, tmp_path):
    def refused(message, *folders, **settings):
        with pytest.raises(UserError, match=message):
            curve(list(folders), picture=tmp_path / "no.png", **settings)

    refused("no run to draw")
    refused("no such run folder", tmp_path / "nowhere")
    refused("has the seed 0, as .*run0 has", runs[0], runs[1], runs[0])
    other = make_run(tmp_path / "other", [(10, 1.0)], seed=9, environment={**WALKER, "action_repeat": 1})
    refused("other differs from .*run0 in environment.action_repeat", runs[0], other)
    refused("no training episode is finished", make_run(tmp_path / "young", [(10, None)]))
    begun = tmp_path / "begun"
    save_config(make_config(), RunFolder(begun).config_file)
    refused("metrics.csv: cannot be read", begun)
    refused("cannot be read", runs[0], published=tmp_path / "nothing.csv")
    late = make_run(tmp_path / "late", [(21, 1.0)], seed=9)
    refused("a seed of Dreamtune ends at step 40, where another has no return yet", runs[0], late)
    pole = make_run(tmp_path / "pole", [(10, 1.0)], environment={"name": "cartpole"})
    refused(
        "no task cartpole in cartpole; it has the suites atari100k, dmc_proprio, dmc_vision", pole, published=PUBLISHED
    )
    assert not (tmp_path / "no.png").exists()


def test_what_changes_no_number_may_differ(runs, tmp_path):
    longer = make_run(
        tmp_path / "longer",
        [(10, 5.0), (20, 5.0), (30, 5.0)],
        seed=8,
        training={"environment_steps": 2_000_000, "device": "cpu"},
    )
    (found,) = curve([runs[0], longer], picture=tmp_path / "both.png")
    assert found.env_steps.tolist() == [20, 40] and found.mean.tolist() == [2.5, 22.5]
