"""Scores, projections, tables and picture of synthetic latents."""

import csv
import functools
import io

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from rich.console import Console

from agents.dreaming.figure import STYLE
from agents.environments.base import Feature
from agents.latent_analysis.analysis import (
    ALL,
    BY_STEP,
    IMAGINED,
    POSTERIOR,
    SHUFFLED,
    Recorded,
    analyze,
    count_probes,
    principal_axes,
    project,
)
from agents.latent_analysis.collection import BOTH, CODE, DETER, HISTORY, OBSERVATION, STOCH, Collection, Latents
from agents.latent_analysis.figure import Captions, draw_analysis, make_figure
from agents.latent_analysis.tables import make_table, points_csv, scores_csv
from tests.agents.dreaming.drawn import check_readable, texts

EPISODES = 40
FEATURES = (
    Feature("gravity", "m/s^2", 9.8, 0.1, 100.0, "downward acceleration"),
    Feature("length", "m", 0.5, 0.05, 5.0, "half the length of the pole"),
    *(Feature(f"factor {name}", "1", 1.0, 0.1, 10.0, "a factor") for name in "abc"),
)


def make_collection(contexts, infers):
    """Latents that hold the first feature in deter, nothing in stoch, and forget by horizon."""
    random = np.random.default_rng(0)
    first = contexts[:, 0] / contexts[:, 0].std()

    def moments(episode, noise, names):
        count = len(episode)
        deter = first[episode, None] + noise * random.normal(size=(count, 2))
        stoch = random.normal(size=(count, 3))
        everything = {
            DETER: deter,
            STOCH: stoch,
            BOTH: np.concatenate([deter, stoch], 1),
            CODE: first[episode, None] + 0.01 * random.normal(size=(count, 4)),
            OBSERVATION: random.normal(size=(count, 2)),
            HISTORY: random.normal(size=(count, 8)),
        }
        values = {name: everything[name].astype(np.float32) for name in names if infers or name != CODE}
        return Latents(episode, np.full(count, 5), episode, values)

    every = np.arange(len(contexts))
    return Collection(
        moments(every.repeat(4), 0.3, (DETER, STOCH, BOTH, CODE, OBSERVATION, HISTORY)),
        {step: moments(every, 3.0 / (1 + step), (BOTH, CODE, OBSERVATION)) for step in (0, 1, 3, 10, 100)},
        {horizon: moments(every, 0.1 * horizon, (BOTH,)) for horizon in (0, 1, 5, 20, 45)},
    )


