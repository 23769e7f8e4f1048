"""Atari games."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces

from agents.environments.base import IMAGE, ContextualEnv, Observation
from agents.environments.extras import import_extra
from agents.errors import UserError

NOOPS = 30  # an episode begins after at most so many frames without action
POOLED = 2  # frames whose maximum is observed, since some consoles' games draw an object in every other frame only


class Atari(ContextualEnv):
    """A game of the Atari 2600 in the emulator ALE (https://arxiv.org/abs/1207.4708).

    Set up as the Atari-100k benchmark in danijar/dreamerv3: the actions that the game needs, no sticky actions,
    up to 30 idle frames at the start, lives unused, rewards unclipped. The benchmark's ``action_repeat`` is 4.
    A step of the original is a frame (60 a second).

    Observation ``{"image": [image_size, image_size, 3]}``, uint8: the maximum of the last two frames, scaled
    bilinearly. It terminates when the game is over. Unlike in the reference, running into the time limit is no
    terminal, and where a game ends within a step, its last two frames are shown. There are no context features.

    Args:
        game: such as ``pong`` or ``ms_pacman``.
        features: see `ContextualEnv`; there are none to name.
        time_limit: frames until truncation; None means 108000, half an hour.
        action_repeat: frames per step.
        image_size: edge of the image, pixels.

    Raises:
        UserError: ale_py is not installed, or has no such game; or see `ContextualEnv`.
    """

    def __init__(
        self,
        game: str,
        *,
        features: Sequence[str] | None = None,
        time_limit: int | None = None,
        action_repeat: int = 1,
        image_size: int = 64,
    ) -> None:
        name = f"atari/{game}"
        self._image = import_extra("PIL.Image", environment=name, extra="atari")
        self._ale = _load(name, game)
        self._switched_on = self._ale.cloneState(include_rng=True)
        self._actions = self._ale.getMinimalActionSet()
        self._frames = np.zeros((POOLED, *self._ale.getScreenDims(), 3), np.uint8)
        self._newest = 0
        self._size = (image_size, image_size)
        super().__init__(
            name,
            (),
            spaces.Dict({IMAGE: spaces.Box(0, 255, (*self._size, 3), np.uint8)}),
            spaces.Discrete(len(self._actions)),
            features=features,
            time_limit=108_000 if time_limit is None else time_limit,
            action_repeat=action_repeat,
        )

    def _apply_context(self, context: Mapping[str, float]) -> None:
        pass  # there are no features

    def _reset_world(self, seed: int | None) -> Observation:
        # In some games a reset alone leaves traces of the game before.
        self._ale.restoreState(self._switched_on)
        self._ale.reset_game()
        for _ in range(int(self.np_random.integers(NOOPS + 1))):
            self._ale.act(0)
            if self._ale.game_over():
                self._ale.reset_game()
        self._ale.getScreenRGB(self._frames[self._newest])
        self._frames[:] = self._frames[self._newest]
        return {}

    def _step_world(self, action: Any) -> tuple[Observation, float, bool, bool]:
        reward = self._ale.act(self._actions[int(action)])
        self._newest = (self._newest + 1) % POOLED
        self._ale.getScreenRGB(self._frames[self._newest])
        return {}, float(reward), self._ale.game_over(), False

    def _observed(self, observation: Observation, reward: float) -> Observation:
        """Draw here, once a step instead of once a frame: it takes longer than the emulation."""
        image = self._image.fromarray(self._frames.max(0)).resize(self._size, self._image.Resampling.BILINEAR)
        return super()._observed({**observation, IMAGE: np.array(image)}, reward)


def _load(name: str, game: str) -> Any:
    """Return the emulator with a game in it, without sticky actions."""
    ale_py = import_extra("ale_py", environment=name, extra="atari")
    roms = import_extra("ale_py.roms", environment=name, extra="atari")
    games = [key for key in roms.get_all_rom_ids() if ale_py.ALEInterface.isSupportedROM(roms.get_rom_path(key))]
    if game not in games:  # nor one for two players, at which the emulator would end this process
        close = difflib.get_close_matches(game, games, n=3, cutoff=0.5) or ["pong", "ms_pacman"]
        raise UserError(f"unknown game in environment {name!r}; valid are ale_py's games, such as {', '.join(close)}")
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # no banner
    ale = ale_py.ALEInterface()
    ale.setInt("random_seed", 0)
    ale.setFloat("repeat_action_probability", 0.0)
    ale.loadROM(roms.get_rom_path(game))
    return ale
