"""One update equals the reference implementation's, number by number (float32, zero noise)."""

import pytest
import torch
from torch import Tensor

from agents.dreamerv3 import losses
from agents.optimizer import PARAMETER_NORM_FLOOR
from tests.agents.dreamerv3.reference import Reference, our_name

FILES = ["state_continuous", "state_discrete"]
LOSSES = {
    "dyn": "dynamics",
    "rep": "representation",
    "rew": "reward",
    "con": "continue",
    "policy": "policy",
    "value": "value",
    "repval": "replay_value",
}


def assert_values(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> None:
    """Largest difference, relative to the largest magnitude of the tensor."""
    assert ours.shape == theirs.shape
    assert torch.isfinite(ours).all()
    difference = (ours.double() - theirs.double()).abs().max()
    assert difference <= tolerance * theirs.double().abs().max().clamp_min(1e-3), float(difference)


def assert_relative(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    """Euclidean distance, relative to the norm."""
    assert ours.shape == theirs.shape
    difference = torch.linalg.vector_norm(ours.double() - theirs.double())
    assert difference <= tolerance * torch.linalg.vector_norm(theirs.double()) + 1e-7, float(difference)


def loss_names(reference: Reference) -> dict[str, str]:
    return LOSSES | {key: f"reconstruction/{key}" for key in reference.keys}


@pytest.fixture(scope="module", params=FILES)
def reference(request: pytest.FixtureRequest) -> Reference:
    return Reference(request.param)


@pytest.fixture(scope="module")
def trace(reference: Reference) -> dict:
    state, agent = reference.state, reference.agent
    tensors = dict(state["parameters"].items()) | dict(state["slow"].items())
    arguments = (
        losses.update_trace,
        reference.batch(),
        dict(state["hyperparameters"].items()),
        dict(state["normalizer"].items()),
        reference.noise(),
        agent.config.horizon,
    )
    return torch.func.functional_call(agent.networks, tensors, arguments)


def test_every_parameter_has_a_counterpart(reference: Reference) -> None:
    ours = set(reference.state["parameters"].keys()) | set(reference.state["slow"].keys())
    theirs = [our_name(name) for name in reference.data["names_all"]]
    assert sorted(theirs) == sorted(ours)


def test_world_model_outputs(reference: Reference, trace: dict) -> None:
    ours = trace["world_model"]
    assert_values(ours["tokens"], reference["wm/tokens"])
    assert_values(ours["deter"], reference["wm/deter"])
    assert_values(ours["stoch"], reference.latent("wm/stoch"))
    assert_values(ours["logits"], reference.latent("wm/post_logit"))
    assert_values(ours["prior_logits"], reference.latent("wm/prior_logit"))
    assert_values(ours["kl"], reference["wm/kl"])
    assert_values(ours["reward_logits"], reference["pred/rew_logits"])
    assert_values(ours["continue_logits"], reference["pred/con_logit"])
    assert_values(reference.agent.networks.world_model.bins, reference["pred/bins"])
    for key in reference.keys:
        assert_values(ours[f"reconstruction/{key}"], reference[f"pred/rec/{key}"])


def test_predictions_in_raw_units(reference: Reference, trace: dict) -> None:
    latent = {name: trace["world_model"][name] for name in ("deter", "stoch")}
    predicted = reference.agent.decode(reference.state, latent, torch.zeros(3, 6, 0))
    assert_values(predicted["reward"], reference["pred/rew"])
    discount = 1 - 1 / 333
    assert_values(predicted["continue"], (reference["pred/con_prob"] / discount).clamp_max(1.0))
    for key in reference.keys:
        symlog = reference[f"pred/rec/{key}"].double()
        assert_values(predicted[f"observation/{key}"], symlog.sign() * (symlog.abs().exp() - 1))


def test_imagination(reference: Reference, trace: dict) -> None:
    rollout, extras = dict(trace["rollout"]), trace["imagination"]
    rollout |= {name: torch.stack([step[name] for step in rollout["latents"]]) for name in ("deter", "stoch")}
    for ours, theirs in {"deter": "deter", "reward": "rew", "value": "val"}.items():
        assert_values(rollout[ours].movedim(0, 1), reference[f"img/{theirs}"])
    assert_values(rollout["stoch"].movedim(0, 1), reference.latent("img/stoch"))
    assert_values(rollout["continue"].T, reference["img/con"])
    assert_values(rollout["slow_value"].T, reference["img/slowval"][:, :-1])
    actions = reference["img/act/action"][:, :-1]
    assert_values(rollout["action"].movedim(0, 1), reference.encode_action(actions))
    parameters = {"policy_logits": "policy_logits"}
    if not reference.discrete:
        parameters = {"policy_mean": "policy_mean", "policy_deviation": "policy_std"}
    for ours, theirs in parameters.items():
        assert_values(rollout[ours].movedim(0, 1), reference[f"img/{theirs}/action"][:, :-1])
    assert_values(rollout["log_prob"].T, reference["img/logpi"])
    assert_values(rollout["entropy"].T, reference["img/ent"])
    assert_values(extras["returns"].T, reference["img/ret"])
    assert_values(extras["advantage"].T, reference["img/adv"])
    assert_values(extras["weight"].T, reference["img/weight"])
    assert_values(extras["scale"], reference["img/rscale"])
    for ours, theirs in {"low": "lo", "high": "hi"}.items():
        assert_values(extras[ours], reference[f"retnorm_after/{theirs}"])


def test_replay_value(reference: Reference, trace: dict) -> None:
    ours = trace["replay"]
    assert_values(ours["bootstrap"], reference["repl/boot"])
    assert_values(ours["returns"], reference["repl/ret"])
    assert_values(ours["slow_value"], reference["repl/slowval"])
    assert_values(ours["value_logits"], reference["repl/value_logits"])


def test_losses(reference: Reference, trace: dict) -> None:
    for theirs, ours in loss_names(reference).items():
        expected = reference[f"loss/{theirs}"]
        difference = (trace["losses"][ours] - expected).abs()
        assert difference <= 1e-5 * expected.abs().clamp_min(1.0), (ours, float(difference))
        loss_map = trace["maps"][ours]
        if ours in ("policy", "value"):
            loss_map = loss_map.mean(0).unflatten(0, reference["batch/reward"].shape)
        assert_values(loss_map, reference[f"loss_bt/{theirs}"])
    hyperparameters = dict(reference.state["hyperparameters"].items())
    for theirs, ours in loss_names(reference).items():
        scale = hyperparameters[f"{ours.split('/')[0]}_scale"]
        assert_values(scale, reference[f"loss_scale/{theirs}"])
    total = losses.total_loss(trace["losses"], hyperparameters)
    assert_values(total, reference["loss/total"])


def gradients_of(reference: Reference, offset: float) -> dict[str, Tensor]:
    state = reference.state
    gradients, _, _, _ = reference.agent._gradients(
        dict(state["parameters"].items()),
        dict(state["slow"].items()),
        dict(state["hyperparameters"].items()),
        dict(state["normalizer"].items()),
        reference.batch(),
        reference.noise(offset),
    )
    return gradients


def test_gradients_and_clipping(reference: Reference) -> None:
    gradients = gradients_of(reference, 0.0)
    for index, name in enumerate(reference.names):
        if not reference.discrete and name.startswith("actor."):
            continue  # at the mean the mean head's gradient is rounding noise; see the offset test
        theirs = reference.parameter("grads/", name)
        assert_relative(gradients[name], theirs, 1e-4)
        norm = reference["grad_norm"][index]
        assert_values(torch.linalg.vector_norm(gradients[name]), norm, 1e-4)
        floor = torch.linalg.vector_norm(reference.state["parameters", name]).clamp_min(PARAMETER_NORM_FLOOR)
        scale = 1 / (norm / (0.3 * floor)).clamp_min(1.0)
        assert_values(scale, reference["agc_scale"][index], 1e-4)


def test_policy_gradient_off_the_mean() -> None:
    reference = Reference("state_continuous")
    gradients = gradients_of(reference, 0.5)
    compared = 0
    for name in reference.names:
        if reference.has_parameter("offset/grads/", name):
            assert_relative(gradients[name], reference.parameter("offset/grads/", name), 1e-4)
            compared += 1
    assert compared >= 10


@pytest.mark.parametrize(("file", "prefix"), [("state_discrete", ""), ("state_continuous", "offset/")])
def test_five_updates(file: str, prefix: str) -> None:
    reference = Reference(file)
    agent, state, batch = reference.agent, reference.state, reference.batch()
    noise = reference.noise(0.5 if prefix else 0.0)
    start = {name: value.clone() for name, value in state["parameters"].items()}
    start |= {name: value.clone() for name, value in state["slow"].items()}
    rates = reference[f"{prefix}steps/lr"]
    for step in range(5):
        state, metrics, _ = agent.update(state, batch, noise)
        expected = reference[f"{prefix}steps/loss_total"][step]
        assert_values(metrics["loss/total"], expected)
        for theirs, ours in loss_names(reference).items():
            value = reference[f"{prefix}steps/loss/{theirs}"][step]
            difference = (metrics[f"loss/{ours}"] - value).abs()
            assert difference <= 1e-5 * value.abs().clamp_min(1.0), (step, ours)
        assert_values(metrics["gradient/norm"], reference[f"{prefix}steps/grad_norm"][step], 1e-4)
        assert_values(state["normalizer", "low"], reference[f"{prefix}steps/retnorm/lo"][step])
        assert_values(state["normalizer", "high"], reference[f"{prefix}steps/retnorm/hi"][step])
        if f"{prefix}opt_after_{step + 1}/nu_norm" in reference.data:
            _check_optimizer(reference, state, start, f"{prefix}opt_after_{step + 1}/")
        _check_parameters(reference, state, f"{prefix}params_after_{step + 1}/", float(rates[: step + 1].sum()))


def _check_optimizer(reference: Reference, state, start: dict[str, Tensor], prefix: str) -> None:
    for index, name in enumerate(reference.names):
        for branch, theirs in (("rms", "nu_norm"), ("momentum", "mu_norm")):
            ours = torch.linalg.vector_norm(state["optimizer", branch, name])
            assert_values(ours, reference[prefix + theirs][index], 1e-4)
    for index, original in enumerate(reference.data["names_all"]):
        name = our_name(original)
        value = state["slow" if name.startswith("slow") else "parameters"][name]
        assert_values(torch.linalg.vector_norm(value), reference[prefix + "param_norm"][index])
        moved = torch.linalg.vector_norm(value - start[name])
        assert_values(moved, reference[prefix + "param_delta_norm"][index], 5e-3)


def _check_parameters(reference: Reference, state, prefix: str, rates: float) -> None:
    differences = []
    for branch in ("parameters", "slow"):
        for name, value in state[branch].items():
            if reference.has_parameter(prefix, name):
                differences.append((value - reference.parameter(prefix, name)).abs().flatten())
    if not differences:
        return
    flat = torch.cat(differences)
    assert (flat <= 3e-6).double().mean() >= 0.999
    assert (flat > 0.05 * rates + 3e-6).double().mean() <= 1e-4


def test_warmup_counts_from_zero() -> None:
    reference = Reference("state_continuous")
    before = {name: value.clone() for name, value in reference.state["parameters"].items()}
    state, _, _ = reference.agent.update(reference.state, reference.batch(), reference.noise())
    assert all(torch.equal(value, before[name]) for name, value in state["parameters"].items())
    for name, value in state["slow"].items():
        assert_values(value, reference.parameter("params_after_1/", name), 1e-6)


def test_act_continues_like_the_posterior(reference: Reference, trace: dict) -> None:
    """Acting step by step on the modes walks through the posterior latents of the same sequence."""
    agent, batch = reference.agent, reference.batch()
    carry = {name: batch[f"carry/{name}"] for name in ("deter", "stoch", "action")}
    for t in range(batch["reward"].shape[1]):
        records = {name: value[:, t] for name, value in batch.items() if not name.startswith("carry/")}
        _, carry = agent.act(reference.state, carry, records, None)
        assert_values(carry["deter"], reference["wm/deter"][:, t])
        assert_values(carry["stoch"], reference.latent("wm/stoch")[:, t])
        carry["action"] = batch["action"][:, t]
