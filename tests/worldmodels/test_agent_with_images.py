"""The whole agent on images: updating, acting, observing, dreaming, populations and precision."""

import copy

import pytest
import torch
from torch import Tensor

from agents.dreamerv3 import ActionSpec, DreamerV3, DreamerV3Config, flatten_state, losses
from agents.seeding import torch_generator
from worldmodels.context import ContextSpec

CONTEXT = ContextSpec(("gravity", "length"), (4.9, 0.35), (14.7, 0.75))
SMALL = {"deter": 16, "hidden": 8, "units": 8, "stoch": 4, "classes": 3, "depth": 2, "blocks": 2}
WORLDS = {
    "image": {"image": (16, 16, 3)},
    "image and vector": {"image": (16, 16, 3), "state": (4,)},
    "two images and vector": {"image": (16, 16, 3), "depth_map": (16, 16, 1), "state": (4,)},
}
B, T, H = 2, 4, 3


def small_agent(world: str, discrete: bool = False, dtype: torch.dtype = torch.float64) -> DreamerV3:
    hyperparameters = {"learning_rate": 1e-3, "warmup": 0, "free_nats": 0}  # so that the prior always learns
    config = {"world_model": SMALL, "horizon": H, "hyperparameters": hyperparameters}
    shapes = WORLDS[world]
    return DreamerV3(DreamerV3Config.model_validate(config), shapes, ActionSpec(3, discrete), CONTEXT, dtype=dtype)


def disturbed_state(agent: DreamerV3, seed: int):
    """Random weights everywhere, so that no gradient is near 0, where the RMS scaling amplifies rounding."""
    state = agent.initial_state(seed)
    for value in state["parameters"].values():
        value += 0.2 * torch.randn(value.shape, generator=torch_generator(seed, "test"), dtype=value.dtype)
    return state


