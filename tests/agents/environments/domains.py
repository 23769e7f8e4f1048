"""Worlds of the extras, and a digest of an episode in one; as a program, digests of the worlds that it is given."""

import hashlib
import json
import sys

import numpy as np

from agents.environments import make_environment

SEED, STEPS = 2**31 - 1, 45  # Crafter's creatures come and go every ten steps
WORLDS = {
    "box2d/lunar_lander": "box2d",
    "box2d/lunar_lander_continuous": "box2d",
    "box2d/bipedal_walker": "box2d",
    "box2d/bipedal_walker_hardcore": "box2d",
    "minigrid/MiniGrid-DoorKey-6x6-v0": "minigrid",
    "minigrid/MiniGrid-Fetch-8x8-N3-v0": "minigrid",
    "minigrid/MiniGrid-Dynamic-Obstacles-6x6-v0": "minigrid",
    "crafter": "crafter",
    "atari/pong": "atari",
    "atari/assault": "atari",  # where a reset by itself leaves traces of the game before
}


def make(name):
    return make_environment(name, action_repeat=4 if name.startswith("atari/") else 1)


def play(env, seed):
    """Return a digest of all that is observed in an episode under random actions."""
    generator, digest = np.random.default_rng(seed), hashlib.sha256()
    observation, _ = env.reset(seed=seed)
    for _ in range(STEPS):
        for key in sorted(observation):
            digest.update(observation[key].tobytes())
        space = env.action_space
        action = (
            generator.uniform(-1, 1, space.shape).astype(np.float32) if space.shape else generator.integers(space.n)
        )
        observation, reward, terminated, truncated, _ = env.step(action)
        digest.update(np.float64(reward).tobytes())
        if terminated or truncated:
            break
    return digest.hexdigest()


if __name__ == "__main__":
    print(json.dumps({name: play(make(name), SEED) for name in sys.argv[1:]}))
