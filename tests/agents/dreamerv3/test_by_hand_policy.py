"""The policy against scipy.stats, and what an update does to rates, averages and the slow critic, in NumPy."""

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch

from agents.dreamerv3.actor import ActionSpec, Actor
from agents.seeding import torch_generator
from tests.agents.dreamerv3 import by_hand
from worldmodels.layers import initialize

RAW = {"mean": [0.0, 0.5, -3.0, 40.0, -40.0], "deviation": [0.0, -2.0, 1.0, 40.0, -40.0]}


def actor(discrete: bool, **biases: list[float]) -> Actor:
    """An actor whose raw outputs are the given biases, whatever the state."""
    width = len(next(iter(biases.values())))
    made = Actor(3, 4, 1, ActionSpec(width, discrete)).double()
    initialize(made, torch.Generator().manual_seed(0))
    for name, bias in biases.items():
        made.outputs[name].weight.data.zero_()
        made.outputs[name].bias.data = torch.tensor(bias, dtype=torch.float64)
    return made


def test_continuous_parameters_are_bounded() -> None:
    """Mean tanh(raw); deviation 0.1 + 0.9 sigmoid(raw + 2): at raw -2 it is 0.55, and it lies between 0.1 and 1."""
    policy = actor(False, **RAW)(torch.zeros(1, 3, dtype=torch.float64))
    mean, deviation = (policy[name][0].detach().numpy() for name in ("mean", "deviation"))
    np.testing.assert_allclose(mean, np.tanh(RAW["mean"]), rtol=1e-12)
    np.testing.assert_allclose(deviation, 0.1 + 0.9 * scipy.special.expit(np.array(RAW["deviation"]) + 2), rtol=1e-12)
    assert deviation[1] == pytest.approx(0.55)
    assert (mean[3], mean[4], deviation[3], deviation[4]) == pytest.approx((1.0, -1.0, 1.0, 0.1))


def test_normal_against_scipy() -> None:
    """Sums over the dimensions; actions beyond [-1, 1] keep their density: nothing is squashed."""
    made = actor(False, **RAW)
    policy = made(torch.zeros(6, 3, dtype=torch.float64))
    noise = np.random.default_rng(0).normal(size=(6, 5)) * 2
    action = made.sample(policy, torch.from_numpy(noise))
    normal = scipy.stats.norm(np.tanh(RAW["mean"]), 0.1 + 0.9 * scipy.special.expit(np.array(RAW["deviation"]) + 2))
    np.testing.assert_allclose(action.numpy(), normal.ppf(scipy.stats.norm.cdf(noise)), rtol=1e-8, atol=1e-9)
    assert action.abs().max() > 1.5
    log_prob, entropy = made.log_prob_and_entropy(policy, action)
    np.testing.assert_allclose(log_prob.detach().numpy(), normal.logpdf(action.numpy()).sum(-1), rtol=1e-10)
    np.testing.assert_allclose(entropy.detach().numpy(), [normal.entropy().sum()] * 6, rtol=1e-12)


def test_score_of_the_normal_by_hand() -> None:
    """d log p / d mean = (a - mean) / deviation^2; through tanh times 1 - mean^2. The sample itself sends nothing."""
    made = actor(False, mean=[0.5], deviation=[-2.0])  # mean tanh(0.5), deviation 0.55
    policy = made(torch.zeros(1, 3, dtype=torch.float64))
    action = made.sample(policy, torch.tensor([[2.0]], dtype=torch.float64))  # two deviations up
    log_prob, _ = made.log_prob_and_entropy(policy, action)
    (score,) = torch.autograd.grad(log_prob.sum(), made.outputs["mean"].bias)
    assert score.item() == pytest.approx(2 / 0.55 * (1 - math.tanh(0.5) ** 2))


