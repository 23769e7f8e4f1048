"""Crafter: the original's episodes, its reward, and ends that are terminal only by death."""

import numpy as np
import pytest

from agents.environments import make_environment
from tests.extras import needs

pytestmark = needs("crafter")

BALANCE = 10  # steps between two rounds of creatures that come and go, which the original draws from sets


@pytest.fixture(scope="module")
def env():
    """One environment, in an episode with seed 0; a world takes a second to make."""
    env = make_environment("crafter")
    env.reset(seed=0)
    return env


def step(env, name):
    return env.step(env._world.action_names.index(name))


def test_an_episode_against_the_original():
    import crafter

    original, env = crafter.Env(seed=12), make_environment("crafter")
    assert env.action_space.n == original.action_space.n == 17
    generator = np.random.default_rng(0)
    np.testing.assert_array_equal(env.reset(seed=12)[0]["image"], original.reset())
    for _ in range(BALANCE - 1):
        action = int(generator.integers(17))
        image, reward, done, _ = original.step(action)
        observation, our_reward, terminated, truncated, _ = env.step(action)
        np.testing.assert_array_equal(observation["image"], image)
        assert (our_reward, terminated, truncated) == (reward, done, False) == (reward, False, False)


def test_objects_of_a_chunk_are_walked_through_in_the_order_in_which_they_came(env):
    """Sets of objects follow their addresses, so that the same seed would give another episode elsewhere."""
    import crafter

    world = env._world._world
    assert max(len(objects) for objects in world.chunks.values()) > 2
    for objects in world.chunks.values():
        assert list(objects) == [thing for thing in world.objects if thing in objects]
    cow = next(thing for thing in world.objects if isinstance(thing, crafter.objects.Cow))
    chunk = world._chunks[world.chunk_key(cow.pos)]
    world.remove(cow)
    assert cow not in list(chunk)
    free = next(cell for cell in np.ndindex(64, 64) if world[cell] == ("grass", None))
    new = crafter.objects.Cow(world, free)
    world.add(new)
    assert list(world._chunks[world.chunk_key(free)])[-1] is new


def test_reward_death_and_time(env):
    """A first achievement is worth 1, health a tenth a point; death alone is terminal."""
    assert env._time_limit == 10_000 and env._world._length is None
    player = env._world._player
    player.inventory["sapling"] = 2
    env._world._world[player.pos + np.array(player.facing)] = "grass"
    _, reward, terminated, *_ = step(env, "place_plant")
    assert (player.achievements["place_plant"], reward, terminated) == (1, 1.0, False)
    player.health = 4
    _, reward, terminated, *_ = step(env, "noop")
    assert (reward, terminated) == (pytest.approx(-0.5), False)
    env._elapsed = 9_999
    _, _, terminated, truncated, _ = step(env, "noop")
    assert (terminated, truncated) == (False, True)
    env._needs_reset, env._elapsed = False, 0
    player.health = 0
    _, reward, terminated, truncated, _ = step(env, "noop")
    assert (terminated, truncated) == (True, False) and reward == pytest.approx(-0.4)
