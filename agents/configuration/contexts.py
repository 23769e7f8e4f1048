"""Whether the contexts of a configuration are what they say they are, checked before anything starts.

A region called `interpolation`, `extrapolation` or `one_factor` claims where its contexts lie, seen from the
training contexts. A feature that *varies* in training has a training range: that of `contexts.training.ranges`, or
from the lowest to the highest value of `contexts.training.contexts` (both ends inside). A feature that training keeps
at one value has no range to be in or out of:

* interpolation: every feature that varies in training is inside its range;
* extrapolation: every one of them is outside; where none varies, some feature is off its training value;
* one_factor: exactly one is outside; or none, where a feature that training never varied is off its training value.

So an agent that was trained in the default context, or with one feature varied, can be judged in the regions of those
that it is compared with. Regions of other names claim nothing.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from agents.configuration.checking import make_environment_of, suggestion
from agents.configuration.fields import RunConfig
from agents.errors import UserError

if TYPE_CHECKING:
    from agents.environments import ContextualEnv, Feature

Context = Mapping[str, float]
Range = tuple[float, float]

CLAIMS = {
    "interpolation": "every feature that varies in training must be inside its range",
    "extrapolation": "every feature that varies in training must be outside its range",
    "one_factor": "exactly one feature must be outside its training range",
}


def check_contexts(config: RunConfig, source: str) -> None:
    """Check the environment's settings, and all contexts against it and against each other.

    Raises:
        UserError: an unknown environment or feature, settings that do not fit it, a value out of the feature's
            bounds, a context that lacks a feature which others of its list name, one that is not where the name of
            its region says, or contexts that change within episodes where they cannot. The line names `source`, the
            key and what would be valid.
    """
    environment = make_environment_of(config)
    try:
        features = {feature.name: feature for feature in environment.features}
        for part in ("training", "evaluation"):
            if getattr(config.contexts, part).change_every is not None:
                _check_changing(environment, f"{source}: contexts.{part}.change_every")
    finally:
        environment.close()
    training = config.contexts.training
    bounds = [{name: value} for name, pair in training.ranges.items() for value in pair]
    _check_values(bounds, features, config.environment.name, f"{source}: contexts.training.ranges")
    lists = {"contexts.training.contexts": training.contexts}
    regions = config.contexts.evaluation.regions
    lists |= {f"contexts.evaluation.regions.{region}": contexts for region, contexts in regions.items()}
    for key, contexts in lists.items():
        _check_values(contexts, features, config.environment.name, f"{source}: {key}")
        _check_complete(contexts, features, f"{source}: {key}")
    ranges = _training_ranges(config, features)
    for region in [region for region in regions if region in CLAIMS]:
        for context in regions[region]:
            _check_claim(region, context, ranges, features, f"{source}: contexts.evaluation.regions.{region}")


def _check_changing(environment: "ContextualEnv", place: str) -> None:
    """Refuse contexts that change within an episode where the environment has none, or cannot follow."""
    if not environment.features:
        raise UserError(
            f"{place}: the environment {environment.name!r} shows no feature that could change; valid: null"
        )
    if not environment.live_context:
        raise UserError(f"{place}: the context of {environment.name!r} acts at a reset only; valid: null")
    if environment.longest_episode is None:
        raise UserError(
            f"{place}: {environment.name!r} has no time limit; give environment.time_limit, or let it be null"
        )


def _check_values(contexts: Sequence[Context], features: Mapping[str, "Feature"], world: str, place: str) -> None:
    for context in contexts:
        for name, value in context.items():
            feature = features.get(name)
            if feature is None:
                raise UserError(
                    f"{place}: the environment {world!r} shows no feature {name!r}"
                    f"{suggestion(name, list(features))}; it shows: {', '.join(features) or 'none'}"
                )
            if not feature.low <= value <= feature.high:  # also refuses NaN
                raise UserError(
                    f"{place}: {name} must be from {feature.low:g} to {feature.high:g} {feature.unit}, got {value:g}"
                )


def _check_complete(contexts: Sequence[Context], features: Mapping[str, "Feature"], place: str) -> None:
    """Refuse a list in which one context names a feature and another does not: it is forgotten rather than meant."""
    named = list(dict.fromkeys(name for context in contexts for name in context))
    for context in contexts:
        missing = [name for name in named if name not in context]
        if missing:
            default = f"{features[missing[0]].default:g}"
            raise UserError(
                f"{place}: the context {_shown(context)} lacks {missing[0]}, which others of this list name; "
                f"give it in all of them (its default is {default}) or in none"
            )


def _training_ranges(config: RunConfig, features: Mapping[str, "Feature"]) -> dict[str, Range]:
    """Return lowest and highest training value of every feature; both are the same where it never varies."""
    training = config.contexts.training
    defaults = {name: feature.default for name, feature in features.items()}
    contexts = [defaults | dict(context) for context in training.contexts] or [defaults]
    ranges = {name: (min(c[name] for c in contexts), max(c[name] for c in contexts)) for name in features}
    return ranges | training.ranges


def _check_claim(
    region: str, context: Context, ranges: Mapping[str, Range], features: Mapping[str, "Feature"], place: str
) -> None:
    values = {name: feature.default for name, feature in features.items()} | dict(context)
    varying = {name: bounds for name, bounds in ranges.items() if bounds[0] < bounds[1]}
    outside = [name for name, (low, high) in varying.items() if not low <= values[name] <= high]
    inside = [name for name in varying if name not in outside]
    moved = any(values[name] != ranges[name][0] for name in ranges if name not in varying)
    holds = {
        "interpolation": not outside,
        "extrapolation": not inside and (bool(outside) or moved),
        "one_factor": len(outside) == 1 or (not outside and moved),
    }[region]
    if holds:
        return
    told = [f"{name} is inside [{varying[name][0]:g}, {varying[name][1]:g}]" for name in inside]
    told += [f"{name} is outside [{varying[name][0]:g}, {varying[name][1]:g}]" for name in outside]
    raise UserError(
        f"{place}: {_shown(context)} does not belong here: {', '.join(told) or 'it is the training context'}; "
        f"in {region} {CLAIMS[region]}; move the context to the region it belongs to, or change its values"
    )


def _shown(context: Context) -> str:
    return "{" + ", ".join(f"{name}: {value:g}" for name, value in context.items()) + "}"
