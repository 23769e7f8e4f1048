"""The agent that infers its context: where the code goes, what teaches it, and that the truth takes no part."""

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor
from torch.func import functional_call

from agents.dreamerv3 import ActionSpec, DreamerV3, DreamerV3Config, flatten_state, losses
from agents.dreamerv3.networks import Networks
from agents.seeding import torch_generator
from worldmodels.config import ContextFlags
from worldmodels.context import ContextSpec
from worldmodels.context_encoder import bounded, posterior

CONTEXT = ContextSpec(("gravity", "length"), (4.9, 0.35), (14.7, 0.75))
SMALL = {"deter": 16, "hidden": 8, "units": 8, "stoch": 4, "classes": 3, "blocks": 2, "depth": 2}
B, T, K, H, Z = 3, 6, 4, 3, 5
IMAGE = (16, 16, 1)


def agent_of(
    context: str | dict[str, bool] = "inferred", image: bool = False, discrete: bool = True, **encoder: float
) -> DreamerV3:
    model = SMALL | {"context": context, "context_encoder": {"size": Z, "history": K, "memory": 8, **encoder}}
    config = DreamerV3Config.model_validate({"world_model": model, "horizon": H})
    shapes = {"state": (4,)} | ({"image": IMAGE} if image else {})
    return DreamerV3(config, shapes, ActionSpec(3, discrete), CONTEXT, dtype=torch.float64)


def disturbed(agent: DreamerV3, seed: int = 1) -> TensorDict:
    """A state with weights and a normalizer of no special kind."""
    state = agent.initial_state(0)
    for branch in ("parameters", "slow"):
        for value in state[branch].values():
            value += 0.3 * torch.randn(value.shape, generator=torch_generator(seed, "test"), dtype=value.dtype)
    change = state["normalizer", "change"]
    change.copy_(torch.rand(change.shape, generator=torch_generator(seed, "change")) + 0.5)
    return state


def records(seed: int, length: int, image: bool = False) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    action = torch.nn.functional.one_hot(torch.randint(0, 3, (B, length), generator=generator), 3)
    is_last = torch.rand(B, length, generator=generator) < 0.2
    data = {
        "observation/state": torch.randn(B, length, 4, generator=generator, dtype=torch.float64),
        "action": action.double(),
        "reward": torch.randn(B, length, generator=generator, dtype=torch.float64),
        "is_first": torch.roll(is_last, 1, 1),
        "is_last": is_last,
        "is_terminal": is_last,
        "context": torch.rand(B, 1, 2, generator=generator, dtype=torch.float64).expand(B, length, 2) + 5,
    }
    if image:
        pixels = torch.randint(0, 256, (B, length, *IMAGE), generator=generator, dtype=torch.uint8)
        data["observation/image"] = pixels
    return data


def split(data: dict[str, Tensor], history: int) -> dict[str, Tensor]:
    """A batch whose first records are its history."""
    before = {f"history/{key}": value[:, :history] for key, value in data.items()}
    return before | {key: value[:, history:] for key, value in data.items()}


def gradients(agent: DreamerV3, state: TensorDict, batch: dict[str, Tensor], part: str) -> dict[str, Tensor | None]:
    """Gradients of one part of the objective: ``all``, ``main`` (without inference) or a loss of the inference."""
    noise = agent.update_noise(B, T, torch_generator(0, "noise"))
    leaves = {name: value.detach().clone().requires_grad_() for name, value in state["parameters"].items()}
    hyperparameters, normalizer = dict(state["hyperparameters"].items()), dict(state["normalizer"].items())

    def chosen(networks: Networks) -> Tensor:
        arguments = (networks, batch, hyperparameters, normalizer, noise, H)
        if part == "all":
            return losses.objective(*arguments)[0]
        trace = losses.update_trace(*arguments)
        return (
            losses.total_loss(trace["losses"], hyperparameters)
            if part == "main"
            else trace["inference"]["losses"][part]
        )

    total = functional_call(agent.networks, leaves | dict(state["slow"].items()), (chosen,))
    found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    return dict(zip(leaves, found, strict=True))


