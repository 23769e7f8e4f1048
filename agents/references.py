"""References for normalized scores: what a random policy and an expert reach in every judged context."""

import csv
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from agents.configuration import RunConfig, load_config
from agents.environments import make_environment
from agents.environments.base import ContextualEnv
from agents.errors import UserError
from agents.evaluation.comparison import References, context_key
from agents.evaluation.episodes import evaluation_seed
from agents.evaluation.experts import Policy, cartpole_controller, play, random_policy
from agents.evaluation.progress import episode_progress
from agents.evaluation.results import find_runs, read_run
from agents.files import atomic_write
from agents.seeding import numpy_generator, seed_for
from agents.statistics import mean, seed_interval

_CONTEXT_COLUMNS = ["region", "context_id"]
_COLUMNS = ["policy", "made_by", "seeds", "episodes", "mean", "low", "high"]


@dataclass(frozen=True)
class Reference:
    """The return of a policy in a context.

    Attributes:
        region, context_id: where the context stands in the configuration.
        context: every feature's value, raw units.
        policy: ``random`` or ``expert``.
        made_by: what that was.
        seeds: how many runs the mean is over; a policy that is not trained has its episodes' seeds for them.
        episodes: over all seeds.
        mean: over seeds (never the best of them) of the mean return of a seed's episodes.
        low, high: its 95% bootstrap interval over seeds; NaN for a single one.
    """

    region: str
    context_id: int
    context: dict[str, float]
    policy: str
    made_by: str
    seeds: int
    episodes: int
    mean: float
    low: float
    high: float


def references(
    config: str, experts: list[Path] | None = None, seeds: int = 10, episodes: int = 10, output: Path | None = None
) -> list[Reference]:
    """Make the references of a configuration's evaluation contexts: mean returns of a random policy and an expert.

    The expert is, in each context, the agents that were trained in that context alone (--experts); without these, in
    CartPole, a linear-quadratic regulator that knows the context, its force turned into a push to its side.

    Args:
        config: a name such as cartpole, or a YAML file.
        experts: folders of judged runs that were each trained in a single context; several seeds of each.
        seeds: for policies that are not trained.
        episodes: of the random policy, per seed and context; the regulator plays one per seed.
        output: the CSV file; None: references_NAME.csv, by the configuration's name.

    Returns:
        Two of each context.

    Raises:
        UserError: an unknown configuration, no evaluation contexts, a context without an expert, a run that was
            trained in several contexts or not judged in its own, only invalid episodes, or no room for the file.
    """
    if min(seeds, episodes) < 1:
        raise UserError("--seeds and --episodes must be at least 1")
    settings = load_config(config)
    env = make_environment(settings.environment.name, **settings.environment.settings())
    try:
        contexts = [
            (region, number, env.complete_context(context))
            for region, listed in settings.contexts.evaluation.regions.items()
            for number, context in enumerate(listed)
        ]
        if not contexts:
            raise UserError(f"{config}: has no contexts.evaluation.regions, so there is nothing to refer to")
        trained = None if experts is None else _trained(experts, env)
        if trained is None and settings.environment.name != "cartpole":
            raise UserError(
                f"{settings.environment.name} has no built-in expert; train agents in one context each and name their "
                "folders with --experts"
            )
        for region, _, context in contexts:
            if trained is not None and context_key(context) not in trained:
                told = ", ".join(f"{name} {value:g}" for name, value in context.items())
                raise UserError(f"no expert among --experts was trained in the context {told} (region {region})")
        found = list(_measure(env, contexts, trained, seeds, episodes))
    finally:
        env.close()
    path = output or Path(f"references_{settings.name}.csv")
    atomic_write(path, references_csv(found))
    console = Console()
    for policy in ("random", "expert"):
        means = [one.mean for one in found if one.policy == policy]
        console.print(f"{policy}: mean return {min(means):.1f} to {max(means):.1f} over {len(means)} contexts")
    console.print(f"The references are in {path}", soft_wrap=True)
    return found


def _measure(
    env: ContextualEnv,
    contexts: Sequence[tuple[str, int, dict[str, float]]],
    trained: Mapping[tuple[tuple[str, float], ...], list[tuple[float, int]]] | None,
    seeds: int,
    episodes: int,
) -> Iterator[Reference]:
    """The references of all contexts, with a bar."""
    played = len(contexts) * seeds * (episodes + (trained is None))
    with episode_progress("playing", played, Console()) as on_episode:
        for region, number, context in contexts:
            where = (region, number, context)

            def uniform(seed: int, episode: int, where: tuple[str, int, dict[str, float]] = where) -> Policy:
                return random_policy(env.action_space, seed_for(seed, f"random/{where[0]}", where[1], episode) % 2**31)

            means = _play_seeds(env, where, uniform, seeds, episodes, on_episode)
            yield _reference(where, "random", "uniform over the action space", means)
            if trained is None:
                controller = cartpole_controller(context)
                means = _play_seeds(env, where, lambda *_, policy=controller: policy, seeds, 1, on_episode)
                yield _reference(where, "expert", "linear-quadratic regulator that knows the context", means)
            else:
                runs = trained[context_key(context)]
                yield _reference(where, "expert", "agents trained in this context alone", runs)


