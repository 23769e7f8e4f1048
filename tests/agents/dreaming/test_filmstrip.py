"""The film strip: which steps and images it shows, and that it can be read."""

import functools
import io

import matplotlib
import matplotlib.image
import numpy as np
import pytest
from drawn import check_readable, texts
from matplotlib.backends.backend_agg import FigureCanvasAgg

from agents.dreaming.channels import channels_of
from agents.dreaming.dreams import OBSERVED, Dreams, ImageDreams
from agents.dreaming.figure import STYLE, Captions
from agents.dreaming.filmstrip import draw_filmstrip, make_filmstrip, shown_steps

KEY, SIZE = "observation/image", 16


def make_dreams(lengths, horizon, swap=True):
    """E episodes with these numbers of records; every image has one color, which tells where it belongs."""
    steps, generator = OBSERVED + horizon, np.random.default_rng(0)
    shape = (len(lengths), steps)
    recorded = np.arange(steps) < np.array(lengths)[:, None]

    def images():
        colors = generator.integers(0, 256, (*shape, 1, 1, 3), dtype=np.uint8) * recorded[..., None, None, None]
        return np.broadcast_to(colors, (*shape, SIZE, SIZE, 3)).copy()

    truth, true = images(), images()
    swapped = images() if swap else true
    errors = np.where(recorded, generator.random(shape), np.nan)
    channels = channels_of("fake", {})
    values = np.where(recorded[..., None], 1.0, np.nan) * np.ones(len(channels))
    dreamt = {"true": true, "swapped": swapped}
    image = ImageDreams(truth, dreamt, {"true": errors, "swapped": errors * (0.5 if swap else 1.0)})
    return Dreams(channels, values, {"true": values, "swapped": values}, {KEY: image})


def captions_of(episodes, words="gravity 13.3 m/s², length 0.512 m", note=""):
    return Captions("Dreams of cartpole by run cartpole", [words] * episodes, [words] * episodes, note)


MANY = ", ".join(f"a_rather_long_feature_{index} 13.3 m/s²" for index in range(8))
CASES = {
    "usual": (make_dreams([50] * 16, 45), captions_of(16)),
    "short": (make_dreams([7, 9, 12], 7), captions_of(3)),
    "one episode": (make_dreams([50], 45), captions_of(1, MANY)),
    "not swapped": (make_dreams([50, 50, 30], 45, swap=False), captions_of(3, note="There is " + "no reason " * 30)),
}


@functools.cache
def layout(case):
    dreams, captions = CASES[case]
    with matplotlib.rc_context(STYLE):
        figure = make_filmstrip(dreams, KEY, captions)
        FigureCanvasAgg(figure).draw()
    return figure


@pytest.mark.parametrize("case", CASES)
def test_everything_can_be_read(case):
    check_readable(layout(case))


def test_steps_begin_with_the_observed_and_reach_the_end():
    assert shown_steps(50) == [0, 4, 5, 10, 15, 20, 25, 29, 34, 39, 44, 49]
    assert shown_steps(8) == [0, 4, 5, 6, 7]
    assert shown_steps(6) == [0, 4, 5]
    assert shown_steps(5) == [0, 4]


@pytest.mark.parametrize(("case", "episodes", "rows"), [("usual", [0, 15], 4), ("not swapped", [0, 1, 2], 3)])
def test_images_stand_at_their_episode_row_and_step(case, episodes, rows):
    dreams, figure = CASES[case][0], layout(case)
    images, columns = dreams.images[KEY], shown_steps(50)
    cell = SIZE + 8  # frame and gap
    assert len(figure.axes) == len(episodes) + 1
    for axes, episode in zip(figure.axes, episodes, strict=False):
        picture = np.asarray(axes.images[0].get_array())
        assert picture.shape == (rows * cell - 4, len(columns) * cell - 4, 3)
        for column, step in enumerate(columns):
            colors = [picture[row * cell + 10, column * cell + 10].astype(int) for row in range(rows)]
            border = picture[3 * cell // 2, column * cell].tolist()
            if step >= dreams.recorded[episode].sum():
                assert all(color.tolist() == [255] * 3 for color in colors)
                continue
            truth, dreamt = (
                values[episode, step, 0, 0].astype(int) for values in (images.truth, images.dreamt["true"])
            )
            np.testing.assert_array_equal(colors[:3], [truth, dreamt, (dreamt - truth + 255) // 2])
            if rows == 4:
                np.testing.assert_array_equal(colors[3], images.dreamt["swapped"][episode, step, 0, 0])
            assert border == ([0, 255, 0] if step < OBSERVED else [255, 0, 0])


def test_errors_are_drawn_over_all_episodes():
    dreams, figure = CASES["usual"][0], layout("usual")
    lines = {line.get_label(): line for line in figure.axes[-1].lines}
    assert set(lines) == {"dream, true context", "dream, swapped context"}
    for context in ("true", "swapped"):
        line = lines[f"dream, {context} context"]
        assert line.get_xdata().tolist() == list(range(1, 46))
        expected = np.median(dreams.images[KEY].errors[context][:, OBSERVED:], axis=0)
        np.testing.assert_allclose(line.get_ydata(), expected)
    assert len(layout("not swapped").axes[-1].lines) == 1


def test_words():
    said = [text for text, _ in texts(layout("usual"))]
    assert said.count("what happened") == 2 and said.count("dream,\nswapped") == 2 and "step 0" in said
    assert any("of 16 episodes" in text for text in said)
    assert not any("swapped" in text for text, _ in texts(layout("not swapped")))


def test_the_picture_is_a_png_and_repeats():
    dreams, captions = CASES["short"]
    content = draw_filmstrip(dreams, KEY, captions)
    pixels = matplotlib.image.imread(io.BytesIO(content), format="png")
    assert pixels.shape[1] == 1400 and pixels.std() > 0.05
    assert draw_filmstrip(dreams, KEY, captions) == content
