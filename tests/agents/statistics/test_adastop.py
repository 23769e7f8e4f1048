"""AdaStop against enumerations written out another way, its error under the null and its power."""

import itertools
import math

import numpy as np
import pytest

from agents.statistics import adastop, fewest_seeds


def told(results):
    return {(one.first, one.second): one.verdict for one in results}


def test_three_seeds_by_hand():
    # {1, 2, 3} against {7, 8, 9}: of 20 ways to choose three of six numbers, two have sums that differ by 18 or more.
    (result,) = adastop([[1, 2, 3], [7, 8, 9]], group=3)
    assert result.p_value == pytest.approx(2 / 20)
    assert result.verdict == "alike"  # 0.1 > 0.05, however far apart they are
    (result,) = adastop([[1, 2, 3], [7, 8, 9]], group=3, alpha=0.1)
    assert (result.verdict, result.interim) == ("worse", 1)
    (result,) = adastop([[7, 8, 9], [1, 2, 3]], group=3, alpha=0.1)
    assert result.verdict == "better"
    # {1, 2, 9} against {3, 7, 8}: the sums 12 and 18 differ by 6; by hand 14 of 20 choices differ by at least 6.
    sums = [sum(choice) for choice in itertools.combinations([1, 2, 9, 3, 7, 8], 3)]
    count = sum(abs(2 * one - 30) >= 6 for one in sums)
    (result,) = adastop([[1, 2, 9], [3, 7, 8]], group=3)
    assert result.p_value == pytest.approx(count / 20)


def test_ties_count():
    # Three equal runs each and one that differs: every order puts it on one side or the other, |T| is always the same.
    (result,) = adastop([[1, 1, 1], [1, 1, 2]], group=3)
    assert result.p_value == 1.0
    # Sums of tenths differ by their order of summation in floating point, but not here.
    (result,) = adastop([[0.1, 0.2, 0.3], [0.7, 0.8, 0.9]], group=3)
    assert result.p_value == pytest.approx(0.1)
    (result,) = adastop([[5.0] * 4, [5.0] * 4], group=4)
    assert (result.verdict, result.p_value) == ("alike", 1.0)


def brute_force(scores, group, interims, alpha):
    """Two agents, by recursion over all permutations (not combinations) of every group."""
    limits, spent, verdict = [], 0.0, None
    for k in range(1, interims + 1):
        blocks = [scores[0][i * group : (i + 1) * group] + scores[1][i * group : (i + 1) * group] for i in range(k)]
        values = []
        for orders in itertools.product(itertools.permutations(range(2 * group)), repeat=k):
            totals, path = 0, []
            for block, order in zip(blocks, orders, strict=True):
                moved = [block[place] for place in order]
                totals += sum(moved[:group]) - sum(moved[group:])
                path.append(abs(totals))
            if all(one < limit for one, limit in zip(path, limits, strict=False)):
                values.append(path[-1])
        count = math.factorial(2 * group) ** k
        observed = abs(sum(scores[0][: k * group]) - sum(scores[1][: k * group]))
        p_value = spent + sum(value >= observed for value in values) / count
        if p_value <= k * alpha / interims + 1e-12:
            return "better" if sum(scores[0][: k * group]) > sum(scores[1][: k * group]) else "worse", k, p_value
        candidates = [
            value
            for value in sorted(set(values))
            if sum(other >= value for other in values) / count <= k * alpha / interims - spent + 1e-12
        ]
        limits.append(candidates[0] if candidates else math.inf)
        spent += sum(value >= limits[-1] for value in values) / count
        verdict = ("alike" if k == interims else "open", k, p_value)
    return verdict


@pytest.mark.parametrize("seed", range(12))
def test_two_interims_against_brute_force(seed):
    generator = np.random.default_rng(seed)
    first = generator.integers(0, 12, size=4).tolist()
    second = (generator.integers(0, 12, size=4) + 3 * (seed % 4)).tolist()
    expected = brute_force([first, second], 2, 2, 0.7)
    (result,) = adastop([first, second], group=2, interims=2, alpha=0.7)
    assert (result.verdict, result.interim) == expected[:2]
    assert result.p_value == pytest.approx(expected[2])


def test_brute_force_cases_reach_both_interims_and_none():
    """The cases above are of every kind."""
    kinds = set()
    for seed in range(12):
        generator = np.random.default_rng(seed)
        first = generator.integers(0, 12, size=4).tolist()
        second = (generator.integers(0, 12, size=4) + 3 * (seed % 4)).tolist()
        kinds.add(brute_force([first, second], 2, 2, 0.7)[:2])
    assert {("alike", 2), ("worse", 1), ("worse", 2)} <= kinds


def test_step_down_by_enumeration():
    # Three agents, group of four: p-values of the largest difference among the pairs that remain, one after another.
    scores = [[1.0, 2.0, 4.0, 3.5], [2.5, 3.0, 5.0, 1.5], [11.0, 12.5, 14.0, 10.0]]
    remaining, expected, adjusted = [(0, 1), (0, 2), (1, 2)], {}, 0.0
    while remaining:
        largest = []
        for chosen in itertools.combinations(range(8), 4):
            values = []
            for i, j in remaining:
                both = scores[i] + scores[j]
                values.append(abs(2 * sum(both[place] for place in chosen) - sum(both)))
            largest.append(max(values))
        gaps = {(i, j): abs(sum(scores[i]) - sum(scores[j])) for i, j in remaining}
        pair = max(gaps, key=gaps.get)
        adjusted = max(adjusted, np.mean(np.array(largest) >= gaps[pair] - 1e-9))
        expected[pair] = adjusted
        remaining.remove(pair)
    results = {(one.first, one.second): one for one in adastop(scores, group=4)}
    assert told(results.values()) == {(0, 1): "alike", (0, 2): "worse", (1, 2): "worse"}
    for pair, p_value in expected.items():
        assert results[pair].p_value == pytest.approx(p_value)
    assert expected[0, 1] > 0.05 > expected[1, 2]


