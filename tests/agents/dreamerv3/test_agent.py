"""The agent as a pure function of its state tree: populations, sizes, files, acting, dreaming."""

import copy
import functools
import math

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from torch import Tensor
from torch.distributions import Categorical, Normal

from agents.dreamerv3 import (
    ActionSpec,
    DreamerV3,
    DreamerV3Config,
    Hyperparameters,
    check_same_structure,
    flatten_state,
    unflatten_state,
)
from agents.dreamerv3.actor import Actor
from agents.seeding import torch_generator
from worldmodels.context import ContextSpec

CONTEXT = ContextSpec(("gravity", "length"), (4.9, 0.35), (14.7, 0.75))
SMALL = {"deter": 16, "hidden": 8, "units": 8, "stoch": 4, "classes": 3, "blocks": 2}


def small_agent(discrete: bool = True, context: str = "crssm", dtype: torch.dtype = torch.float64) -> DreamerV3:
    config = DreamerV3Config.model_validate(
        {
            "world_model": SMALL | {"context": context},
            "horizon": 4,
            "hyperparameters": {"learning_rate": 1e-3, "warmup": 2},
        }
    )
    return DreamerV3(config, {"state": (4,)}, ActionSpec(3, discrete), CONTEXT, dtype=dtype)


def random_batch(seed: int, batch: int = 3, length: int = 5) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    action = torch.nn.functional.one_hot(torch.randint(0, 3, (batch, length), generator=generator), 3)
    is_last = torch.rand(batch, length, generator=generator) < 0.2
    return {
        "observation/state": torch.randn(batch, length, 4, generator=generator, dtype=torch.float64),
        "action": action.double(),
        "reward": torch.randn(batch, length, generator=generator, dtype=torch.float64),
        "is_first": torch.roll(is_last, 1, 1),
        "is_last": is_last,
        "is_terminal": is_last & (torch.rand(batch, length, generator=generator) < 0.5),
        "context": torch.rand(batch, length, 2, generator=generator, dtype=torch.float64) + 5,
    }


@pytest.mark.parametrize("discrete", [True, False])
def test_a_vmapped_update_of_two_members_equals_two_updates(discrete: bool) -> None:
    """Own weights, data, noise and hyperparameters; five updates in float64.

    The weights are disturbed so that no gradient is near zero, where the RMS scaling amplifies rounding.
    """
    agent = small_agent(discrete)
    states = [agent.initial_state(seed) for seed in (0, 1)]
    for seed, state in enumerate(states):
        for value in state["parameters"].values():
            value += 0.2 * torch.randn(value.shape, generator=torch_generator(seed, "test"), dtype=value.dtype)
    changed = {
        "learning_rate": 3e-3,
        "entropy": 0.1,
        "return_lambda": 0.7,
        "free_nats": 0.1,
        "gradient_clip": 0.01,
    }
    agent.apply_hyperparameters(states[1], Hyperparameters(**changed, slow_rate=0.3, warmup=0, policy_scale=2.0))
    population = torch.stack([state.clone() for state in states])
    for n in range(5):
        batches = [random_batch(10 * n + m) for m in range(2)]
        noises = [agent.update_noise(3, 5, torch_generator(m, "update", n)) for m in range(2)]
        alone = [agent.update(states[m], batches[m], noises[m])[1] for m in range(2)]
        stacked = [{k: torch.stack([a[k], b[k]]) for k in a} for a, b in (batches, noises)]
        population, together, _ = agent.update(population, *stacked)
        for m in range(2):
            for name, value in alone[m].items():
                torch.testing.assert_close(together[name][m], value, rtol=1e-8, atol=1e-10)
    for m in range(2):
        for name, value in flatten_state(states[m]).items():
            torch.testing.assert_close(flatten_state(population)[name][m], value, rtol=1e-8, atol=1e-10)
    difference = states[0]["parameters"] - states[1]["parameters"]
    assert all(value.abs().max() > 0 for value in difference.values())


