"""The film strip: images that were recorded and dreamt, some steps side by side, and their error by horizon."""

import io
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray

from agents.dreaming.dreams import OBSERVED, Dreams, ImageDreams
from agents.dreaming.errors import image_errors
from agents.dreaming.figure import (
    COLORS,
    STYLE,
    TRUTH,
    WIDTH,
    Captions,
    draw_band,
    example_episodes,
    panel_title,
    write_header,
    write_title,
)
from agents.dreaming.video import frame, image_error, to_rgb

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 12  # steps shown
MAX_ROWS = 9  # of images

_LABELS, _MARGIN = 1.3, 0.25  # inches left of the images and right of them
_GAP = 4  # pixels between images


def draw_filmstrip(dreams: Dreams, key: str, captions: Captions) -> bytes:
    """Draw the film strip of the images under ``key``; returns a PNG file's bytes."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with matplotlib.rc_context(STYLE):
        buffer = io.BytesIO()
        FigureCanvasAgg(make_filmstrip(dreams, key, captions)).print_png(buffer, pil_kwargs={"optimize": True})
    return buffer.getvalue()


def make_filmstrip(dreams: Dreams, key: str, captions: Captions) -> "Figure":
    """Lay out the picture: a block of rows for each example, below them the error over all episodes."""
    from matplotlib.figure import Figure

    names = ("true", "swapped") if dreams.swap_matters else ("true",)
    images, recorded, explanation = dreams.images[key], dreams.recorded, _explanation(captions.note)
    labels = ["what happened", "dream", "error"] + (["dream,\nswapped"] if "swapped" in names else [])
    examples = example_episodes(recorded, MAX_ROWS // len(labels))
    columns = shown_steps(int(recorded[examples].sum(axis=1).max()))
    blocks = [_block(images, episode, columns, recorded[episode], names) for episode in examples]
    titles = [panel_title(captions, episode, names, WIDTH - _LABELS - _MARGIN) for episode in examples]
    inch = (WIDTH - _LABELS - _MARGIN) / blocks[0].shape[1]  # inches of a pixel
    block, above = blocks[0].shape[0] * inch, [0.17 * len(title) + 0.2 for title in titles]
    top = 0.5 + 0.19 * len(explanation)
    height = top + sum(above) + block * len(blocks) + 2.75
    figure = Figure(figsize=(WIDTH, height))
    place = height - top
    for number, (picture, title) in enumerate(zip(blocks, titles, strict=True)):
        place -= above[number] + block
        size = (_LABELS / WIDTH, place / height, picture.shape[1] * inch / WIDTH, block / height)
        axes = figure.add_axes(size)
        _show(axes, picture, labels)
        write_title(axes, title)
    _number_columns(axes, columns, picture.shape[1])
    axes = figure.add_axes((_LABELS / WIDTH, 0.5 / height, 1 - (_LABELS + _MARGIN) / WIDTH, 1.55 / height))
    _draw_error(axes, dreams, key, names)
    write_header(figure, captions.title, explanation)
    return figure


def shown_steps(steps: int) -> list[int]:
    """At most COLUMNS steps of ``steps``: the first and the last observed, then evenly spread to the last."""
    dreamt = min(steps - OBSERVED, COLUMNS - 2)
    spread = np.linspace(OBSERVED, steps - 1, dreamt).round().astype(int).tolist() if dreamt > 0 else []
    return [0, OBSERVED - 1, *spread]


def _block(
    images: ImageDreams, episode: int, columns: Sequence[int], recorded: ndarray, names: Sequence[str]
) -> UInt8[ndarray, "V W 3"]:
    """The images of one episode, a row each for truth, dream, error and swapped dream, framed as in the video."""
    truth, dreamt = images.truth[episode], images.dreamt["true"][episode]
    rows = [truth, dreamt, image_error(truth, dreamt)]
    if "swapped" in names:
        rows.append(images.dreamt["swapped"][episode])
    framed = frame(to_rgb(np.stack(rows)), OBSERVED)
    framed[:, ~recorded] = 255
    cells = np.pad(framed[:, columns], ((0, 0), (0, 0), (0, _GAP), (0, _GAP), (0, 0)), constant_values=255)
    count, steps, height, width, _ = cells.shape
    joined = cells.transpose(0, 2, 1, 3, 4).reshape(count * height, steps * width, 3)
    return joined[:-_GAP, :-_GAP]


def _show(axes: "Axes", picture: UInt8[ndarray, "V W 3"], labels: Sequence[str]) -> None:
    """Show a block of images, its rows labeled."""
    axes.imshow(picture, aspect="auto", interpolation="antialiased")
    axes.set_axis_off()
    for row, label in enumerate(labels):
        color = COLORS["swapped"] if "swapped" in label else COLORS["true"] if label == "dream" else TRUTH
        middle = 1 - (row + 0.5) / len(labels)
        axes.annotate(
            label,
            (0, middle),
            (-8, 0),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="right",
            va="center",
            color=color,
            fontsize=9.5,
        )


def _number_columns(axes: "Axes", columns: Sequence[int], width: int) -> None:
    """Write the steps below a block of ``width`` pixels."""
    cell = (width + _GAP) / len(columns)
    for column, step in enumerate(columns):
        axes.annotate(
            f"step {step}" if column == 0 else str(step),
            (((column + 0.5) * cell - _GAP / 2) / width, 0),
            (0, -13),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="center",
            color=TRUTH,
            fontsize=9.5,
        )


def _draw_error(axes: "Axes", dreams: Dreams, key: str, names: Sequence[str]) -> None:
    """Mean squared error per pixel by horizon, median and quartiles over all episodes."""
    for summary in image_errors(dreams):
        if summary.channel.key == key and summary.context in names:
            draw_band(axes, summary)
    axes.set_ylim(bottom=0)
    axes.set_title(
        "error by horizon: mean squared error per pixel and color, intensities in [0, 1]; "
        f"median and middle half of {len(dreams.truth)} episodes",
        loc="left",
    )
    axes.set_xlabel("horizon (imagined steps)")
    axes.set_ylabel("squared error")
    if len(names) > 1:
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=2)


def _explanation(note: str) -> list[str]:
    """The lines under the title."""
    return [
        "Green frames: observed, decoded from the posterior. Red frames: imagined with nothing but the recorded "
        "actions. Error: (dream − what happened + 1) / 2, gray where they agree.",
        *textwrap.wrap(note + "." if note else "", 150),
    ]
