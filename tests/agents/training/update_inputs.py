"""Tiny agents and random batches for the tests of updates that are recorded, on the CPU and on a GPU."""

import torch
from tensordict import TensorDict

from agents.dreamerv3 import ActionSpec, DreamerV3
from agents.dreamerv3.config import DreamerV3Config
from agents.seeding import torch_generator
from tests.agents.training.training_run import TINY_AGENT
from worldmodels.context import ContextSpec

VECTOR = {"state": (5,)}
MIXED = {"state": (5,), "image": (32, 32, 3)}
INFERRED = TINY_AGENT["world_model"] | {"context": "inferred", "context_encoder": {"history": 2}}
Tensors = dict[str, torch.Tensor]


def tiny_agent(
    shapes: dict[str, tuple[int, ...]] = VECTOR,
    *,
    discrete: bool = False,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    **changes: object,
) -> DreamerV3:
    """Return an agent of a few thousand parameters with 3 actions and one context feature in [1, 2].

    Args:
        shapes: of the observations.
        discrete: the action.
        device, dtype: of the agent.
        changes: fields of the agent's configuration that replace those of ``TINY_AGENT``.
    """
    context = ContextSpec(("gravity",), (1.0,), (2.0,))
    config = DreamerV3Config.model_validate(TINY_AGENT | changes)
    return DreamerV3(config, shapes, ActionSpec(3, discrete), context, device=device, dtype=dtype)


def random_batch(
    seed: int,
    shapes: dict[str, tuple[int, ...]] = VECTOR,
    *,
    size: int = 3,
    length: int = 2,
    agent: DreamerV3 | None = None,
) -> Tensors:
    """Return records [size, length, ...] as replay gives them: float32, uint8 images and bool flags.

    Args:
        seed: of the random numbers.
        shapes: of the observations.
        size, length: of the batch.
        agent: if given, the sequences start from random latents of this agent.
    """
    generator = torch.Generator().manual_seed(seed)
    batch: Tensors = {}
    for key, shape in shapes.items():
        if len(shape) == 3:
            image = torch.randint(0, 256, (size, length, *shape), generator=generator, dtype=torch.uint8)
            batch[f"observation/{key}"] = image
        else:
            batch[f"observation/{key}"] = torch.randn(size, length, *shape, generator=generator)
    batch["action"] = torch.randn(size, length, 3, generator=generator)
    batch["reward"] = torch.randn(size, length, generator=generator)
    batch["context"] = 1 + torch.rand(size, length, 1, generator=generator)
    for name in ("is_first", "is_last", "is_terminal"):
        batch[name] = torch.rand(size, length, generator=generator) < 0.2
    if agent is not None:
        carry = agent.initial_carry(size)
        batch |= {f"carry/{name}": torch.rand(value.shape, generator=generator) for name, value in carry.items()}
    return batch


def population(agent: DreamerV3, members: int) -> TensorDict:
    """Return the stacked states of ``members`` members with different weights."""
    return torch.stack([agent.initial_state(seed) for seed in range(members)])


def population_inputs(agent: DreamerV3, members: int, seed: int) -> tuple[Tensors, Tensors]:
    """Return batch and noise [members, ...] of one update of a population."""
    batches = [random_batch(seed * 100 + member) for member in range(members)]
    noises = [agent.update_noise(3, 2, torch_generator(seed, "noise", member)) for member in range(members)]
    return stacked(batches), stacked(noises)


def stacked(trees: list[Tensors]) -> Tensors:
    """Stack mappings of tensors entry by entry."""
    return {name: torch.stack([tree[name] for tree in trees]) for name in trees[0]}


def differing(one: TensorDict, other: TensorDict) -> list[str]:
    """Return the paths of the leaves in which two state trees are not equal, bit for bit."""
    paths = one.keys(include_nested=True, leaves_only=True)
    return ["/".join(path) for path in paths if not torch.equal(one.get(path), other.get(path))]
