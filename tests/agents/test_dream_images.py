"""Dreams of a kept agent that sees pictures: files, their numbers, and what is printed."""

import csv
import io
from functools import partial

import numpy as np
import pytest
from kept_run import keep_agent, make_config
from PIL import Image

from agents.dream import dream
from agents.environments import ENVIRONMENTS
from tests.agents.pixel_world import SIZE, Dot

ENVIRONMENT = {"num_envs": 2, "time_limit": 20}
WORLDS = {"training": {"distribution": "fixed", "contexts": [{"drift": -1.5}, {"drift": 0.0}, {"drift": 1.5}]}}


@pytest.fixture
def keep(monkeypatch, tmp_path):
    """Keep an agent that sees the keys given; return its run's folder."""

    def make(*keys, contexts=WORLDS, **settings):
        monkeypatch.setitem(ENVIRONMENTS, "dot", partial(Dot, *keys))
        environment = {**ENVIRONMENT, **settings, "name": "dot"}
        config = make_config(environment=environment, contexts=contexts)
        return keep_agent(tmp_path / "-".join(keys), config)

    return make


def read(folder, name):
    return list(csv.DictReader(io.StringIO((folder / "dream" / f"{name}.csv").read_text())))


def gif(path):
    """Frames of a video, uint8 [F, V, W, 3], and the sum of their milliseconds."""
    frames, duration = [], 0
    with Image.open(path) as file:
        for index in range(file.n_frames):
            file.seek(index)
            frames.append(np.array(file.convert("RGB")))
            duration += file.info["duration"]
    return np.stack(frames), duration


def test_pictures_alone(keep, capsys):
    folder = keep("image")
    errors = dream(folder, episodes=6, horizon=10)
    names = sorted(path.name for path in (folder / "dream").iterdir())
    pictures = ["dream.png", "image.png", "image_swapped.gif", "image_true.gif"]
    assert names == sorted([*pictures, "dream.csv", "episodes.csv", "errors.csv"])
    assert [(e.channel.key, e.context) for e in errors] == [("observation/image", c) for c in ("true", "swapped")]
    assert {row["key"] for row in read(folder, "dream")} == {"reward", "continue"}
    rows = [row for row in read(folder, "errors") if row["key"] == "observation/image"]
    assert [(row["context"], row["horizon"]) for row in rows] == (
        [(c, str(h)) for c in ("true", "swapped") for h in range(1, 11)]
    )
    for row, value in zip(rows[:10], errors[0].mean, strict=True):
        assert float(row["mean"]) == value and 0 < value < 1 and row["episodes"] == "6" and row["dimension"] == ""
    printed = capsys.readouterr().out
    assert "image (mean squared error per pixel)" in printed and "image_*.gif" in printed.replace("\n", "")
    assert "observation dimensions" not in printed


def test_the_videos_show_what_happened_and_dreams_of_it(keep):
    folder = keep("image")
    dream(folder, episodes=8, horizon=10)
    true, duration = gif(folder / "dream" / "image_true.gif")
    swapped, _ = gif(folder / "dream" / "image_swapped.gif")
    assert duration == 70 * (15 + 10) and true.shape[1:] == (2 * (3 * SIZE + 4), 6 * 2 * (SIZE + 4), 3)
    assert (true[:15, 0, 0] == [[0, 255, 0]] * 5 + [[255, 0, 0]] * 10).all()
    truth, dreamt = slice(4, 4 + 2 * SIZE), slice(4 + 2 * SIZE, 4 + 4 * SIZE)
    assert np.abs(true[:15, truth].astype(int) - swapped[:15, truth]).max() <= 8  # but for the palette
    # The dot moves by at most 2.5 pixels a step and is 4 high: bright pixels, each 2 wide and high.
    bright = (true[:15, truth, 4 : 4 + 2 * SIZE, 0] > 200).sum((1, 2))
    assert (bright == 4 * 4).all()
    assert np.abs(true[14, dreamt].astype(int) - swapped[14, dreamt]).max() > 0


def test_pictures_and_numbers(keep, capsys):
    folder = keep("image", "place")
    errors = dream(folder, episodes=4, horizon=6)
    assert [e.channel.key for e in errors] == 2 * ["observation"] + 2 * ["observation/image"]
    keys = {row["key"] for row in read(folder, "errors")}
    assert keys == {"observation", "observation/image", "observation/place", "reward", "continue"}
    printed = capsys.readouterr().out
    assert "root mean square over observation dimensions" in printed and "mean squared error per pixel" in printed


def test_worlds_without_a_context_have_no_swapped_video(keep, capsys):
    folder = keep("image", contexts={})
    (folder / "dream").mkdir()
    (folder / "dream" / "image_swapped.gif").write_bytes(b"of an earlier dream")
    dream(folder, episodes=3, horizon=6)
    assert sorted(path.name for path in (folder / "dream").glob("image*")) == ["image.png", "image_true.gif"]
    assert "All episodes have the same context" in " ".join(capsys.readouterr().out.split())


def test_an_environment_without_features(keep):
    folder = keep("image", contexts={}, features=[])
    true, swapped = dream(folder, episodes=3, horizon=6)
    np.testing.assert_array_equal(true.mean, swapped.mean)


def test_pictures_repeat_byte_for_byte(keep):
    folder = keep("image")
    before = None
    for _ in range(2):
        dream(folder, episodes=3, horizon=6)
        files = {path.name: path.read_bytes() for path in (folder / "dream").iterdir()}
        assert before is None or files == before
        before = files
