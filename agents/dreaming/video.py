"""Open-loop video: what happened, the dream of it and the error, in the layout of the reference.

One column per episode; in it the recorded image above the decoded one above their difference, framed green while the
agent observes and red while it dreams. Layout, colors, rates and the black pause between two rounds are those of the
``report`` of danijar/dreamerv3 at e3f0224, which observes half of a sequence where dreams here observe OBSERVED steps.

Sizes: E episodes, T steps, images [Y, X, C].
"""

import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, UInt8
from numpy import ndarray
from PIL import Image

from agents.dreaming.dreams import OBSERVED

#: Colors of the frames around observed and dreamt images.
GREEN, RED = (0, 255, 0), (255, 0, 0)
BORDER = 2  # pixels
MAX_EPISODES = 6  # side by side
PAUSE = 10  # black frames after the last step
FRAME_MILLISECONDS = 70  # about 15 frames a second; GIF counts hundredths of a second


def open_loop_video(
    truth: UInt8[ndarray, "E T Y X C"],
    dreamt: UInt8[ndarray, "E T Y X C"],
    recorded: Bool[ndarray, "E T"],
    observed: int = OBSERVED,
) -> UInt8[ndarray, "F V W 3"]:
    """Lay out the frames of a video.

    Args:
        truth: recorded images.
        dreamt: decoded images.
        recorded: false after an episode's end, where its column is black.
        observed: steps that the agent saw.

    Returns:
        T + PAUSE frames of height 3 Y + 2 BORDER and width E (X + 2 BORDER).
    """
    return stack_video([truth, dreamt, image_error(truth, dreamt)], recorded, observed)


def stack_video(
    rows: Sequence[UInt8[ndarray, "E T Y X C"]], recorded: Bool[ndarray, "E T"], observed: int = OBSERVED
) -> UInt8[ndarray, "F V W 3"]:
    """Lay out the frames of a video of n rows of images, one below the other; see `open_loop_video`.

    Returns:
        T + PAUSE frames of height n Y + 2 BORDER and width E (X + 2 BORDER).
    """
    episodes, steps = recorded.shape
    column = np.concatenate([to_rgb(row) for row in rows], axis=2)
    column = frame(column, observed) * recorded[:, :, None, None, None]
    video = column.transpose(1, 2, 0, 3, 4).reshape(steps, column.shape[2], episodes * column.shape[3], 3)
    return np.concatenate([video, np.zeros_like(video, shape=(PAUSE, *video.shape[1:]))])


def image_error(truth: UInt8[ndarray, "*N Y X C"], dreamt: UInt8[ndarray, "*N Y X C"]) -> UInt8[ndarray, "*N Y X C"]:
    """(dream - truth + 1) / 2 of intensities in [0, 1], as an image: gray where they agree."""
    return ((dreamt.astype(np.int16) - truth + 255) // 2).astype(np.uint8)


def to_rgb(images: UInt8[ndarray, "*N Y X C"]) -> UInt8[ndarray, "*N Y X 3"]:
    """Return RGB images: as they are with three channels, else the mean of the channels as gray."""
    if images.shape[-1] == 3:
        return images
    return np.repeat(images.mean(-1, keepdims=True).astype(np.uint8), 3, axis=-1)


def frame(images: UInt8[ndarray, "E T Y X 3"], observed: int) -> UInt8[ndarray, "E T V W 3"]:
    """Put images in frames, BORDER pixels wide: green in the first ``observed`` steps, then red."""
    color = np.where((np.arange(images.shape[1]) < observed)[:, None], GREEN, RED).astype(np.uint8)
    episodes, steps, height, width, _ = images.shape
    framed = np.empty((episodes, steps, height + 2 * BORDER, width + 2 * BORDER, 3), np.uint8)
    framed[...] = color[:, None, None]
    framed[:, :, BORDER:-BORDER, BORDER:-BORDER] = images
    return framed


def encode_gif(frames: UInt8[ndarray, "F V W 3"], scale: int = 1) -> bytes:
    """Return a GIF file that plays the frames over and over, every pixel ``scale`` wide and high.

    Each frame has the 256 colors that suit it best. GIF is written by Pillow alone and shown by browsers, slides and
    TensorBoard; MP4 would need ffmpeg on the machine.
    """
    size = (frames.shape[2] * scale, frames.shape[1] * scale)
    # Colors are chosen before enlarging, which is what takes the time.
    pictures = [Image.fromarray(image).quantize().resize(size, Image.Resampling.NEAREST) for image in frames]
    content = io.BytesIO()
    pictures[0].save(content, "GIF", save_all=True, append_images=pictures[1:], duration=FRAME_MILLISECONDS, loop=0)
    return content.getvalue()
