"""Atari: the benchmark's rules, against an emulator driven by hand."""

import re

import numpy as np
import pytest

from agents.environments import make_environment
from agents.errors import UserError
from tests.extras import needs

pytestmark = needs("atari")

# The 26 games of the Atari-100k benchmark.
GAMES = {
    "alien", "amidar", "assault", "asterix", "bank_heist", "battle_zone", "boxing", "breakout",
    "chopper_command", "crazy_climber", "demon_attack", "freeway", "frostbite", "gopher", "hero", "jamesbond",
    "kangaroo", "krull", "kung_fu_master", "ms_pacman", "pong", "private_eye", "qbert", "road_runner",
    "seaquest", "up_n_down",
}  # fmt: skip


def emulator(game):
    import ale_py
    from ale_py import roms

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    ale.setFloat("repeat_action_probability", 0.0)
    ale.loadROM(roms.get_rom_path(game))
    return ale


def scaled(*frames):
    from PIL import Image

    return np.array(Image.fromarray(np.maximum.reduce(frames)).resize((64, 64), Image.BILINEAR))


def idle(seed):
    """Return how many frames an episode with this seed begins with: Gymnasium's generator, 0 to 30."""
    return int(np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed))).integers(31))


def test_an_episode_against_the_emulator():
    """Four frames a step with one action, rewards summed, the maximum of the last two frames, scaled bilinearly."""
    env, ale = make_environment("atari/breakout", action_repeat=4), emulator("breakout")
    actions = ale.getMinimalActionSet()
    assert env.action_space.n == len(actions) == 4
    observation, _ = env.reset(seed=11)
    for _ in range(idle(11)):
        ale.act(0)
    np.testing.assert_array_equal(observation["image"], scaled(ale.getScreenRGB()))
    generator, total = np.random.default_rng(0), 0.0
    for step in range(120):
        action = 1 if step == 0 else int(generator.integers(4))
        frames, expected = [], 0.0
        for _ in range(4):
            expected += ale.act(actions[action])
            frames.append(ale.getScreenRGB())
        observation, reward, terminated, truncated, _ = env.step(action)
        np.testing.assert_array_equal(observation["image"], scaled(*frames[-2:]))
        assert (reward, terminated, truncated) == (expected, False, False)
        total += reward
    assert total > 0.0


def test_a_lost_life_ends_nothing_and_a_lost_game_is_terminal():
    env = make_environment("atari/breakout", action_repeat=4)
    env.reset(seed=0)
    lives, seen, terminated = env._ale.lives(), set(), False
    for step in range(2000):
        _, _, terminated, truncated, _ = env.step(1 if step % 5 == 0 else 0)  # serve the ball and miss it
        assert not truncated
        seen.add(env._ale.lives())
        if terminated:
            break
    assert terminated and seen == set(range(lives + 1)) and lives == 5


def test_rewards_are_not_clipped():
    env = make_environment("atari/ms_pacman", action_repeat=4)
    env.action_space.seed(0)
    env.reset(seed=0)
    assert max(env.step(env.action_space.sample())[1] for _ in range(150)) >= 10.0  # a pellet


def test_the_time_limit_counts_frames():
    env = make_environment("atari/pong", action_repeat=4, time_limit=10)
    assert make_environment("atari/pong", action_repeat=4)._time_limit == 108_000
    env.reset(seed=2)
    ale = emulator("pong")
    for _ in range(idle(2)):
        ale.act(0)
    frames = []
    for _ in range(10):
        ale.act(0)
        frames.append(ale.getScreenRGB())
    ends = [env.step(0) for _ in range(3)]
    assert [(terminated, truncated) for _, _, terminated, truncated, _ in ends] == [(False, False)] * 2 + [
        (False, True)
    ]
    np.testing.assert_array_equal(ends[-1][0]["image"], scaled(*frames[-2:]))  # the last step has two frames


def test_episodes_begin_with_up_to_thirty_idle_frames():
    env = make_environment("atari/pong")
    begun = []
    for seed in range(200):
        env.reset(seed=seed)
        begun.append(env._ale.getEpisodeFrameNumber())
        assert begun[-1] == idle(seed)
    assert (min(begun), max(begun)) == (0, 30)


def test_the_benchmarks_games_are_there():
    from ale_py import roms

    assert len(GAMES) == 26 and GAMES.issubset(roms.get_all_rom_ids())


@pytest.mark.parametrize(
    ("game", "told"),
    [
        ("james_bond", "unknown game in environment 'atari/james_bond'; valid are ale_py's games, such as jamesbond"),
        ("combat", "unknown game in environment 'atari/combat'; valid"),  # for two players only
        ("0", "unknown game in environment 'atari/0'; valid are ale_py's games, such as pong, ms_pacman"),
    ],
)
def test_unknown_games_are_told_with_what_is_like_them(game, told):
    with pytest.raises(UserError, match=f"^{re.escape(told)}"):
        make_environment(f"atari/{game}")
