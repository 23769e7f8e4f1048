"""MiniGrid: what is observed, ends and rewards of worlds that can be walked by hand, and names."""

import re

import numpy as np
import pytest

from agents.environments import make_environment
from agents.errors import UserError
from tests.extras import needs

pytestmark = needs("minigrid")

LEFT, RIGHT, FORWARD, DONE = 0, 1, 2, 6


def test_the_way_to_the_goal():
    """Empty-5x5 has 3 x 3 free cells, the agent in a corner looking right, the goal in the opposite one."""
    env = make_environment("minigrid/MiniGrid-Empty-5x5-v0")
    assert set(env.observation_space) == {"image", "direction"} and env.action_space.n == 7
    observation, _ = env.reset(seed=0)
    np.testing.assert_array_equal(observation["direction"], [1, 0, 0, 0])
    for action, direction in ((FORWARD, 0), (FORWARD, 0), (RIGHT, 1), (FORWARD, 1)):
        observation, reward, terminated, truncated, _ = env.step(action)
        assert (int(observation["direction"].argmax()), reward, terminated, truncated) == (direction, 0.0, False, False)
    _, reward, terminated, truncated, _ = env.step(FORWARD)
    assert (terminated, truncated) == (True, False)
    assert reward == pytest.approx(1 - 0.9 * 5 / 100)


def test_the_compass_turns_with_the_agent():
    env = make_environment("minigrid/MiniGrid-Empty-5x5-v0")
    env.reset(seed=0)
    turns = [LEFT] * 4 + [RIGHT] * 2
    assert [int(env.step(turn)[0]["direction"].argmax()) for turn in turns] == [3, 2, 1, 0, 1, 2]


def test_the_worlds_own_time_limit_is_no_terminal():
    env = make_environment("minigrid/MiniGrid-Empty-5x5-v0", time_limit=1000)
    env.reset(seed=0)
    ends = [env.step(DONE)[2:4] for _ in range(100)]
    assert ends == [(False, False)] * 99 + [(False, True)]
    assert make_environment("minigrid/MiniGrid-Empty-5x5-v0")._time_limit == 100


@pytest.mark.parametrize(("size", "tile", "edge"), [(64, 9, 0), (96, 13, 2)])
def test_the_image_is_minigrids_own_drawing_of_what_the_agent_sees(size, tile, edge):
    import gymnasium
    from minigrid.wrappers import RGBImgPartialObsWrapper

    identity = "MiniGrid-DoorKey-6x6-v0"
    env = make_environment(f"minigrid/{identity}", image_size=size)
    original = RGBImgPartialObsWrapper(gymnasium.make(identity), tile_size=tile)
    observation, expected = env.reset(seed=3)[0], original.reset(seed=3)[0]
    generator = np.random.default_rng(0)
    inside = slice(edge, edge + 7 * tile)
    for _ in range(30):
        np.testing.assert_array_equal(observation["image"][inside, inside], expected["image"])
        assert observation["image"].sum(dtype=int) == expected["image"].sum(dtype=int)  # the edge is black
        action = int(generator.integers(6))
        (observation, *ours), (expected, *theirs) = env.step(action), original.step(action)
        assert ours[:3] == theirs[:3]


def test_missions_are_told_by_their_blanks():
    """Fetch: "{get a | go get a | fetch a | go fetch a | you must fetch a} {color} {key | ball}"."""
    env = make_environment("minigrid/MiniGrid-Fetch-8x8-N3-v0")
    syntaxes = ["get a", "go get a", "fetch a", "go fetch a", "you must fetch a"]
    colors = ["blue", "green", "grey", "purple", "red", "yellow"]
    codes = set()
    for seed in range(20):
        code = env.reset(seed=seed)[0]["mission"]
        assert code.shape == env.observation_space["mission"].shape == (5 + 6 + 2,)
        parts = np.split(code, [5, 11])
        assert all(part.sum() == 1.0 for part in parts)
        syntax, color, kind = (int(part.argmax()) for part in parts)
        assert env._world.mission == f"{syntaxes[syntax]} {colors[color]} {['key', 'ball'][kind]}"
        codes.add(code.tobytes())
    assert len(codes) > 10


@pytest.mark.parametrize(("world", "size"), [("GoToDoor-5x5-v0", 6), ("PutNear-6x6-N2-v0", 18), ("LockedRoom-v0", 18)])
def test_other_missions(world, size):
    env = make_environment(f"minigrid/MiniGrid-{world}")
    blanks = env._world.observation_space["mission"].ordered_placeholders
    for seed in range(5):
        code = env.reset(seed=seed)[0]["mission"]
        assert code.shape == (size,) and code.sum() == len(blanks)


@pytest.mark.parametrize(
    ("world", "told"),
    [
        ("MiniGrid-DoorKey-7x7-v0", "unknown world in environment 'minigrid/MiniGrid-DoorKey-7x7-v0'; valid are "),
        ("BabyAI-GoToObj-v0", "environment minigrid/BabyAI-GoToObj-v0: missions of BabyAI are sentences"),
        ("CartPole-v1", "unknown world in environment 'minigrid/CartPole-v1'; valid"),
        ("MiniGrid-WFC-MazeSimple-v0", "unknown world in environment 'minigrid/MiniGrid-WFC-MazeSimple-v0'; valid"),
    ],
)
def test_unknown_worlds_are_told_with_what_is_like_them(world, told):
    with pytest.raises(UserError, match=f"^{re.escape(told)}"):
        make_environment(f"minigrid/{world}")