@pytest.mark.parametrize("image", [False, True])
def test_only_forward_dynamics_teach_the_code_and_only_the_probe_sees_the_truth(image: bool) -> None:
    agent = agent_of(image=image)
    state, batch = disturbed(agent), split(records(0, K + T, image), K)
    found = {part: gradients(agent, state, batch, part) for part in ("all", "main", "transition", "probe")}
    owners = {"base": "transition", "basis": "transition", "noise": "transition", "probe": "probe"}
    for name, _ in state["parameters"].items():
        encoder = "world_model.context_encoder."
        part = owners[name.removeprefix(encoder).split(".")[0]] if name.startswith(encoder) else "main"
        reached = {p for p in ("main", "transition", "probe") if found[p][name] is not None}
        assert reached == {part}, name
        assert torch.equal(found["all"][name], found[part][name]), name
        assert found["all"][name].abs().max() > 0, name


def test_the_truth_changes_nothing_but_the_probe() -> None:
    agent = agent_of()
    one, other = disturbed(agent), disturbed(agent)
    batch, noise = split(records(0, K + T), K), agent.update_noise(B, T, torch_generator(0, "noise"))
    lie = batch | {key: -3.0 * batch[key] for key in ("context", "history/context")}
    _, metrics, _ = agent.update(one, batch, noise)
    _, lied, _ = agent.update(other, lie, noise)
    different = {
        name for name, value in flatten_state(one).items() if not torch.equal(value, flatten_state(other)[name])
    }
    assert different and all("context_encoder.probe" in name for name in different)
    changed = {name for name in metrics if not torch.equal(metrics[name], lied[name])}
    probed = {"loss/probe", "loss/total", "context/gravity", "context/length"}
    assert changed - {"gradient/norm", "gradient/clip"} == probed
    data, carry = {key: value[:, 0] for key, value in batch.items()}, agent.initial_carry(B)
    told, action = {**data, "context": data["context"] + 1}, agent.act(one, carry, data, None)[0]
    assert torch.equal(action, agent.act(one, carry, told, None)[0])


def told_twin(agent: DreamerV3, state: TensorDict, flags: dict[str, bool]) -> tuple[DreamerV3, TensorDict]:
    """An agent that is told a code as its raw context, and its state with the same weights."""
    model = agent.config.world_model.model_copy(update={"context": ContextFlags(**flags)})
    unit = ContextSpec(tuple(f"code{i}" for i in range(Z)), (-1.0,) * Z, (1.0,) * Z)  # raw equals normalized
    config = agent.config.model_copy(update={"world_model": model})
    told = DreamerV3(config, {"state": (4,)}, ActionSpec(3, True), unit, dtype=torch.float64)
    told_state = told.initial_state(0)
    for branch in ("parameters", "slow"):
        for name, value in told_state[branch].items():
            value.copy_(state[branch, name])
    return told, told_state


@pytest.mark.parametrize(
    "part, modules",
    [("behavior", ("actor", "critic")), ("model", ("sequence", "decoder", "reward", "continuation"))],
)
def test_modules_see_the_code_where_they_would_have_seen_the_context(part: str, modules: tuple[str, ...]) -> None:
    """An agent that is told the code has the same losses: actor and critic that after each observation, the world
    model, which predicts the observation, the one before it."""
    flags = dict.fromkeys(modules, True)
    agent, batch = agent_of(flags | {"inferred": True}), split(records(3, K + T), K)
    state, noise = disturbed(agent), agent.update_noise(B, T, torch_generator(0, "noise"))
    told, told_state = told_twin(agent, state, flags)
    whole = {key: torch.cat([batch[f"history/{key}"], batch[key]], 1) for key in records(0, T)}
    codes = agent.condition(state, whole)
    before = codes[:, K - 1 : -1] * ~batch["is_first"].unsqueeze(-1)
    code = codes[:, K:] if part == "behavior" else before
    assert code.shape == (B, T, Z) and code.any()
    _, inferred, _ = agent.update(state, batch, noise)
    current = {key: value for key, value in batch.items() if not key.startswith("history/")}
    _, seen, _ = told.update(told_state, current | {"context": code}, noise)
    of_model = ("loss/dynamics", "loss/representation", "loss/reward", "loss/continue", "loss/reconstruction/state")
    names = of_model if part == "model" else [name for name in seen if not name.startswith(("gradient", "loss/total"))]
    for name in names:
        torch.testing.assert_close(inferred[name], seen[name], rtol=0, atol=1e-10, msg=name)


