"""Read the context in a run's latents: linear probes and principal components, as a picture and as numbers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from threadpoolctl import threadpool_limits

from agents.dreaming.dreams import OBSERVED
from agents.environments.base import Feature
from agents.errors import UserError
from agents.evaluation.episodes import TRAINING, Job, list_jobs
from agents.evaluation.progress import episode_progress
from agents.evaluation.rollout import ROWS, open_environments, run_episodes
from agents.evaluation.summary import complete_context
from agents.latent_analysis.analysis import Analysis, Recorded, Score, analyze, count_probes
from agents.latent_analysis.collection import Collection, join, read_latents
from agents.latent_analysis.figure import LOWEST, Captions, draw_analysis
from agents.latent_analysis.probe import MIN_CONTEXTS
from agents.latent_analysis.tables import make_table, points_csv, scores_csv
from agents.run_folder import RunFolder, atomic_write
from agents.training.build import configure_torch, load_agent, make_vector, training_contexts
from agents.training.memory import ACTING_ADVICE, memory_errors
from worldmodels.config import ContextFlags


@memory_errors(ACTING_ADVICE)
def latents(folder: Path, episodes: int = 4, steps: int = 100, horizon: int = 45) -> list[Score]:
    """Ask what the agent's latents tell of the context, and how soon.

    Episodes are recorded in all contexts of training and evaluation, and linear probes read the context's features
    from posterior states, from states imagined with the recorded actions, from the inferred code of an agent that
    infers the context, and, as controls, from observations and under shuffled contexts. A probe is judged in contexts
    that it was not fitted to. Everything is greedy, so the same command gives the same files. They go into the run's
    ``latents`` folder: ``latents.png``, ``scores.csv`` (how well each feature was read) and ``points.csv`` (principal
    components).

    Args:
        folder: the run's folder.
        episodes: of each context, at least 1.
        steps: recorded steps of an episode, at least 5.
        horizon: imagined steps, at least 1; cut to what three quarters of the contexts have.

    Returns:
        How well each feature was read from each source, in the order of ``scores.csv``.

    Raises:
        UserError: the folder is not that of a run or cannot be read, no agent has been kept yet, its file does not fit
            the configuration, too few contexts differ or have an episode of 5 steps, there is no room for the files, or
            the device's memory is full.
    """
    for name, value, least in (("episodes", episodes, 1), ("steps", steps, OBSERVED), ("horizon", horizon, 1)):
        if value < least:
            raise UserError(f"{name} is {value}, but must be at least {least}")
    run = RunFolder.open(folder)
    configure_torch(run.config())
    agent, state, config = load_agent(run)
    regions = {TRAINING: training_contexts(config), **config.contexts.evaluation.regions}
    jobs = list_jobs(regions, episodes, config.evaluation.seed)
    make = partial(make_vector, config, 1, serial=True, told=set())
    console, kept, parts = Console(), list[Job](), list[Collection]()
    with (
        open_environments(make, len(jobs)) as environments,
        episode_progress("recording", len(jobs), console) as on_episode,
    ):
        features = environments[0].features
        _check_variety([job.context for job in jobs], features, run)
        for begin in range(0, len(jobs), ROWS):  # some at a time: all records together may not fit into memory
            recorded = run_episodes(
                agent,
                state,
                environments,
                jobs[begin : begin + ROWS],
                record=True,
                max_steps=steps,
                on_episode=on_episode,
            )
            some = [episode for episode in recorded if not episode.invalid and episode.length >= OBSERVED]
            if some:
                parts.append(read_latents(agent, state, some, len(kept), steps, horizon))
                kept += [episode.job for episode in some]
    origin = _where_from(kept, features, run)
    collection = join(parts)
    with threadpool_limits(config.training.threads), _probing(count_probes(collection), console) as on_probe:
        analysis = analyze(collection, origin, config.evaluation.seed, config.evaluation.confidence, on_probe)
    captions = Captions(
        f"Context in the latents of {config.environment.name}, run {run.path.name}",
        [what_it_sees(agent.config.world_model.flags), _what_is_shown(analysis, steps)],
    )
    atomic_write(run.latents / "latents.png", draw_analysis(analysis, captions))
    atomic_write(run.latents / "scores.csv", scores_csv(analysis))
    atomic_write(run.latents / "points.csv", points_csv(analysis))
    console.print(make_table(analysis, captions.title, config.evaluation.confidence))
    console.print(captions.notes[0], highlight=False)
    console.print(f"The picture is {run.latents / 'latents.png'}, the numbers lie beside it", soft_wrap=True)
    return list(analysis.scores)


def what_it_sees(flags: ContextFlags) -> str:
    """Say what it means that the states of an agent with these flags tell of the context."""
    if flags.inferred:
        return (
            "This agent is never told the context: it infers a code from transitions. The probe's map from code to "
            "features is fitted in contexts other than those in which its error is measured."
        )
    if flags.sequence or flags.observation:
        given = "its sequence model sees it" if flags.sequence else "it is one of its observations"
        return (
            f"This agent is given the context ({given}), so its states hold it by construction: "
            "a high R² says that it was kept in a linear form, not that anything was inferred."
        )
    return (
        "The states of this agent are computed without the context: what is read from them follows from what it "
        "observed and did."
    )


def _what_is_shown(analysis: Analysis, steps: int) -> str:
    """The second sentence of the picture."""
    contexts = len(np.unique(analysis.recorded.groups))
    return (
        f"{len(analysis.recorded.groups)} greedy episodes of at most {steps} steps in {contexts} contexts of training "
        "and evaluation, no context in both the fit and the test of a probe; bars and bands: interval over contexts, "
        f"probes as they are. R² below {LOWEST:g} is drawn there. Horizons and steps: contexts that reach the last one."
    )


def _where_from(jobs: Sequence[Job], features: Sequence[Feature], run: RunFolder) -> Recorded:
    """Describe the episodes that were recorded; a UserError if they are too few to be split."""
    if not jobs:
        raise UserError(f"{run.path}: every episode is invalid or over before step {OBSERVED}; train the agent longer")
    contexts = _vectors([job.context for job in jobs], features)
    different, groups = np.unique(contexts, axis=0, return_inverse=True)
    varied = np.flatnonzero(np.ptp(contexts, axis=0) > 0)
    if len(different) < MIN_CONTEXTS:
        raise UserError(
            f"{run.path}: episodes go on to step {OBSERVED} in {len(different)} different contexts, but a probe "
            f"that is split by context needs {MIN_CONTEXTS}; train the agent longer, or record more episodes"
        )
    regions = [job.region for job in jobs]
    return Recorded(
        tuple(features[place] for place in varied.tolist()), contexts[:, varied], regions, groups.reshape(-1)
    )


def _check_variety(contexts: Sequence[Mapping[str, float]], features: Sequence[Feature], run: RunFolder) -> None:
    """Refuse a run whose contexts are too few to be split, before anything is recorded."""
    count = len(np.unique(_vectors(contexts, features), axis=0)) if features else 1
    if count < MIN_CONTEXTS:
        raise UserError(
            f"{run.path}: has {count} different context{'s' if count > 1 else ''} in training and evaluation, but a "
            f"probe that is split by context needs {MIN_CONTEXTS}; add some to contexts.evaluation.regions in "
            f"{run.config_file}"
        )


def _vectors(contexts: Sequence[Mapping[str, float]], features: Sequence[Feature]) -> np.ndarray:
    """Contexts as rows [E, F], raw units."""
    rows = [list(complete_context(context, features).values()) for context in contexts]
    return np.array(rows, np.float64).reshape(len(contexts), len(features))


@contextmanager
def _probing(probes: int, console: Console) -> Iterator[Callable[[], None]]:
    """Show a bar over probes while the block runs; yields the function to call after each."""
    columns = (BarColumn(bar_width=20), MofNCompleteColumn(), TextColumn("probes"), TimeRemainingColumn())
    with Progress(TextColumn("probing  "), *columns, TextColumn("left"), console=console) as progress:
        task = progress.add_task("probing", total=probes)
        yield lambda: progress.advance(task)
        progress.update(task, total=progress.tasks[task].completed)  # contexts that end soon need fewer
