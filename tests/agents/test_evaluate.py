"""Evaluations of a kept agent: table, file, seeds and mistakes."""

import csv
import io

import numpy as np
import pytest
from kept_run import CONTEXTS, keep_agent, make_config
from rich.console import Console

from agents.configuration import save_config
from agents.configuration.fields import expand_contexts
from agents.environments import draw_contexts, make_environment
from agents.errors import UserError
from agents.evaluate import evaluate
from agents.evaluation.episodes import Job, evaluation_seed
from agents.evaluation.rollout import Episode
from agents.evaluation.summary import average_and_worst, describe_context, make_table, summarize, write_csv
from agents.run_folder import RunFolder
from agents.seeding import numpy_generator
from agents.statistics import bootstrap_interval, interquartile_mean, mean


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return keep_agent(tmp_path_factory.mktemp("runs") / "tiny", make_config())


def read(folder):
    return list(csv.DictReader(io.StringIO((folder / "evaluation.csv").read_text())))


def test_every_episode_is_a_row(run, capsys):
    summaries = evaluate(run)
    rows = read(run)
    header = "region context_id gravity length seed episode_return episode_length"
    assert list(rows[0]) == header.split()
    expected = {
        "training": draw_contexts({"gravity": [4.9, 14.7], "length": [0.2, 2.0]}, 4, 0),
        "interpolation": [{"gravity": 7.35, "length": 0.5}],
        "extrapolation": [{"gravity": 19.6, "length": 0.1}, {"gravity": 9.8, "length": 4.0}],
    }
    wanted = [
        (region, index, context["gravity"], context["length"], evaluation_seed(0, region, index, episode))
        for region, contexts in expected.items()
        for index, context in enumerate(contexts)
        for episode in range(3)
    ]
    columns = ("region", "context_id", "gravity", "length", "seed")
    kinds = (str, int, float, float, int)
    assert [tuple(k(row[c]) for k, c in zip(kinds, columns, strict=True)) for row in rows] == wanted
    # CartPole's reward is 1 per step.
    assert all(float(row["episode_return"]) == int(row["episode_length"]) for row in rows)
    assert len({row["episode_length"] for row in rows}) > 2
    for summary in summaries:
        returns = [float(row["episode_return"]) for row in rows if row["region"] == summary.region]
        assert summary.mean == pytest.approx(np.mean(returns))
        low, high = summary.mean_interval
        assert low <= summary.mean <= high
    assert [summary.contexts for summary in summaries] == [4, 1, 2]
    printed = capsys.readouterr().out
    for words in ("training", "interpolation", "extrapolation", "IQM", "95% interval", "evaluation.csv"):
        assert words in printed
    assert "\ntraining, 4 contexts: average " in printed and "\nextrapolation, 2 contexts: average " in printed
    assert "interpolation, 1 contexts" not in printed


def test_evaluations_repeat_byte_for_byte_and_episodes_pair(run):
    first = evaluate(run)
    content = (run / "evaluation.csv").read_bytes()
    assert evaluate(run) == first
    assert (run / "evaluation.csv").read_bytes() == content
    rows = read(run)
    evaluate(run, episodes=1, regions=("extrapolation",))
    few = read(run)
    assert few == [row for row in rows if row["region"] == "extrapolation"][::3]
    evaluate(run, episodes=5)
    assert [row for index, row in enumerate(read(run)) if index % 5 < 3] == rows


def test_judged_episodes_may_go_through_the_contexts_of_their_region(run, tmp_path):
    evaluate(run)
    contexts = {**CONTEXTS, "evaluation": {**CONTEXTS["evaluation"], "change_every": 3}}
    changing = keep_agent(tmp_path / "changing", make_config(contexts=contexts))
    evaluate(changing)
    pairs = list(zip(read(run), read(changing), strict=True))
    scores = ("episode_return", "episode_length")
    for one, other in pairs:  # the same episodes, but for what came of them
        assert {k: v for k, v in one.items() if k not in scores} == {k: v for k, v in other.items() if k not in scores}
    alone = [one == other for one, other in pairs if one["region"] == "interpolation"]  # of one context
    assert all(alone) and len(alone) == 3
    assert sum(one != other for one, other in pairs) > 4