@functools.cache
def analysis_of(features, infers):
    contexts = np.random.default_rng(1).uniform(0.5, 1.5, (EPISODES // 2, features)).repeat(2, axis=0)
    regions = ["training", "training", "far", "far"] * (EPISODES // 4)
    recorded = Recorded(FEATURES[:features], contexts, regions, np.arange(EPISODES) // 2)
    collection, probes = make_collection(contexts, infers), []
    analysis = analyze(collection, recorded, 0, 0.95, lambda: probes.append(1))
    assert len(probes) == count_probes(collection)
    return analysis


def test_each_source_is_scored_for_what_it_holds():
    analysis = analysis_of(2, infers=True)
    r2 = {source: [s.fit.r2 for s in analysis.pick(POSTERIOR, source)] for source in (DETER, STOCH, BOTH, CODE)}
    # deter is the feature, of variance 1, and noise of variance 0.09 in each of two columns: 1 / (1 + 0.045).
    assert r2[DETER][0] == pytest.approx(1 / 1.045, abs=0.02) and r2[BOTH][0] == pytest.approx(1 / 1.045, abs=0.02)
    assert r2[CODE][0] > 0.99
    controls = [*r2[STOCH], r2[DETER][1], r2[CODE][1]]
    controls += [s.fit.r2 for name in (OBSERVATION, HISTORY, SHUFFLED) for s in analysis.pick(POSTERIOR, name)]
    assert max(controls) < 0.1
    by_horizon = [s for s in analysis.pick(IMAGINED, BOTH) if s.feature.name == "gravity"]
    assert [s.point for s in by_horizon] == [0, 1, 5, 20, 45]
    for score in by_horizon[:3]:
        assert score.fit.r2 == pytest.approx(1 / (1 + (0.1 * score.point) ** 2 / 2), abs=0.12)
    assert by_horizon[-1].fit.r2 < 0.3
    by_step = [s.fit.r2 for s in analysis.pick(BY_STEP, BOTH) if s.feature.name == "gravity"]
    assert by_step[0] < 0.4 and by_step[-1] > 0.98
    assert [s.contexts for s in by_horizon] == [20] * 5 and [s.moments for s in by_horizon] == [40] * 5


def test_regions_are_judged_apart():
    analysis = analysis_of(2, infers=True)
    parts = {region: analysis.pick(POSTERIOR, DETER, region)[0] for region in (ALL, "training", "far")}
    assert [parts[r].moments for r in parts] == [160, 80, 80] and [parts[r].contexts for r in parts] == [20, 10, 10]
    squares = [parts[r].fit.rmse ** 2 for r in parts]
    assert squares[0] == pytest.approx((squares[1] + squares[2]) / 2)


def test_components_are_those_of_a_singular_value_decomposition():
    values = (np.random.default_rng(2).normal(size=(50, 6)) * [5, 3, 1, 1, 1, 1] + 4).astype(np.float32)
    points, explained = project(principal_axes(values), values)
    centered = values.astype(np.float64) - values.astype(np.float64).mean(0)
    left, singular, right = np.linalg.svd(centered, full_matrices=False)
    np.testing.assert_allclose(np.abs(points), np.abs(left[:, :2] * singular[:2]), atol=1e-8)
    assert explained == pytest.approx(tuple(singular[:2] ** 2 / (singular**2).sum()))
    # Other states are shown in the same axes.
    other = values[:5] + 1
    moved, _ = project(principal_axes(values), other)
    signs = np.sign((points / (left[:, :2] * singular[:2]))[0])
    expected = (other - values.astype(np.float64).mean(0)) @ right[:2].T * signs
    np.testing.assert_allclose(moved, expected, atol=1e-5)


def test_a_single_dimension_has_a_single_component():
    values = np.arange(5, dtype=np.float32)[:, None]
    points, explained = project(principal_axes(values), values)
    assert np.abs(points[:, 0]).tolist() == [2, 1, 0, 1, 2] and not points[:, 1].any()
    assert explained == pytest.approx((1, 0))


def test_files_hold_every_score_and_point():
    analysis = analysis_of(2, infers=True)
    rows = list(csv.DictReader(io.StringIO(scores_csv(analysis).decode())))
    assert len(rows) == len(analysis.scores) == 2 * (6 * 3 + 1 + 5 + 3 * 5)
    for row, score in zip(rows, analysis.scores, strict=True):
        assert (row["states"], row["source"], row["region"]) == (score.states, score.source, score.region)
        assert row["point"] == ("" if score.states == POSTERIOR else str(score.point))
        assert float(row["r2"]) == score.fit.r2 and float(row["r2_high"]) == score.fit.high
        assert (row["feature"], row["unit"]) == (score.feature.name, score.feature.unit)
    points = list(csv.DictReader(io.StringIO(points_csv(analysis).decode())))
    assert [sum(p["states"] == states for p in points) for states in (POSTERIOR, IMAGINED, CODE)] == [160, 40, 160]
    assert {p["horizon"] for p in points if p["states"] == IMAGINED} == {"45"}
    third = analysis.projections[2]
    assert [float(p["axis2"]) for p in points[200:]] == third.points[:, 1].tolist()
    for point in points[:9]:
        episode = int(point["episode"])
        assert [float(point[f.name]) for f in FEATURES[:2]] == analysis.recorded.contexts[episode].tolist()
        assert point["region"] == analysis.recorded.regions[episode]


def test_the_table_has_a_row_for_each_source():
    analysis = analysis_of(2, infers=True)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(make_table(analysis, "Context", 0.9))
    text = console.export_text()
    first = analysis.pick(POSTERIOR, DETER)[0].fit
    for words in (
        "gravity [m/s^2]", "shuffled contexts", "last 5 observations", "imagined, 45 steps on",
        "posterior, 1 step in", "code, 100 steps in", "90% interval",
        f"{first.r2:.2f} ({first.low:.2f} to {first.high:.2f})", f"{first.rmse:.3g}",
    ):  # fmt: skip
        assert words in text, words


CAPTIONS = Captions("Context in the latents of cartpole, run tiny", ["What it sees. " * 12, "What is shown. " * 12])


@functools.cache
def layout(features, infers):
    with matplotlib.rc_context(STYLE):
        figure = make_figure(analysis_of(features, infers), CAPTIONS)
        FigureCanvasAgg(figure).draw()
    return figure


@pytest.mark.parametrize(("features", "infers"), [(1, False), (2, True), (5, True)])
def test_no_text_overlaps_another_or_leaves_the_picture(features, infers):
    figure = layout(features, infers)
    check_readable(figure)
    shown = min(features, 4)
    # Projections and a scale for each feature, three panels of R^2, and one of errors for each feature.
    assert len(figure.axes) == shown * ((3 if infers else 2) + 1) + 3 + (shown if infers else 0)
    assert any("factor" in text for text, _ in texts(figure)) == (features > 2)


def test_lines_are_the_scores():
    figure, analysis = layout(2, True), analysis_of(2, True)
    horizons, errors = figure.axes[9], figure.axes[11]
    expected = [s.fit.r2 for s in analysis.pick(IMAGINED, BOTH) if s.feature.name == "gravity"]
    np.testing.assert_array_equal(horizons.lines[0].get_ydata(), np.clip(expected, -0.5, 1))
    rmse = [s.fit.rmse for s in analysis.pick(BY_STEP, CODE) if s.feature.name == "gravity"]
    np.testing.assert_array_equal(errors.lines[0].get_ydata(), rmse)
    scatter = figure.axes[0].collections[0]
    colors = dict(zip(map(tuple, scatter.get_offsets().round(9).tolist()), scatter.get_array().tolist(), strict=True))
    projection = analysis.projections[0]
    for place, episode in zip(projection.points.round(9).tolist(), projection.latents.episode, strict=True):
        assert colors[tuple(place)] == analysis.recorded.contexts[episode, 0]


def test_the_picture_is_a_png_and_repeats():
    content = draw_analysis(analysis_of(1, False), CAPTIONS)
    pixels = matplotlib.image.imread(io.BytesIO(content), format="png")
    assert pixels.shape[1] == 1400 and pixels.std() > 0.05
    assert draw_analysis(analysis_of(1, False), CAPTIONS) == content
