"""The numbers of a report against the returns that the runs were given, and against `agents.statistics`."""

import html
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from agents.evaluation.comparison import split_regions, verdicts
from agents.evaluation.results import read_scores
from agents.references import Reference, references_csv
from agents.seeding import numpy_generator
from agents.statistics import (
    difference_of_means,
    interquartile_mean,
    probability_of_improvement,
    seed_interval,
)
from tests.tuning.report_runs import REGIONS, make_config, make_run, make_runs, score
from tuning.report import report
from tuning.reporting.collect import collect
from tuning.reporting.numbers import find_numbers

AGENTS = ("crssm", "hidden", "concat")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three agents of four judged seeds each; not to be changed."""
    return make_runs(tmp_path_factory.mktemp("runs"), {label: label for label in AGENTS}, seeds=4)


@pytest.fixture(scope="module")
def page(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return report([runs], tmp_path_factory.mktemp("page") / "report.html", reference="hidden").read_text()


def given(agent: int, region: str, seeds: int = 4) -> np.ndarray:
    """The mean returns [R, T] that an agent's runs were given."""
    return np.array([[score(agent, seed, **context) for context in REGIONS[region]] for seed in range(seeds)])


def table(page: str, caption: str) -> list[list[tuple[str, str]]]:
    """The cells of a table, row by row: what each shows, and what is shown small below it."""
    body = page.split(f"<caption>{caption}")[1].split("<tbody>")[1].split("</tbody>")[0]
    cells = r"<t[hd][^>]*>(?:<svg.*?</svg>)?([^<]*)(?:<small>([^<]*)</small>)?</t[hd]>"
    rows = [re.findall(cells, row) for row in body.split("<tr>")[1:]]
    return [[(html.unescape(text).strip(), small) for text, small in row] for row in rows]


def shown(value: float, digits: int = 1, sign: str = "") -> str:
    return f"{value:{sign}.{digits}f}".replace("-", "−")


@pytest.mark.parametrize("region", REGIONS)
def test_the_table_of_a_region(region: str, page: str) -> None:
    rows = table(page, f"Returns in {region}")
    assert [row[0][0] for row in rows] == ["concat", "crssm", "hidden"]
    base = given(1, region)
    for row in rows:
        index = AGENTS.index(row[0][0])
        scores = given(index, region)
        assert row[1][0] == "4"
        for name, cell, value in (
            ("IQM", row[2], scipy.stats.trim_mean(scores.reshape(-1), 0.25)),
            ("mean", row[3], scores.mean()),
            ("median", row[4], np.median(scores.mean(0))),
        ):
            assert cell[0] == shown(value), name
        interval = seed_interval(scores, interquartile_mean, numpy_generator(0, f"compare/{region}"))
        assert row[2][1] == f"{shown(interval[0])} to {shown(interval[1])}"
        assert row[5][0] == shown(scores.mean(0).min())
        if row[0][0] == "hidden":
            assert [cell[0] for cell in row[6:]] == ["reference", "–"]
            continue
        difference = difference_of_means(scores, base)
        assert row[6][0] == shown(scores.mean() - base.mean(), sign="+")
        assert row[6][1] == f"{shown(difference.low, sign='+')} to {shown(difference.high, sign='+')}"
        assert row[7][0] == shown(float(probability_of_improvement(scores, base)), 2)


def test_the_interval_is_that_over_whole_runs(page: str) -> None:
    """Against all 256 equally likely draws of four runs."""
    means = given(0, "extrapolation").mean(1)
    draws = np.array([np.mean(draw) for draw in itertools.product(means, repeat=4)])
    row = next(row for row in table(page, "Returns in extrapolation") if row[0][0] == "crssm")
    low, high = map(float, row[3][1].split(" to "))
    assert np.quantile(draws, 0.01) <= low <= np.quantile(draws, 0.04) + 0.05
    assert np.quantile(draws, 0.96) - 0.05 <= high <= np.quantile(draws, 0.99)


def test_verdicts_are_those_of_dreamtune_compare(page: str, runs: Path) -> None:
    regions, _ = split_regions(read_scores([runs]))
    rows = table(page, "AdaStop&#39;s verdicts")
    assert [row[0][0] for row in rows] == ["concat and crssm", "concat and hidden", "crssm and hidden"]
    for place, region in enumerate(regions, start=1):
        for row, verdict in zip(rows, verdicts(region, group=4, interims=1), strict=True):
            assert row[place][1].startswith(f"p = {verdict.comparison.p_value:.3f}")
    assert [row[2][0] for row in rows] == ["crssm is better", "hidden is better", "crssm is better"]  # no overlap


def test_the_overview_has_the_means(page: str) -> None:
    rows = table(page, "Mean return by region")
    for row in rows:
        index = AGENTS.index(row[0][0])
        everything = np.concatenate([given(index, region) for region in REGIONS], axis=1)
        means = [given(index, region).mean() for region in REGIONS] + [everything.mean()]
        assert [cell[0] for cell in row[1:]] == [shown(mean) for mean in means]