def _trained(return_floor: float, changed: str | None) -> Tensor:
    """All weights after three updates, one hyperparameter halved in the tree alone."""
    agent = small_agent()
    state = agent.initial_state(0)
    state["normalizer", "high"].fill_(0.2)
    base = {"learning_rate": 1e-2, "warmup": 3, "free_nats": 1.5, "gradient_clip": 1e-2, "return_floor": return_floor}
    agent.apply_hyperparameters(state, Hyperparameters(**base))
    if changed:
        state["hyperparameters", changed].mul_(0.5)
    for n in range(3):
        agent.update(state, random_batch(n), agent.update_noise(3, 5, torch_generator(0, "update", n)))
    return _flat(state)


_baseline = functools.cache(functools.partial(_trained, changed=None))


@pytest.mark.parametrize("name", list(Hyperparameters.model_fields))
def test_every_hyperparameter_is_read_from_the_tree(name: str) -> None:
    """Changing it in the tree alone changes the weights: nothing is baked in."""
    floor = 1.0 if name == "return_floor" else 1e-3  # the floor acts only where the range is below it
    assert (_baseline(floor) - _trained(floor, name)).abs().max() > 1e-12


def _flat(state: TensorDict) -> Tensor:
    return torch.cat([value.flatten() for branch in ("parameters", "slow") for value in state[branch].values()])


@pytest.mark.parametrize(
    ("size", "count"),
    [("1m", 640_867), ("12m", 9_738_019), ("25m", 21_782_947), ("50m", 38_612_003), ("100m", 86_622_499)],
)
def test_parameter_counts_of_the_published_sizes(size: str, count: int) -> None:
    config = DreamerV3Config.model_validate({"world_model": {"size": size, "context": "hidden"}})
    walker = {"orientations": (14,), "height": (1,), "velocity": (9,)}
    with torch.device("meta"):
        agent = DreamerV3(config, walker, ActionSpec(6, False), ContextSpec(), device="meta")
    parameters = dict(agent.networks.named_parameters())
    assert sum(v.numel() for n, v in parameters.items() if not n.startswith("slow_critic.")) == count


def test_initial_state() -> None:
    agent = small_agent()
    state, same, other = (agent.initial_state(seed) for seed in (0, 0, 1))
    assert torch.equal(_flat(state), _flat(same)) and not torch.equal(_flat(state), _flat(other))
    for name, value in state["slow"].items():
        assert torch.equal(value, state["parameters", name.replace("slow_critic.", "critic.")])
    assert state["parameters", "critic.output.weight"].abs().max() == 0
    assert state["parameters", "world_model.reward.output.weight"].abs().max() == 0
    assert 0 < state["parameters", "actor.outputs.logits.weight"].std() < 0.01


def test_an_update_changes_nothing_but_the_tree() -> None:
    agent, batch = small_agent(), random_batch(0)
    noise = agent.update_noise(3, 5, torch_generator(0, "update", 0))
    inputs = copy.deepcopy((batch, noise))
    first, second = agent.initial_state(0), agent.initial_state(0)
    module = {name: value.clone() for name, value in agent.networks.named_parameters()}
    agent.update(first, batch, noise)
    agent.update(second, batch, noise)
    assert torch.equal(_flat(first), _flat(second))
    assert all(torch.equal(value, module[name]) for name, value in agent.networks.named_parameters())
    for given, kept in zip((batch, noise), inputs, strict=True):
        assert all(torch.equal(value, kept[name]) for name, value in given.items())


def test_state_survives_its_flat_form() -> None:
    agent = small_agent()
    state = agent.initial_state(0)
    agent.update(state, random_batch(0), agent.update_noise(3, 5, torch_generator(0, "update", 0)))
    back = unflatten_state(flatten_state(state))
    check_same_structure(state, back)
    for name, value in flatten_state(state).items():
        assert torch.equal(value, flatten_state(back)[name])
    population = torch.stack([state, state])
    assert unflatten_state(flatten_state(population)).batch_size == population.batch_size


