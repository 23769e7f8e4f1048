"""What the configurations of contextual worlds claim about their sources."""

import numpy as np
import pytest

from agents.configuration import load_config

# Uncertainty sets of three dimensions (two for the pendulum) of SuReLI/RRLS at 0c43dc9, its names in brackets.
ROBUST = {
    "ant": {"torso_mass": (0.1, 3.0), "front_left_leg_mass": (0.01, 3.0), "front_right_leg_mass": (0.01, 3.0)},
    "halfcheetah": {  # worldfriction, torsomass, backthighmass
        "geom_friction": (0.1, 4.0),
        "torso_mass": (0.1, 7.0),
        "bthigh_mass": (0.1, 3.0),
    },
    "hopper": {"floor_friction": (0.1, 3.0), "torso_mass": (0.1, 3.0), "thigh_mass": (0.1, 4.0)},
    "humanoidstandup": {"torso_mass": (0.1, 16.0), "left_thigh_mass": (0.1, 5.0), "right_foot_mass": (0.1, 8.0)},
    "invertedpendulum": {"pole_mass": (1.0, 31.0), "cart_mass": (1.0, 11.0)},
    "walker2d": {"floor_friction": (0.1, 4.0), "torso_mass": (0.1, 5.0), "thigh_mass": (0.1, 6.0)},
}


@pytest.mark.parametrize("world", ROBUST)
def test_grids_are_the_robust_suites_with_both_ends(world):
    config = load_config(f"robust_{world}")
    assert config.environment.name.lower() == f"gym/{world}-v5"
    assert config.environment.features == tuple(ROBUST[world])
    contexts = config.contexts.evaluation.regions["grid"]
    assert len(contexts) == 11 ** len(ROBUST[world]) == len({tuple(context.values()) for context in contexts})
    for feature, (low, high) in ROBUST[world].items():
        unit = 0.4 if feature == "geom_friction" else 1.0  # a factor of the cheetah's friction, and no coefficient
        values = sorted({context[feature] for context in contexts})
        theirs = np.arange(low, high, (high - low) / 10)[:10]  # as the suite makes them, which stops before the end
        np.testing.assert_allclose(np.array(values) * unit, [*theirs, high], rtol=1e-9)
        assert config.contexts.training.ranges[feature] == pytest.approx((low / unit, high / unit))


def test_ranges_of_acrobot_and_mountain_car_are_the_published_ones():
    """arXiv 1810.12282, "random" and "extreme": what is outside the former lies in the latter, both ends included."""
    published = {
        "acrobot": {"link_length_1": (0.75, 1.25, 0.5, 1.5), "link_mass_1": (0.75, 1.25, 0.5, 1.5)},
        "mountain_car": {"gravity": (0.001, 0.005, 0.0005, 0.01), "force": (0.0005, 0.005, 0.0001, 0.01)},
    }
    for name, features in published.items():
        contexts = load_config(name).contexts
        for feature, (low, high, lowest, highest) in features.items():
            assert contexts.training.ranges[feature] == (low, high)
            inside = [context[feature] for context in contexts.evaluation.regions["interpolation"]]
            assert (min(inside), max(inside)) == (low, high)
            outside = [context[feature] for context in contexts.evaluation.regions["extrapolation"]]
            assert (min(outside), max(outside)) == (lowest, highest)
