"""Which contexts are swapped for which."""

import pytest

from agents.configuration import RunConfig
from agents.dreaming.grid import context_grid
from agents.environments.base import Feature
from agents.errors import UserError
from worldmodels.context import ContextSpec

GRAVITY = Feature("gravity", "m/s^2", 9.8, 0.1, 100.0, "")
LENGTH = Feature("length", "m", 0.5, 0.05, 5.0, "")
MASS = Feature("mass", "kg", 1.0, 0.1, 10.0, "")


def grid(features, ranges, regions):
    config = RunConfig.model_validate({"contexts": {"evaluation": {"regions": regions}}})
    bounds = [ranges.get(feature.name, (feature.default,) * 2) for feature in features]
    names = tuple(feature.name for feature in features)
    low, high = (tuple(bound[side] for bound in bounds) for side in (0, 1))
    return context_grid(config, features, ContextSpec(names, low, high), "runs/some")


def test_two_features_are_crossed():
    regions = {"inside": [{"gravity": 7.35}], "outside": [{"gravity": 0.98, "length": 1.0}, {"gravity": 19.6}]}
    made = grid([GRAVITY, LENGTH], {"gravity": (4.9, 14.7), "length": (0.35, 0.75)}, regions)
    assert made.axes == {"gravity": (0.98, 4.9, 9.8, 14.7, 19.6), "length": (0.35, 0.5, 0.75, 1.0)}
    assert len(made.contexts) == 20 and made.contexts[made.default] == {"gravity": 9.8, "length": 0.5}
    sources = [tuple(made.contexts[place].values()) for place in made.sources]
    assert sources == [(4.9, 0.35), (4.9, 0.75), (9.8, 0.5), (14.7, 0.35), (14.7, 0.75)]
    outside = {tuple(c.values()): count for c, count in zip(made.contexts, made.outside, strict=True)}
    assert outside[4.9, 0.75] == 0 and outside[0.98, 0.5] == 1 and outside[9.8, 1.0] == 1 and outside[0.98, 1.0] == 2
    pairs = list(made.pairs())
    assert len(pairs) == 5 * 19 and len(set(pairs)) == len(pairs) and all(a != b for a, b in pairs)
    assert made.differing(made.sources[0], made.sources[1]) == ("length",)


def test_one_feature_beside_a_constant_one():
    made = grid([GRAVITY, LENGTH], {"gravity": (5.0, 15.0)}, {})
    assert made.axes == {"gravity": (5.0, 9.8, 15.0)}
    assert [c["length"] for c in made.contexts] == [0.5] * 3 and made.sources == (0, 1, 2)


def test_many_features_differ_one_at_a_time():
    ranges = {"gravity": (4.9, 14.7), "length": (0.35, 0.75), "mass": (0.5, 2.0)}
    made = grid([GRAVITY, LENGTH, MASS], ranges, {"outside": [{"mass": 5.0}]})
    default = {"gravity": 9.8, "length": 0.5, "mass": 1.0}
    assert made.contexts[0] == default and made.default == 0
    changed = [{name: c[name] for name in c if c[name] != default[name]} for c in made.contexts[1:]]
    expected = [("gravity", 4.9), ("gravity", 14.7), ("length", 0.35), ("length", 0.75)]
    expected += [("mass", 0.5), ("mass", 2.0), ("mass", 5.0)]
    assert changed == [{name: value} for name, value in expected]
    assert made.sources == (0, 1, 2, 3, 4, 5, 6)  # all but the mass outside the training range


def test_an_agent_of_one_context_is_swapped_to_the_regions():
    made = grid([GRAVITY], {}, {"far": [{"gravity": 20.0}]})
    assert made.sources == (made.default,) and [c["gravity"] for c in made.contexts] == [9.8, 20.0]
    assert made.outside == (0, 1)


@pytest.mark.parametrize("features", [[GRAVITY], [GRAVITY, LENGTH, MASS]])
def test_a_default_outside_the_training_range_is_no_source(features):
    made = grid(features, {"gravity": (1.0, 5.0), "length": (0.4, 0.6), "mass": (0.9, 1.1)}, {})
    assert made.contexts[made.default]["gravity"] == 9.8 and made.default not in made.sources
    assert {made.contexts[place]["gravity"] for place in made.sources} == {1.0, 5.0}


def test_one_context_alone_cannot_be_swapped():
    with pytest.raises(UserError, match="runs/some: trained and judged in one context only"):
        grid([GRAVITY, LENGTH], {}, {"same": [{"gravity": 9.8}]})
    with pytest.raises(UserError, match="one context only"):
        grid([], {}, {})