def random_batch(world: str, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    is_last = torch.rand(B, T, generator=generator) < 0.2
    batch = {
        "action": torch.nn.functional.one_hot(torch.randint(0, 3, (B, T), generator=generator), 3).double(),
        "reward": torch.randn(B, T, generator=generator, dtype=torch.float64),
        "is_first": torch.roll(is_last, 1, 1),
        "is_last": is_last,
        "is_terminal": is_last & (torch.rand(B, T, generator=generator) < 0.5),
        "context": torch.rand(B, T, 2, generator=generator, dtype=torch.float64) + 5,
    }
    for key, shape in WORLDS[world].items():
        if len(shape) == 3:
            value = torch.randint(0, 256, (B, T, *shape), generator=generator, dtype=torch.uint8)
        else:
            value = torch.randn(B, T, *shape, generator=generator, dtype=torch.float64)
        batch[f"observation/{key}"] = value
    return batch


def update_noise(agent: DreamerV3, seed: int) -> dict[str, Tensor]:
    return agent.update_noise(B, T, torch_generator(seed, "update"))


@pytest.mark.parametrize("discrete", [True, False])
@pytest.mark.parametrize("world", list(WORLDS))
def test_an_update_moves_every_weight_and_leaves_the_batch(world: str, discrete: bool) -> None:
    agent = small_agent(world, discrete)
    state, batch = disturbed_state(agent, 0), random_batch(world, 0)
    before, given = state.clone(), copy.deepcopy(batch)
    metrics = agent.update(state, batch, update_noise(agent, 0))[1]
    for key in WORLDS[world]:
        assert torch.isfinite(metrics[f"loss/reconstruction/{key}"])
    for name, value in state["parameters"].items():
        assert (value != before["parameters", name]).any() and torch.isfinite(value).all(), name
    assert all(torch.equal(value, given[name]) for name, value in batch.items())
    assert batch["observation/image"].dtype == torch.uint8


@pytest.mark.parametrize("discrete", [True, False])
@pytest.mark.parametrize("world", list(WORLDS))
def test_acting_filters_as_observing_does_and_dreams_decode_to_pictures(world: str, discrete: bool) -> None:
    agent = small_agent(world, discrete)
    state, batch = disturbed_state(agent, 0), random_batch(world, 1)
    posterior, carry = agent.observe(state, batch), agent.initial_carry(B)
    for t in range(T):
        records = {name: value[:, t] for name, value in batch.items()}
        action, carry = agent.act(state, carry, records, None)
        assert action.shape == (B, 3)
        for name in ("deter", "stoch"):
            torch.testing.assert_close(carry[name], posterior[name][:, t])
        carry["action"] = batch["action"][:, t]
    start = {name: value[:, -1] for name, value in posterior.items()}
    dream = agent.imagine(state, start, batch["action"], batch["context"][:, -1])
    decoded = agent.decode(state, dream, batch["context"])
    for key, shape in WORLDS[world].items():
        value = decoded[f"observation/{key}"]
        assert value.shape == (B, T, *shape) and value.dtype == torch.float64
        if len(shape) == 3:
            assert 0 <= value.min() < value.max() <= 255 and value.max() > 1
    one = {name: value[1, 2] for name, value in dream.items()}  # without a batch
    alone = agent.decode(state, one, batch["context"][1, 2])["observation/image"]
    torch.testing.assert_close(alone, decoded["observation/image"][1, 2])


def test_a_vmapped_update_of_two_members_equals_two_updates() -> None:
    world = "two images and vector"
    agent = small_agent(world)
    states = [disturbed_state(agent, seed) for seed in (0, 1)]
    states[1]["hyperparameters", "reconstruction_scale"].fill_(0.3)
    population = torch.stack([state.clone() for state in states])
    for n in range(3):
        batches = [random_batch(world, 10 * n + m) for m in range(2)]
        noises = [update_noise(agent, 10 * n + m) for m in range(2)]
        alone = [agent.update(states[m], batches[m], noises[m])[1] for m in range(2)]
        stacked = [{name: torch.stack([a[name], b[name]]) for name in a} for a, b in (batches, noises)]
        together = agent.update(population, *stacked)[1]
        for m in range(2):
            for name, value in alone[m].items():
                torch.testing.assert_close(together[name][m], value, rtol=1e-8, atol=1e-10)
    flat = flatten_state(population)
    for m in range(2):
        for name, value in flatten_state(states[m]).items():
            torch.testing.assert_close(flat[name][m], value, rtol=1e-8, atol=1e-10)
    assert (flat["parameters/world_model.image_encoder.convolutions.0.weight"].diff(dim=0) != 0).all()


@pytest.mark.parametrize("members", [0, 2])
def test_bfloat16_updates_are_near_those_of_float32(members: int) -> None:
    """Layers compute in bfloat16, of 8 significant bits; losses, metrics, gradients and weights are float32."""
    world = "image and vector"
    agent = small_agent(world, dtype=torch.float32)
    state, batch, noise = disturbed_state(agent, 0), random_batch(world, 0), update_noise(agent, 0)
    if members:
        state = torch.stack([state] * members)
        batch, noise = ({name: torch.stack([value] * members) for name, value in d.items()} for d in (batch, noise))
    exact = agent.update(state.clone(), batch, noise)[1]
    with torch.autocast("cpu", torch.bfloat16):
        rounded = agent.update(state, batch, noise)[1]
    for name in ("loss/reconstruction/image", "loss/reconstruction/state"):
        assert rounded[name].dtype == torch.float32
        torch.testing.assert_close(rounded[name], exact[name], rtol=0.02, atol=0)
        assert not torch.equal(rounded[name], exact[name])
    assert all(value.dtype == torch.float32 and torch.isfinite(value).all() for value in state["parameters"].values())


def test_bfloat16_reaches_the_convolutions_and_stops_before_the_sigmoid() -> None:
    agent = small_agent("image", dtype=torch.float32)
    state, batch = disturbed_state(agent, 0), agent.cast(random_batch("image", 0))
    model, seen = agent.networks.world_model, {}
    for name in ("image_encoder.convolutions.0", "image_decoder.convolutions.0", "image_decoder.output"):
        layer = model.get_submodule(name)
        layer.register_forward_hook(lambda _, __, output, name=name: seen.update({name: output.dtype}))

    def decoded(networks) -> tuple[Tensor, Tensor]:
        found = losses.observe(networks, batch, None, {})
        return found["tokens"], networks.world_model.decode(found["posterior"], found["context"])["image"]

    tensors = dict(state["parameters"].items()) | dict(state["slow"].items())
    with torch.autocast("cpu", torch.bfloat16):
        tokens, picture = torch.func.functional_call(agent.networks, tensors, (decoded,))
    assert set(seen.values()) == {torch.bfloat16} and len(seen) == 3
    assert (tokens.dtype, picture.dtype) == (torch.bfloat16, torch.float32)
