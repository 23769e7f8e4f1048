"""Which contexts an episode gets, as a pure function of the episode's global index and the number of the change.

Nothing is remembered between episodes, so resuming a run needs only its episode counter.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from agents.environments.base import Change
from agents.errors import UserError

Context = dict[str, float]


class ContextDistribution(Protocol):
    """Chooses contexts."""

    def context(self, episode: int, change: int = 0) -> tuple[Context, int]:
        """Return (context, context id) of an episode: the first one, or what it changes to.

        Args:
            episode: global index, >= 0.
            change: how many changes within the episode lead to this context; 0: it begins with it.

        Returns:
            The context names some features in raw units, the others are at their default. The id is the
            context's place in its list, or -1 if it was drawn afresh.
        """
        ...


class FixedContexts:
    """The listed contexts in turn, over and over. ``FixedContexts([{}])`` is always the default.

    Change ``k`` of an episode leads to the context that is ``k`` further in the list.

    Raises:
        UserError: an empty list.
    """

    def __init__(self, contexts: Sequence[Mapping[str, float]]) -> None:
        self._contexts = _checked_list(contexts)

    def context(self, episode: int, change: int = 0) -> tuple[Context, int]:
        """See `ContextDistribution.context`."""
        index = (episode + change) % len(self._contexts)
        return dict(self._contexts[index]), index


class RoundRobin:
    """Every listed context once per pass, in an order that each pass shuffles anew.

    The changes within an episode make passes of their own, shuffled anew in each and for each episode.

    Args:
        contexts: the list.
        seed: with the number of the pass, and of the episode for its changes, decides the order.

    Raises:
        UserError: an empty list.
    """

    def __init__(self, contexts: Sequence[Mapping[str, float]], seed: int) -> None:
        self._contexts = _checked_list(contexts)
        self._seed = seed

    def context(self, episode: int, change: int = 0) -> tuple[Context, int]:
        """See `ContextDistribution.context`."""
        from agents.seeding import numpy_generator  # it imports torch, which environment workers do not need

        if change:
            turn, place = divmod(change - 1, len(self._contexts))
            generator = numpy_generator(self._seed, "contexts/changes", episode, turn)
        else:
            turn, place = divmod(episode, len(self._contexts))
            generator = numpy_generator(self._seed, "contexts/order", turn)
        order = generator.permutation(len(self._contexts))
        index = int(order[place])
        return dict(self._contexts[index]), index


class UniformContexts:
    """A fresh context for every episode and change, each feature uniform in its range, independent of the others.

    Args:
        ranges: feature name to (low, high) in raw units.
        seed: with feature name, episode and change, decides the value.

    Raises:
        UserError: a range that is not two finite numbers, low first.
    """

    def __init__(self, ranges: Mapping[str, Sequence[float]], seed: int) -> None:
        self._ranges = _checked_ranges(ranges)
        self._seed = seed

    def context(self, episode: int, change: int = 0) -> tuple[Context, int]:
        """See `ContextDistribution.context`; the id is always -1."""
        if change:
            return _uniform(self._ranges, self._seed, "contexts/changes", episode, change), -1
        return _uniform(self._ranges, self._seed, "contexts/fresh", episode), -1


def change_steps(every: int | None, longest: int) -> Sequence[int]:
    """Return before which steps of the agent the context changes: after every ``every`` steps in the same one.

    Args:
        every: steps in the same context, >= 1; None: it never changes.
        longest: steps of the longest episode.
    """
    return () if every is None else range(every + 1, longest + 1, every)


def changes_in_turn(contexts: Sequence[Mapping[str, float]], index: int, steps: Sequence[int]) -> tuple[Change, ...]:
    """Return the changes of an episode that begins in a context of a list and goes on to the next ones, in turn.

    Args:
        contexts: the list; after its last context comes its first.
        index: of the context that the episode begins in.
        steps: of the agent, just before which the context changes.
    """
    places = [(index + number) % len(contexts) for number in range(1, len(steps) + 1)]
    return tuple(Change(step, contexts[place], place) for step, place in zip(steps, places, strict=True))


def draw_contexts(ranges: Mapping[str, Sequence[float]], count: int, seed: int) -> list[Context]:
    """Draw a list of contexts once, each feature uniform in its range and independent of the others.

    The first contexts of a longer list are those of a shorter one, and a further feature changes no
    values of the others.

    Args:
        ranges: feature name to (low, high) in raw units.
        count: number of contexts, at least 1.
        seed: decides all values.

    Raises:
        UserError: a range that is not two finite numbers, low first; or a count below 1.
    """
    checked = _checked_ranges(ranges)
    if count < 1:
        raise UserError(f"contexts: count is {count}, but must be at least 1")
    return [_uniform(checked, seed, "contexts/drawn", index) for index in range(count)]


def _uniform(ranges: Mapping[str, tuple[float, float]], seed: int, stream: str, *counters: int) -> Context:
    from agents.seeding import numpy_generator  # see RoundRobin

    return {
        name: float(numpy_generator(seed, f"{stream}/{name}", *counters).uniform(low, high))
        for name, (low, high) in ranges.items()
    }


def _checked_list(contexts: Sequence[Mapping[str, float]]) -> list[Context]:
    if not contexts:
        raise UserError("contexts: the list is empty; name at least one context ({} is the default)")
    return [{name: float(value) for name, value in context.items()} for context in contexts]


def _checked_ranges(ranges: Mapping[str, Sequence[float]]) -> dict[str, tuple[float, float]]:
    checked = {}
    for name, bounds in ranges.items():
        if len(bounds) != 2 or not all(math.isfinite(bound) for bound in bounds) or bounds[0] > bounds[1]:
            raise UserError(f"contexts: range of {name} is {list(bounds)}, but must be two finite numbers, low first")
        checked[name] = (float(bounds[0]), float(bounds[1]))
    return checked
