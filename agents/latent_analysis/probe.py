"""A linear probe: how well a context can be read from latents, in contexts that the probe has never seen.

Ridge regression from standardized latents to the features. Contexts are split into folds; each row is predicted by the
probe of the folds that have none of its context, so a latent that merely tells contexts apart is worth nothing. How
strongly a probe is held back is chosen, for each feature, by the same split within the contexts it is fitted to.

    R^2 = 1 - sum (y - prediction)^2 / sum (y - mean of y)^2        over all rows

is at most 1; reading nothing, which is to predict the mean of other contexts, gives a little less than 0.

Symbols: N rows (moments of episodes); D width of the latent; F features; G contexts; A strengths.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer
from numpy import ndarray
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

FOLDS, INNER_FOLDS = 5, 4
#: The fewest contexts that can be split in both ways.
MIN_CONTEXTS = 6
#: Ridge penalties to choose from, for columns of variance 1 and sums over rows; the last one reads next to nothing.
STRENGTHS = np.logspace(-2, 6, 9)
RESAMPLES = 2000

_SPLIT_SEED = 0  # of the folds: the same contexts are always split in the same way


@dataclass(frozen=True)
class Fit:
    """How well one feature was read.

    Attributes:
        r2: explained share of the variance over all rows, in contexts unseen by the probe.
        low, high: interval of ``r2``, contexts resampled (see ``r2_interval``).
        rmse: root mean squared error over all rows, in the feature's unit.
    """

    r2: float
    low: float
    high: float
    rmse: float


def cross_predict(
    latents: Float[ndarray, "N D"], targets: Float[ndarray, "N F"], groups: Integer[ndarray, " N"]
) -> Float[ndarray, "N F"]:
    """Predict every row by a probe that was fitted to rows of other contexts only.

    Args:
        latents: what is read.
        targets: features in any unit.
        groups: the context of each row, any whole numbers.

    Raises:
        ValueError: fewer than MIN_CONTEXTS contexts.
    """
    count = len(np.unique(groups))
    if count < MIN_CONTEXTS:
        raise ValueError(f"{count} contexts cannot be split: a probe needs at least {MIN_CONTEXTS}")
    latents = latents.astype(np.float64)
    predictions = np.empty_like(targets, dtype=np.float64)
    for fitted, held_out in _split(FOLDS, groups):
        strengths = choose_strengths(latents[fitted], targets[fitted], groups[fitted])
        probe = _fit(latents[fitted], targets[fitted], strengths)
        predictions[held_out] = probe.predict(latents[held_out]).reshape(
            -1, targets.shape[1]
        )  # a lone feature comes flat
    return predictions


def choose_strengths(
    latents: Float[ndarray, "N D"], targets: Float[ndarray, "N F"], groups: Integer[ndarray, " N"]
) -> Float[ndarray, " F"]:
    """Return, for each feature, that of STRENGTHS which predicts unseen ones of these contexts best."""
    features, count = targets.shape[1], len(STRENGTHS)
    errors = np.zeros((features, count))
    for fitted, held_out in _split(INNER_FOLDS, groups):
        # One fit for all strengths: every feature is a target once for each of them.
        probe = _fit(latents[fitted], np.repeat(targets[fitted], count, axis=1), np.tile(STRENGTHS, features))
        residual = probe.predict(latents[held_out]) - np.repeat(targets[held_out], count, axis=1)
        errors += np.square(residual).sum(axis=0).reshape(features, count)
    return STRENGTHS[errors.argmin(axis=1)]


def judge(
    targets: Float[ndarray, " N"],
    predictions: Float[ndarray, " N"],
    groups: Integer[ndarray, " N"],
    generator: np.random.Generator,
    confidence: float,
) -> Fit:
    """Compare the predictions of one feature with its values."""
    residual = targets - predictions
    variation = np.square(targets - targets.mean()).sum()
    r2 = 1.0 - np.square(residual).sum() / variation if variation > 0 else float("nan")
    low, high = r2_interval(targets, predictions, groups, generator, confidence)
    return Fit(float(r2), low, high, float(np.sqrt(np.square(residual).mean())))


def r2_interval(
    targets: Float[ndarray, " N"],
    predictions: Float[ndarray, " N"],
    groups: Integer[ndarray, " N"],
    generator: np.random.Generator,
    confidence: float,
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of R^2 over contexts.

    Contexts are drawn with replacement, each with all its rows: rows of one context are no independent evidence. The
    predictions stay as they are, so what other folds or another trained agent would change is not in it.
    """
    _, index = np.unique(groups, return_inverse=True)
    rows, total, squares, errors = (
        np.bincount(index, weights=values)
        for values in (np.ones_like(targets), targets, np.square(targets), np.square(targets - predictions))
    )
    count = len(rows)
    drawn = generator.multinomial(count, np.full(count, 1 / count), size=RESAMPLES).astype(np.float64)
    variation = drawn @ squares - np.square(drawn @ total) / (drawn @ rows)
    # A draw of a single value of the feature has no variance to explain: rounding leaves about nothing.
    usable = variation > 1e-9 * squares.sum()
    if not usable.any():
        return float("nan"), float("nan")
    values = 1.0 - (drawn @ errors)[usable] / variation[usable]
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(values, [tail, 1.0 - tail])
    return float(low), float(high)


def shuffle_contexts(
    targets: Float[ndarray, "N F"], groups: Integer[ndarray, " N"], generator: np.random.Generator
) -> Float[ndarray, "N F"]:
    """Give every context the features of another one, drawn without replacement: targets that no latent can tell."""
    _, first, index = np.unique(groups, return_index=True, return_inverse=True)
    return targets[first][generator.permutation(len(first))][index]


def _split(folds: int, groups: Integer[ndarray, " N"]) -> list[tuple[ndarray, ndarray]]:
    """Rows to fit and rows held out, for each fold of the contexts."""
    splitter = GroupKFold(min(folds, len(np.unique(groups))), shuffle=True, random_state=_SPLIT_SEED)
    return list(splitter.split(groups, groups=groups))


def _fit(latents: ndarray, targets: ndarray, strengths: ndarray) -> Pipeline:
    return make_pipeline(StandardScaler(), Ridge(strengths)).fit(latents, targets)
