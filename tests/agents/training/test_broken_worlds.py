"""Training in worlds of which some break: the run stops with a line, or goes on without their episodes."""

import csv
import io

import gymnasium
import numpy as np
import pytest
from rich.console import Console
from training_run import tiny_config

from agents.dream import dream
from agents.environments import ENVIRONMENTS, ContextualEnv, Feature, vector
from agents.errors import UserError
from agents.evaluate import evaluate
from agents.evaluation.episodes import Job
from agents.evaluation.rollout import Episode
from agents.evaluation.summary import make_table, summarize
from agents.run_folder import RunFolder
from agents.train import train
from agents.training.boundary import EpochBoundary
from agents.training.checkpoint import BestAgent
from agents.training.session import Session, check_finite


class Brittle(ContextualEnv):
    """Counts its steps, one point each; where ``breaks`` is 1 the fourth observation is NaN."""

    def __init__(self, *, features=None, time_limit=None, action_repeat=1):
        space = gymnasium.spaces.Dict({"count": gymnasium.spaces.Box(0.0, np.inf, (1,), np.float32)})
        everything = [Feature("breaks", "1", 0.0, 0.0, 1.0, "whether it does")]
        limits = {"time_limit": time_limit or 8, "action_repeat": action_repeat}
        super().__init__("brittle", everything, space, gymnasium.spaces.Discrete(2), features=features, **limits)

    def _apply_context(self, context):
        self._breaks = context["breaks"] > 0.5

    def _reset_world(self, seed):
        self._count = 0
        return {"count": np.zeros(1, np.float32)}

    def _step_world(self, action):
        self._count += 1
        broken = self._breaks and self._count == 4
        return {"count": np.full(1, np.nan if broken else self._count, np.float32)}, 1.0, False, False


def config(on_invalid, contexts=({"breaks": 0.0}, {"breaks": 1.0}), **training):
    return tiny_config(
        environment={"name": "brittle", "num_envs": 2, "features": None, "on_invalid": on_invalid},
        contexts={"training": {"distribution": "fixed", "contexts": contexts}},
        training=training,
        evaluation={"validation_episodes": 2, "episodes_per_context": 2},
    )


@pytest.fixture(autouse=True)
def brittle(monkeypatch):
    monkeypatch.setitem(ENVIRONMENTS, "brittle", Brittle)


def test_the_run_stops_with_a_line(tmp_path):
    expected = (
        "^environment brittle: observation 'count' is NaN or infinite at step 4 in context {'breaks': 1.0}; choose"
    )
    with pytest.raises(UserError, match=expected):
        train(config("stop"), tmp_path / "run")


def test_the_run_goes_on_without_the_broken_episodes(tmp_path, caplog):
    folder = tmp_path / "run"
    train(config("drop"), folder)
    told = [record.getMessage() for record in caplog.records if "brittle" in record.getMessage()]
    assert len(told) == 1 and "its episode is dropped" in told[0]
    session = Session(config("drop"), RunFolder.open(folder))
    try:
        assert session.env_steps == 120 and session.learner.updates > 0
        kept = session.replay.sample(64, 2, np.random.default_rng(0))
        assert kept["observation/count"].isfinite().all()
        ends = kept["is_last"]
        assert (kept["observation/count"][ends] == 8).all() and ends.any()
        # Of the broken world, only episodes that are still open, and those have not come to the fourth step.
        assert (kept["observation/count"][kept["context"][..., 0] == 1] < 4).all()
        rows = session.rows
        assert all(row["train/length"] == 8 for row in rows if row["train/episodes"])
        assert all(row["validation/return"] == row["validation/return_min"] == 8 for row in rows)
        assert all(row["validation/length"] == 8 and row["validation/invalid"] == 1 for row in rows)
        assert all(row["validation/return_std"] == 0 for row in rows)
        dropped = sum(row.get("train/dropped", 0) for row in rows)
        assert dropped > 3 and all(row.get("train/dropped", 1) > 0 for row in rows)
        # 4 ticks for one that is dropped and 9 for one that ends: no other episode is lost.
        assert 4 * dropped + 9 * sum(row["train/episodes"] for row in rows) <= 120
        assert 120 - 4 * dropped - 9 * sum(row["train/episodes"] for row in rows) < 2 * 9
        assert session.best.read_note()["validation_invalid"] == 1
    finally:
        session.close()
    assert len([record for record in caplog.records if "1 of 2 validation episodes" in record.getMessage()]) == 1
    (summary,) = evaluate(folder)
    assert (summary.mean, summary.worst_return, summary.worst_context) == (8, 8, {"breaks": 0.0})
    assert (summary.contexts, summary.episodes, summary.invalid) == (2, 2, 2)
    table = list(csv.DictReader((folder / "evaluation.csv").open()))
    assert [(row["breaks"], row["episode_return"], row["episode_length"], row["invalid"]) for row in table] == [
        *[("0.0", "8.0", "8", "0")] * 2,
        *[("1.0", "", "3", "1")] * 2,
    ]
    dream(folder)
    dreamt = list(csv.DictReader((folder / "dream" / "episodes.csv").open()))
    assert {row["breaks"] for row in dreamt} == {"0.0"}


