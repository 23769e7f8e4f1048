"""`dreamtune compare` on written runs: regions, normalization, narrowing, verdicts, the grid and every mistake."""

import csv
import io
import os

import numpy as np
import pytest

from agents.compare import compare
from agents.configuration import RunConfig, save_config
from agents.environments.base import Feature
from agents.errors import UserError
from agents.evaluation.comparison import OVERALL, context_key, normalize, split_regions
from agents.evaluation.episodes import Job
from agents.evaluation.results import Score, read_scores
from agents.evaluation.rollout import Episode
from agents.evaluation.summary import write_csv
from agents.run_folder import RunFolder
from agents.statistics import interquartile_mean, median, optimality_gap, stratified_interval

FEATURES = (Feature("gravity", "m/s^2", 9.8, 0.1, 100.0, ""), Feature("length", "m", 0.5, 0.05, 5.0, ""))
CONTEXTS = {
    "near": [{"gravity": 4.9}, {"length": 0.7}, {}],
    "far": [{"gravity": 19.6, "length": 1.0}, {"length": 1.0}],
}


def returns(agent, seed, region, number):
    """What a run reaches in a context: distinct, and the good agent's above the bad one's everywhere."""
    return {"good": 400.0, "bad": 100.0, "fair": 390.0}[agent] + 10 * seed + 3 * number + (region == "near")


def write_run(folder, agent, seed, contexts=CONTEXTS, skip=()):
    run = RunFolder(folder / agent / f"seed{seed}")
    environment = {"name": "cartpole", "features": ["gravity", "length"]}
    save_config(RunConfig.model_validate({"name": "x", "seed": seed, "environment": environment}), run.config_file)
    episodes = [
        Episode(Job(region, number, context, 1), returns(agent, seed, region, number), 9, {}, (region, number) in skip)
        for region, listed in contexts.items()
        for number, context in enumerate(listed)
    ]
    run.evaluation.write_bytes(write_csv(episodes, FEATURES))
    return run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    for agent in ("good", "bad"):
        for seed in range(4):
            write_run(tmp_path / "runs", agent, seed)
    return tmp_path / "runs"


def test_statistics_by_region(folder, capsys):
    summaries = {summary.region.name: summary for summary in compare([folder], gamma=410.0)}
    assert list(summaries) == ["near", "far", OVERALL]
    near = np.array([[returns("good", seed, "near", number) for number in range(3)] for seed in range(4)])
    found = summaries["near"].estimates["good"]
    assert found["IQM"].value == pytest.approx(float(interquartile_mean(near)))
    assert found["mean"].value == pytest.approx(near.mean())
    assert found["median"].value == pytest.approx(float(median(near)))
    assert found["optimality gap"].value == pytest.approx(float(optimality_gap(near, 410.0)))
    # Whole runs are resampled: the mean's interval is that of the runs' means, 401 + 3 + {0, 10, 20, 30}.
    assert 404 <= found["mean"].low < 411 and 427 < found["mean"].high <= 434
    improvement, difference = summaries["near"].against["good"]
    assert (improvement.value, improvement.low, improvement.high) == (1.0, 1.0, 1.0)
    assert difference.mean == pytest.approx(300.0)
    # Welch by hand: both variances 500 / 3, error sqrt(2 * 500 / 12), 6 degrees of freedom: t = 2.4469.
    assert difference.high - difference.mean == pytest.approx(2.4469 * np.sqrt(1000 / 12), rel=1e-4)
    assert summaries[OVERALL].region.scores["bad"].shape == (4, 5)
    (verdict,) = summaries[OVERALL].verdicts
    assert (verdict.comparison.verdict, verdict.seeds) == ("worse", None)  # bad, the first, against good
    assert verdict.comparison.p_value == pytest.approx(2 / 70)
    printed = capsys.readouterr().out
    assert "good is better" in printed and "P(agent > bad)" in printed and "can never" not in printed
    tables = [line for line in printed.splitlines() if not line.startswith(("- ", "The "))]
    assert max(map(len, tables)) <= 100


def test_three_seeds_can_never_tell(folder, capsys):
    for agent in ("good", "bad"):
        (folder / agent / "seed3" / "evaluation.csv").unlink()
    (verdict,) = compare([folder])[-1].verdicts
    assert verdict.comparison.verdict == "alike"
    assert verdict.seeds == 4  # the difference is so large that power asks for fewer
    printed = capsys.readouterr().out
    assert "3 seeds of each agent can never tell two agents apart at alpha 0.05" in printed
    assert "at least 4 can" in printed
    assert "not judged yet, left out" in printed and "bad/seed3" in printed.replace("\n", "")


def test_seeds_for_a_small_difference(folder):
    for seed in range(4):
        write_run(folder, "fair", seed)
    found = {(one.first, one.second): one for one in compare([folder])[-1].verdicts}
    assert found["fair", "good"].comparison.verdict == "alike"
    # Difference 10, variances 500 / 3 each: n = (1000 / 3) (1.95996 + 0.84162)^2 / 100 = 26.2.
    assert found["fair", "good"].seeds == 27
    assert found["bad", "good"].comparison.verdict == "worse"


def test_planned_looks(folder, capsys):
    (verdict,) = compare([folder], interims=2, group=4)[-1].verdicts
    # 2 / 70 = 0.029 exceeds 0.05 / 2, so the first look cannot tell yet.
    assert (verdict.comparison.verdict, verdict.comparison.interim) == ("open", 1)
    assert "not yet" in capsys.readouterr().out
    (verdict,) = compare([folder], interims=2, group=9)[-1].verdicts
    assert verdict.comparison.interim == 0


