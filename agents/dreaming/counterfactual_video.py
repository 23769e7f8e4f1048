"""Videos of counterfactual dreams: of images as they were dreamt, or of the drawn world beside the trajectories."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageDraw

from agents.configuration import RunConfig
from agents.dreaming.counterfactual_examples import (
    DASHES,
    HUES,
    NAMED,
    draw_trajectory,
    example_swaps,
    example_title,
)
from agents.dreaming.counterfactual_tables import Result
from agents.dreaming.dreams import OBSERVED
from agents.dreaming.figure import MAX_DIMENSIONS, STYLE
from agents.dreaming.grid import ContextGrid
from agents.dreaming.video import BORDER, MAX_EPISODES, PAUSE, frame, image_error, stack_video
from agents.environments import Change, Reset, SerialVector, make_environment
from agents.environments.base import IMAGE
from agents.errors import UserError
from agents.evaluation.rollout import Episode

DRAWN_SIZE = 240  # pixels, of a drawn world
# Inches, at 100 pixels each: width and row of the trajectories, and their height at least, for two drawn worlds.
_WIDE, _PANEL, _LEAST = 7.2, 0.95, 5.3


def shown_targets(grid: ContextGrid) -> list[int]:
    """At most MAX_EPISODES contexts whose images are kept, evenly spread over the grid."""
    places = np.linspace(0, len(grid.contexts) - 1, MAX_EPISODES + 1).round().astype(int)
    return sorted({int(place) for place in places if place != grid.sources[0]})[:MAX_EPISODES]


def image_video(result: Result, key: str) -> UInt8[ndarray, "F V W 3"]:
    """Lay out a video in the way of the open-loop ones, a column for each swap of the first source that is shown.

    From above: what happened, the dream of it; what would have happened, the dream of that, its error.
    """
    first = result.swaps[0].source
    shown = [swap for swap in result.swaps if swap.shown and swap.source == first]
    images = {name: np.stack([swap.shown[key][name] for swap in shown]) for name in shown[0].shown[key]}
    error = image_error(images["counterfactual"], images["swapped"])
    rows = [images["happened"], images["true"], images["counterfactual"], images["swapped"], error]
    recorded = np.stack([~np.isnan(swap.counterfactual[0, :, 0]) for swap in shown])
    return stack_video(rows, recorded)


def drawn_video(
    result: Result, words: Sequence[str], config: RunConfig, recorded: Mapping[int, Mapping[int, Episode]]
) -> UInt8[ndarray, "F V W 3"]:
    """Animate the middle example: both worlds as they draw themselves, where they can, beside the trajectories."""
    examples = example_swaps(result)
    place = examples[len(examples) // 2]
    swap = result.swaps[place]
    episode = next(iter(recorded[swap.source].values()))
    going = int((~np.isnan(swap.counterfactual[0, :, 0])).sum())
    frames = _reveal(result, place, words, going)
    change = Change(step=OBSERVED, context=result.grid.contexts[swap.target])
    try:
        worlds = [_draw_world(config, episode, changes, going) for changes in ((), (change,))]
    except UserError:  # this world cannot be drawn, or a package is missing that it takes
        worlds = []
    if worlds:
        column = np.full((going, frames.shape[1], DRAWN_SIZE + 2 * BORDER, 3), 255, np.uint8)
        begin = 0
        for name, world in zip(("happened", "counterfactual"), worlds, strict=True):
            label = _label(NAMED[name], column.shape[2])
            for part in (np.broadcast_to(label, (going, *label.shape)), frame(world[None], OBSERVED)[0]):
                column[:, begin : begin + part.shape[1]] = part[:, : column.shape[1] - begin]
                begin += part.shape[1]
        frames = np.concatenate([column, frames], axis=2)
    return np.concatenate([frames, np.repeat(frames[-1:], PAUSE, axis=0)])


def _draw_world(
    config: RunConfig, episode: Episode, changes: tuple[Change, ...], steps: int
) -> UInt8[ndarray, "T Y X 3"]:
    """Play an episode again and let the world draw itself after each of ``steps`` records."""
    settings = {**config.environment.settings(), "observations": "both", "image_size": DRAWN_SIZE}
    vector = SerialVector([partial(make_environment, config.environment.name, **settings)])
    job = episode.job
    try:
        commands = [Reset(job.seed, job.context, job.context_id, changes), *episode.records["action"][: steps - 1]]
        return np.stack([vector.step([command])[f"observation/{IMAGE}"][0].copy() for command in commands])
    finally:
        vector.close()


def _reveal(result: Result, place: int, words: Sequence[str], steps: int) -> UInt8[ndarray, "T V W 3"]:
    """The trajectories of an example, a step more in every picture: one drawing is uncovered from the left."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        whole, edges, (top, bottom) = _plot(result, place, words, lines=True)
        blank, _, _ = _plot(result, place, words, lines=False)
    frames = np.repeat(blank[None], steps, axis=0)
    for step in range(steps):
        edge = edges[step]
        frames[step, :, :edge] = whole[:, :edge]
        frames[step, top:bottom, edge : edge + 2] = 150
    return frames


def _plot(
    result: Result, place: int, words: Sequence[str], *, lines: bool
) -> tuple[UInt8[ndarray, "V W 3"], list[int], tuple[int, int]]:
    """Draw the trajectories; return the picture, the column of pixels of every step, the panels' first and last row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    rows = [i for i, channel in enumerate(result.channels) if channel.key.startswith("observation/")][:MAX_DIMENSIONS]
    height = max(1.25 + _PANEL * len(rows), _LEAST)
    figure = Figure(figsize=(_WIDE, height), dpi=100)
    canvas = FigureCanvasAgg(figure)
    panels = figure.add_gridspec(
        len(rows), 1, left=0.13, right=0.98, top=1 - 0.8 / height, bottom=0.45 / height, hspace=0.25
    )
    for row, channel in enumerate(rows):
        axes = figure.add_subplot(panels[row, 0])
        draw_trajectory(axes, result, place, channel)
        for line in axes.lines if not lines else ():
            line.set_visible(False)
        axes.set_ylabel(result.channels[channel].label.replace(" [", "\n["), fontsize=8)
        axes.tick_params(labelbottom=row == len(rows) - 1)
    axes.set_xlabel("step")
    handles = [
        Line2D([], [], color=HUES[name], linestyle=DASHES[name], linewidth=2, label=NAMED[name])
        for name in ("counterfactual", "happened", "true", "swapped")
    ]
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.005, 1), ncols=4, fontsize=7.5, columnspacing=1)
    figure.text(0.02, 1 - 0.52 / height, example_title(result, place, words).replace("\n", " "), fontsize=7.5)
    canvas.draw()
    picture = np.asarray(canvas.buffer_rgba())[..., :3].copy()
    count = result.swaps[place].happened.shape[1]
    edges = [int(round(axes.transData.transform((step, 0))[0])) for step in range(count)]
    tall = picture.shape[0]
    return picture, edges, (tall - int(figure.axes[0].bbox.y1), tall - int(figure.axes[-1].bbox.y0))


def _label(text: str, width: int) -> UInt8[ndarray, "V W 3"]:
    """A line of text above a drawn world."""
    picture = Image.new("RGB", (width, 18), "white")
    ImageDraw.Draw(picture).text((2, 3), text, fill="black")
    return np.asarray(picture)
