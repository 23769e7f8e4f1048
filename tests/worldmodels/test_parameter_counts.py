"""The published sizes have exactly the reference's number of parameters (danijar/dreamerv3 at e3f0224).

The counts are of walker with six actions, without context and without the slow critic.
"""

import pytest
import torch

from agents.dreamerv3 import ActionSpec, DreamerV3, DreamerV3Config
from worldmodels.config import SIZES
from worldmodels.context import ContextSpec

STATE = {"orientations": (14,), "height": (1,), "velocity": (9,)}
PIXELS = {"image": (64, 64, 3)}
COUNTS = {
    "1m": (640_867, 686_846),
    "12m": (9_738_019, 10_494_158),
    "25m": (21_782_947, 23_489_326),
    "50m": (38_612_003, 41_650_062),
    "100m": (86_622_499, 93_468_238),
    "200m": (153_769_507, 165_948_686),
    "400m": (345_473_059, 372_896_398),
}


def count(size: str, shapes: dict[str, tuple[int, ...]]) -> int:
    config = DreamerV3Config.model_validate({"world_model": {"size": size, "context": "hidden"}})
    with torch.device("meta"):
        agent = DreamerV3(config, shapes, ActionSpec(6, discrete=False), ContextSpec(), device="meta")
    parameters = agent.networks.named_parameters()
    return sum(tensor.numel() for name, tensor in parameters if not name.startswith("slow_critic."))


@pytest.mark.parametrize("size", list(COUNTS))
def test_counts_of_state_and_pixels(size: str) -> None:
    assert (count(size, STATE), count(size, PIXELS)) == COUNTS[size]


def test_every_size_is_counted() -> None:
    assert set(COUNTS) == set(SIZES)


def test_pixels_beside_state_by_hand() -> None:
    """1m: both encoders and decoders; the posterior alone sees all tokens at once.

    What pixels add to walker's state: the image encoder, the image decoder and 4 * 4 * 16 more inputs of the
    posterior's first layer.
    """

    def convolution(inputs: int, outputs: int) -> int:
        return 25 * inputs * outputs + outputs

    levels = [(3, 8), (8, 12), (12, 16), (16, 16)]
    encoder = sum(convolution(*level) + level[1] for level in levels)
    smallest = 4 * 4 * 16
    space = 512 * smallest // 8 + smallest + (128 * 128 + 128 + 128) + (128 * smallest + smallest) + 16
    decoder = space + sum(convolution(*level) + level[1] for level in [(16, 16), (16, 12), (12, 8)])
    decoder += convolution(8, 3)
    assert count("1m", STATE | PIXELS) - count("1m", STATE) == encoder + decoder + 64 * smallest