def test_runs_that_do_not_belong_together_are_told(folder, capsys):
    run = RunFolder(sorted(folder.rglob("config.yaml"))[0].parent)
    note = run.checkpoints / "best" / "best.json"
    note.parent.mkdir(parents=True)
    note.write_text("{}")
    os.utime(run.evaluation, (100, 100))
    config = run.config()
    agent = config.agent.model_copy(update={"horizon": 7})
    save_config(config.model_copy(update={"agent": agent}), run.config_file)
    compare([folder])
    printed = " ".join(capsys.readouterr().out.split())
    assert "judged before the present agent was kept" in printed and str(run.path.name) in printed
    assert f"the runs of {run.path.parent.name} differ in more than their seed: agent.horizon" in printed


def test_grid(folder, tmp_path):
    compare([folder])
    rows = list(csv.reader(io.StringIO((folder / "scores.csv").read_text())))
    assert rows[0] == ["agent", "seed", "region", "gravity", "length", "mean_return"]
    assert rows[1] == ["bad", "0", "near", "4.9", "0.5", "101.0"]
    assert len(rows) == 1 + 2 * 4 * 5
    compare([folder], grid=tmp_path / "other" / "grid.csv")
    assert (tmp_path / "other" / "grid.csv").read_text() == (folder / "scores.csv").read_text()


def test_along_a_feature(folder):
    regions = {summary.region.name: summary.region for summary in compare([folder], along="length")}
    assert regions["near"].contexts == [{"gravity": 9.8, "length": 0.7}, {"gravity": 9.8, "length": 0.5}]
    assert regions["far"].contexts == [{"gravity": 9.8, "length": 1.0}]
    assert regions["far"].scores["good"][:, 0].tolist() == [403.0, 413.0, 423.0, 433.0]
    with pytest.raises(UserError, match="--along wind: no such feature; valid: gravity, length"):
        compare([folder], along="wind")


def test_stratified_as_rliable(folder):
    summary = compare([folder], stratified=True)[-1]
    scores = summary.region.scores["good"]
    wide = compare([folder])[-1].estimates["good"]["mean"]
    narrow = summary.estimates["good"]["mean"]
    low, high = stratified_interval(scores, lambda x: x.mean(axis=(1, 2)), np.random.default_rng(0), resamples=20_000)
    assert narrow.high - narrow.low == pytest.approx(high - low, rel=0.08)
    assert wide.high - wide.low > 1.7 * (narrow.high - narrow.low)  # five contexts that vary as one: sqrt(5)


def write_references(path, random, expert):
    lines = ["region,context_id,gravity,length,policy,made_by,seeds,episodes,mean,low,high"]
    for region, listed in CONTEXTS.items():
        for number, context in enumerate(listed):
            where = f"{region},{number},{context.get('gravity', 9.8)},{context.get('length', 0.5)}"
            lines += [f"{where},random,x,1,1,{random},,", f"{where},expert,x,1,1,{expert},,"]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_normalized(folder, tmp_path):
    path = write_references(tmp_path / "references.csv", 20.0, 420.0)
    summary = compare([folder], references=path)[1]
    expected = [[(returns("good", seed, "far", number) - 20) / 400 for number in range(2)] for seed in range(4)]
    np.testing.assert_allclose(summary.region.scores["good"], expected)
    assert summary.estimates["good"]["optimality gap"].value == pytest.approx(float(optimality_gap(expected, 1.0)))
    path.write_text("\n".join(path.read_text().splitlines()[:-2]) + "\n")
    with pytest.raises(UserError, match="no context gravity 9.8, length 1 .region far"):
        compare([folder], references=path)


def test_contexts_without_a_valid_episode_are_left_out_for_all(folder, capsys):
    write_run(folder, "good", 2, skip=[("near", 1)])
    region = compare([folder])[0].region
    assert len(region.contexts) == 2 and region.scores["bad"].shape == (4, 2)
    assert "near: 1 of 3 contexts left out" in capsys.readouterr().out


def test_training_contexts_count_if_they_are_the_same_for_all(tmp_path):
    same = {**CONTEXTS, "training": [{"gravity": 7.0}]}
    for agent in ("good", "bad"):
        write_run(tmp_path, agent, 0, same)
    regions, notes = split_regions(read_scores([tmp_path]))
    assert [(region.name, len(region.contexts)) for region in regions] == [
        ("near", 3), ("far", 2), ("training", 1), (OVERALL, 5),
    ]  # fmt: skip
    assert notes == []
    write_run(tmp_path, "bad", 0, {**CONTEXTS, "training": [{}]})
    regions, notes = split_regions(read_scores([tmp_path]))
    assert [region.name for region in regions] == ["near", "far", OVERALL]
    assert "different contexts" in notes[0]


def test_normalized_training_contexts_may_lack_references():
    inside = Score("a", 0, "near", 0, {"length": 1.0}, 30.0, 1)
    training = Score("a", 0, "training", 0, {"length": 2.0}, 30.0, 1)
    (score,) = normalize([inside, training], {context_key({"length": 1.0}): (10.0, 50.0)})
    assert (score.region, score.mean_return) == ("near", 0.5)


def test_one_agent_and_one_seed(tmp_path, capsys):
    write_run(tmp_path, "good", 0)
    summary = compare([tmp_path])[0]
    assert summary.against == {} and summary.verdicts == []
    assert np.isnan(summary.estimates["good"]["IQM"].low)
    printed = capsys.readouterr().out
    assert "needs 2 seeds" in printed and "AdaStop" not in printed


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reference": "best"}, "--reference best: no such agent; valid: bad, good"),
        ({"interims": 0}, "--interims and --group must be at least 1"),
        ({"group": 0}, "--interims and --group must be at least 1"),
    ],
)
def test_mistakes(folder, settings, message):
    with pytest.raises(UserError, match=message):
        compare([folder], **settings)
