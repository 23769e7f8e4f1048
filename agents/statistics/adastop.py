"""AdaStop: have we enough seeds to tell these agents apart?

After T. Mathieu et al., "AdaStop: adaptive statistical testing for sound comparisons of Deep RL agents" (TMLR 2024,
arXiv 2306.10882), its algorithm and the group sequential permutation tests that this rests on. Agents are trained in
at most K groups of N seeds each; after each group (an interim) the pairs that can be told apart are, and only the
others need the next group. In the paper's symbols, for the pairs j of a set C and interim k:

* e_{1,i}, ..., e_{2N,i}: the scores in group i of the pair's first agent, then of its second one.
* T_j(s_1..s_k) = | sum over groups i <= k of (sum_{n<=N} e_{s_i(n),i} - sum_{n>N} e_{s_i(n),i}) |, for permutations
  s_i of the 2N places: scores are exchanged within a group only, and in all pairs by the same permutation.
* T_C = max over j in C of T_j. The pair with the largest T_j of the observed order is rejected if T_C >= B_k;
  then B_k is computed anew for the pairs that remain, until none is rejected (step-down).
* B_k = inf {b: P(T_C(s_1..s_k) >= b, and T_C(s_1..s_m) < B_m for all interims m < k) <= q_k}, P over all
  permutations: those that would have been told apart before do not count again.
* q_k = k alpha / K - what the interims before have spent: by the last, alpha.

All orders are enumerated while there are at most ``limit`` of them, comb(2N, N)^k; else ``limit`` random ones from
a seed, the observed one among them, which keeps a permutation test valid. For two agents the level holds exactly, for
any distribution of the scores; for more agents the paper analyses it, and our tests simulate it. The test is
two-sided, absolute values on both sides; the authors' program, adastop, compares the absolute statistic with quantiles
of the signed one. It also allows group sizes that differ between agents; here they are equal.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agents.seeding import numpy_generator

Array = NDArray[np.float64]
Pair = tuple[int, int]


@dataclass(frozen=True)
class Comparison:
    """What is known about a pair of agents.

    Attributes:
        first, second: the agents' indices.
        verdict: whether the first is ``better`` or ``worse``; ``open``: more groups may still tell; ``alike``: all
            groups are spent and they were not told apart (which does not show that they are equal).
        interim: after how many groups that was said.
        p_value: the level at which the test up to this interim would have rejected the pair, adjusted for all pairs;
            a pair is rejected where it is at most interim * alpha / interims.
    """

    first: int
    second: int
    verdict: Literal["better", "worse", "open", "alike"]
    interim: int
    p_value: float


@dataclass(frozen=True)
class _Interim:
    """What an interim without further rejection left: its pairs and their boundary B_k."""

    pairs: tuple[Pair, ...]
    boundary: float


def fewest_seeds(alpha: float = 0.05, interims: int = 1) -> int:
    """Return the size of a group from which the first interim can tell agents apart at all.

    The most extreme order of 2N scores shares its |T| with its mirror image: no p-value is below 2 / comb(2N, N),
    which is 1 / 10 for three seeds against three and 1 / 35 for four. It must not exceed alpha / interims.

    Raises:
        ValueError: alpha outside (0, 1), or no interim.
    """
    _check(alpha, interims)
    return next(size for size in itertools.count(2) if 2 / math.comb(2 * size, size) <= alpha / interims)


def adastop(
    scores: Sequence[ArrayLike],
    *,
    group: int,
    interims: int = 1,
    alpha: float = 0.05,
    pairs: Sequence[Pair] | None = None,
    limit: int = 10_000,
    seed: int = 0,
) -> list[Comparison]:
    """Test which agents can be told apart with the seeds there are; the module's docstring says how.

    Args:
        scores: for each agent its runs' scores, one number a run, in the order in which they were planned; group k is
            the runs k * group to (k + 1) * group - 1. Runs beyond group * interims are not used, since nobody planned
            to look at them.
        group: N, runs per agent and group.
        interims: K, how often one plans to look at the results at most.
        alpha: family-wise error: the probability of telling any two equal agents apart.
        pairs: which agents are compared, (i, j) with i < j; None: all.
        limit: the number of orders up to which they are enumerated, and of random ones beyond.
        seed: of the random ones.

    Returns:
        One result for each pair, in their order. Without a whole group for each agent all are open at interim 0.

    Raises:
        ValueError: fewer than two agents, a group below 1, no interim, alpha outside (0, 1), or scores that are not
            finite.
    """
    _check(alpha, interims)
    arrays = [np.asarray(values, dtype=np.float64).reshape(-1) for values in scores]
    if len(arrays) < 2 or group < 1 or not all(np.isfinite(values).all() for values in arrays):
        raise ValueError("AdaStop needs finite scores of at least two agents, in groups of at least one")
    wanted = list(itertools.combinations(range(len(arrays)), 2)) if pairs is None else list(pairs)
    results = {pair: Comparison(*pair, "open", 0, 1.0) for pair in wanted}
    remaining, past, spent = tuple(wanted), list[_Interim](), 0.0
    for k in range(1, interims + 1):
        if not remaining or any(arrays[agent].size < k * group for pair in remaining for agent in pair):
            break
        orders = _orders(group, k, limit, seed)
        alive = np.ones(len(orders), np.bool_)
        for m, interim in enumerate(past, start=1):
            alive &= _largest(arrays, interim.pairs, orders[:, :m], group) < interim.boundary
        adjusted = 0.0  # p-values of the step-down never decrease
        while remaining:
            statistics = np.sort(_largest(arrays, remaining, orders, group)[alive])
            observed = {pair: _signed(arrays, pair, k * group) for pair in remaining}
            pair = max(remaining, key=lambda one: abs(observed[one]))
            value = _rounded(abs(observed[pair]), arrays)
            share = _share_from(statistics, value) / len(orders)
            adjusted = max(adjusted, spent + share)
            verdict: Literal["better", "worse"] = "better" if observed[pair] > 0 else "worse"
            if spent + share > k * alpha / interims + 1e-12:
                break
            results[pair] = Comparison(*pair, verdict, k, adjusted)
            remaining = tuple(one for one in remaining if one != pair)
        for pair in remaining:
            value = _rounded(abs(_signed(arrays, pair, k * group)), arrays)
            p_value = min(1.0, max(adjusted, spent + _share_from(statistics, value) / len(orders)))
            results[pair] = Comparison(*pair, "alike" if k == interims else "open", k, p_value)
        boundary, used = _boundary(statistics, (k * alpha / interims - spent) * len(orders))
        past.append(_Interim(remaining, boundary))
        spent += used / len(orders)
    return [results[pair] for pair in wanted]


def _check(alpha: float, interims: int) -> None:
    if not 0.0 < alpha < 1.0 or interims < 1:
        raise ValueError(f"AdaStop needs 0 < alpha < 1 and at least one interim, not {alpha} and {interims}")


def _orders(group: int, k: int, limit: int, seed: int) -> Array:
    """Signs [P, k, 2N] of the scores in T_j: +1 where a permutation puts a score first; row 0 is the observed order."""
    single = math.comb(2 * group, group)
    if single**k <= limit:
        signs = np.full((single, 2 * group), -1.0)
        for row, places in enumerate(itertools.combinations(range(2 * group), group)):
            signs[row, list(places)] = 1.0
        chosen = np.array(list(itertools.product(range(single), repeat=k)))
        return signs[chosen]
    observed = np.repeat([1.0, -1.0], group)
    drawn = np.tile(observed, (limit, k, 1))
    drawn[1:] = numpy_generator(seed, "adastop", group, k).permuted(drawn[1:], axis=-1)
    return drawn


def _largest(arrays: Sequence[Array], pairs: Sequence[Pair], orders: Array, group: int) -> Array:
    """T_C [P] of the orders [P, k, 2N]."""
    k = orders.shape[1]
    largest = np.zeros(len(orders))
    for pair in pairs:
        halves = [arrays[agent][: k * group].reshape(k, group) for agent in pair]
        values = np.einsum("pkn,kn->p", orders, np.concatenate(halves, axis=-1))
        largest = np.maximum(largest, np.abs(values))
    return _rounded(largest, arrays)


def _rounded(values: ArrayLike, arrays: Sequence[Array]) -> Array:
    """Sums that differ only by the order of their summands become equal, since ties count."""
    unit = max(float(np.abs(values).sum()) for values in arrays) * 1e-10 or 1.0
    return np.asarray(np.round(np.asarray(values, dtype=np.float64) / unit))


def _signed(arrays: Sequence[Array], pair: Pair, runs: int) -> float:
    return math.fsum(arrays[pair[0]][:runs]) - math.fsum(arrays[pair[1]][:runs])


def _share_from(statistics: Array, value: ArrayLike) -> int:
    """How many of the sorted statistics reach a value."""
    return int(statistics.size - np.searchsorted(statistics, value, side="left"))


def _boundary(statistics: Array, allowed: float) -> tuple[float, int]:
    """The smallest value that at most ``allowed`` of the sorted statistics reach, and how many do; else infinity."""
    for value in np.unique(statistics):
        reached = _share_from(statistics, value)
        if reached <= allowed + 1e-9:
            return float(value), reached
    return math.inf, 0