def test_a_state_of_another_configuration_is_named() -> None:
    hidden, crssm = (small_agent(context=name).initial_state(0) for name in ("hidden", "crssm"))
    with pytest.raises(ValueError, match="tensors differ from the configuration's, first '"):
        check_same_structure(hidden, crssm)


def test_applied_hyperparameters_are_read_back() -> None:
    agent = small_agent()
    state = agent.initial_state(0)
    wanted = Hyperparameters(learning_rate=0.5, entropy=0.25)
    agent.apply_hyperparameters(state, wanted)
    for name, value in wanted.model_dump().items():
        assert state["hyperparameters", name].item() == pytest.approx(value)


def test_actor_against_torch_distributions() -> None:
    features = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    discrete, continuous = (Actor(5, 8, 2, ActionSpec(3, kind)) for kind in (True, False))
    policy = discrete(features)
    action = discrete.sample(policy, None)
    log_prob, entropy = discrete.log_prob_and_entropy(policy, action)
    expected = Categorical(logits=policy["logits"])
    torch.testing.assert_close(log_prob, expected.log_prob(action.argmax(-1)))
    torch.testing.assert_close(entropy, expected.entropy())
    policy = continuous(features)
    assert ((policy["deviation"] > 0.1) & (policy["deviation"] < 1.0)).all()
    action = continuous.sample(policy, torch.full((6, 3), 0.5))
    normal = Normal(policy["mean"], policy["deviation"])
    log_prob, entropy = continuous.log_prob_and_entropy(policy, action)
    torch.testing.assert_close(action, policy["mean"] + 0.5 * policy["deviation"])
    torch.testing.assert_close(log_prob, normal.log_prob(action).sum(-1))
    torch.testing.assert_close(entropy, normal.entropy().sum(-1))


def test_initial_policy_deviation() -> None:
    """At zero output the deviation is 0.9 sigmoid(2) + 0.1."""
    actor = Actor(5, 8, 1, ActionSpec(2, False))
    for parameter in actor.outputs.parameters():
        torch.nn.init.zeros_(parameter)
    deviation = actor(torch.randn(4, 5))["deviation"]
    torch.testing.assert_close(deviation, torch.full((4, 2), 0.9 / (1 + math.exp(-2)) + 0.1))


@pytest.mark.parametrize("discrete", [True, False])
def test_acting_with_noise_is_random_and_without_is_not(discrete: bool) -> None:
    agent = small_agent(discrete)
    state = agent.initial_state(0)
    records = {
        "observation/state": torch.randn(64, 4),
        "is_first": torch.ones(64, dtype=torch.bool),
        "context": torch.full((64, 2), 5.0),
    }
    carry = agent.initial_carry(64)
    noises = [agent.act_noise(64, torch_generator(0, "act", n)) for n in (0, 0, 1)]
    first, again, other = (agent.act(state, carry, records, noise)[0] for noise in noises)
    assert torch.equal(first, again) and not torch.equal(first, other)
    greedy = [agent.act(state, carry, records, None)[0] for _ in range(2)]
    assert torch.equal(*greedy)
    if discrete:
        assert torch.equal(first.sum(-1), torch.ones(64, dtype=torch.float64))


def test_the_first_record_of_an_episode_clears_the_carry() -> None:
    agent = small_agent()
    state = agent.initial_state(0)
    dirty = {name: torch.randn_like(value) for name, value in agent.initial_carry(2).items()}
    records = {"observation/state": torch.randn(2, 4), "context": torch.full((2, 2), 5.0)}
    first = records | {"is_first": torch.ones(2, dtype=torch.bool)}
    for name, value in agent.act(state, dirty, first, None)[1].items():
        assert torch.equal(value, agent.act(state, agent.initial_carry(2), first, None)[1][name])
    later = records | {"is_first": torch.zeros(2, dtype=torch.bool)}
    kept, cleared = (agent.act(state, dirty, given, None)[1]["deter"] for given in (later, first))
    assert not torch.equal(kept, cleared)