@pytest.mark.parametrize("image", [False, True])
def test_acting_infers_what_condition_does(image: bool) -> None:
    agent = agent_of(image=image, discrete=False)
    state, data = disturbed(agent), records(5, T, image)
    data["is_first"][:, 0] = True
    data["action"] = 2 * torch.randn(B, T, 3, dtype=torch.float64, generator=torch_generator(0, "actions"))
    carry = agent.initial_carry(B)
    codes = agent.condition(state, data)
    features = agent.observe(state, data)
    for t in range(T):
        _, carry = agent.act(state, carry, {key: value[:, t] for key, value in data.items()}, None)
        mean, _ = posterior(carry["belief/precision"], carry["belief/moment"])
        torch.testing.assert_close(bounded(mean), codes[:, t], rtol=0, atol=1e-8)
        torch.testing.assert_close(carry["deter"], features["deter"][:, t], rtol=0, atol=1e-10)
        carry = carry | {"action": data["action"][:, t]}
    assert (codes[:, -1] != 0).any()


def test_history_sharpens_the_code_and_a_reset_forgets_it() -> None:
    agent, data = agent_of(), records(6, K + T)
    state = disturbed(agent)
    data["is_first"][:] = False
    data["is_first"][:, K + 2] = True
    whole, batch = agent.condition(state, data), split(data, K)
    torch.testing.assert_close(agent.condition(state, batch), whole[:, K:], rtol=0, atol=1e-9)
    alone = agent.condition(state, {key: value for key, value in batch.items() if not key.startswith("history/")})
    assert (alone[:, :2] != whole[:, K : K + 2]).all() and torch.equal(alone[:, 0], torch.zeros(B, Z).double())
    torch.testing.assert_close(alone[:, 2:], whole[:, K + 2 :], rtol=0, atol=1e-9)


@pytest.mark.parametrize("discrete", [True, False])
def test_a_vmapped_update_of_two_members_equals_two_updates(discrete: bool) -> None:
    agent = agent_of(discrete=discrete)
    members = [disturbed(agent, seed) for seed in (1, 2)]
    population = torch.stack([member.clone() for member in members])
    for step in range(3):
        batches = [split(records(10 * step + seed, K + T), K) for seed in (0, 1)]
        noises = [agent.update_noise(B, T, torch_generator(step, "noise", seed)) for seed in (0, 1)]
        for member, batch, noise in zip(members, batches, noises, strict=True):
            agent.update(member, batch, noise)
        stacked = [{key: torch.stack([a[key], b[key]]) for key in a} for a, b in (batches, noises)]
        agent.update(population, *stacked)
    for name, value in flatten_state(population).items():
        expected = torch.stack([flatten_state(member)[name] for member in members])
        torch.testing.assert_close(value, expected, rtol=1e-8, atol=1e-10, msg=name)


def test_dreams_follow_the_code_that_they_are_given() -> None:
    agent, data = agent_of(), records(7, T)
    state = disturbed(agent)
    posterior = agent.observe(state, data)
    start = {key: posterior[key][:, -1] for key in ("deter", "stoch")}
    code, actions = agent.condition(state, data)[:, -1], data["action"]
    dream = agent.imagine(state, start, actions, code)
    other = agent.imagine(state, start, actions, code + 1)
    assert not torch.equal(dream["deter"], other["deter"])
    decoded = agent.decode(state, dream, code[:, None].expand(-1, T, -1))
    assert decoded["observation/state"].shape == (B, T, 4) and decoded["reward"].shape == (B, T)


def test_an_agent_that_is_told_has_no_part_of_it() -> None:
    agent = agent_of("crssm")
    state = agent.initial_state(0)
    assert not agent.infers and agent.history == 0
    assert set(state["normalizer"].keys()) == {"low", "high"} and set(agent.initial_carry(2)) == {
        "deter",
        "stoch",
        "action",
    }
    data = records(0, T)
    assert torch.equal(agent.condition(state, data), data["context"])
    assert agent_of().infers and agent_of().history == K


@pytest.mark.parametrize("context", ["crssm", "inferred"])
def test_the_prior_of_a_step_knows_nothing_of_its_observation(context: str) -> None:
    """Nor does it when it is trained: what is imagined then has a code that has not seen the next observation."""
    agent = agent_of(context)
    state = disturbed(agent) if agent.infers else agent.initial_state(0)
    data = records(8, T)
    data["is_first"][:] = False
    other = {key: value.clone() for key, value in data.items()}
    other["observation/state"][:, 3] += 1.0
    one, changed = (agent.observe(state, batch)["deter"] for batch in (data, other))
    assert torch.equal(one[:, :4], changed[:, :4])  # deter of step 3 is what its prior is made from
    assert (one[:, 4] != changed[:, 4]).any()
