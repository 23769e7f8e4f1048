"""Agent actions to environment actions."""

import numpy as np
import pytest
from gymnasium import spaces

from agents.environments import ActionCodec
from agents.errors import UserError


def test_one_hot_to_index():
    codec = ActionCodec(spaces.Discrete(3))
    assert (codec.size, codec.discrete) == (3, True)
    for index in range(3):
        decoded = codec.decode(np.eye(3, dtype=np.float32)[index])
        assert type(decoded) is int and decoded == index
    assert ActionCodec(spaces.Discrete(3, start=-1)).decode(np.array([0, 0, 1], np.float32)) == 1


def test_unit_interval_to_range():
    space = spaces.Box(np.array([-2, 0, -1], np.float32), np.array([2, 10, 1.1], np.float32))
    codec = ActionCodec(space)
    assert (codec.size, codec.discrete) == (3, False)
    for action, expected in [
        ([-1, -1, -1], [-2, 0, -1]),
        ([1, 1, 1], [2, 10, 1.1]),
        ([0, 0, 0], [0, 5, 0.05]),
        ([0.5, -0.5, 7.0], [1, 2.5, 1.1]),
        ([-3, 3, 0], [-2, 10, 0.05]),
    ]:
        decoded = codec.decode(np.array(action, np.float32))
        assert space.contains(decoded)
        np.testing.assert_allclose(decoded, expected, rtol=1e-6, atol=1e-7)


def test_shape_of_the_space_and_missing_limits():
    codec = ActionCodec(spaces.Box(-1.0, 3.0, (2, 2), np.float32))
    decoded = codec.decode(np.array([-1, 0, 1, 0.5], np.float32))
    np.testing.assert_array_equal(decoded, np.array([[-1, 1], [3, 2]], np.float32), strict=True)
    for bound in (np.inf, 1e10):
        codec = ActionCodec(spaces.Box(-bound, bound, (2,), np.float32))
        np.testing.assert_allclose(codec.decode(np.array([0.25, -1], np.float32)), [0.25, -1])


def test_what_is_refused():
    with pytest.raises(UserError, match="not supported; valid: Discrete, Box"):
        ActionCodec(spaces.MultiBinary(2))
    codec = ActionCodec(spaces.Discrete(2))
    with pytest.raises(ValueError, match=r"shape \(3,\), expected \(2,\)"):
        codec.decode(np.zeros(3, np.float32))
    with pytest.raises(UserError, match="NaN or infinite"):
        codec.decode(np.array([np.nan, 0], np.float32))
