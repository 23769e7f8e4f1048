"""Sequences that start where they left off: from stored latents, or from burn-in."""

import numpy as np
import pytest
import torch
from torch import Tensor

from agents.dreamerv3 import ActionSpec, DreamerV3, DreamerV3Config, compact, expand, latent_specs
from agents.seeding import torch_generator
from worldmodels.context import ContextSpec

SMALL = {"deter": 16, "hidden": 8, "units": 8, "stoch": 4, "classes": 3, "blocks": 2}
KEYS = ("deter", "stoch")


def small_agent(dtype: torch.dtype = torch.float64) -> DreamerV3:
    config = DreamerV3Config.model_validate({"world_model": SMALL, "horizon": 3, "hyperparameters": {"warmup": 0}})
    context = ContextSpec(("gravity",), (4.9,), (14.7,))
    return DreamerV3(config, {"state": (4,)}, ActionSpec(3, True), context, dtype=dtype)


def disturbed_state(agent: DreamerV3, seed: int = 0):
    """Weights with which every step's latent depends on the one before."""
    state = agent.initial_state(seed)
    for value in state["parameters"].values():
        value += 0.3 * torch.randn(value.shape, generator=torch_generator(seed, "test"), dtype=value.dtype)
    return state


def random_batch(batch: int = 3, length: int = 9, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    action = torch.nn.functional.one_hot(torch.randint(0, 3, (batch, length), generator=generator), 3)
    is_last = torch.zeros(batch, length, dtype=torch.bool)
    is_last[1, 6] = True
    is_first = torch.roll(is_last, 1, 1)
    is_first[:, 0] = True
    return {
        "observation/state": torch.randn(batch, length, 4, generator=generator, dtype=torch.float64),
        "action": action.double() * ~is_last.unsqueeze(-1),
        "reward": torch.randn(batch, length, generator=generator, dtype=torch.float64),
        "is_first": is_first,
        "is_last": is_last,
        "is_terminal": is_last,
        "context": torch.rand(batch, length, 1, generator=generator, dtype=torch.float64) + 5,
    }


def cut(batch: dict[str, Tensor], first: int, end: int | None = None) -> dict[str, Tensor]:
    return {key: value[:, first:end] for key, value in batch.items()}


def carried(latent: dict[str, Tensor], action: Tensor) -> dict[str, Tensor]:
    return {"carry/deter": latent["deter"], "carry/stoch": latent["stoch"], "carry/action": action}


def test_compact_form_by_hand() -> None:
    deter = torch.tensor([[1.0, -2.0, 0.0, 1.00390625]])  # the last lies between two bfloat16 numbers: to the even one
    stoch = torch.tensor([[[0.0, 1.0], [0.0, 0.0], [1.0, 0.0]]])  # class 2, then class 0
    latents = compact(deter, stoch)
    assert latents["latent/deter"].dtype == torch.int16
    assert latents["latent/deter"].tolist() == [[0x3F80, 0xC000 - 2**16, 0, 0x3F80]]
    assert latents["latent/stoch"].dtype == torch.uint8
    assert latents["latent/stoch"].tolist() == [[2, 0]]
    back = expand(latents, 3)
    assert back["deter"].tolist() == [[1.0, -2.0, 0.0, 1.0]]
    assert torch.equal(back["stoch"], stoch)


def test_compact_form_keeps_what_fits_and_rounds_the_rest() -> None:
    generator = torch.Generator().manual_seed(0)
    deter = torch.randn(2, 5, 7, generator=generator)
    stoch = torch.nn.functional.one_hot(torch.randint(0, 256, (2, 5, 6), generator=generator), 256).mT.float()
    back = expand(compact(deter, stoch), 256)
    assert torch.equal(back["stoch"], stoch)
    bits = deter.numpy().view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16).astype(np.uint32).view(np.float32)
    np.testing.assert_array_equal(back["deter"].numpy(), rounded)


def test_specs_are_those_of_the_compact_form() -> None:
    agent = small_agent()
    latents = compact(*(agent.initial_carry(5)[name] for name in KEYS))
    assert {key: ((5, *shape), dtype) for key, (shape, dtype) in latent_specs(agent.config).items()} == {
        key: (tuple(value.shape), str(value.dtype).removeprefix("torch.")) for key, value in latents.items()
    }


@pytest.mark.parametrize("first", [1, 4, 7])
@pytest.mark.parametrize("rounded", [False, True])
def test_sequence_from_the_latent_acted_on_equals_the_whole_one(first: int, rounded: bool) -> None:
    agent, batch = small_agent(), random_batch()
    state, carry = disturbed_state(agent), agent.initial_carry(3)
    carries = []
    for t in range(9):  # act on what was observed, with what was done
        records = {key: batch[key][:, t] for key in ("observation/state", "is_first", "context")}
        _, carry = agent.act(state, carry, records, None)
        carry = carry | {"action": batch["action"][:, t]}
        carries.append(carry)
    whole = agent.observe(state, batch)

    def observed(from_step: int) -> dict[str, Tensor]:
        latent = carries[from_step]
        if rounded:
            latent = expand(compact(latent["deter"], latent["stoch"]), 3)
        return agent.observe(state, cut(batch, first) | carried(latent, carries[from_step]["action"]))

    right = observed(first - 1)
    for name in KEYS:
        tolerance = 0.005 if rounded and name == "deter" else 1e-12
        torch.testing.assert_close(right[name], whole[name][:, first:], rtol=0, atol=tolerance)
    for wrong in {first - 2, first} - {-1}:  # a step too early or too late is another state
        assert (observed(wrong)["deter"][:, 0] - whole["deter"][:, first]).abs().max() > 0.03


