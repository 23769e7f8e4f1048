"""Dream with a run's kept agent: imagined rollouts against what happened, as a picture and as numbers."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from agents.dreaming.channels import channels_of
from agents.dreaming.dreams import DREAM_CONTEXTS, OBSERVED, Dreams, dream_episodes, final_conditions, most_distant
from agents.dreaming.errors import HorizonErrors, horizon_errors, image_errors, overall_errors
from agents.dreaming.figure import Captions, draw_dreams, example_episodes
from agents.dreaming.filmstrip import draw_filmstrip
from agents.dreaming.tables import dream_csv, episodes_csv, errors_csv
from agents.dreaming.video import MAX_EPISODES, encode_gif, open_loop_video
from agents.environments.base import Feature
from agents.errors import UserError
from agents.evaluation.episodes import TRAINING, Job, list_jobs
from agents.evaluation.progress import episode_progress
from agents.evaluation.rollout import Episode, open_environments, run_episodes
from agents.evaluation.summary import complete_context, describe_context
from agents.run_folder import RunFolder, atomic_write
from agents.training.build import configure_torch, load_agent, make_vector, training_contexts
from agents.training.memory import ACTING_ADVICE, memory_errors

VIDEO_SCALE = 2  # screen pixels of an image's pixel


@memory_errors(ACTING_ADVICE)
def dream(folder: Path, episodes: int = 16, horizon: int = 45) -> list[HorizonErrors]:
    """Observe five steps of recorded episodes, then imagine the rest from the recorded actions alone.

    The episodes are among those that an evaluation judges, evenly spread over the training contexts. Each is
    dreamt twice: under its own context, and under the most distant one among the episodes (swapped after the
    observed steps). An agent that infers the context dreams under what it has inferred by the last observed step, and
    under what it has inferred by the end of the other episode. Everything is greedy, so the same command gives the
    same files. They go into the run's ``dream`` folder: ``dream.png``, ``dream.csv`` (values), ``errors.csv`` (errors
    by horizon) and ``episodes.csv`` (contexts and seeds); of an observation that is an image, such as ``image``, also
    ``image.png`` (a film strip) and the videos ``image_true.gif`` and, where the context matters,
    ``image_swapped.gif``.

    Args:
        folder: the run's folder.
        episodes: how many to dream of, at least 1.
        horizon: imagined steps, at least 1; cut to what the longest episode has; shorter episodes count as
            far as they go.

    Returns:
        Errors by horizon, each under the true and the swapped context: over all dimensions of vector observations,
        then of each image.

    Raises:
        UserError: the folder is not that of a run or cannot be read, no agent has been kept yet, its file
            does not fit the configuration, every episode is over (or invalid) before a dream could begin, there is no
            room for the files, or the device's memory is full.
    """
    for name, value in (("episodes", episodes), ("horizon", horizon)):
        if value < 1:
            raise UserError(f"{name} is {value}, but must be at least 1")
    run = RunFolder.open(folder)
    configure_torch(run.config())
    agent, state, config = load_agent(run)
    jobs = spread_jobs(training_contexts(config), episodes, config.evaluation.seed)
    console = Console()
    make = partial(make_vector, config, 1, serial=True, told=set())
    with (
        open_environments(make, len(jobs)) as environments,
        episode_progress("recording", len(jobs), console) as on_episode,
    ):
        features, steps = environments[0].features, OBSERVED - 1 + horizon
        recorded = run_episodes(agent, state, environments, jobs, record=True, max_steps=steps, on_episode=on_episode)
    recorded = _long_enough(recorded, run.path)
    records = [episode.records for episode in recorded]
    vectors = np.stack([record["context"][0] for record in records])
    partners = most_distant(vectors)
    horizon = min(horizon, max(episode.length for episode in recorded) - OBSERVED + 1)
    channels = channels_of(config.environment.name, records[0], config.environment.observation_scale)
    others = final_conditions(agent, state, records)[torch.from_numpy(partners)]
    dreams = dream_episodes(agent, state, records, others, channels, horizon)
    overall, note = [*overall_errors(dreams), *image_errors(dreams)], swap_note(dreams, vectors)
    title = f"Dreams of {config.environment.name} by run {run.path.name}"
    _write(run.dream, dreams, recorded, partners.tolist(), features, title, note)
    for true, swapped in zip(overall[::2], overall[1::2], strict=True):
        console.print(_table(true, swapped, run.path.name))
    if note:
        console.print(note)
    console.print(f"The picture is {run.dream / 'dream.png'}, the numbers lie beside it", soft_wrap=True)
    for key in dreams.images:
        place = run.dream / key.partition("/")[2]
        console.print(f"The videos are {place}_*.gif, the film strip is {place}.png", soft_wrap=True)
    return overall


def _long_enough(recorded: Sequence[Episode], path: Path) -> list[Episode]:
    """The valid episodes that go beyond the observed steps; a UserError if there is none."""
    valid = [episode for episode in recorded if not episode.invalid]
    if not valid:
        raise UserError(f"{path}: every episode came to an invalid step and was dropped, so there is none to dream of")
    kept = [episode for episode in valid if episode.length >= OBSERVED]
    if not kept:
        raise UserError(
            f"{path}: every episode is over before step {OBSERVED}, where the dream would begin; "
            "train the agent longer or record more episodes"
        )
    return kept


def spread_jobs(contexts: Sequence[Mapping[str, float]], episodes: int, seed: int) -> list[Job]:
    """Choose judged episodes of the training region, evenly spread over its contexts.

    Args:
        contexts: the training contexts.
        episodes: how many; with fewer contexts than that, each has several episodes.
        seed: ``evaluation.seed`` of the configuration.
    """
    per_context = -(-episodes // len(contexts))
    jobs = list_jobs({TRAINING: contexts}, per_context, seed)
    return [jobs[place * len(jobs) // episodes] for place in range(episodes)]


def swap_note(dreams: Dreams, contexts: np.ndarray) -> str:
    """Say why both dreams are the same, if they are: for contexts [E, F] of the episodes."""
    if dreams.swap_matters:
        return ""
    if np.all(contexts == contexts[0]):
        return "All episodes have the same context, so there is none to swap it with"
    return "No part of this agent that dreams sees the context: under a swapped context it dreams the same"


def _write(
    folder: Path,
    dreams: Dreams,
    episodes: Sequence[Episode],
    partners: Sequence[int],
    features: Sequence[Feature],
    title: str,
    note: str,
) -> None:
    """Write picture and tables of E dreams; ``partners`` [E] are the episodes whose contexts were swapped in."""
    contexts = [complete_context(episode.job.context, features) for episode in episodes]
    words = [describe_context(context, features) for context in contexts]
    captions = Captions(title, words, [words[partner] for partner in partners], note)
    errors = [*overall_errors(dreams), *image_errors(dreams), *horizon_errors(dreams)]
    swapped = [contexts[partner] for partner in partners]
    atomic_write(folder / "dream.png", draw_dreams(dreams, captions))
    atomic_write(folder / "dream.csv", dream_csv(dreams))
    atomic_write(folder / "errors.csv", errors_csv(errors))
    atomic_write(folder / "episodes.csv", episodes_csv(episodes, contexts, swapped))
    for key in dreams.images:
        _write_images(folder, dreams, key, captions)


def _write_images(folder: Path, dreams: Dreams, key: str, captions: Captions) -> None:
    """Write the film strip and the videos of the images under ``key``."""
    images, name = dreams.images[key], key.partition("/")[2]
    atomic_write(folder / f"{name}.png", draw_filmstrip(dreams, key, captions))
    shown = example_episodes(dreams.recorded, MAX_EPISODES)
    if not dreams.swap_matters:
        (folder / f"{name}_swapped.gif").unlink(missing_ok=True)  # of an earlier dream
    for context in DREAM_CONTEXTS if dreams.swap_matters else ("true",):
        video = open_loop_video(images.truth[shown], images.dreamt[context][shown], dreams.recorded[shown])
        atomic_write(folder / f"{name}_{context}.gif", encode_gif(video, VIDEO_SCALE))


def _table(true: HorizonErrors, swapped: HorizonErrors, run: str) -> Table:
    """Errors at a few horizons."""
    table = Table(title=f"Dream errors of {run}", title_justify="left", title_style="bold", box=box.SIMPLE)
    vectors = true.channel.key == "observation"
    quantity = "root mean square over observation dimensions" if vectors else true.channel.name
    table.caption = f"{quantity},\nin {true.channel.unit}; median of episodes"
    table.caption_justify = "left"
    for name in ("horizon", "episodes", "true context", "swapped context"):
        table.add_column(name, justify="right")
    last = int(np.flatnonzero(true.episodes).max()) + 1
    digits = 3 if vectors else 5
    for horizon in sorted({*(h for h in (1, 5, 15, 30) if h < last), last}):
        step = horizon - 1
        row = (horizon, true.episodes[step], f"{true.median[step]:.{digits}f}", f"{swapped.median[step]:.{digits}f}")
        table.add_row(*map(str, row))
    return table
