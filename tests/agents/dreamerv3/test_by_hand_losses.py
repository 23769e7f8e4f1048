"""Losses of actor and critic, in imagination and in replay, against numbers worked out by hand or in plain NumPy."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from agents.dreamerv3.losses import imagination_losses, replay_value_loss
from agents.seeding import torch_generator
from tests.agents.dreamerv3 import by_hand
from worldmodels.distributions import symexp_bins

BINS = [-20.0, -10.0, 0.0, 10.0, 20.0]
DISCOUNT = 1 - 1 / 333


def double(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def imagined(rollout: dict[str, Tensor], low: float, high: float, **settings: float) -> tuple[dict, dict]:
    given = {"return_lambda": 0.5, "return_rate": 0.5, "return_floor": 1.0, "entropy": 0.1, "slow_regularizer": 1.0}
    hyperparameters = {name: double(value) for name, value in (given | settings).items()}
    return imagination_losses(rollout, hyperparameters, {"low": double(low), "high": double(high)})


def two_steps() -> dict[str, Tensor]:
    """One rollout of two steps. State 1 may go on with probability 1/2 only; the rewards of state 0 count nowhere."""
    logits = [[0.0, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, math.log(2), 0.0, 0.0]]
    return {
        "reward": double([[99.0], [2.0], [4.0]]),
        "continue": double([[0.8], [0.5], [1.0]]),
        "value": double([[3.0], [4.0], [6.0]]),
        "log_prob": double([[-1.0], [-2.0]]).requires_grad_(),
        "entropy": double([[0.5], [0.7]]).requires_grad_(),
        "value_logits": [double(logits).unsqueeze(1).requires_grad_()],
        "slow_value": double([[0.0], [5.0]]),
        "bins": double(BINS),
    }


def test_imagination_by_hand() -> None:
    """Lambda 1/2, entropy weight 0.1, the averages of the percentiles move half of the way from (0, 0).

    Returns: R1 = 4 + 1 * 6 = 10; R0 = 2 + 0.5 * (4 / 2 + 10 / 2) = 5.5. Percentiles of (5.5, 10): 5.725 and 9.775,
    averages 2.8625 and 4.8875, scale 2.025. Advantages (5.5 - 3) / 2.025 and (10 - 4) / 2.025, nothing subtracted.
    Weights 0.8 and 0.8 * 0.5 = 0.4: the first state's own continuation counts.
    Critic: 5.5 lies at 0.55 between bins 0 and 10; with equal logits any target costs ln 5. At step 1 the softmax is
    (1, 1, 2, 1, 1) / 6: the target 10 costs ln 6, the slow critic's 5 costs (ln 6 + ln 3) / 2.
    """
    rollout = two_steps()
    losses, extras = imagined(rollout, 0.0, 0.0)
    np.testing.assert_allclose(extras["returns"].flatten(), [5.5, 10.0], rtol=1e-12)
    assert (extras["low"].item(), extras["high"].item()) == (pytest.approx(2.8625), pytest.approx(4.8875))
    assert extras["scale"].item() == pytest.approx(2.025)
    np.testing.assert_allclose(extras["weight"].flatten(), [0.8, 0.4, 0.4], rtol=1e-12)
    policy = [-0.8 * (-1.0 * 2.5 / 2.025 + 0.1 * 0.5), -0.4 * (-2.0 * 6 / 2.025 + 0.1 * 0.7)]
    np.testing.assert_allclose(losses["policy"].detach().flatten(), policy, rtol=1e-12)
    value = [0.8 * 2 * math.log(5), 0.4 * (math.log(6) + (math.log(6) + math.log(3)) / 2)]
    np.testing.assert_allclose(losses["value"].detach().flatten(), value, rtol=1e-12)
    half, _ = imagined(two_steps(), 0.0, 0.0, slow_regularizer=0.5)
    np.testing.assert_allclose(half["value"].detach().flatten()[1], 0.4 * (1.25 * math.log(6) + 0.25 * math.log(3)))


def test_policy_and_critic_gradients_by_hand() -> None:
    """The policy's score gets -weight * advantage, its entropy -weight * 0.1; logits get softmax - encoding."""
    rollout = two_steps()
    losses, _ = imagined(rollout, 0.0, 0.0)
    inputs = [rollout["log_prob"], rollout["entropy"], *rollout["value_logits"]]
    score, entropy, none = torch.autograd.grad(losses["policy"].sum(), inputs, retain_graph=True, allow_unused=True)
    np.testing.assert_allclose(score.flatten(), [-0.8 * 2.5 / 2.025, -0.4 * 6 / 2.025], rtol=1e-12)
    np.testing.assert_allclose(entropy.flatten(), [-0.08, -0.04], rtol=1e-12)
    assert none is None
    (logits,) = torch.autograd.grad(losses["value"].sum(), inputs[2:])
    first = 0.8 * (2 * np.full(5, 0.2) - np.array([0, 0, 0.45 + 1, 0.55, 0]))  # targets 5.5 and 0
    second = 0.4 * (2 * np.array([1, 1, 2, 1, 1]) / 6 - np.array([0, 0, 0.5, 1 + 0.5, 0]))  # targets 10 and 5
    np.testing.assert_allclose(logits[:, 0], [first, second], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("low", "high", "scale"), [(0.0, 0.0, 1.0), (-1.0, 0.5, 1.485 + 0.0405), (0.0, 60.0, 59.4405)])
