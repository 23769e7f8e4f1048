"""The dream picture: what it shows, and that it can be read."""

import functools
import io

import matplotlib
import matplotlib.image
import numpy as np
import pytest
from drawn import check_readable, texts
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex

from agents.dreaming.channels import channels_of
from agents.dreaming.dreams import OBSERVED, Dreams
from agents.dreaming.figure import STYLE, Captions, draw_dreams, make_figure

TRUTH, TRUE, SWAPPED = "#1c1c1c", "#0072b2", "#d55e00"


def make_dreams(environment, dimensions, lengths, horizon, swap=True):
    """Random walks of E episodes with these numbers of records, and dreams that wander away from them."""
    generator = np.random.default_rng(0)
    steps = OBSERVED + horizon
    channels = channels_of(environment, {"observation/state": np.zeros((2, dimensions))} if dimensions else {})
    truth = generator.normal(size=(len(lengths), steps, len(channels))).cumsum(axis=1)
    truth[..., -1] = 1.0
    wandering = generator.normal(size=(2, *truth.shape)).cumsum(axis=2) * (np.arange(steps) >= OBSERVED)[:, None]
    true, swapped = truth + wandering[0], truth + wandering[1 if swap else 0]
    for values in (truth, true, swapped):
        for index, length in enumerate(lengths):
            values[index, length:] = np.nan
    return Dreams(channels, truth, {"true": true, "swapped": swapped})


def captions_of(episodes, words="gravity 13.3 m/s², length 0.512 m", note=""):
    return Captions("Dreams of cartpole by run cartpole", [words] * episodes, [words] * episodes, note)


def without_reward():
    """A world that pays nothing, and dreams of hardly anything."""
    dreams = make_dreams("cartpole", 4, [50] * 4, 45)
    dreams.truth[..., 4] = 0.0
    for values in dreams.dreamt.values():
        values[..., 4] *= 1e-8 / np.abs(values[..., 4]).max()
    return dreams


CASES = {
    "no reward": (without_reward(), captions_of(4)),
    "usual": (make_dreams("cartpole", 4, [50] * 16, 45), captions_of(16)),
    "short": (make_dreams("cartpole", 4, [7, 9, 12], 7), captions_of(3)),
    "one episode": (make_dreams("cartpole", 4, [50], 45), captions_of(1)),
    "not swapped": (
        make_dreams("cartpole", 4, [50] * 2, 45, swap=False),
        captions_of(2, note="No part of this agent that dreams sees the context: it dreams the same, " + "so " * 40),
    ),
    "images alone": (make_dreams("dmc/walker/walk", 0, [50] * 4, 45), captions_of(4)),
    "many words": (
        make_dreams("dmc/walker/walk", 24, [50] * 4, 45),
        captions_of(4, "gravity 13.3 m/s², actuator_strength 1.18, joint_damping 0.512, density 1.2 kg/m³"),
    ),
}


@functools.cache
def layout(case):
    with matplotlib.rc_context(STYLE):
        figure = make_figure(*CASES[case])
        FigureCanvasAgg(figure).draw()
    return figure


@pytest.mark.parametrize("case", CASES)
def test_no_text_overlaps_another_or_leaves_the_picture(case):
    figure = layout(case)
    assert len(texts(figure)) > (20 if case == "images alone" else 50)
    check_readable(figure)


def line_colors(axes):
    return [to_hex(line.get_color()) for line in axes.lines if len(line.get_xdata()) > 2]


def test_examples_show_truth_and_both_dreams_at_their_steps():
    dreams, figure = CASES["usual"][0], layout("usual")
    assert len(figure.axes) == 6 * 3 + 6 + 1
    # Of sixteen whole episodes, the first, one in the middle and the last; row 2 is the pole's angle.
    for column, episode in enumerate([0, 8, 15]):
        axes = figure.axes[2 * 3 + column]
        lines = {color: line for color, line in zip(line_colors(axes), axes.lines[1:], strict=True)}
        assert set(lines) == {TRUTH, TRUE, SWAPPED}
        np.testing.assert_array_equal(lines[TRUTH].get_ydata(), dreams.truth[episode, :, 2])
        np.testing.assert_array_equal(lines[TRUE].get_ydata(), dreams.dreamt["true"][episode, :, 2])
        assert lines[SWAPPED].get_xdata()[0] == OBSERVED - 1
        np.testing.assert_array_equal(lines[SWAPPED].get_ydata(), dreams.dreamt["swapped"][episode, OBSERVED - 1 :, 2])
        assert axes.lines[0].get_xdata()[0] == OBSERVED - 0.5, "the line where dreaming starts"


def test_a_panel_of_errors_begins_at_zero_and_has_room_above():
    figure = layout("usual")
    for axes in figure.axes[-7:]:
        drawn = [line.get_ydata().max() for line in axes.lines]
        drawn += [path.vertices[:, 1].max() for band in axes.collections for path in band.get_paths()]
        assert axes.get_ylim() == pytest.approx((0, 1.08 * max(drawn)))


def test_a_reward_of_nothing_does_not_zoom_into_noise():
    figure = layout("no reward")
    rewards, errors = figure.axes[4 * 3], figure.axes[6 * 3 + 4]
    low, high = rewards.get_ylim()
    assert low == pytest.approx(-0.05, abs=1e-6) and high == pytest.approx(0.05, abs=1e-6)
    assert all(axes.yaxis.get_offset_text().get_text() == "" for axes in figure.axes)
    assert any(text.get_text().endswith("e\N{MINUS SIGN}09") for text in errors.get_yticklabels())


def test_equal_dreams_are_drawn_once_and_the_note_says_why():
    figure = layout("not swapped")
    assert all(SWAPPED not in line_colors(axes) for axes in figure.axes)
    words = " ".join(text for text, _ in texts(figure))
    assert "dreams the same" in words and "swapped context" not in words


def test_dimensions_that_do_not_fit_are_counted():
    words = [text for text, _ in texts(layout("many words"))]
    assert any("16 more observation dimensions are in dream.csv" in text for text in words)
    assert "state[7]" in words and "state[8]" not in words


def test_without_vectors_reward_and_continue_are_left():
    figure = layout("images alone")
    assert len(figure.axes) == 2 * 3 + 2
    assert not any("root mean square" in text for text, _ in texts(figure))


def test_the_picture_is_a_png_and_repeats():
    content = draw_dreams(*CASES["short"])
    pixels = matplotlib.image.imread(io.BytesIO(content), format="png")
    assert pixels.shape[1] == 1400 and pixels.std() > 0.05
    assert draw_dreams(*CASES["short"]) == content
