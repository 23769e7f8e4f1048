"""Second moments of dreams about their truths, and what can be said by them.

A dream is made under one context; the *counterfactual truth* is what the simulator does in the swapped context, from
the same state and under the same actions. All measures below are functions of sums of squares and products, so
episodes, horizons and pairs of contexts are pooled by adding their moments: what differs little in truth then weighs
little, and nothing is divided by a difference that hardly exists.

Sizes: E episodes, H imagined steps, K quantities, M = len(MOMENTS).
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float
from numpy import ndarray

#: The contexts of dreams: that of the episode, the swapped one, and the environment's default.
NAMES = ("true", "swapped", "default")

#: What is kept of every episode and step; each but the first is a mean over the K quantities.
#: Squared errors of the three dreams against the counterfactual truth and against what happened; the squared real
#: difference of the two truths; the squared difference of the swapped and the true dream; their product.
MOMENTS = (
    "count",
    *(f"{name}_counterfactual" for name in NAMES),
    *(f"{name}_happened" for name in NAMES),
    "real",
    "moved",
    "product",
)
_INDEX = {name: index for index, name in enumerate(MOMENTS)}

Sums = Float[ndarray, "*N M"]
Values = Float[ndarray, "*N"]


def moments(
    happened: Float[ndarray, "E H *K"],
    counterfactual: Float[ndarray, "E H *K"],
    dreamt: Mapping[str, Float[ndarray, "E H *K"]],
) -> Float[ndarray, "E H M"]:
    """Return the moments of every episode and step: zero, the count too, where either truth is NaN.

    Args:
        happened: what happened, each quantity in a unit in which it may be compared with the others.
        counterfactual: the same of the counterfactual truth.
        dreamt: by each of NAMES the dream.
    """
    axes = tuple(range(2, happened.ndim))
    real, moved = counterfactual - happened, dreamt["swapped"] - dreamt["true"]
    parts = [np.ones(happened.shape[:2])]
    for truth in (counterfactual, happened):
        parts += [np.mean(np.square(dreamt[name] - truth), axes) for name in NAMES]
    parts += [np.mean(values, axes) for values in (real**2, moved**2, real * moved)]
    stacked = np.stack(parts, -1).astype(np.float64)
    known = ~np.isnan(stacked).any(-1, keepdims=True)
    return np.where(known, stacked, 0.0)


def part(sums: Sums, name: str) -> Values:
    """One of MOMENTS."""
    return sums[..., _INDEX[name]]


def root_mean_square(sums: Sums, name: str) -> Values:
    """Root mean square of errors or differences; NaN where no step counts."""
    return np.sqrt(_ratio(part(sums, name), part(sums, "count")))


def skill(sums: Sums, reference: str = "true") -> Values:
    """Return 1 - (error of the swapped dream) / (error of another dream), squared, both against what would have been.

    This is the mean squared error skill score (A. H. Murphy, Monthly Weather Review 116, 1988). 1: the swapped dream
    is right; 0: it is no better than the reference, as of an agent that ignores the context; negative: the swap moved
    the dream away from what it should show. NaN where the reference makes no error.

    Args:
        sums: pooled moments.
        reference: the other dream, one of NAMES: ``true`` tells what the swap was good for, ``default`` whether any
            other context would have done as well.
    """
    ratio = _ratio(part(sums, "swapped_counterfactual"), part(sums, f"{reference}_counterfactual"))
    return 1.0 - ratio


def default_skill(sums: Sums) -> Values:
    """The skill over a dream under the default context; see `skill`."""
    return skill(sums, "default")


def direction(sums: Sums) -> Values:
    """Return the cosine between what the swap changed in the dream and what it changes in truth, in [-1, 1].

    Both are vectors over all pooled episodes, steps and quantities. Errors that both dreams share cancel, so it can
    tell a direction where these are larger than the real difference. 0 where the swap changed nothing in the dream;
    NaN where it changes nothing in truth.
    """
    real, moved, product = (part(sums, name) for name in ("real", "moved", "product"))
    lengths = np.sqrt(real * moved)
    cosine = np.where(lengths > 0, product / np.where(lengths > 0, lengths, 1.0), 0.0)
    return np.where(real > 0, cosine, np.nan)


def effect_skill(sums: Sums) -> Values:
    """Return 1 - |dream's change - true change|^2 / |true change|^2 of what the swap changed.

    The skill of predicting the counterfactual truth by what happened plus the difference of the two dreams. Unlike
    `skill` it also sees how far the dream moved: 1 if as far as the truth, and in its direction; 0 if not at all;
    negative for the wrong direction, and for more than twice the right distance. NaN where nothing changes in truth.
    """
    real, moved, product = (part(sums, name) for name in ("real", "moved", "product"))
    return _ratio(2 * product - moved, real)


def distance(sums: Sums) -> Values:
    """How far the swap moved the dream, in the distance that it moves the truth; NaN where that is 0."""
    return np.sqrt(_ratio(part(sums, "moved"), part(sums, "real")))


def clear(sums: Sums) -> bool:
    """Whether the real difference is larger than the error of the true dream about what happened."""
    return bool(part(sums, "real") > part(sums, "true_happened"))


#: What is scored: name, and how it is computed from sums of moments.
SCORES: dict[str, Callable[[Sums], Values]] = {
    "skill": skill,
    "default_skill": default_skill,
    "direction": direction,
    "effect_skill": effect_skill,
    "distance": distance,
}


def _ratio(numerator: Values, denominator: Values) -> Values:
    """Quotient; NaN where the denominator is 0."""
    positive = denominator > 0
    return np.where(positive, numerator / np.where(positive, denominator, 1.0), math.nan)