def test_the_scale_is_the_range_of_the_moved_average_but_at_least_the_floor(
    low: float, high: float, scale: float
) -> None:
    """Rate 0.01 towards 5.725 and 9.775: the range becomes 0.99 (high - low) + 0.01 * 4.05; below 1 it counts as 1."""
    losses, extras = imagined(two_steps(), low, high, return_rate=0.01)
    assert extras["scale"].item() == pytest.approx(scale)
    np.testing.assert_allclose(extras["advantage"].flatten(), [2.5 / scale, 6 / scale], rtol=1e-12)


def test_random_rollouts_in_numpy() -> None:
    """Many rollouts: percentiles over all returns together, everything else for each by itself."""
    rng = np.random.default_rng(0)
    steps, count, bins = 6, 7, symexp_bins(31).double()
    wide = {name: rng.normal(size=(steps + 1, count)) * 5 for name in ("reward", "value")}
    wide["continue"] = rng.uniform(0.3, 1, (steps + 1, count))
    short = {name: rng.normal(size=(steps, count)) for name in ("log_prob", "entropy", "slow_value")}
    logits = rng.normal(size=(steps, count, 31))
    rollout = {name: torch.from_numpy(value) for name, value in (wide | short).items()}
    rollout["value_logits"] = list(torch.from_numpy(logits).split(2))  # in groups of steps
    settings = {"return_lambda": 0.95, "return_rate": 0.01, "entropy": 3e-4}
    losses, extras = imagined(rollout | {"bins": bins}, -30.0, 40.0, **settings)
    returns = np.zeros((steps, count))
    for n in range(count):
        traces = np.full(steps, 0.95)
        arrived = (wide[name][1:, n] for name in ("reward", "continue"))
        returns[:, n] = by_hand.lambda_returns(*arrived, traces, wide["value"][1:, n])
    np.testing.assert_allclose(extras["returns"], returns, rtol=1e-11)
    low, high = (0.99 * old + 0.01 * np.percentile(returns, q) for old, q in ((-30, 5), (40, 95)))
    for h in range(steps):
        for n in range(count):
            weight = math.prod(wide["continue"][: h + 1, n])
            advantage = (returns[h, n] - wide["value"][h, n]) / max(1.0, high - low)
            policy = -weight * (short["log_prob"][h, n] * advantage + 3e-4 * short["entropy"][h, n])
            assert losses["policy"][h, n].item() == pytest.approx(policy, rel=1e-9)
            both = [returns[h, n], short["slow_value"][h, n]]
            value = sum(by_hand.two_hot_cross_entropy(logits[h, n], x, bins.tolist()) for x in both)
            assert losses["value"][h, n].item() == pytest.approx(weight * value, rel=1e-9)


ENDS = {  # is_last and is_terminal of state 2 of four, and the returns of states 0, 1, 2
    "nothing ends": (False, False, [6.4375, 11.75, 19.0]),
    "time is up": (True, False, [6.5, 12.0, 19.0]),
    "the world ends": (True, True, [4.0, 2.0, 19.0]),
}


