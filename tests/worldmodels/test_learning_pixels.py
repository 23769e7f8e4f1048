"""A tiny world model learns a film of a moving square, and dreams on where the film stops."""

import torch
from torch import Tensor

from agents.dreamerv3 import ActionSpec, DreamerV3, DreamerV3Config
from agents.seeding import torch_generator
from worldmodels.context import ContextSpec

SIDE, SQUARE, FRAMES, UPDATES = 16, 4, 6, 150
SMALL = {"deter": 64, "hidden": 32, "units": 32, "stoch": 8, "classes": 8, "depth": 4, "blocks": 4, "bins": 11}


def films() -> Tensor:
    """Two films [2, T, 16, 16, 1] of a bright square on a dark ground that moves right by one pixel a frame."""
    film = torch.full((2, FRAMES, SIDE, SIDE, 1), 20, dtype=torch.uint8)
    for row, (top, left) in enumerate(((2, 0), (9, 4))):
        for frame in range(FRAMES):
            film[row, frame, top : top + SQUARE, left + frame : left + frame + SQUARE] = 230
    return film


def squared_error(picture: Tensor, truth: Tensor) -> Tensor:
    """Sum over pixels in units of the whole range, [B, T]."""
    return ((picture - truth) / 255).square().flatten(2).sum(-1)


def test_a_film_is_learned_and_dreamed_on() -> None:
    config = {
        "world_model": SMALL | {"context": "hidden"},
        "horizon": 1,
        "hyperparameters": {"learning_rate": 6e-3, "warmup": 20},
    }
    agent = DreamerV3(
        DreamerV3Config.model_validate(config), {"image": (SIDE, SIDE, 1)}, ActionSpec(1, False), ContextSpec()
    )
    film, flags = films(), torch.zeros(2, FRAMES, dtype=torch.bool)
    batch = {
        "observation/image": film,
        "action": torch.zeros(2, FRAMES, 1),
        "reward": torch.zeros(2, FRAMES),
        "is_first": torch.arange(FRAMES).expand(2, -1) == 0,
        "is_last": flags,
        "is_terminal": flags,
        "context": torch.zeros(2, FRAMES, 0),
    }
    state, errors = agent.initial_state(0), []
    for n in range(UPDATES):
        metrics = agent.update(state, batch, agent.update_noise(2, FRAMES, torch_generator(0, "film", n)))[1]
        errors.append(metrics["loss/reconstruction/image"].item())
    assert errors[0] > 50  # about 256 pixels, each off by 0.4
    assert sum(errors[-10:]) / 10 < errors[0] / 20

    truth = film.float()
    still = squared_error(truth.mean((0, 1)).expand_as(truth), truth).mean()  # of the best single picture
    posterior = agent.observe(state, batch)
    seen = agent.decode(state, posterior, batch["context"])["observation/image"]
    assert squared_error(seen, truth).mean() < still / 4
    start = {name: value[:, 1] for name, value in posterior.items()}
    dream = agent.imagine(state, start, batch["action"][:, 2:], batch["context"][:, 0])
    dreamed = agent.decode(state, dream, batch["context"][:, 2:])["observation/image"]
    assert squared_error(dreamed, truth[:, 2:]).mean() < still / 4  # four frames that it is not shown