def test_dreaming_follows_the_prior_and_the_context() -> None:
    """Entry h of a dream is where action h leads; a dream of two halves is one dream."""
    agent = small_agent()
    state = agent.initial_state(0)
    start = {
        "deter": torch.randn(2, 16, dtype=torch.float64),
        "stoch": torch.rand(2, 3, 4, dtype=torch.float64),
    }
    actions, context = random_batch(0, 2, 6)["action"], torch.tensor([[9.8, 0.5], [9.8, 0.5]])
    whole = agent.imagine(state, start, actions, context)
    half = agent.imagine(state, start, actions[:, :3], context)
    rest = agent.imagine(state, {k: v[:, -1] for k, v in half.items()}, actions[:, 3:], context)
    for name, value in whole.items():
        assert torch.equal(value, torch.cat([half[name], rest[name]], 1))
    swapped = agent.imagine(state, start, actions, context * 1.5)
    assert not torch.equal(whole["deter"], swapped["deter"])
    hidden = small_agent(context="hidden")
    state = hidden.initial_state(0)
    assert torch.equal(*(hidden.imagine(state, start, actions, context * c)["deter"] for c in (1.0, 1.5)))


def test_decoded_continue_has_the_discount_divided_out() -> None:
    agent = small_agent()
    state = agent.initial_state(0)
    state["parameters", "world_model.continuation.output.bias"].fill_(50.0)
    state["hyperparameters", "discount_horizon"].fill_(2.0)
    latent = {
        "deter": torch.zeros(1, 16, dtype=torch.float64),
        "stoch": torch.zeros(1, 3, 4, dtype=torch.float64),
    }
    assert agent.decode(state, latent, torch.ones(1, 2))["continue"].item() == 1.0
    state["parameters", "world_model.continuation.output.bias"].fill_(math.log(0.25 / 0.75))
    state["parameters", "world_model.continuation.output.weight"].zero_()
    assert agent.decode(state, latent, torch.ones(1, 2))["continue"].item() == pytest.approx(0.5)


def test_noise_has_its_distribution() -> None:
    agent = small_agent(discrete=False)
    noise = agent.update_noise(20, 50, torch_generator(0, "update", 0))
    gumbel, normal = noise["prior"].flatten(), noise["action"].flatten()
    assert gumbel.mean().item() == pytest.approx(np.euler_gamma, abs=0.02)
    assert gumbel.var().item() == pytest.approx(math.pi**2 / 6, abs=0.05)
    assert normal.mean().item() == pytest.approx(0, abs=0.05) and normal.std().item() == pytest.approx(1, abs=0.05)


def test_gradients_in_bfloat16_point_where_those_in_float32_do() -> None:
    """The derivatives written by hand run outside autocast and must choose their precision themselves."""
    config = DreamerV3Config.model_validate({"world_model": SMALL | {"deter": 64, "units": 32, "hidden": 32}})
    agent = DreamerV3(config, {"state": (4,)}, ActionSpec(3, False), CONTEXT)
    state, batch = agent.initial_state(0), agent.cast(random_batch(0, 4, 8))
    # Without noise a rounded logit can still choose another class; of all that are drawn here none does.
    noise = {name: 0 * value for name, value in agent.update_noise(4, 8, torch_generator(0, "update")).items()}
    branches = ("parameters", "slow", "hyperparameters", "normalizer")
    arguments = [dict(state[branch].items()) for branch in branches]
    precise = agent._gradients(*arguments, batch, noise)[0]
    with torch.autocast("cpu", torch.bfloat16):
        rounded = agent._gradients(*arguments, batch, noise)[0]
    for name, expected in precise.items():
        ours = rounded[name]
        assert ours.dtype == torch.float32
        if expected.norm() > 0:
            assert torch.cosine_similarity(ours.flatten(), expected.flatten(), dim=0) > 0.97, name
            assert 0.9 < ours.norm() / expected.norm() < 1.1, name
