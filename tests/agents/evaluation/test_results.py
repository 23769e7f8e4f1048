"""Scores read from evaluated runs: which runs, whose seeds they are, means by hand, and what is refused."""

import os
import shutil

import pytest

from agents.configuration import RunConfig, save_config
from agents.environments.base import Feature
from agents.errors import UserError
from agents.evaluation.episodes import Job
from agents.evaluation.results import Score, find_runs, mixed, read_run, read_scores, unjudged
from agents.evaluation.rollout import Episode
from agents.evaluation.summary import write_csv
from agents.run_folder import RunFolder

FEATURES = (Feature("gravity", "m/s^2", 9.8, 0.1, 100.0, ""), Feature("length", "m", 0.5, 0.05, 5.0, ""))
EPISODES = [
    ("inside", 0, {"gravity": 4.9}, 10.0, False),
    ("inside", 0, {"gravity": 4.9}, 30.0, False),
    ("inside", 1, {"gravity": 7.35, "length": 0.7}, 7.0, False),
    ("outside", 0, {"length": 1.0}, 2.0, False),
]


def make_run(path, seed=0, episodes=EPISODES):
    """Write a run folder with the table that `evaluate` writes; None for episodes: it is not judged yet."""
    run = RunFolder(path)
    save_config(
        RunConfig.model_validate({"name": "x", "seed": seed, "environment": {"name": "cartpole"}}), run.config_file
    )
    if episodes is not None:
        judged = [
            Episode(Job(region, number, context, 5), value, 3, {}, invalid)
            for region, number, context, value, invalid in episodes
        ]
        run.evaluation.write_bytes(write_csv(judged, FEATURES))
    return run


def test_means_by_hand(tmp_path):
    make_run(tmp_path / "crssm" / "seed3", seed=3)
    assert read_scores([tmp_path]) == [
        Score("crssm", 3, "inside", 0, {"gravity": 4.9, "length": 0.5}, 20.0, 2),
        Score("crssm", 3, "inside", 1, {"gravity": 7.35, "length": 0.7}, 7.0, 1),
        Score("crssm", 3, "outside", 0, {"gravity": 9.8, "length": 1.0}, 2.0, 1),
    ]


def test_runs_are_found_in_the_order_people_count(tmp_path):
    for agent in ("b", "a"):
        for seed in (10, 2):
            make_run(tmp_path / agent / f"seed{seed}", seed)
    (tmp_path / "a" / "notes").mkdir()
    found = [run.path.relative_to(tmp_path).as_posix() for run in find_runs([tmp_path / "b", tmp_path])]
    assert found == ["b/seed2", "b/seed10", "a/seed2", "a/seed10"]  # each once, the named folder first


def test_labels(tmp_path, monkeypatch):
    make_run(tmp_path / "grid" / "hidden" / "seed0")
    make_run(tmp_path / "hopeful", seed=4)
    assert {(score.agent, score.seed) for score in read_scores([tmp_path])} == {("hidden", 0), ("hopeful", 4)}
    monkeypatch.chdir(tmp_path / "grid" / "hidden" / "seed0")
    assert read_run(find_runs(["."])[0])[0].agent == "hidden"


def test_invalid_episodes_are_left_out(tmp_path):
    make_run(
        tmp_path / "a",
        episodes=[*EPISODES, ("inside", 0, {"gravity": 4.9}, 900.0, True), ("outside", 1, {"length": 2.0}, 1.0, True)],
    )
    scores = read_scores([tmp_path])
    assert [(score.mean_return, score.episodes) for score in scores] == [(20.0, 2), (7.0, 1), (2.0, 1)]


def test_runs_not_judged_yet(tmp_path):
    make_run(tmp_path / "a" / "seed0")
    make_run(tmp_path / "a" / "seed1", 1, episodes=None)
    assert {score.seed for score in read_scores([tmp_path])} == {0}
    assert [run.path.name for run in unjudged([tmp_path])] == ["seed1"]
    with pytest.raises(UserError, match="seed1: has no evaluation.csv; judge it with `dreamtune evaluate"):
        read_scores([tmp_path / "a" / "seed0", tmp_path / "a" / "seed1"])
    (tmp_path / "a" / "seed0" / "evaluation.csv").unlink()
    with pytest.raises(UserError, match="has no evaluation.csv"):
        read_scores([tmp_path])


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match="no run named"):
        read_scores([])
    with pytest.raises(UserError, match="gone: no such folder"):
        read_scores([tmp_path / "gone"])
    with pytest.raises(UserError, match="no run in it"):
        read_scores([tmp_path])


