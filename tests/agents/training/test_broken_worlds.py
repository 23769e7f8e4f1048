"""Training in worlds of which some break: the run stops with a line, or goes on without their episodes."""

import gymnasium
import numpy as np
import pytest
from training_run import tiny_config

from agents.dream import dream
from agents.environments import ENVIRONMENTS, ContextualEnv, Feature, vector
from agents.errors import UserError
from agents.evaluate import evaluate
from agents.run_folder import RunFolder
from agents.train import train
from agents.training.session import Session


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
    monkeypatch.setattr(vector, "_told", set())
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
        assert all(row["validation/return"] == (8 + 3) / 2 for row in rows)  # what came before the fault counts
    finally:
        session.close()
    summaries = {summary.region: summary for summary in evaluate(folder)}
    assert summaries["training"].mean == (8 + 3) / 2
    dream(folder)


def test_a_run_that_drops_continues_exactly(tmp_path):
    """With open episodes of unequal age, whose environments have nothing to do while the others are rebuilt."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(config("drop"), whole)
    train(config("drop", environment_steps=60), parts)
    train(config("drop"), parts)
    assert (whole / "metrics.csv").read_text() == (parts / "metrics.csv").read_text()


def test_a_world_that_always_breaks_at_once_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(Brittle, "_reset_world", lambda self, seed: {"count": np.full(1, np.nan, np.float32)})
    with pytest.raises(UserError, match="at step 0 in .*: 16 episodes in a row ended before their first valid step$"):
        train(config("drop"), tmp_path / "run")
