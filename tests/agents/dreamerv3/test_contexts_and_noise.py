"""Where contexts and noise go, recomputed step by step from the networks' parts with contexts far from [-1, 1]."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from agents.dreamerv3 import ActionSpec, DreamerV3, DreamerV3Config, losses
from agents.dreamerv3.networks import Networks
from agents.seeding import torch_generator
from worldmodels.config import ContextFlags
from worldmodels.context import ContextSpec

LOW, HIGH = (4.9, 0.35), (14.7, 0.75)
SMALL = {"deter": 16, "hidden": 8, "units": 8, "stoch": 4, "classes": 3, "blocks": 2}
B, T, H = 3, 4, 3


def disturbed(context: str | dict = "crssm", discrete: bool = True) -> tuple[DreamerV3, dict]:
    """An agent in float64 with weights of no special kind."""
    config = DreamerV3Config.model_validate({"world_model": SMALL | {"context": context}, "horizon": H})
    spec = ContextSpec(("gravity", "length"), LOW, HIGH)
    agent = DreamerV3(config, {"state": (4,)}, ActionSpec(3, discrete), spec, dtype=torch.float64)
    state = agent.initial_state(0)
    for branch in ("parameters", "slow"):
        for value in state[branch].values():
            value += 0.3 * torch.randn(value.shape, generator=torch_generator(1, "test"), dtype=value.dtype)
    return agent, state


def normalized(context: Tensor) -> Tensor:
    low, high = torch.tensor(LOW, dtype=torch.float64), torch.tensor(HIGH, dtype=torch.float64)
    return 2 * (context.double() - low) / (high - low) - 1


def batch(discrete: bool = True) -> dict[str, Tensor]:
    """Records whose context differs at every step: in earnest it is constant in an episode."""
    rng = np.random.default_rng(0)
    action = rng.normal(size=(B, T, 3))
    data = {
        "observation/state": rng.normal(size=(B, T, 4)),
        "action": np.eye(3)[action.argmax(-1)] if discrete else action,
        "reward": rng.normal(size=(B, T)),
        "is_first": rng.random((B, T)) < 0.3,
        "is_last": np.zeros((B, T), bool),
        "is_terminal": np.zeros((B, T), bool),
        "context": rng.uniform(LOW, HIGH, size=(B, T, 2)),
    }
    return {name: torch.from_numpy(value) for name, value in data.items()}


def with_networks(agent: DreamerV3, state, function):
    tensors = dict(state["parameters"].items()) | dict(state["slow"].items())
    with torch.no_grad():
        return functional_call(agent.networks, tensors, (function,))


def draw(probabilities: Tensor, noise: Tensor) -> Tensor:
    """Gumbel-max in NumPy over the classes, [N, C, S]."""
    index = (np.log(probabilities.numpy()) + noise.numpy()).argmax(-2)
    return torch.from_numpy(np.eye(3)[index]).movedim(-1, -2)


def assert_close(ours: Tensor, expected: Tensor) -> None:
    """Up to the rounding of the context's center and half-width, which are float32."""
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


def mixed(logits: Tensor) -> Tensor:
    return 0.99 * torch.softmax(logits, -2) + 0.01 / logits.shape[-2]


