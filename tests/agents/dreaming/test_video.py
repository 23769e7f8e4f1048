"""The open-loop video: its layout pixel by pixel, its colors and times, and what is left of them in a GIF."""

import io

import numpy as np
import pytest
from PIL import Image, ImageSequence

from agents.dreaming.video import encode_gif, image_error, open_loop_video

E, T, HEIGHT, WIDTH, OBSERVED = 2, 4, 5, 6, 2
LENGTHS = (4, 3)


@pytest.fixture
def images():
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (2, E, T, HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture
def video(images):
    return open_loop_video(*images, np.arange(T) < np.array(LENGTHS)[:, None], observed=OBSERVED)


def expected_pixel(images, time, row, column):
    """What the reference's report puts there, worked out for one pixel with plain numbers."""
    truth, dreamt = images
    episode, x = divmod(column, WIDTH + 4)
    if time >= LENGTHS[episode]:
        return [0, 0, 0]
    x, y = x - 2, row - 2
    if not (0 <= x < WIDTH and 0 <= y < 3 * HEIGHT):
        return [0, 255, 0] if time < OBSERVED else [255, 0, 0]
    part, y = divmod(y, HEIGHT)
    true, dream = (values[episode, time, y, x].tolist() for values in (truth, dreamt))
    error = [int(255 * (d / 255 - t / 255 + 1) / 2 + 1e-9) for t, d in zip(true, dream, strict=True)]
    return (true, dream, error)[part]


def test_every_pixel_is_where_the_reference_puts_it(images, video):
    assert video.shape == (T + 10, 3 * HEIGHT + 4, E * (WIDTH + 4), 3) and video.dtype == np.uint8
    for time in range(T):
        for row in range(video.shape[1]):
            for column in range(video.shape[2]):
                assert video[time, row, column].tolist() == expected_pixel(images, time, row, column)
    assert not video[T:].any()


def test_error_of_extremes():
    black, white = np.zeros((1, 1, 1, 3), np.uint8), np.full((1, 1, 1, 3), 255, np.uint8)
    assert image_error(black, white).ravel().tolist() == [255] * 3
    assert image_error(white, black).ravel().tolist() == [0] * 3
    assert image_error(white, white).ravel().tolist() == [127] * 3


@pytest.mark.parametrize("channels", [1, 4])
def test_other_than_three_channels_are_shown_gray(channels):
    images = np.random.default_rng(1).integers(0, 256, (1, 2, 3, 3, channels), dtype=np.uint8)
    video = open_loop_video(images, images, np.ones((1, 2), bool), observed=1)
    shown = video[0, 2:5, 2:5]
    assert np.array_equal(shown[..., 0], shown[..., 1]) and np.array_equal(shown[..., 0], shown[..., 2])
    np.testing.assert_array_equal(shown[..., 0], np.floor(images[0, 0].mean(-1)))


def test_gif_plays_every_frame_at_its_time_and_repeats(video):
    content = encode_gif(video, scale=3)
    assert encode_gif(video, scale=3) == content
    with Image.open(io.BytesIO(content)) as file:
        assert file.size == (3 * video.shape[2], 3 * video.shape[1]) and file.info["loop"] == 0
        frames = [(np.array(f.convert("RGB")), f.info["duration"]) for f in ImageSequence.Iterator(file)]
    # The black frames may be one that lasts as long.
    assert sum(duration for _, duration in frames) == 70 * len(video)
    for (frame, duration), exact in zip(frames[:T], video, strict=False):
        assert duration == 70
        wanted = exact.repeat(3, 0).repeat(3, 1).astype(int)
        assert frame.shape == wanted.shape and np.abs(frame - wanted).mean() < 3.0  # 256 colors for noise
        assert frame[0, 0].tolist() == wanted[0, 0].tolist()
    assert not frames[-1][0].any()