@pytest.mark.parametrize("steps", [1, 4, 7])
def test_burn_in_leads_to_the_state_without_noise_or_gradient(steps: int) -> None:
    agent, batch = small_agent(), random_batch()
    state = disturbed_state(agent)
    noise = agent.update_noise(3, 9 - steps, torch_generator(0, "update", 0))
    before = {f"burn_in/{key}": value for key, value in cut(batch, 0, steps).items()}
    modes = agent.observe(state, cut(batch, 0, steps))
    carry = carried({name: modes[name][:, -1] for name in KEYS}, batch["action"][:, steps - 1])
    inputs = [cut(batch, steps) | start for start in (before, carry)]
    burned, given = (agent.observe(state, entries, noise["posterior"]) for entries in inputs)
    for name in KEYS:
        assert torch.equal(burned[name], given[name])
    if steps < 7:  # where no episode begins anew, it is the whole sequence's
        zero = torch.zeros(3, steps, 3, 4, dtype=torch.float64)
        whole = agent.observe(state, batch, torch.cat([zero, noise["posterior"]], 1))
        torch.testing.assert_close(burned["deter"], whole["deter"][:, steps:], rtol=0, atol=1e-12)
    branches = [dict(state[name].items()) for name in ("parameters", "slow", "hyperparameters", "normalizer")]
    first, second = (agent._gradients(*branches, entries, noise)[0] for entries in inputs)
    for name, gradient in first.items():
        torch.testing.assert_close(gradient, second[name], rtol=1e-9, atol=1e-12, msg=name)


def test_burn_in_costs_no_gradient_under_bfloat16() -> None:
    """Autocast keeps its casts of the weights: one that burn-in made without gradient must not serve the losses."""
    agent = small_agent(torch.float32)
    state, batch = disturbed_state(agent), agent.cast(random_batch())
    noise = agent.update_noise(3, 5, torch_generator(0, "update", 0))
    before = {f"burn_in/{key}": value for key, value in cut(batch, 0, 4).items()}
    branches = [dict(state[name].items()) for name in ("parameters", "slow", "hyperparameters", "normalizer")]

    def gradients(bfloat16: bool) -> dict[str, Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            return agent._gradients(*branches, cut(batch, 4) | before, noise)[0]

    exact, rough = gradients(False), gradients(True)
    for name, value in exact.items():
        if "world_model" in name and value.norm() > 1e-3:
            cosine = torch.nn.functional.cosine_similarity(value.flatten(), rough[name].flatten(), 0)
            assert cosine > 0.5, name


def stored_batch(agent: DreamerV3, state, seed: int) -> dict[str, Tensor]:
    batch = random_batch(seed=seed)
    observed = agent.observe(state, cut(batch, 0, 4))
    return cut(batch, 4) | carried({name: observed[name][:, -1] for name in KEYS}, batch["action"][:, 3])


def test_update_returns_the_posteriors_that_it_computed() -> None:
    agent = small_agent()
    state = disturbed_state(agent)
    batch, noise = stored_batch(agent, state, 0), agent.update_noise(3, 5, torch_generator(0, "update", 0))
    posterior = agent.observe(state, batch, noise["posterior"])  # of the weights before the update
    _, _, latents = agent.update(state, batch, noise)
    assert latents["latent/deter"].shape == (3, 5, 16) and latents["latent/stoch"].shape == (3, 5, 4)
    for key, value in compact(posterior["deter"], posterior["stoch"]).items():
        assert torch.equal(latents[key], value)
    after = agent.observe(state, batch, noise["posterior"])
    assert (after["deter"] - posterior["deter"]).abs().max() > 0
    _, _, latents = agent.update(state, cut(random_batch(), 4), noise)
    assert latents == {}


def test_members_of_a_population_get_their_own_latents() -> None:
    agent = small_agent()
    states = [disturbed_state(agent, seed) for seed in (0, 1)]
    batches = [stored_batch(agent, state, seed) for seed, state in enumerate(states)]
    noises = [agent.update_noise(3, 5, torch_generator(seed, "update", 0)) for seed in (0, 1)]
    population = torch.stack([state.clone() for state in states])
    alone = [agent.update(*inputs)[2] for inputs in zip(states, batches, noises, strict=True)]
    stacked = [{key: torch.stack([one[key], two[key]]) for key in one} for one, two in (batches, noises)]
    _, _, together = agent.update(population, *stacked)
    assert not torch.equal(alone[0]["latent/deter"], alone[1]["latent/deter"])
    for key, value in together.items():
        assert torch.equal(value, torch.stack([one[key] for one in alone])), key
