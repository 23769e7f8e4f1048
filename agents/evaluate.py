"""Judge the kept agent of a run: returns by context region, with intervals, as a table and a CSV file."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from rich.console import Console

from agents.errors import UserError
from agents.evaluation.episodes import TRAINING, choose_regions, list_jobs
from agents.evaluation.progress import episode_progress
from agents.evaluation.rollout import open_environments, run_episodes
from agents.evaluation.summary import RegionSummary, average_and_worst, make_table, summarize, write_csv
from agents.run_folder import RunFolder, atomic_write
from agents.training.build import change_steps_of, configure_torch, load_agent, make_vector, training_contexts
from agents.training.checkpoint import BestAgent
from agents.training.memory import ACTING_ADVICE, memory_errors

#: Given the number of episodes, a block within which the function that it yields is called after each of them.
EpisodeProgress = Callable[[int], AbstractContextManager[Callable[[], None]]]


def evaluate(folder: Path, episodes: int | None = None, regions: tuple[str, ...] | None = None) -> list[RegionSummary]:
    """Run the kept agent greedily in fixed contexts and seeds; print a table and write ``evaluation.csv``.

    The seeds depend on ``evaluation.seed``, region, context and episode alone: agents that share the contexts
    are compared episode by episode, and the same command gives the same file, byte for byte.

    Args:
        folder: the run's folder.
        episodes: episodes per context; None: ``evaluation.episodes_per_context`` of the run's configuration.
        regions: which regions; None: the training contexts and all of ``contexts.evaluation.regions``.

    Raises:
        UserError: the folder is not that of a run or cannot be read, no agent has been kept yet, its file
            does not fit the configuration, an unknown region, a context out of bounds, no episode without an
            invalid step, or a full disk or device.
    """
    return judge(folder, episodes, regions, lambda count: episode_progress("evaluating", count, Console()))


@memory_errors(ACTING_ADVICE)
def judge(
    folder: Path, episodes: int | None, regions: Sequence[str] | None, progress: EpisodeProgress
) -> list[RegionSummary]:
    """Do what `evaluate` says and tell ``progress`` of the episodes: see `EpisodeProgress`."""
    run = RunFolder.open(folder)
    configure_torch(run.config())
    agent, state, config = load_agent(run)
    known = {TRAINING: training_contexts(config), **config.contexts.evaluation.regions}
    chosen = choose_regions(known, regions, str(run.path))
    settings = config.evaluation
    count = settings.episodes_per_context if episodes is None else episodes
    jobs = list_jobs(chosen, count, settings.seed, change_steps_of(config, config.contexts.evaluation.change_every))
    make = partial(make_vector, config, 1, serial=True, told=set())
    with (
        open_environments(make, len(jobs)) as environments,
        progress(len(jobs)) as on_episode,
    ):
        features = environments[0].features
        finished = run_episodes(agent, state, environments, jobs, on_episode=on_episode)
    if all(episode.invalid for episode in finished):
        raise UserError(
            f"{run.path}: each of the {len(finished)} episodes came to an invalid step and was dropped, so there is no "
            "return to judge; choose less extreme contexts, or see the fault with environment.on_invalid: stop"
        )
    atomic_write(run.evaluation, write_csv(finished, features))
    summaries = summarize(finished, features, seed=settings.seed, confidence=settings.confidence)
    note = BestAgent(run.checkpoints / "best").read_note()
    title = f"Returns of {run.path.name}" + (f", agent of {note['env_steps']} steps" if note else "")
    console = Console()
    console.print(make_table(summaries, features, title, settings.confidence))
    for line in average_and_worst(summaries, features):
        console.print(line, soft_wrap=True, highlight=False)
    console.print(f"Every episode is in {run.evaluation}", soft_wrap=True)
    return summaries
