"""The command that probes a run's latents: files, numbers, words, and mistakes."""

import csv
import io

import numpy as np
import pytest
from kept_run import CONTEXTS, ENVIRONMENT, keep_agent, make_config

from agents.environments import draw_contexts
from agents.errors import UserError
from agents.latents import latents, what_it_sees
from agents.run_folder import RunFolder
from tuning.cli import main
from worldmodels.config import ContextFlags

SMALL = {"episodes": 2, "steps": 12, "horizon": 4}
# Balancing is hard: in a world without a pole's fall every episode lasts.
LASTING = {"name": "pendulum", "num_envs": 2, "features": ["g", "l"], "time_limit": 20}
PENDULUMS = {
    "training": {"distribution": "round_robin", "ranges": {"g": [5, 15], "l": [0.5, 2.0]}, "count": 6},
    "evaluation": {"regions": {"far": [{"g": [2.0, 20.0], "l": [0.4, 3.0]}]}},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An agent that is told the context, its file of latents made by the command line."""
    folder = keep_agent(tmp_path_factory.mktemp("runs") / "tiny", make_config(environment=LASTING, contexts=PENDULUMS))
    assert main(["latents", str(folder), "--episodes", "2", "--steps", "12", "--horizon", "4"]) == 0
    return folder


def read(folder, name):
    return list(csv.DictReader(io.StringIO((RunFolder(folder).latents / name).read_text())))


def test_every_context_is_recorded_and_every_source_scored(run):
    assert sorted(path.name for path in RunFolder(run).latents.iterdir()) == ["latents.png", "points.csv", "scores.csv"]
    points, scores = read(run, "points.csv"), read(run, "scores.csv")
    contexts = {(float(row["g"]), float(row["l"])) for row in points}
    drawn = draw_contexts(PENDULUMS["training"]["ranges"], 6, 0)
    expected = {(c["g"], c["l"]) for c in drawn} | {(g, length) for g in (2.0, 20.0) for length in (0.4, 3.0)}
    assert contexts == expected
    assert {row["episode"] for row in points} == {str(episode) for episode in range(20)}
    assert {(row["states"], row["horizon"]) for row in points} == {("posterior", ""), ("imagined", "4")}
    posterior = {row["source"] for row in scores if row["states"] == "posterior"}
    assert posterior == {"deter", "stoch", "both", "observation", "history", "shuffled"}
    assert {row["region"] for row in scores if row["source"] == "deter"} == {"all", "training", "far"}
    horizons = [row["point"] for row in scores if row["states"] == "imagined" and row["feature"] == "g"]
    steps = [row["point"] for row in scores if row["states"] == "by step" and row["source"] == "both"]
    assert horizons == ["0", "1", "2", "3", "4"] and set(steps) == {"0", "1", "2", "3", "5", "6", "9", "12"}
    whole = [
        row for row in scores if row["region"] == "all" and row["source"] == "both" and row["states"] == "posterior"
    ]
    assert [(row["contexts"], row["moments"]) for row in whole] == [("10", "120")] * 2


def test_the_files_repeat_byte_for_byte_and_words_tell_them(run, capsys):
    files = sorted(RunFolder(run).latents.iterdir())
    before = [path.read_bytes() for path in files]
    scores = latents(run, **SMALL)
    assert [path.read_bytes() for path in files] == before
    rows = read(run, "scores.csv")
    assert [float(row["rmse"]) for row in rows] == [score.fit.rmse for score in scores]
    printed = " ".join(capsys.readouterr().out.split())
    for words in ("shuffled contexts", "imagined, 4 steps on", "latents.png", "so its states hold it by construction"):
        assert words in printed


def test_an_agent_that_infers_is_probed_in_its_code(tmp_path, capsys):
    folder = keep_agent(tmp_path / "inferred", make_config(context="inferred", environment=LASTING, contexts=PENDULUMS))
    scores = latents(folder, **SMALL)
    assert {score.states for score in scores if score.source == "code"} == {"posterior", "by step"}
    assert {row["states"] for row in read(folder, "points.csv")} == {"posterior", "imagined", "code"}
    assert "it infers a code from transitions" in " ".join(capsys.readouterr().out.split())
    # Before the first transition the code tells nothing: all are equal, and the mean of other contexts is all there is.
    first = [score for score in scores if score.source == "code" and score.point == 0]
    assert len(first) == 2 and all(score.fit.r2 <= 0 for score in first)


def test_what_the_states_can_hold():
    words = {name: what_it_sees(ContextFlags.preset(name)) for name in ("hidden", "concat", "crssm", "inferred")}
    assert "computed without the context" in words["hidden"]
    assert "one of its observations" in words["concat"]
    assert "sequence model sees it" in words["crssm"]
    assert "never told the context" in words["inferred"]
    assert "computed without the context" in what_it_sees(ContextFlags(decoder=True, actor=True))


def test_an_agent_of_one_context_is_probed_in_those_of_evaluation(tmp_path):
    regions = {"far": [{"length": [0.2, 0.5, 0.8, 1.1, 1.4, 1.7]}]}
    folder = keep_agent(
        tmp_path / "default", make_config(context="hidden", contexts={"evaluation": {"regions": regions}})
    )
    scores = latents(folder, episodes=2, steps=6, horizon=1)
    assert {score.feature.name for score in scores} == {"length"}
    assert {score.contexts for score in scores if score.region == "all"} <= {5, 6}
    # In a single context there is no variance to explain, but an error.
    (alone,) = [s for s in scores if (s.states, s.source, s.region) == ("posterior", "both", "training")]
    assert np.isnan(alone.fit.r2) and alone.fit.rmse > 0


def test_mistakes_are_told_in_one_line(run, tmp_path):
    for name, value, least in (("episodes", 0, 1), ("steps", 4, 5), ("horizon", 0, 1)):
        with pytest.raises(UserError, match=f"{name} is {value}, but must be at least {least}"):
            latents(run, **{name: value})
    with pytest.raises(UserError, match="no such run folder"):
        latents(tmp_path / "nowhere")
    single = keep_agent(tmp_path / "single", make_config(contexts={}))
    with pytest.raises(
        UserError, match=r"has 1 different context in training .* add some to contexts.evaluation.regions"
    ):
        latents(single, **SMALL)
    few = keep_agent(tmp_path / "few", make_config(contexts={**CONTEXTS, "evaluation": {}}))
    with pytest.raises(UserError, match=r"has 4 different contexts .* needs 6"):
        latents(few, **SMALL)
    short = keep_agent(tmp_path / "short", make_config(environment={**ENVIRONMENT, "time_limit": 4}))
    with pytest.raises(UserError, match="every episode is invalid or over before step 5; train the agent longer"):
        latents(short, **SMALL)
    assert not RunFolder(short).latents.exists()
