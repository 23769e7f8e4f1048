"""Pictures of Gymnasium's worlds, as they render themselves."""

import os
from typing import Any

import gymnasium
import numpy as np
from PIL import Image

from agents.errors import UserError


def rendered(name: str, world: gymnasium.Env[Any, Any], size: int, camera: int | None) -> np.ndarray:
    """Return the picture that a world renders, each pixel the mean of those that it covers, uint8 [size, size, 3].

    Args:
        name: of the environment, for messages.
        world: its `render` gives an array, uint8 [H, W, 3] (``render_mode="rgb_array"``).
        size: height and width in pixels.
        camera: None, for such worlds have no choice.

    Raises:
        UserError: a camera is asked for, the world cannot be rendered, or a package is missing that it takes.
    """
    if camera is not None:
        raise UserError(f"environment {name}: camera is {camera}, but there is no choice; valid: null")
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # its greeting is no output of ours
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame draws into memory, and needs no display for it
    try:
        picture = world.render()
    except (gymnasium.error.DependencyNotInstalled, ImportError) as error:
        raise UserError(f"environment {name} cannot be drawn: {' '.join(str(error).split())}") from error
    if not (isinstance(picture, np.ndarray) and picture.dtype == np.uint8 and picture.shape[2:] == (3,)):
        raise UserError(f"environment {name} cannot be drawn; valid observations: state")
    return np.array(Image.fromarray(picture).resize((size, size), Image.Resampling.BOX))