def test_monte_carlo_agrees_with_enumeration():
    generator = np.random.default_rng(5)
    scores = [generator.normal(size=5), generator.normal(size=5) + 0.8, generator.normal(size=5) - 0.5]
    exact = adastop(scores, group=5, limit=252)
    drawn = [adastop(scores, group=5, limit=251, seed=seed) for seed in range(40)]
    for index, one in enumerate(exact):
        assert np.mean([run[index].p_value for run in drawn]) == pytest.approx(one.p_value, abs=0.015)
    assert adastop(scores, group=5, limit=251, seed=3) == drawn[3]


def test_decided_pairs_need_no_more_seeds():
    generator = np.random.default_rng(0)
    alike = [generator.normal(size=10), generator.normal(size=10)]
    better = generator.normal(size=5) + 50  # has only the first group
    results = adastop([*alike, better], group=5, interims=2, limit=2000)
    assert told(results) == {(0, 1): "alike", (0, 2): "worse", (1, 2): "worse"}
    assert [one.interim for one in results] == [2, 1, 1]
    results = adastop([*alike, alike[0][:5]], group=5, interims=2, limit=2000)
    assert {(one.verdict, one.interim) for one in results} == {("open", 1)}
    assert {(one.verdict, one.interim) for one in adastop(alike, group=11)} == {("open", 0)}


def test_runs_beyond_the_plan_are_not_looked_at():
    first, second = [1.0, 2.0, 3.0, 4.0], [1.5, 2.5, 3.5, 4.5]
    assert adastop([first, second + [99.0] * 9], group=4) == adastop([first, second], group=4)


@pytest.mark.parametrize("agents", [2, 4])
@pytest.mark.parametrize("interims", [1, 2])
def test_family_wise_error(agents, interims):
    """Equal agents are told apart in at most alpha of all studies, up to two standard errors of the simulation."""
    generator, alpha, studies = np.random.default_rng(100 + agents + 10 * interims), 0.1, 300
    errors = 0
    for study in range(studies):
        # Most seeds near the top, some far below, as returns are.
        scores = -(generator.exponential(size=(agents, 4 * interims)) ** 2)
        results = adastop(list(scores), group=4, interims=interims, alpha=alpha, limit=300, seed=study)
        errors += any(one.verdict in ("better", "worse") for one in results)
    assert errors / studies <= alpha + 2 * math.sqrt(alpha * (1 - alpha) / studies)
    if agents == 2 and interims == 1:  # the test spends what it may, in steps of 2 / 70
        assert errors / studies >= alpha / 2


def test_family_wise_error_when_one_agent_differs():
    """Strong control: that one agent is far better does not let the equal ones be told apart more often."""
    generator, alpha, studies, errors, found = np.random.default_rng(8), 0.1, 300, 0, 0
    for _ in range(studies):
        scores = generator.normal(size=(4, 5)) + np.array([0.0, 0.0, 0.0, 9.0])[:, None]
        verdicts = told(adastop(list(scores), group=5, alpha=alpha))
        errors += any(verdicts[pair] in ("better", "worse") for pair in [(0, 1), (0, 2), (1, 2)])
        found += all(verdicts[pair] == "worse" for pair in [(0, 3), (1, 3), (2, 3)])
    assert errors / studies <= alpha + 2 * math.sqrt(alpha * (1 - alpha) / studies)
    assert found / studies > 0.99


def test_clear_differences_are_told_early():
    generator = np.random.default_rng(3)
    stopped = []
    for _ in range(30):
        scores = [generator.normal(size=20), generator.normal(size=20) + 4]
        (result,) = adastop(scores, group=5, interims=4, limit=1000)
        assert result.verdict == "worse"
        stopped.append(result.interim)
    assert np.mean(stopped) < 1.3  # of 4


def test_fewest_seeds():
    assert [math.comb(2 * size, size) for size in (3, 4, 5)] == [20, 70, 252]
    assert fewest_seeds(0.1) == 3
    assert fewest_seeds(0.05) == 4  # 2 / 70 = 0.029
    assert fewest_seeds(0.05, interims=5) == 5  # 2 / 252 = 0.008 <= 0.01
    for size, verdict in ((3, "alike"), (4, "worse")):
        (result,) = adastop([np.arange(size), 100.0 + np.arange(size)], group=size)
        assert result.verdict == verdict


def test_what_is_refused():
    with pytest.raises(ValueError, match="two agents"):
        adastop([[1.0, 2.0]], group=1)
    with pytest.raises(ValueError, match="finite"):
        adastop([[1.0, math.nan], [1.0, 2.0]], group=2)
    with pytest.raises(ValueError, match="alpha"):
        adastop([[1.0], [2.0]], group=1, alpha=1.5)
    with pytest.raises(ValueError, match="interim"):
        fewest_seeds(0.05, interims=0)