def _play_seeds(
    env: ContextualEnv,
    where: tuple[str, int, dict[str, float]],
    policy: Callable[[int, int], Policy],
    seeds: int,
    episodes: int,
    on_episode: Callable[[], None],
) -> list[tuple[float, int]]:
    """Mean return and number of valid episodes of every seed that has any."""
    region, number, context = where
    means = []
    for seed in range(seeds):
        returns = []
        for episode in range(episodes):
            value = play(env, policy(seed, episode), context, evaluation_seed(seed, region, number, episode))
            returns += [] if value is None else [value]
            on_episode()
        if returns:
            means.append((math.fsum(returns) / len(returns), len(returns)))
    if not means:
        raise UserError(f"context {number} of region {region}: every episode came to an invalid step")
    return means


def _reference(
    where: tuple[str, int, dict[str, float]], policy: str, made_by: str, runs: Sequence[tuple[float, int]]
) -> Reference:
    values = np.array([value for value, _ in runs])[:, None]
    low, high = seed_interval(values, mean, numpy_generator(0, "references"))
    episodes = sum(count for _, count in runs)
    return Reference(*where, policy, made_by, len(runs), episodes, float(mean(values)), float(low), float(high))


def _trained(
    folders: Sequence[Path], env: ContextualEnv
) -> dict[tuple[tuple[str, float], ...], list[tuple[float, int]]]:
    """By context, mean return and episodes there of every run that was trained in it alone."""
    found: dict[tuple[tuple[str, float], ...], list[tuple[float, int]]] = {}
    for run in find_runs(folders):
        own = _only_context(run.config())
        if own is None:
            raise UserError(f"{run.path}: was trained in several contexts; experts are trained in one each")
        key = context_key(env.complete_context(own))
        score = next((score for score in read_run(run) if context_key(score.context) == key), None)
        if score is None:
            raise UserError(f"{run.path}: was not judged in the context it was trained in; judge it there too")
        found.setdefault(key, []).append((score.mean_return, score.episodes))
    return found


def _only_context(config: RunConfig) -> dict[str, float] | None:
    """The one context that a run was trained in; None if there are several."""
    from agents.training.build import training_contexts

    contexts = training_contexts(config)
    if config.contexts.training.distribution == "uniform" or len(contexts) != 1:
        return None
    return contexts[0]


def references_csv(found: Sequence[Reference]) -> bytes:
    """One row per context and policy: region, context_id, every feature, policy, made_by, seeds, episodes, mean and
    interval."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_CONTEXT_COLUMNS, *found[0].context, *_COLUMNS])
    for one in found:
        interval = ["" if math.isnan(value) else value for value in (one.low, one.high)]
        values = [one.policy, one.made_by, one.seeds, one.episodes, one.mean, *interval]
        writer.writerow([one.region, one.context_id, *one.context.values(), *values])
    return text.getvalue().encode()


def read_references(path: Path) -> References:
    """Return the mean return of a random policy and of an expert by context.

    Args:
        path: a file that `references` made.

    Raises:
        UserError: it cannot be read, is damaged, lacks one of the two, or has an expert no better than random.
    """
    advice = "make it with `dreamtune references CONFIG`"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', 'no text')}); {advice}") from error
    names = [name for name in (rows[0] if rows else {}) if name not in (*_CONTEXT_COLUMNS, *_COLUMNS)]
    means: dict[tuple[tuple[str, float], ...], dict[str, float]] = {}
    for line, row in enumerate(rows, start=2):
        try:
            key = context_key({name: float(row[name]) for name in names})
            value = float(row["mean"])
            if not math.isfinite(value):
                raise ValueError
            means.setdefault(key, {})[row["policy"]] = value
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: line {line} is damaged; {advice}") from error
    if not means:
        raise UserError(f"{path}: has no references; {advice}")
    for key, pair in means.items():
        told = ", ".join(f"{name} {value:g}" for name, value in key)
        if set(pair) != {"random", "expert"}:
            raise UserError(f"{path}: needs a random and an expert return in the context {told}; {advice}")
        if pair["expert"] <= pair["random"]:
            raise UserError(f"{path}: the expert is no better than random in the context {told}; find a better expert")
    return {key: (pair["random"], pair["expert"]) for key, pair in means.items()}