def test_the_same_seed_twice(tmp_path):
    make_run(tmp_path / "a" / "seed0")
    shutil.copytree(tmp_path / "a" / "seed0", tmp_path / "a" / "seed1")
    with pytest.raises(UserError, match="are both seed 0 of an agent 'a'"):
        read_scores([tmp_path])


def test_different_contexts(tmp_path):
    make_run(tmp_path / "a" / "seed0")
    make_run(tmp_path / "b" / "seed0", episodes=EPISODES[:3])
    with pytest.raises(UserError, match="judged different contexts in region outside"):
        read_scores([tmp_path])
    make_run(tmp_path / "b" / "seed0", episodes=[*EPISODES[:3], ("outside", 0, {"length": 0.9}, 2.0, False)])
    with pytest.raises(UserError, match="b/seed0 and .*a/seed0 judged different contexts in region outside"):
        read_scores([tmp_path])


def test_training_contexts_may_differ(tmp_path):
    make_run(tmp_path / "a", episodes=[*EPISODES, ("training", 0, {}, 1.0, False)])
    make_run(tmp_path / "b", episodes=[*EPISODES, ("training", 0, {"gravity": 5.0}, 1.0, False)])
    assert len(read_scores([tmp_path])) == 8


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("inside,1,", "inside,x,", "line 4 is damaged .context_id is 'x', not a number"),
        (",7.0,", ",nan,", "line 4 is damaged .episode_return is 'nan', not a finite number"),
        (",7.0,", ",,", "line 4 is damaged .episode_return is '', not a finite number"),
        ("7.35", "abc", "line 4 is damaged .gravity is 'abc', not a finite number"),
        (",7.0,3", ",7.0", "line 4 is damaged .6 columns, not 7"),
        ("inside,1,7.35", "inside,0,7.35", "line 4 is damaged .context 0 of region inside has two values"),
        ("context_id", "context", "line 1 does not name the columns region, context_id, features, seed"),
    ],
)
def test_damaged_files(tmp_path, old, new, message):
    file = make_run(tmp_path / "a").evaluation
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    with pytest.raises(UserError, match=message) as caught:
        read_scores([tmp_path])
    assert "dreamtune evaluate" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00"])
def test_files_that_are_no_table(tmp_path, content):
    make_run(tmp_path / "a").evaluation.write_bytes(content)
    with pytest.raises(UserError, match="evaluation.csv: "):
        read_scores([tmp_path])


def test_no_valid_episode(tmp_path):
    make_run(tmp_path / "a", episodes=[("inside", 0, {}, 1.0, True)])
    with pytest.raises(UserError, match="has no valid episode"):
        read_scores([tmp_path])


def test_runs_of_one_agent_that_differ_in_more_than_their_seed(tmp_path):
    for seed in (0, 1):
        make_run(tmp_path / "a" / f"seed{seed}", seed)
    make_run(tmp_path / "b" / "seed0")
    assert mixed(find_runs([tmp_path])) == {}
    other = make_run(tmp_path / "a" / "seed2", 2)
    config = other.config()
    agent = config.agent.model_copy(update={"horizon": 7})
    save_config(config.model_copy(update={"agent": agent}), other.config_file)
    assert mixed(find_runs([tmp_path])) == {"a": ["agent.horizon"]}


def test_tables_that_are_older_than_the_kept_agent(tmp_path):
    run = make_run(tmp_path / "a" / "seed0")
    assert not run.judged_before  # nothing is known of an agent
    note = run.checkpoints / "best" / "best.json"
    note.parent.mkdir(parents=True)
    note.write_text("{}")
    os.utime(note, (100, 100))
    os.utime(run.evaluation, (200, 200))
    assert not run.judged_before
    os.utime(note, (300, 300))
    assert run.judged_before
