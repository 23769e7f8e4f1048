"""What latents tell of the context: linear probes and principal components.

Symbols: E episodes; F features that vary; N moments; D width of what is read.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int
from numpy import ndarray
from sklearn.decomposition import PCA

from agents.environments.base import Feature
from agents.latent_analysis.collection import BOTH, CODE, Collection, Latents, comparable
from agents.latent_analysis.probe import Fit, cross_predict, judge, shuffle_contexts
from agents.seeding import numpy_generator

#: Which states are read.
POSTERIOR, IMAGINED, BY_STEP = "posterior", "imagined", "by step"
#: `BOTH` again, but every context under the features of another one: what chance reads.
SHUFFLED = "shuffled"
#: All contexts, as a region.
ALL = "all"


@dataclass(frozen=True)
class Recorded:
    """Where E episodes come from.

    Attributes:
        features: the F features that vary.
        contexts: float64 [E, F], raw units.
        regions: E names.
        groups: int64 [E], the same number for episodes of the same context, whatever its region.
    """

    features: tuple[Feature, ...]
    contexts: Float64[ndarray, "E F"]
    regions: Sequence[str]
    groups: Int[ndarray, " E"]


@dataclass(frozen=True)
class Score:
    """How well one feature was read from one source.

    Attributes:
        states: ``POSTERIOR``, ``IMAGINED`` or ``BY_STEP``.
        point: the horizon of imagined states, the step of an episode; -1 for posteriors spread over episodes.
        source: what was read, such as ``BOTH``, or ``SHUFFLED``.
        feature: what was to be read.
        region: whose moments ``fit`` is of; ``ALL``, but for the posteriors also each region. The probes are always
            fitted to contexts of all regions.
        contexts, moments: number of those.
        fit: how well.
    """

    states: str
    point: int
    source: str
    feature: Feature
    region: str
    contexts: int
    moments: int
    fit: Fit


@dataclass(frozen=True)
class Projection:
    """Latents seen from the side that shows most of their variance.

    Attributes:
        states: ``POSTERIOR``, ``IMAGINED`` or ``CODE``.
        point: the horizon of imagined states; else -1.
        latents: what was projected, N moments.
        points: float64 [N, 2], in the axes of the first two principal components: of the posteriors, also for imagined
            states, and of the codes.
        explained: shares of the variance, of the states that the axes are of, along both.
    """

    states: str
    point: int
    latents: Latents
    points: Float64[ndarray, "N 2"]
    explained: tuple[float, float]


@dataclass(frozen=True)
class Analysis:
    """Scores and projections of one run."""

    recorded: Recorded
    scores: tuple[Score, ...]
    projections: tuple[Projection, ...]

    def pick(self, states: str, source: str, region: str = ALL) -> list[Score]:
        """Return the scores of some states, source and region, by point, then feature."""
        return [s for s in self.scores if (s.states, s.source, s.region) == (states, source, region)]


def analyze(
    collection: Collection, recorded: Recorded, seed: int, confidence: float, on_probe: Callable[[], None]
) -> Analysis:
    """Probe and project the latents of E episodes.

    Args:
        collection: their latents.
        recorded: where they come from; MIN_CONTEXTS contexts at least.
        seed: of the bootstrap and of the shuffled contexts.
        confidence: coverage of the intervals, in (0, 1).
        on_probe: called after each of the ``count_probes`` probes, for progress.
    """
    imagined, by_step = (comparable(points, recorded.groups) for points in (collection.imagined, collection.by_step))
    cases = [(POSTERIOR, -1, source, collection.posterior) for source in (*collection.posterior.values, SHUFFLED)]
    cases += [(IMAGINED, point, BOTH, at) for point, at in imagined.items()]
    cases += [(BY_STEP, point, source, at) for point, at in by_step.items() for source in at.values]
    scores: list[Score] = []
    for case in cases:
        scores += _scores(*case, recorded, seed, confidence)
        on_probe()
    return Analysis(recorded, tuple(scores), tuple(_project(collection.posterior, imagined)))


def count_probes(collection: Collection) -> int:
    """Return the most probes that `analyze` fits."""
    by_step = sum(len(at.values) for at in collection.by_step.values())
    return len(collection.posterior.values) + 1 + len(collection.imagined) + by_step


def _scores(
    states: str, point: int, source: str, latents: Latents, recorded: Recorded, seed: int, confidence: float
) -> list[Score]:
    """Score one source of some moments, feature by feature; of posteriors also region by region."""
    targets, groups = recorded.contexts[latents.episode], recorded.groups[latents.episode]
    if source == SHUFFLED:
        targets = shuffle_contexts(targets, groups, numpy_generator(seed, "latents/shuffle"))
    predictions = cross_predict(latents.values[BOTH if source == SHUFFLED else source], targets, groups)
    names = np.array(recorded.regions)[latents.episode]
    regions = {ALL: np.ones(len(names), np.bool_)}
    if states == POSTERIOR and source != SHUFFLED:
        regions |= {name: names == name for name in dict.fromkeys(names.tolist())}
    scores = []
    for column, feature in enumerate(recorded.features):
        for region, rows in regions.items():
            of_rows = (targets[rows, column], predictions[rows, column], groups[rows])
            fit = judge(*of_rows, numpy_generator(seed, "latents/bootstrap"), confidence)
            contexts = len(np.unique(groups[rows]))
            scores.append(Score(states, point, source, feature, region, contexts, int(rows.sum()), fit))
    return scores


def _project(posterior: Latents, imagined: Mapping[int, Latents]) -> list[Projection]:
    """Project posteriors, the farthest imagined states and, where there are any, codes."""
    horizon = max(imagined)
    axes = principal_axes(posterior.values[BOTH])
    seen = {(POSTERIOR, -1): posterior, (IMAGINED, horizon): imagined[horizon]}
    found = [Projection(*name, at, *project(axes, at.values[BOTH])) for name, at in seen.items()]
    if CODE in posterior.values:
        codes = posterior.values[CODE]
        found.append(Projection(CODE, -1, posterior, *project(principal_axes(codes), codes)))
    return found


def principal_axes(values: Float[ndarray, "N D"]) -> PCA:
    """Find the first two principal components, or the only one of a single dimension."""
    return PCA(min(2, *values.shape), random_state=0).fit(values.astype(np.float64))


def project(axes: PCA, values: Float[ndarray, "N D"]) -> tuple[Float64[ndarray, "N 2"], tuple[float, float]]:
    """Return the points in these axes, and the shares of the variance of what they were fitted to along each."""
    points = axes.transform(values.astype(np.float64))
    missing = 2 - points.shape[1]
    shares = [*axes.explained_variance_ratio_.tolist(), 0.0]
    return np.pad(points, ((0, 0), (0, missing))), (shares[0], shares[1])
