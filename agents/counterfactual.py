"""Dream of what would have happened in another context, and judge the dream by what does happen in it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from tensordict import TensorDict
from torch import Tensor

from agents.configuration import RunConfig
from agents.dreamerv3 import DreamerV3
from agents.dreaming.channels import Channel, channels_of
from agents.dreaming.counterfactual_figure import draw_counterfactuals
from agents.dreaming.counterfactual_tables import (
    Quantity,
    Result,
    errors_csv,
    grid_csv,
    score_table,
    scores_csv,
)
from agents.dreaming.counterfactual_video import drawn_video, image_video, shown_targets
from agents.dreaming.counterfactuals import (
    Endings,
    Swap,
    channel_moments,
    endings,
    make_yardstick,
    swap_source,
    vector_moments,
)
from agents.dreaming.dreams import OBSERVED, final_conditions
from agents.dreaming.grid import ContextGrid, context_grid
from agents.dreaming.moments import NAMES
from agents.dreaming.video import encode_gif
from agents.environments import Change, Reset, VectorEnvironment
from agents.errors import UserError
from agents.evaluation.episodes import Job, list_jobs
from agents.evaluation.progress import episode_progress
from agents.evaluation.rollout import Episode, open_environments, run_episodes
from agents.evaluation.summary import describe_context
from agents.run_folder import RunFolder, atomic_write
from agents.training.build import configure_torch, context_spec, load_agent, make_vector
from agents.training.memory import ACTING_ADVICE, memory_errors

SOURCE, REFERENCE = "counterfactual", "reference"  # names of the regions that episodes' seeds follow from
VIDEO_SCALE = 2  # screen pixels of an image's pixel
BLIND = (
    "No part of this agent that dreams sees the context: a swap changes nothing in its dreams, and its skill and "
    "direction are 0 by construction"
)


@memory_errors(ACTING_ADVICE)
def counterfactual(folder: Path, episodes: int = 8, horizon: int = 45) -> Result:
    """Swap the context of recorded episodes after five steps, in the dream and in the simulator, and compare.

    Greedy episodes are recorded in a few contexts of the training range. Each is played again in the simulator,
    from the same seed with the same actions, but with another context after the five observed steps: that is what
    would have happened. The agent dreams of it three times from the recorded actions: under the true context, under
    the swapped one and under the default one. All errors are against what would have happened. The contexts are a
    grid over the training range and the evaluation regions.

    The skill is 1 - (squared error of the swapped dream) / (squared error of the true dream): 1 if the swapped dream
    is right, 0 if the swap was of no use, as when the agent ignores the context, negative if it made the dream worse.
    The direction is the cosine between what the swap changed in the dream and what it changes in the world. Errors
    and skill are over the imagined steps that the agent learns behavior from (agent.horizon), in standard deviations
    of the observation's dimensions, each weighted by how much the context moves it. An agent that infers the context
    is given what it infers at the end of another episode in each context.

    Files in the run's ``counterfactual`` folder: ``counterfactual.png``; ``scores.csv`` (groups of swaps),
    ``grid.csv`` (pairs of contexts), ``errors.csv`` (pairs, by horizon); and a video: of an observation that is an
    image, such as ``image``, ``image.gif``, else ``counterfactual.gif``.

    Args:
        folder: the run's folder.
        episodes: how many to record in each source context, at least 1; intervals need 2.
        horizon: imagined steps, at least 1; shorter episodes count as far as they go in both worlds.

    Returns:
        All dreams with their moments, of which every score is made.

    Raises:
        UserError: the folder is not that of a run or cannot be read, no agent has been kept yet, the run knows one
            context only, its environment refuses a context or to change it within an episode, or does not repeat
            itself, every episode is over (or invalid) before a dream could begin, there is no room for the files,
            or the device's memory is full.
    """
    for name, value in (("episodes", episodes), ("horizon", horizon)):
        if value < 1:
            raise UserError(f"{name} is {value}, but must be at least 1")
    run = RunFolder.open(folder)
    configure_torch(run.config())
    agent, state, config = load_agent(run)
    console = Console()
    record = partial(_record, agent, state, config, console, OBSERVED - 1 + horizon)
    with open_environments(partial(make_vector, config, 1, serial=True, told=set()), 1) as (vector,):
        features = vector.features
        grid = context_grid(config, features, context_spec(config, vector), str(run.path))
        _try_swaps(vector, grid)
        recorded = _by_source(record, grid, episodes, config, run.path)
        conditions = _conditions(agent, state, record, grid, episodes, config)
        horizon = min(horizon, max(e.length for group in recorded.values() for e in group.values()) - OBSERVED + 1)
        channels = channels_of(config.environment.name, _any(recorded).records, config.environment.observation_scale)
        swaps: list[Swap] = []
        shown = shown_targets(grid)
        count = sum(len(recorded.get(source, ())) for source, _ in grid.pairs())
        with episode_progress("swapping", count, console) as on_swap:
            for source, kept in recorded.items():
                given = [values[list(kept)] for values in conditions]
                swaps += swap_source(
                    agent,
                    state,
                    vector,
                    grid,
                    source,
                    list(kept.values()),
                    given,
                    channels,
                    horizon,
                    shown=shown,
                    on_swap=on_swap,
                )
    result = _measure(swaps, grid, channels, config)
    words = [describe_context(context, features) for context in grid.contexts]
    _write(run, result, words, config, recorded)
    _tell(run, result, sum(map(len, recorded.values())), console)
    return result


def _any(recorded: dict[int, dict[int, Episode]]) -> Episode:
    return next(iter(next(iter(recorded.values())).values()))


Recorder = Callable[[str, list[Job]], list[Episode]]


def _record(
    agent: DreamerV3, state: TensorDict, config: RunConfig, console: Console, steps: int, verb: str, jobs: list[Job]
) -> list[Episode]:
    """Run jobs for so many steps and keep their records."""
    make = partial(make_vector, config, 1, serial=True, told=set())
    with open_environments(make, len(jobs)) as environments, episode_progress(verb, len(jobs), console) as on_episode:
        return run_episodes(agent, state, environments, jobs, record=True, max_steps=steps, on_episode=on_episode)


def _try_swaps(vector: VectorEnvironment, grid: ContextGrid) -> None:
    """Begin an episode with every swap, so that what the environment refuses is told before anything is recorded."""
    for source, target in grid.pairs():
        change = Change(step=OBSERVED, context=grid.contexts[target])
        vector.step([Reset(seed=0, context=grid.contexts[source], changes=(change,))])


def _by_source(
    record: Recorder, grid: ContextGrid, episodes: int, config: RunConfig, path: Path
) -> dict[int, dict[int, Episode]]:
    """Record every source; return, by its place, the episodes by number that go beyond the observed steps."""
    contexts = [grid.contexts[source] for source in grid.sources]
    found = record("recording", list_jobs({SOURCE: contexts}, episodes, config.evaluation.seed))
    kept: dict[int, dict[int, Episode]] = {}
    for place, episode in enumerate(found):
        if not episode.invalid and episode.length >= OBSERVED:
            kept.setdefault(grid.sources[place // episodes], {})[place % episodes] = episode
    if not kept:
        raise UserError(
            f"{path}: every episode is over before step {OBSERVED}, where the dream would begin, or came to an "
            "invalid step; train the agent longer or record more episodes"
        )
    return kept


def _conditions(
    agent: DreamerV3, state: TensorDict, record: Recorder, grid: ContextGrid, episodes: int, config: RunConfig
) -> list[Tensor]:
    """Return for every context of the grid what the agent is given to dream in it, [episodes, Z].

    An agent that infers the context is given what it infers at the end of an episode that is recorded in it, one for
    each number and none that is dreamt of: its dreams differ in nothing but the context.
    """
    if not agent.infers:
        return [torch.tensor(list(context.values())).expand(episodes, -1) for context in grid.contexts]
    found = record("inferring", list_jobs({REFERENCE: grid.contexts}, episodes, config.evaluation.seed))
    conditions = []
    for place, context in enumerate(grid.contexts):
        valid = [e.records for e in found[place * episodes : (place + 1) * episodes] if not e.invalid]
        if not valid:
            raise UserError(f"every episode in context {context} came to an invalid step, so none can be inferred")
        conditions.append(final_conditions(agent, state, [valid[n % len(valid)] for n in range(episodes)]))
    return conditions


def _measure(swaps: list[Swap], grid: ContextGrid, channels: tuple[Channel, ...], config: RunConfig) -> Result:
    """Score the swaps in all vector observations together, in each image, and in each channel."""
    quantities, yardstick = [], make_yardstick(swaps, channels)
    if yardstick is not None:
        moments = [vector_moments(swap, yardstick) for swap in swaps]
        quantities.append(Quantity("observation", "all observation dimensions", "standard deviations", moments))
    for key in swaps[0].images:
        images = [swap.images[key] for swap in swaps]
        quantities.append(Quantity(key, key.partition("/")[2], "intensities of [0, 1]", images))
    details = [
        Quantity(channel.key, channel.name, channel.unit, [channel_moments(swap, index) for swap in swaps])
        for index, channel in enumerate(channels)
    ]
    imagined = quantities[0].moments[0].shape[1]
    return Result(
        grid,
        channels,
        swaps,
        quantities,
        details,
        min(config.agent.horizon, imagined),
        config.evaluation.seed,
        config.evaluation.confidence,
    )


def _write(
    run: RunFolder, result: Result, words: list[str], config: RunConfig, recorded: dict[int, dict[int, Episode]]
) -> None:
    """Write picture, tables and videos."""
    folder, title = run.counterfactual, f"Counterfactual dreams of {config.environment.name} by run {run.path.name}"
    atomic_write(folder / "scores.csv", scores_csv(result))
    atomic_write(folder / "grid.csv", grid_csv(result))
    atomic_write(folder / "errors.csv", errors_csv(result))
    note = "" if result.sees_context else BLIND
    atomic_write(folder / "counterfactual.png", draw_counterfactuals(result, words, title, note))
    images = [quantity.key for quantity in result.quantities if quantity.key != "observation"]
    for key in images:
        atomic_write(folder / f"{key.partition('/')[2]}.gif", encode_gif(image_video(result, key), VIDEO_SCALE))
    if not images:
        atomic_write(folder / "counterfactual.gif", encode_gif(drawn_video(result, words, config, recorded)))


def _tell(run: RunFolder, result: Result, episodes: int, console: Console) -> None:
    """Print the scores."""
    for quantity in result.quantities:
        caption = (
            f"{quantity.name}, root mean square in {quantity.unit}, against what the simulator does in the swapped "
            f"context; imagined steps 1 to {result.horizon}; {episodes} recorded episodes, {len(result.swaps)} swaps; "
            "inside, outside: how many of the features swapped in lie outside the training range"
        )
        title = f"Counterfactual dreams of {run.path.name}"
        console.print(score_table(result.groups(quantity), result.horizon, title, caption))
    if not result.sees_context:
        console.print(BLIND, soft_wrap=True)
    console.print(endings_line(endings(result.swaps, result.channels)), soft_wrap=True, highlight=False)
    console.print(
        f"The picture is {run.counterfactual / 'counterfactual.png'}, numbers and video lie beside it", soft_wrap=True
    )


def endings_line(told: Endings) -> str:
    """How the dreams foresaw the ends of swapped worlds, in a line."""
    if not told.ended:
        return "No swapped world ended before the true one did"
    at_end = ", ".join(f"{told.at_end[name]:.2f} in the {name} dream" for name in NAMES)
    before = f"{told.before['swapped']:.2f}"
    return (
        f"In {told.ended} of {told.swaps} swapped episodes the world ended where the true one went on; the mean "
        f"predicted probability of going on was then {at_end} (otherwise {before} in the swapped dream)"
    )