def test_summary_by_hand():
    features = make_environment("cartpole", features=["gravity", "length"]).features
    returns = {0: [10.0, 20.0, 30.0, 40.0], 1: [100.0, 100.0, 100.0, 100.0]}
    episodes = [
        Episode(Job("training", index, {"length": 0.5 + index}, seed), value, int(value), {})
        for index, values in returns.items()
        for seed, value in enumerate(values)
    ]
    (summary,) = summarize(episodes, features, seed=0, confidence=0.9)
    assert (summary.region, summary.contexts, summary.episodes) == ("training", 2, 8)
    assert summary.mean == 62.5
    assert summary.iqm == (30 + 40 + 100 + 100) / 4
    assert (summary.worst_return, summary.worst_context) == (25.0, {"gravity": 9.8, "length": 0.5})
    # Only context 0 varies: the mean of all is at least (10 + 100) / 2 and at most (40 + 100) / 2.
    assert 55 <= summary.mean_interval[0] < 62.5 < summary.mean_interval[1] <= 70
    for interval, statistic in ((summary.mean_interval, mean), (summary.iqm_interval, interquartile_mean)):
        generator = numpy_generator(0, "bootstrap/training")
        assert interval == bootstrap_interval(list(returns.values()), statistic, generator, confidence=0.9)
    assert summary.mean_interval != summary.iqm_interval
    assert write_csv(episodes, features).decode().splitlines()[:2] == [
        "region,context_id,gravity,length,seed,episode_return,episode_length",
        "training,0,9.8,0.5,0,10.0,10",
    ]
    (lonely,) = summarize(episodes[:1], features, seed=0, confidence=0.9)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(make_table([summary, lonely], features, "Returns", 0.9))
    text = console.export_text()
    low, high = summary.mean_interval
    for words in (
        "90% interval",
        "2 × 4",
        "62.5",
        "67.5",
        f"{low:.1f} to {high:.1f}",
        "25.0",
        "default context",
    ):
        assert words in text
    assert "1 × 1" in text and "needs 2 each" in text


def test_average_and_worst_case_over_the_contexts_of_a_region():
    features = make_environment("gym/Hopper-v5", features=["torso_mass", "thigh_mass"]).features
    grid = expand_contexts([{"torso_mass": [0.1, 3.0], "thigh_mass": [0.1, 4.0]}])
    returns = [[100.0], [20.0, 40.0], [10.0, 90.0, 80.0], []]  # by context; the others' episodes are invalid
    episodes = [
        Episode(Job("grid", place, context, number), value, 1, {}, invalid=number >= len(returns[place]))
        for place, context in enumerate(grid)
        for number, value in enumerate([*returns[place], *[-1e9] * (3 - len(returns[place]))])
    ]
    alone = [Episode(Job("home", 0, {}, seed), 7.0, 1, {}) for seed in range(2)]
    summaries = summarize(episodes + alone, features, seed=0, confidence=0.9)
    assert summaries[0].average_return == pytest.approx((100 + 30 + 60) / 3)
    assert summaries[0].mean == pytest.approx((100 + 20 + 40 + 10 + 90 + 80) / 6)  # over the episodes
    assert average_and_worst(summaries, features) == [
        "grid, 4 contexts: average 63.3, worst case 30.0 (torso_mass 0.1 kg, thigh_mass 4 kg); in 1 none is valid"
    ]


def test_contexts_in_words():
    features = make_environment("cartpole", features=["gravity", "length"]).features
    assert describe_context({"gravity": 4.9, "length": 0.35}, features) == "gravity 4.9 m/s², length 0.35 m"
    assert describe_context({"gravity": 9.8, "length": 1.0}, features) == "length 1 m"
    assert describe_context({"gravity": 9.8, "length": 0.5}, features) == "default context"


def test_mistakes_are_told_in_one_line(run, tmp_path):
    with pytest.raises(UserError, match=r"unknown region 'inside'.* training, interpolation, extrapolation"):
        evaluate(run, regions=("inside",))
    with pytest.raises(UserError, match="episodes is 0"):
        evaluate(run, episodes=0)
    with pytest.raises(UserError, match="no such run folder"):
        evaluate(tmp_path / "nowhere")
    save_config(make_config(), RunFolder(tmp_path / "untrained").config_file)
    with pytest.raises(UserError, match="no agent has been kept yet"):
        evaluate(tmp_path / "untrained")
    assert not (tmp_path / "untrained" / "evaluation.csv").exists()


def test_an_agent_of_other_observations_is_refused(tmp_path):
    folder = keep_agent(tmp_path / "changed", make_config())
    other = make_config(environment={"name": "pendulum", "num_envs": 2}, contexts={})
    save_config(other, RunFolder(folder).config_file)
    with pytest.raises(UserError, match="another configuration"):
        evaluate(folder)


def test_a_context_out_of_bounds_leaves_the_old_table(tmp_path):
    contexts = {"evaluation": {"regions": {"heavy": [{"gravity": 1e6}]}}}
    folder = keep_agent(tmp_path / "bounds", make_config(contexts=contexts))
    (folder / "evaluation.csv").write_text("old")
    with pytest.raises(UserError, match=r"gravity is 1000000"):
        evaluate(folder)
    assert (folder / "evaluation.csv").read_text() == "old"
