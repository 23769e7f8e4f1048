"""Counterfactual dreams of a kept agent: files, numbers, what is printed, and mistakes."""

import csv
import io
import math
from functools import partial

import matplotlib
import numpy as np
import pytest
from kept_run import ENVIRONMENT, keep_agent, make_config
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from agents.counterfactual import counterfactual, endings_line
from agents.dreaming.counterfactual_examples import example_swaps
from agents.dreaming.counterfactual_figure import make_counterfactual_figure
from agents.dreaming.counterfactuals import Endings
from agents.dreaming.figure import STYLE
from agents.environments import ENVIRONMENTS, ContextualEnv
from agents.errors import UserError
from agents.run_folder import RunFolder
from tests.agents.dreaming.drawn import check_readable, texts
from tests.agents.pixel_world import SIZE, Dot

SMALL = {
    "training": {"distribution": "round_robin", "ranges": {"gravity": [4.9, 14.7]}, "count": 4},
    "evaluation": {"regions": {"far": [{"gravity": 19.6, "length": 0.2}]}},
}
# Three contexts: the default one and both of these.
TINY = {"training": {"distribution": "fixed", "contexts": [{"gravity": 4.9}, {"gravity": 14.7}]}}
FILES = ["counterfactual.gif", "counterfactual.png", "errors.csv", "grid.csv", "scores.csv"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = keep_agent(tmp_path_factory.mktemp("runs") / "tiny", make_config(contexts=SMALL))
    return folder, counterfactual(folder, episodes=2, horizon=7)


def read(folder, name):
    return list(csv.DictReader(io.StringIO((folder / "counterfactual" / f"{name}.csv").read_text())))


def said(capsys):
    return " ".join(capsys.readouterr().out.split())


def test_files_hold_every_pair_and_horizon(run):
    folder, result = run
    assert RunFolder(folder).counterfactual == folder / "counterfactual"
    assert sorted(path.name for path in (folder / "counterfactual").iterdir()) == FILES
    assert (folder / "counterfactual" / "counterfactual.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    # Gravity has 4 values and length 2, the sources are at gravity 4.9, 9.8 and 14.7 of the default length.
    assert len(result.grid.contexts) == 8 and len(result.grid.sources) == 3 and len(result.swaps) == 3 * 7
    errors, grid = read(folder, "errors"), read(folder, "grid")
    pair = ["source_gravity", "source_length", "target_gravity", "target_length"]
    assert len({tuple(row[name] for name in pair) for row in errors}) == 21 == len(grid)
    assert {row["horizon"] for row in errors} == {str(horizon) for horizon in range(1, 8)}
    assert {row["source_length"] for row in grid} == {"0.5"} and {row["horizon"] for row in grid} == {"7"}
    assert all(row["swapped_episodes"] == "2" for row in grid)


def test_scores_are_those_of_the_errors(run):
    folder, _ = run
    errors, scores = read(folder, "errors"), read(folder, "scores")
    for horizon in (1, 5, 7):
        (whole,) = (
            row
            for row in scores
            if (row["key"], row["group"], row["horizon"]) == ("observation", "all swaps", str(horizon))
        )
        upto = [row for row in errors if int(row["horizon"]) <= horizon]
        squares = {
            name: sum(int(row["episodes"]) * float(row[name]) ** 2 for row in upto)
            for name in ("true_counterfactual", "swapped_counterfactual", "default_counterfactual", "real", "moved")
        }
        steps = sum(int(row["episodes"]) for row in upto)
        skill = 1 - squares["swapped_counterfactual"] / squares["true_counterfactual"]
        assert float(whole["skill"]) == pytest.approx(skill)
        default_skill = 1 - squares["swapped_counterfactual"] / squares["default_counterfactual"]
        assert float(whole["default_skill"]) == pytest.approx(default_skill)
        assert float(whole["distance"]) == pytest.approx(math.sqrt(squares["moved"] / squares["real"]))
        assert float(whole["real"]) == pytest.approx(math.sqrt(squares["real"] / steps))
        assert float(whole["skill_low"]) <= skill <= float(whole["skill_high"])
        assert whole["swapped_episodes"] == "42"
    names = {row["name"] for row in scores}
    assert {"all observation dimensions", "pole angle", "cart velocity", "reward", "continue"} == names - {
        "cart position",
        "pole angular velocity",
    }
    assert {row["horizon"] for row in scores if row["name"] == "pole angle"} == {"7"}


def test_the_swapped_dream_is_of_the_swapped_context(run):
    _, result = run
    by_pair = {(swap.source, swap.target): swap for swap in result.swaps}
    default = result.grid.default
    for swap in result.swaps:
        assert not np.array_equal(swap.dreamt["true"], swap.dreamt["swapped"])
        np.testing.assert_array_equal(swap.dreamt["true"][:, :5], swap.dreamt["swapped"][:, :5])
        same = by_pair.get((swap.source, default))
        expected = swap.dreamt["true"] if same is None else same.dreamt["swapped"]
        np.testing.assert_array_equal(swap.dreamt["default"], expected)


def test_files_repeat_byte_for_byte(run, capsys):
    folder, _ = run
    before = {name: (folder / "counterfactual" / name).read_bytes() for name in FILES}
    counterfactual(folder, episodes=2, horizon=7)
    assert {name: (folder / "counterfactual" / name).read_bytes() for name in FILES} == before
    printed = said(capsys)
    assert "Counterfactual dreams of tiny" in printed and "one outside" in printed
    assert "gravity alone" in printed and "counterfactual.png" in printed


def check_picture(result, words):
    """Draw the picture and check that it can be read; return what is written in it."""
    with matplotlib.rc_context(STYLE):
        figure = make_counterfactual_figure(result, words, "Counterfactual dreams of some world", "A note")
        FigureCanvasAgg(figure).draw()
    check_readable(figure)
    return {text for text, _ in texts(figure)}


def test_the_picture_can_be_read(run):
    _, result = run
    words = [f"gravity {c['gravity']:g} m/s², length {c['length']:g} m" for c in result.grid.contexts]
    written = check_picture(result, words)
    singles = result.singles(result.quantities[0])
    for swap, group in zip(result.swaps, singles, strict=True):
        shown = f"{group.value('skill', 7):.2f}".replace("-", "−")
        assert written & {shown, f"({shown})", "<−10", "(<−10)"}, (swap.source, swap.target)
    assert "A note." in written and f"from {words[result.grid.default]}" in written


def test_the_video_shows_both_worlds_beside_the_trajectories(run):
    folder, result = run
    examples = example_swaps(result)
    shown = result.swaps[examples[len(examples) // 2]].counterfactual[0, :, 0]
    with Image.open(folder / "counterfactual" / "counterfactual.gif") as file:
        frames = []
        for index in range(file.n_frames):
            file.seek(index)
            frames.append((file.info["duration"], np.array(file.convert("RGB")).astype(int)))
    assert sum(duration for duration, _ in frames) == 70 * ((~np.isnan(shown)).sum() + 10)
    first, last = frames[0][1], frames[-1][1]
    assert first.shape[1] == 720 + 244
    worlds = first[18:262, :244], first[280:524, :244]
    assert np.abs(worlds[0] - worlds[1]).max() == 0  # the same state, framed green
    frames_differ = [
        np.abs(np.array(color) - frame[18, 0]).max() for color, frame in (((0, 255, 0), first), ((255, 0, 0), last))
    ]
    assert max(frames_differ) < 30  # but for the palette
    assert np.abs(last[280:524, 2:242] - last[18:262, 2:242]).max() > 0
    drawn = [(np.abs(frame[60:, 244:] - 255).sum(-1) > 100).sum() for _, frame in frames]
    assert drawn[-1] > drawn[0]


def test_agents_that_do_not_see_the_context(tmp_path, capsys):
    for preset in ("hidden", "concat"):
        result = counterfactual(keep_agent(tmp_path / preset, make_config(context=preset, contexts=TINY)), 2, 6)
        assert not result.sees_context
        for group in result.groups(result.quantities[0]):
            skill, cosine = group.score("skill", 6), group.score("direction", 6)
            assert (skill.value, skill.low, skill.high, cosine.value) == (0, 0, 0, 0)
        assert "a swap changes nothing in its dreams, and its skill and direction are 0" in said(capsys)


def test_an_agent_that_infers_the_context(tmp_path, capsys):
    folder = keep_agent(tmp_path / "inferred", make_config(context="inferred", contexts=TINY))
    result = counterfactual(folder, 2, 6)
    assert result.sees_context
    default = [swap for swap in result.swaps if swap.target == result.grid.default]
    assert default
    for swap in default:  # the same code, from the same episodes in the default context
        np.testing.assert_array_equal(swap.dreamt["default"], swap.dreamt["swapped"])
        assert not np.array_equal(swap.dreamt["true"], swap.dreamt["swapped"])
    assert "inferring 6 episodes" in said(capsys)


def test_images_are_dreamt_and_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(ENVIRONMENTS, "dot", partial(Dot, "image"))
    worlds = {"training": {"distribution": "fixed", "contexts": [{"drift": -1.5}, {"drift": 1.5}]}}
    config = make_config(environment={"name": "dot", "num_envs": 2, "time_limit": 20}, contexts=worlds)
    folder = keep_agent(tmp_path / "dot", config)
    result = counterfactual(folder, 2, 6)
    assert [quantity.key for quantity in result.quantities] == ["observation/image"]
    assert result.grid.axes == {"drift": (-1.5, 0.5, 1.5)} and len(result.swaps) == 6
    names = sorted(path.name for path in (folder / "counterfactual").iterdir())
    assert names == ["counterfactual.png", "errors.csv", "grid.csv", "image.gif", "scores.csv"]
    with Image.open(folder / "counterfactual" / "image.gif") as file:
        assert file.size == (2 * 2 * (SIZE + 4), 2 * (5 * SIZE + 4))  # two targets; five rows, twice as large
    # The dot is a 4 x 1 patch that moves by the drift in either world: pixels differ as soon as the columns do.
    swap = result.swaps[0]
    for name, shown in swap.shown["observation/image"].items():
        if name in ("happened", "counterfactual"):
            assert ((shown[..., 0] == 255).sum((1, 2)) == 4).all()
    happened, other = (swap.shown["observation/image"][name] for name in ("happened", "counterfactual"))
    apart = (happened != other).any((1, 2, 3))
    assert not apart[:5].any() and apart[5:].all()  # 2 or 3 pixels a step
    real = ((happened[5:].astype(float) - other[5:]) / 255) ** 2
    np.testing.assert_allclose(swap.images["observation/image"][0, :, -3], real.mean((1, 2, 3)), rtol=1e-5)
    assert "intensities" in said(capsys)
    written = check_picture(result, [f"drift {context['drift']:g} px" for context in result.grid.contexts])
    assert {"skill, steps 1–6: from the row's context to the column's", "what happened"} <= written


def test_ends_of_swapped_worlds_are_told():
    told = Endings(40, 3, {"true": 0.9, "swapped": 0.25, "default": 0.5}, {"true": 1.0, "swapped": 0.99, "default": 1})
    line = endings_line(told)
    assert line.startswith("In 3 of 40 swapped episodes") and "0.25 in the swapped dream" in line and "0.99" in line
    assert "No swapped world ended" in endings_line(Endings(40, 0, told.at_end, told.before))


def test_mistakes_are_told_in_one_line(run, tmp_path, monkeypatch):
    folder, _ = run
    with pytest.raises(UserError, match="episodes is 0"):
        counterfactual(folder, episodes=0)
    with pytest.raises(UserError, match="horizon is 0"):
        counterfactual(folder, horizon=0)
    with pytest.raises(UserError, match="no such run folder"):
        counterfactual(tmp_path / "nowhere")
    one = keep_agent(tmp_path / "one", make_config(contexts={}))
    with pytest.raises(UserError, match="one: trained and judged in one context only"):
        counterfactual(one)
    short = keep_agent(tmp_path / "short", make_config(contexts=SMALL, environment={**ENVIRONMENT, "time_limit": 4}))
    with pytest.raises(UserError, match="every episode is over before step 5"):
        counterfactual(short, 2, 4)
    monkeypatch.setattr(ContextualEnv, "live_context", False)
    with pytest.raises(UserError, match="cartpole") as refused:
        counterfactual(folder)
    assert "\n" not in str(refused.value)
    assert not (one / "counterfactual").exists() and not (short / "counterfactual").exists()