@pytest.mark.parametrize("discrete", [True, False])
def test_posterior_and_imagination_step_by_step(discrete: bool) -> None:
    agent, state = disturbed(discrete=discrete)
    data = batch(discrete)
    noise = agent.update_noise(B, T, torch_generator(0, "update", 0))

    def check(networks: Networks) -> None:
        rssm, model = networks.world_model.rssm, networks.world_model
        hyperparameters, normalizer = dict(state["hyperparameters"].items()), dict(state["normalizer"].items())
        trace = losses.update_trace(networks, data, hyperparameters, normalizer, noise, H)
        context, weights = normalized(data["context"]), rssm.cell_weights()
        deter, stoch = torch.zeros(B, 16, dtype=torch.float64), torch.zeros(B, 3, 4, dtype=torch.float64)
        for t in range(T):
            keep = (~data["is_first"][:, t]).double()
            previous = data["action"][:, t - 1] if t else torch.zeros(B, 3, dtype=torch.float64)
            inputs = rssm.embed_action(previous * keep[:, None], context[:, t])
            deter = rssm.recur(weights, deter * keep[:, None], stoch * keep[:, None, None], inputs)
            tokens = model.encode({"state": data["observation/state"][:, t]})
            stoch = draw(mixed(rssm.posterior_logits(deter, tokens)), noise["posterior"][:, t])
            assert_close(trace["world_model"]["deter"][:, t], deter)
            assert_close(trace["world_model"]["stoch"][:, t], stoch)

        for row in range(B * T):  # every start alone, under its own context and noise
            b, t = divmod(row, T)
            here = context[b, t][None]
            deter = trace["world_model"]["deter"][b, t][None]
            stoch = trace["world_model"]["stoch"][b, t][None]
            for h in range(H):
                features = torch.cat([deter, stoch.flatten(-2), here], -1)
                policy = networks.actor(features)
                action = trace["rollout"]["action"][h, row][None]
                spread = noise["action"][h, row]
                if discrete:
                    expected = torch.from_numpy(np.eye(3)[(policy["logits"] + spread).argmax(-1).numpy()])
                else:
                    expected = policy["mean"] + policy["deviation"] * spread
                assert_close(action, expected)
                value = networks.critic(features)
                assert_close(torch.cat(trace["rollout"]["value_logits"])[h, row][None], value)
                reward = model.reward(features)
                assert_close(model.reward_logits(features[:, :-2], here), reward)
                deter = rssm.recur(weights, deter, stoch, rssm.embed_action(action, here))
                stoch = draw(mixed(rssm.prior_logits(deter)), noise["prior"][h, row][None])
                following = trace["rollout"]["latents"][h + 1]
                assert_close(following["deter"][row][None], deter)
                assert_close(following["stoch"][row][None], stoch)

    with_networks(agent, state, check)


def test_acting_sees_the_latents_of_training() -> None:
    """Stepping through records with ``act`` gives the posterior of ``observe``, noise and context included."""
    agent, state = disturbed()
    data = batch()
    noise = agent.update_noise(B, T, torch_generator(0, "update", 0))["posterior"]
    posterior = agent.observe(state, data, noise)
    carry = agent.initial_carry(B)
    for t in range(T):
        records = {name: value[:, t] for name, value in data.items()}
        silent = torch.zeros(B, 3, dtype=torch.float64)
        _, carry = agent.act(state, carry, records, {"posterior": noise[:, t], "action": silent})
        assert_close(carry["deter"], posterior["deter"][:, t])
        assert_close(carry["stoch"], posterior["stoch"][:, t])
        carry["action"] = data["action"][:, t]


def test_dreams_see_the_normalized_context() -> None:
    agent, state = disturbed()
    generator = torch.Generator().manual_seed(0)
    start = {"deter": torch.randn(B, 16, generator=generator, dtype=torch.float64)}
    start["stoch"] = draw(torch.full((B, 3, 4), 1 / 3, dtype=torch.float64), agent._gumbel((B, 3, 4), generator))
    context, actions = batch()["context"][:, 0], batch()["action"][:, :H]
    noise = agent._gumbel((B, H, 3, 4), generator)
    dream = agent.imagine(state, start, actions, context, noise)
    decoded = agent.decode(state, {name: value[:, 0] for name, value in dream.items()}, context)

    def check(networks: Networks) -> None:
        rssm, here = networks.world_model.rssm, normalized(context)
        inputs = rssm.embed_action(actions[:, 0], here)
        deter = rssm.recur(rssm.cell_weights(), start["deter"], start["stoch"], inputs)
        stoch = draw(mixed(rssm.prior_logits(deter)), noise[:, 0])
        assert_close(dream["deter"][:, 0], deter)
        assert_close(dream["stoch"][:, 0], stoch)
        hidden = networks.world_model.decoder(torch.cat([stoch.flatten(-2), deter, here], -1))
        symlog = networks.world_model.reconstructions["state"](hidden)
        assert_close(decoded["observation/state"], symlog.sign() * (symlog.abs().exp() - 1))

    with_networks(agent, state, check)