def test_a_run_that_drops_continues_exactly(tmp_path):
    """With open episodes of unequal age, whose environments have nothing to do while the others are rebuilt."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(config("drop"), whole)
    train(config("drop", environment_steps=60), parts)
    train(config("drop"), parts)
    assert (whole / "metrics.csv").read_text() == (parts / "metrics.csv").read_text()
    assert "train/dropped" in (whole / "metrics.csv").read_text()


def test_without_invalid_episodes_there_is_no_word_of_them(tmp_path):
    folder = tmp_path / "run"
    train(config("drop", contexts=({"breaks": 0.0},)), folder)
    evaluate(folder)
    header = (folder / "metrics.csv").read_text().splitlines()[0].split(",")
    assert header[3:7] == [f"validation/{name}" for name in ("return", "return_std", "return_min", "length")]
    assert "validation/invalid" not in header and "train/dropped" not in header
    assert "invalid" not in (folder / "evaluation.csv").read_text()
    assert "invalid" not in (folder / "checkpoints" / "best" / "best.json").read_text()


def test_an_agent_that_breaks_worlds_is_not_kept_before_one_that_does_not(tmp_path, capsys):
    # A broken episode, cut short, may have the highest return where rewards are costs.
    folder, train_config = tmp_path / "run", config("drop", contexts=({"breaks": 0.0},))
    train(train_config, folder)
    session = Session(train_config, RunFolder.open(folder))
    boundary = EpochBoundary(session, None, None, None)
    job = session.validator.jobs[0]
    try:
        whole = session.best.read_note()
        good, broken = Episode(job, 8.0, 8, {}), Episode(job, 1e6, 3, {}, invalid=True)
        row = boundary._row([broken, broken])
        assert row["validation/invalid"] == 2 and "validation/return" not in row
        check_finite(row)
        assert not boundary._offer(row) and session.best.read_note() == whole
        row = boundary._row([broken, Episode(job, 9.0, 8, {})])
        assert (row["validation/return"], row["validation/invalid"]) == (9.0, 1)
        assert not boundary._offer(row) and session.best.read_note() == whole
        assert boundary._offer(boundary._row([good, good]))
    finally:
        session.close()
    best = BestAgent(tmp_path / "best")
    offers = [(2, 9.0), (1, 3.0), (2, 99.0), (1, 2.0), (0, 1.0), (1, 99.0), (0, 0.5)]
    state = session.learner.state
    assert [best.offer(state, 1, score, invalid) for invalid, score in offers] == [
        *(True, True, False, False, True, False, False)
    ]
    assert best.read_note()["validation_return"] == 1.0


def test_without_a_valid_episode_nothing_is_judged_and_nothing_dreamt(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    train(config("drop", contexts=({"breaks": 0.0},)), folder)
    monkeypatch.setattr(Brittle, "_apply_context", lambda self, context: setattr(self, "_breaks", True))
    monkeypatch.setattr(vector, "_MOST_DROPPED", 1)  # which is for training
    with pytest.raises(UserError, match="each of the 2 episodes came to an invalid step and was dropped"):
        evaluate(folder)
    assert not (folder / "evaluation.csv").exists()
    with pytest.raises(UserError, match="every episode came to an invalid step and was dropped"):
        dream(folder)


def test_a_region_without_a_valid_episode_has_no_numbers():
    features = Brittle().features
    jobs = [Job(region, 0, {"breaks": breaks}, 0) for region, breaks in (("fine", 0.0), ("broken", 1.0))]
    episodes = [Episode(jobs[0], 8.0, 8, {}), Episode(jobs[1], 3.0, 3, {}, invalid=True)]
    fine, broken = summarize(episodes, features, seed=0, confidence=0.9)
    assert (fine.mean, fine.invalid) == (8.0, 0)
    assert np.isnan([broken.mean, broken.iqm, broken.worst_return]).all() and (broken.episodes, broken.invalid) == (
        0,
        1,
    )
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(make_table([fine, broken], features, "Returns", 0.9))
    text = console.export_text()
    assert "1 invalid" in text and "none valid" in text and "nan" not in text


def test_a_world_that_always_breaks_at_once_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(Brittle, "_reset_world", lambda self, seed: {"count": np.full(1, np.nan, np.float32)})
    with pytest.raises(UserError, match="at step 0 in .*: 32 episodes in a row were dropped, and none ended validly$"):
        train(config("drop"), tmp_path / "run")