@pytest.mark.parametrize("case", list(ENDS))
def test_replay_value_by_hand(case: str) -> None:
    """Discount 1/2, lambda 1/2, rewards (99, 1, 2, 4), imagined returns (77, 10, 20, 30); state 0's count not.

    R2 = 4 + 30 / 2 = 19, whatever state 2 is: it is what comes after that state, and its loss has no weight if it ends
    an episode. Time out at 2: R1 = 2 + 20 / 2 = 12, R0 = 1 + (10 / 2 + 12 / 2) / 2 = 6.5. Terminal at 2: R1 = 2,
    R0 = 1 + (10 / 2 + 2 / 2) / 2 = 4. Else R1 = 2 + (20 / 2 + 19 / 2) / 2 = 11.75, R0 = 1 + (5 + 5.875) / 2 = 6.4375.
    """
    last, terminal, expected = ENDS[case]
    agent, state = by_hand.disturbed_agent()
    networks = agent.networks
    for name, value in networks.named_parameters():
        branch = "slow" if name.startswith("slow") else "parameters"
        value.copy_(state[branch, name])
    rows = {
        "reward": double([[99.0, 1.0, 2.0, 4.0]]),
        "is_last": torch.tensor([[False, False, last, False]]),
        "is_terminal": torch.tensor([[False, False, terminal, False]]),
    }
    features = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 4, 28))).requires_grad_()
    context, bootstrap = torch.zeros(1, 4, 0).double(), double([[77.0, 10.0, 20.0, 30.0]]).requires_grad_()
    settings = {"discount_horizon": double(2.0), "return_lambda": double(0.5), "slow_regularizer": double(0.25)}
    loss, extras = replay_value_loss(networks, features, context, rows, bootstrap, settings)
    assert extras["returns"].tolist() == [expected]
    logits, slow = networks.critic(features).detach()[0], networks.slow_critic(features).detach()[0]
    bins = networks.world_model.bins.tolist()
    for t in range(3):
        targets = expected[t], by_hand.two_hot_mean(slow[t].tolist(), bins)
        critic, regularizer = (by_hand.two_hot_cross_entropy(logits[t].tolist(), x, bins) for x in targets)
        weight = 0.0 if t == 2 and last else 1.0
        assert loss[0, t].item() == pytest.approx(weight * (critic + 0.25 * regularizer), rel=1e-6)
    trained, none = torch.autograd.grad(loss.sum(), [features, bootstrap], allow_unused=True)
    moved = trained[0].abs().amax(-1) > 0
    assert moved.tolist() == [True, True, not last, False]  # representation learning; the last state has no target
    assert none is None
    assert extras["slow_value"].requires_grad is False


def test_continuation_is_discounted_and_only_terminals_end_it() -> None:
    """Targets (1 - terminal) (1 - 1/333): a time-out is worth as much as any step."""
    agent, state = by_hand.disturbed_agent()
    data = by_hand.batch()
    trace, _ = by_hand.traced(agent, state, data, agent.update_noise(3, 5, torch_generator(0, "update", 0)))
    logits = trace["world_model"]["continue_logits"].detach().numpy()
    ours = trace["maps"]["continue"].detach().numpy()
    for row, t in np.ndindex(3, 5):
        target = 0.0 if (row, t) == (0, 2) else DISCOUNT
        probability = 1 / (1 + math.exp(-logits[row, t]))
        expected = -target * math.log(probability) - (1 - target) * math.log(1 - probability)
        assert ours[row, t] == pytest.approx(expected, rel=1e-10)


def test_the_bootstrap_of_replay_is_the_first_imagined_return() -> None:
    """Start b T + t of the imagination is replayed state (b, t); returns of the batch follow from it in NumPy."""
    agent, state = by_hand.disturbed_agent()
    data = by_hand.batch()
    trace, _ = by_hand.traced(agent, state, data, agent.update_noise(3, 5, torch_generator(0, "update", 0)))
    first = trace["imagination"]["returns"][0].numpy()
    for row in range(3):
        live = np.where(data["is_terminal"][row], 0.0, DISCOUNT)[1:]
        trace_row = np.where(data["is_last"][row], 0.0, 0.95)[1:]
        bootstrap = np.array([first[row * 5 + t] for t in range(1, 5)])
        expected = by_hand.lambda_returns(data["reward"][row, 1:].numpy(), live, trace_row, bootstrap)
        np.testing.assert_allclose(trace["replay"]["returns"][row].numpy(), expected, rtol=1e-6)


REACHED = {  # the modules that each loss trains
    "policy": {"actor"},
    "value": {"critic"},
    "replay_value": {"critic", "world_model.encoder", "world_model.rssm"},
    "reward": {"world_model.reward", "world_model.encoder", "world_model.rssm"},
    "continue": {"world_model.continuation", "world_model.encoder", "world_model.rssm"},
    "reconstruction/state": {
        "world_model.decoder",
        "world_model.reconstructions",
        "world_model.encoder",
        "world_model.rssm",
    },
    "dynamics": {"world_model.encoder", "world_model.rssm"},
    "representation": {"world_model.encoder", "world_model.rssm"},
}


@pytest.mark.parametrize("discrete", [True, False])
def test_each_loss_trains_its_own_modules_alone(discrete: bool) -> None:
    """Behavior sends nothing into the model but the replayed value; nothing trains the slow critic."""
    agent, state = by_hand.disturbed_agent(discrete)
    noise = agent.update_noise(3, 5, torch_generator(0, "update", 0))
    trace, leaves = by_hand.traced(agent, state, by_hand.batch(discrete), noise)
    assert set(trace["losses"]) == set(REACHED)
    for name, loss in trace["losses"].items():
        gradients = torch.autograd.grad(loss, list(leaves.values()), retain_graph=True, allow_unused=True)
        trained = {
            ".".join(leaf.split(".")[: 2 if leaf.startswith("world_model") else 1])
            for leaf, gradient in zip(leaves, gradients, strict=True)
            if gradient is not None and gradient.abs().max() > 0
        }
        assert trained == REACHED[name], name