@pytest.mark.parametrize("flag", ["actor", "critic"])
def test_flags_of_actor_and_critic(flag: str) -> None:
    agent, state = disturbed({flag: True})
    assert agent.config.world_model.flags == ContextFlags.model_validate({flag: True})

    def outputs(networks: Networks, context: float) -> dict[str, Tensor]:
        features = torch.ones(1, 28, dtype=torch.float64)
        here = torch.full((1, 2), context, dtype=torch.float64)
        return {
            "actor": networks.policy(features, here)["logits"],
            "critic": torch.cat([networks.value_logits(features, here), networks.slow_value(features, here)[None]], -1),
        }

    one, two = (with_networks(agent, state, lambda networks, c=c: outputs(networks, c)) for c in (0.0, 1.0))
    changed = {name: (one[name] != two[name]) for name in one}
    assert changed[flag].any() and changed[flag][:, -1].all()  # the slow critic too
    assert not any(value.any() for name, value in changed.items() if name != flag)


def test_the_prior_has_its_uniform_share() -> None:
    """A class of softmax probability e^-40 still has 0.01 / 3: noise of 10 draws it."""
    agent, state = disturbed()
    for name in ("weight", "bias"):
        state["parameters", f"world_model.rssm.prior_out.{name}"].zero_()
    state["parameters", "world_model.rssm.prior_out.bias"].view(3, 4)[0] = 40.0
    start = {name: value for name, value in agent.initial_carry(1).items() if name != "action"}
    noise = torch.zeros(1, 1, 3, 4, dtype=torch.float64)
    noise[:, :, 2] = 10.0
    dream = agent.imagine(state, start, torch.zeros(1, 1, 3), torch.ones(1, 2), noise)
    assert (dream["stoch"][0, 0, 2] == 1).all()


def test_action_frequencies_are_the_policy() -> None:
    """10,000 environments in the same state act with the probabilities of the policy's logits."""
    agent, state = disturbed()
    state["parameters", "actor.outputs.logits.weight"].zero_()
    logits = torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64)
    state["parameters", "actor.outputs.logits.bias"].copy_(logits)
    count = 10_000
    records = {
        "observation/state": torch.zeros(count, 4),
        "is_first": torch.ones(count, dtype=torch.bool),
        "context": torch.full((count, 2), 9.0),
    }
    noise = agent.act_noise(count, torch_generator(0, "act", 0))
    action, _ = agent.act(state, agent.initial_carry(count), records, noise)
    torch.testing.assert_close(action.mean(0), torch.softmax(logits, 0), atol=0.02, rtol=0)  # four deviations


def test_noise_is_fresh_at_every_place() -> None:
    agent, _ = disturbed()
    for name, value in agent.update_noise(B, T, torch_generator(0, "update", 0)).items():
        assert value.flatten().unique().numel() == value.numel(), name
    for name, value in agent.act_noise(5, torch_generator(0, "act", 0)).items():
        assert value.flatten().unique().numel() == value.numel(), name


def test_bfloat16_keeps_losses_and_discount_precise() -> None:
    """Under autocast the layers compute in bfloat16, the predictions and losses in float32."""
    config = DreamerV3Config.model_validate({"world_model": SMALL, "horizon": H})
    agent = DreamerV3(config, {"state": (4,)}, ActionSpec(3, True), ContextSpec(("gravity", "length"), LOW, HIGH))
    state = agent.initial_state(0)
    probability = 1 - 1 / 333
    state["parameters", "world_model.continuation.output.weight"].zero_()
    state["parameters", "world_model.continuation.output.bias"].fill_(math.log(probability / (1 - probability)))
    data, noise = agent.cast(batch()), agent.update_noise(B, T, torch_generator(0, "update", 0))
    hyperparameters, normalizer = dict(state["hyperparameters"].items()), dict(state["normalizer"].items())

    def traced(networks: Networks) -> dict:
        return losses.update_trace(networks, data, hyperparameters, normalizer, noise, H)

    with torch.autocast("cpu", torch.bfloat16):
        trace = with_networks(agent, state, traced)
    assert trace["world_model"]["tokens"].dtype == torch.bfloat16
    precise = ["value", "slow_value", "reward", "continue", "log_prob", "entropy"]
    assert {trace["rollout"][name].dtype for name in precise} == {torch.float32}
    assert {logits.dtype for logits in trace["rollout"]["value_logits"]} == {torch.float32}
    assert {value.dtype for value in trace["losses"].values()} == {torch.float32}
    assert (trace["rollout"]["continue"] - probability).abs().max() < 1e-4  # rounded: 9e-4