@pytest.mark.parametrize("logits", [[0.0, 0.0, 0.0], [1.0, -2.0, 0.5], [0.0, -60.0, -80.0], [3.0] * 6])
def test_categorical_against_scipy(logits: list[float]) -> None:
    """No uniform share: an action of logit -60 keeps its log-probability of about -60 nats."""
    made = actor(True, logits=logits)
    count = len(logits)
    policy = made(torch.zeros(count, 3, dtype=torch.float64))
    probabilities = scipy.special.softmax(logits)
    log_prob, entropy = made.log_prob_and_entropy(policy, torch.eye(count, dtype=torch.float64))
    np.testing.assert_allclose(log_prob.detach().numpy(), scipy.special.log_softmax(logits), rtol=1e-12)
    choice = scipy.stats.rv_discrete(values=(range(count), probabilities))
    np.testing.assert_allclose(np.exp(log_prob.detach().numpy()), choice.pmf(range(count)), rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(entropy.detach().numpy(), scipy.stats.entropy(probabilities), rtol=1e-12, atol=1e-12)


def test_samples_are_distributed_as_scipy_says() -> None:
    """Chi-square of 30,000 draws: improbable (1 in 10,000) if the probabilities were others."""
    made, count = actor(True, logits=[1.0, 0.0, -1.0, 0.3]), 30_000
    policy = made(torch.zeros(count, 3, dtype=torch.float64))
    noise = -torch.empty(count, 4, dtype=torch.float64).exponential_(generator=torch.Generator().manual_seed(0)).log()
    observed = made.sample(policy, noise).sum(0).numpy()
    expected = count * scipy.special.softmax([1.0, 0.0, -1.0, 0.3])
    assert scipy.stats.chisquare(observed, expected).pvalue > 1e-4
    others = count * scipy.special.softmax([1.1, 0.0, -1.0, 0.3])
    assert scipy.stats.chisquare(observed, others).pvalue < 1e-4  # and it would be noticed


# What one update does besides its gradients. The tree holds rates of float32 precision, 3e-8.

WARMUP, RATE, SLOW = 3.0, 1e-2, 0.02


def test_warm_up_counts_from_zero() -> None:
    """Update n moves by momentum / (1 - 0.9^n) times rate * (0, 1/3, 2/3, 1, 1): the first moves nothing."""
    agent, state = by_hand.disturbed_agent(learning_rate=RATE, warmup=WARMUP)
    for n, fraction in enumerate([0.0, 1 / 3, 2 / 3, 1.0, 1.0], 1):
        before = {name: value.clone() for name, value in state["parameters"].items()}
        agent.update(state, by_hand.batch(), agent.update_noise(3, 5, torch_generator(0, "update", n)))
        assert state["counters", "updates"].item() == n
        for name, value in state["parameters"].items():
            momentum = state["optimizer", "momentum", name].numpy()
            expected = before[name].numpy() - RATE * fraction * momentum / (1 - 0.9**n)
            np.testing.assert_allclose(value.numpy(), expected, rtol=1e-9, atol=1e-7 * RATE, err_msg=name)
        assert (state["parameters", "critic.output.bias"] != before["critic.output.bias"]).any() == (n > 1)


def test_without_warm_up_the_first_update_has_the_whole_rate() -> None:
    """Bias corrections cancel: every element with a gradient moves by the rate, up or down."""
    agent, state = by_hand.disturbed_agent(learning_rate=RATE, warmup=0.0)
    before = {name: value.clone() for name, value in state["parameters"].items()}
    agent.update(state, by_hand.batch(), agent.update_noise(3, 5, torch_generator(0, "update", 0)))
    for name, value in state["parameters"].items():
        moved = state["optimizer", "rms", name] > 0
        assert moved.any(), name
        step = (value - before[name])[moved].abs()
        np.testing.assert_allclose(step.numpy(), RATE, rtol=1e-6, err_msg=name)


def test_the_slow_critic_follows_the_new_critic() -> None:
    """After the optimizer's step, slow <- slow + 0.02 (new critic - slow): 0.98^n of the start is left."""
    agent, state = by_hand.disturbed_agent(learning_rate=RATE, warmup=0.0, slow_rate=SLOW)
    start = {name: value.clone() for name, value in state["slow"].items()}
    critics: dict[str, list[np.ndarray]] = {name: [] for name in start}
    for n in range(3):
        agent.update(state, by_hand.batch(), agent.update_noise(3, 5, torch_generator(0, "update", n)))
        for name, history in critics.items():
            history.append(state["parameters", name.replace("slow_critic", "critic")].numpy().copy())
    assert len(start) == 11  # three layers of weight, bias and scale, and the output's two
    for name, value in state["slow"].items():
        weights = SLOW * (1 - SLOW) ** np.array([2, 1, 0])
        expected = (1 - SLOW) ** 3 * start[name].numpy() + np.tensordot(weights, np.array(critics[name]), 1)
        np.testing.assert_allclose(value.numpy(), expected, rtol=1e-6, atol=1e-8, err_msg=name)


def test_the_normalizer_keeps_what_the_losses_used() -> None:
    """The averages in the tree after an update are those that divided its advantages: moved first, used then."""
    agent, state = by_hand.disturbed_agent()
    state["normalizer", "low"].fill_(-4.0)
    state["normalizer", "high"].fill_(9.0)
    noise = agent.update_noise(3, 5, torch_generator(0, "update", 0))
    trace, _ = by_hand.traced(agent, state, by_hand.batch(), noise)
    returns, value = trace["imagination"]["returns"].numpy(), trace["rollout"]["value"].numpy()
    low, high = (0.99 * old + 0.01 * np.percentile(returns, q) for old, q in ((-4.0, 5), (9.0, 95)))
    advantage = (returns - value[:-1]) / max(1.0, high - low)
    np.testing.assert_allclose(trace["imagination"]["advantage"].numpy(), advantage, rtol=1e-6)
    agent.update(state, by_hand.batch(), noise)
    assert state["normalizer", "low"].item() == pytest.approx(low, rel=1e-6)
    assert state["normalizer", "high"].item() == pytest.approx(high, rel=1e-6)