def test_fields_of_the_maps(page: str) -> None:
    titles = [html.unescape(title) for title in re.findall(r"<title>(gravity[^<]*)</title>", page)]
    contexts = [context for region in REGIONS.values() for context in region]
    assert len(titles) == len(contexts) * (3 + 2)  # three maps of returns, two of differences
    values = given(0, "extrapolation")[:, 0]
    seeds = ", ".join(f"{seed}: {shown(value)}" for seed, value in enumerate(values))
    assert f"gravity 2.45 m/s², length 0.2 m: {shown(values.mean())} (seeds {seeds})" in titles
    mean, base = values.mean(), given(1, "extrapolation")[:, 0].mean()
    assert f"gravity 2.45 m/s², length 0.2 m: +30.0 ({shown(mean)} against {shown(base)})" in titles


def test_all_means_by_context(page: str) -> None:
    rows = table(page, "Mean return over episodes and seeds, by context")
    assert len(rows) == 8
    for row, context in zip(rows, [one for region in REGIONS.values() for one in region], strict=True):
        assert [cell[0] for cell in row[1:3]] == [f"{value:g}" for value in context.values()]
        found = dict(zip(("concat", "crssm", "hidden"), (cell[0] for cell in row[3:]), strict=True))
        for index, label in enumerate(AGENTS):
            assert found[label] == shown(np.mean([score(index, seed, **context) for seed in range(4)]))


def test_profiles(runs: Path) -> None:
    collected = collect([runs])
    numbers = find_numbers(collected.scores, collected.agents, collected.agents[0], None)
    extrapolation = next(judged for judged in numbers.regions if judged.region.name == "extrapolation")
    everything = np.concatenate([given(index, region).reshape(-1) for index in range(3) for region in REGIONS])
    assert extrapolation.thresholds[[0, -1]] == pytest.approx([everything.min(), everything.max()])
    for one in extrapolation.standings:
        scores = given(AGENTS.index(one.agent.label), "extrapolation")
        expected = [(scores > level).mean() for level in extrapolation.thresholds]
        np.testing.assert_allclose(one.profile[0], expected)
        assert np.all(one.profile[1][0] <= one.profile[0]) and np.all(one.profile[0] <= one.profile[1][1])


def test_normalized_scores_have_an_optimality_gap(runs: Path, tmp_path: Path) -> None:
    """Against references by hand: random returns 20 everywhere, experts 420."""
    file = tmp_path / "references.csv"
    found = [
        Reference(region, place, context, policy, "by hand", 1, 1, value, np.nan, np.nan)
        for region, contexts in REGIONS.items()
        for place, context in enumerate(contexts)
        for policy, value in (("random", 20.0), ("expert", 420.0))
    ]
    file.write_bytes(references_csv(found))
    page = report([runs], tmp_path / "report.html", reference="hidden", references=file).read_text()
    rows = table(page, "Normalized scores in extrapolation")
    for row in rows:
        scores = (given(AGENTS.index(row[0][0]), "extrapolation") - 20) / 400
        assert row[3][0] == shown(scores.mean(), 3)
        assert row[5][0] == shown(1 - np.minimum(scores, 1).mean(), 3)
    assert f"--references {file}" in html.unescape(page)


def test_agents_judged_in_their_own_training_contexts_are_not_compared(tmp_path: Path) -> None:
    """Where training contexts differ, so do the tasks: the region is left out, and that is said."""
    worlds = {
        "several": [{"gravity": 5.0, "length": 0.4}, {"gravity": 14.0, "length": 0.7}],
        "one": [{"gravity": 9.8, "length": 0.5}],
    }
    for label, contexts in worlds.items():
        for seed in (0, 1):
            make_run(
                tmp_path / label / f"seed{seed}",
                make_config(seed),
                returns=lambda context, seed=seed: 10 * context["gravity"] + seed,
                regions={"training": contexts},
            )
    page = report([tmp_path], tmp_path / "report.html").read_text()
    assert "Returns in training" not in page and 'id="regions"' in page
    assert "there is no context that every run has a valid episode in" in page
    assert "Mean return by gravity and length" in page


def test_a_context_without_a_valid_episode_is_in_no_number(tmp_path: Path) -> None:
    here = make_runs(tmp_path, {"crssm": "crssm", "hidden": "hidden"}, seeds=2)
    file = here / "hidden" / "seed1" / "evaluation.csv"
    header, *rows = file.read_text().splitlines()
    marked = [row + (",1" if row.startswith("extrapolation,3,") else ",0") for row in rows]
    file.write_text("\n".join([header + ",invalid", *marked, ""]))
    page = report([here], tmp_path / "report.html").read_text()
    assert "extrapolation: 1 of 7 contexts left out, where a run has no valid episode" in page
    assert "2 judged episodes came to an invalid step and are in no mean" in page
    kept = [place for place in range(len(REGIONS["extrapolation"])) if place != 3]
    for index, row in enumerate(table(page, "Returns in extrapolation")):
        assert row[3][0] == shown(given(index, "extrapolation", 2)[:, kept].mean())
