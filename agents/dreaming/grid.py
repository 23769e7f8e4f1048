"""Which contexts are swapped for which: a grid over what a run was trained in and is judged in.

Sizes: F context features, V of them that vary, G contexts.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from agents.configuration import RunConfig
from agents.environments.base import Feature
from agents.errors import UserError
from agents.evaluation.summary import complete_context
from worldmodels.context import ContextSpec

#: With so many varying features or fewer, the grid has all combinations of their values.
MAX_CROSSED = 2

Context = dict[str, float]


@dataclass(frozen=True)
class ContextGrid:
    """Contexts that are swapped for each other, raw units.

    Attributes:
        axes: the V features that vary, each with its values, ascending.
        contexts: the G contexts, every feature named; the default context is among them.
        sources: places of those that episodes are recorded in; they lie in the training range.
        outside: for each context, how many of its features lie outside the training range.
        default: place of the default context.
    """

    axes: dict[str, tuple[float, ...]]
    contexts: tuple[Context, ...]
    sources: tuple[int, ...]
    outside: tuple[int, ...]
    default: int

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Every source with every other context, as places."""
        for source in self.sources:
            yield from ((source, target) for target in range(len(self.contexts)) if target != source)

    def differing(self, source: int, target: int) -> tuple[str, ...]:
        """Names of the features in which two contexts differ."""
        one, other = self.contexts[source], self.contexts[target]
        return tuple(name for name in self.axes if one[name] != other[name])


def context_grid(config: RunConfig, features: Sequence[Feature], trained: ContextSpec, run: str) -> ContextGrid:
    """Return the grid of a run.

    A feature's values are its default, both ends of its training range, and its lowest and highest value in any
    evaluation region. With at most MAX_CROSSED varying features the grid has all combinations of the values, and
    episodes are recorded in the default context and the corners of the training range; with more, contexts differ
    from the default one in a single feature, and episodes are recorded in it and at both ends of each feature's
    training range. A default outside the training range gives way to what comes closest to it there.

    Args:
        config: of the run.
        features: the F features of the environment.
        trained: the range of each feature in training.
        run: name of the run, for messages.

    Raises:
        UserError: the run knows one context only.
    """
    judged = [complete_context(c, features) for region in config.contexts.evaluation.regions.values() for c in region]
    ranges = {name: (low, high) for name, low, high in zip(trained.names, trained.low, trained.high, strict=True)}
    default = complete_context({}, features)
    values = {name: _distinct([value, *ranges[name], *_ends(judged, name)]) for name, value in default.items()}
    axes = {name: several for name, several in values.items() if len(several) > 1}
    if not axes:
        raise UserError(
            f"{run}: trained and judged in one context only, so there is none to swap it for; train with "
            "contexts.training.ranges, or add contexts.evaluation.regions to the run's config.yaml"
        )
    # The default context, or what comes closest to it in the training range.
    center = {name: min(max(value, ranges[name][0]), ranges[name][1]) for name, value in default.items()}
    contexts = _combine(center, axes)
    if default not in contexts:
        contexts.append(default)
    outside = [sum(not low <= context[n] <= high for n, (low, high) in ranges.items()) for context in contexts]
    sources = [
        place
        for place, context in enumerate(contexts)
        if outside[place] == 0 and (context == center or _is_corner(context, center, tuple(axes), ranges))
    ]
    return ContextGrid(axes, tuple(contexts), tuple(sources), tuple(outside), contexts.index(default))


def _is_corner(
    context: Context, center: Context, names: Sequence[str], ranges: Mapping[str, tuple[float, float]]
) -> bool:
    """Whether a context lies at ends of the training range: in all features, or of many in those that it changes."""
    moved = [name for name in names if context[name] != center[name]]
    crossed = len(names) <= MAX_CROSSED
    return all(context[name] in ranges[name] for name in (names if crossed else moved))


def _ends(contexts: Sequence[Context], name: str) -> list[float]:
    """Lowest and highest value of a feature; nothing without contexts."""
    found = [context[name] for context in contexts]
    return [min(found), max(found)] if found else []


def _distinct(values: Sequence[float]) -> tuple[float, ...]:
    """The values in ascending order; of those that are equal but for rounding, the first given."""
    kept: list[float] = []
    for value in values:
        if not any(math.isclose(value, other, rel_tol=1e-6, abs_tol=1e-12) for other in kept):
            kept.append(value)
    return tuple(sorted(kept))


def _combine(center: Context, axes: Mapping[str, tuple[float, ...]]) -> list[Context]:
    """All combinations of few features' values; of many features, the center and one feature at a time."""
    if len(axes) <= MAX_CROSSED:
        return [center | dict(zip(axes, combination, strict=True)) for combination in product(*axes.values())]
    single = [center | {name: value} for name, several in axes.items() for value in several if value != center[name]]
    return [center, *single]
