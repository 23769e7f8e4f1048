"""Dreams line up with the records: an agent that knows its world dreams without any error."""

import numpy as np
import pytest
import torch

from agents.dreaming.channels import Channel, channels_of
from agents.dreaming.dreams import (
    OBSERVED,
    Dreams,
    collate,
    dream_episodes,
    most_distant,
)
from agents.dreaming.errors import horizon_errors, overall_errors

LIMIT = 3.0


def world_step(x, action, context):
    """The fake world, in float32: x moves by action times context."""
    return np.float32(x + np.float32(action * context))


def make_episode(steps, context, seed):
    """Records [steps + 1, ...] of the fake world under random actions; terminal if |x| exceeds LIMIT."""
    generator = np.random.default_rng(seed)
    actions = generator.uniform(-1, 1, size=steps + 1).astype(np.float32)
    positions = [np.float32(0)]
    for action in actions[:-1]:
        positions.append(world_step(positions[-1], action, np.float32(context)))
    actions[-1] = 0
    x = np.array(positions, np.float32)
    return {
        "observation/state": np.stack([x, 2 * x], axis=-1),
        "action": actions[:, None],
        "reward": x / 2,
        "is_first": np.arange(steps + 1) == 0,
        "is_terminal": np.abs(x) > LIMIT,
        "is_last": np.arange(steps + 1) == steps,
        "context": np.full((steps + 1, 1), context, np.float32),
        "context_id": np.zeros(steps + 1, np.int32),
    }


class ExactAgent:
    """Knows the fake world: its latent is x."""

    def condition(self, state, batch):
        return batch["context"]

    def observe(self, state, batch, noise=None):
        deter = batch["observation/state"][..., :1]
        assert deter.shape[1] == OBSERVED, "the agent must not see what it is to dream of"
        return {"deter": deter, "stoch": torch.zeros(*deter.shape, 1)}

    def imagine(self, state, start, actions, context, noise=None):
        x, states = start["deter"], []
        for action in actions.unbind(1):
            x = x + action * context
            states.append(x)
        deter = torch.stack(states, 1)
        return {"deter": deter, "stoch": torch.zeros(*deter.shape, 1)}

    def decode(self, state, latent, context):
        x = latent["deter"][..., 0]
        assert context.shape[:-1] == x.shape
        return {
            "observation/state": torch.stack([x, 2 * x], -1),
            "reward": x / 2,
            "continue": (x.abs() <= LIMIT).float(),
        }


class LateAgent(ExactAgent):
    """Returns the state before each action instead of the one after it."""

    def imagine(self, state, start, actions, context, noise=None):
        after = super().imagine(state, start, actions, context)["deter"]
        deter = torch.cat([start["deter"][:, None], after[:, :-1]], 1)
        return {"deter": deter, "stoch": torch.zeros(*deter.shape, 1)}


class EarlyAgent(ExactAgent):
    """Takes each action one step too early."""

    def imagine(self, state, start, actions, context, noise=None):
        return super().imagine(state, start, actions.roll(-1, dims=1), context)


@pytest.fixture
def episodes():
    return [make_episode(30, 1.0, 0), make_episode(12, 0.5, 1), make_episode(6, 2.0, 2)]


@pytest.fixture
def channels(episodes):
    return channels_of("fake", episodes[0])


def swap(episodes, values):
    assert len(episodes) == len(values)
    return torch.tensor(values, dtype=torch.float32)[:, None]


def test_exact_agent_dreams_without_error(episodes, channels):
    dreams = dream_episodes(ExactAgent(), None, episodes, swap(episodes, [1, 0.5, 2]), channels, horizon=20)
    assert dreams.truth.shape == (3, OBSERVED + 20, 4)
    np.testing.assert_array_equal(dreams.dreamt["true"], dreams.truth)
    assert not dreams.swap_matters
    for errors in [*horizon_errors(dreams), *overall_errors(dreams)]:
        # Records are at steps 0..30, 0..12 and 0..6; horizon h is step OBSERVED - 1 + h.
        assert errors.episodes.tolist() == [3, 3] + 6 * [2] + 12 * [1]
        assert np.all(errors.mean == 0) and np.all(errors.upper == 0)


@pytest.mark.parametrize("agent", [LateAgent(), EarlyAgent()])
def test_shifted_agents_dream_with_error(agent, episodes, channels):
    swapped = swap(episodes, [1, 0.5, 2])
    dreams = dream_episodes(agent, None, episodes, swapped, channels, horizon=20)
    for errors in horizon_errors(dreams)[:4]:  # both dimensions, both contexts
        assert np.all(errors.mean[:8] > 0)


def test_truth_is_the_record_and_ends_with_it(episodes, channels):
    dreams = dream_episodes(ExactAgent(), None, episodes, swap(episodes, [1, 1, 1]), channels, horizon=20)
    for index, episode in enumerate(episodes):
        records = min(len(episode["reward"]), OBSERVED + 20)
        np.testing.assert_array_equal(dreams.truth[index, :records, :2], episode["observation/state"][:records])
        np.testing.assert_array_equal(dreams.truth[index, :records, 2], episode["reward"][:records])
        np.testing.assert_array_equal(dreams.truth[index, :records, 3], ~episode["is_terminal"][:records])
        assert np.isnan(dreams.truth[index, records:]).all()
        assert np.isnan(dreams.dreamt["swapped"][index, records:]).all()


def test_swapped_context_enters_after_the_observed_steps(episodes, channels):
    swapped = [3.0, 1.5, 0.25]
    dreams = dream_episodes(ExactAgent(), None, episodes, swap(episodes, swapped), channels, horizon=10)
    assert dreams.swap_matters
    np.testing.assert_array_equal(dreams.dreamt["swapped"][:, :OBSERVED], dreams.truth[:, :OBSERVED])
    for index, episode in enumerate(episodes):
        x = episode["observation/state"][OBSERVED - 1, 0]
        for step in range(OBSERVED, min(len(episode["reward"]), OBSERVED + 10)):
            x = world_step(x, episode["action"][step - 1, 0], np.float32(swapped[index]))
            assert dreams.dreamt["swapped"][index, step, 0] == x


def test_collate_pads_and_cuts():
    batch, valid = collate(
        [
            {"is_first": np.array([True, False]), "x": np.array([[1.0], [2.0]])},
            {"is_first": np.array([True, False, False, False]), "x": np.arange(4.0)[:, None]},
        ],
        3,
    )
    assert batch["x"][..., 0].tolist() == [[1, 2, 0], [0, 1, 2]]
    assert valid.tolist() == [[True, True, False], [True, True, True]]


def test_most_distant_scales_features():
    # Gravity spans 10, length spans 0.4: context 0 is 0.1 + 1.0 from context 2, 1.0 + 0.0 from context 1.
    contexts = np.array([[5.0, 0.3], [15.0, 0.3], [6.0, 0.7]])
    assert most_distant(contexts).tolist() == [2, 2, 1]
    assert most_distant(np.array([[1.0, 2.0], [1.0, 2.0]])).tolist() == [0, 0]


def test_errors_by_hand():
    channel = Channel("observation/state", 0, "x", "m")
    truth = np.zeros((4, OBSERVED + 2, 1))
    truth[3, -1] = np.nan
    dreamt = truth.copy()
    dreamt[:, OBSERVED, 0] = [1, -2, 3, -6]  # absolute: 1 2 3 6
    dreamt[:3, OBSERVED + 1, 0] = [10, 20, -60]
    errors = horizon_errors(Dreams((channel,), truth, {"true": dreamt, "swapped": truth}))
    assert [(e.channel, e.context) for e in errors] == [(channel, "true"), (channel, "swapped")]
    assert errors[0].episodes.tolist() == [4, 3]
    assert errors[0].mean.tolist() == [3, 30]
    assert errors[0].median.tolist() == [2.5, 20]
    assert errors[0].lower.tolist() == [1.75, 15]  # linear interpolation: 1 + 0.75, 10 + 0.5 * 10
    assert errors[0].upper.tolist() == [3.75, 40]
    assert errors[1].mean.tolist() == [0, 0]


def test_overall_error_by_hand():
    channels = (Channel("observation/a", 0, "a", ""), Channel("observation/b", 0, "b", ""))
    truth = np.zeros((1, OBSERVED + 1, 2))
    truth[0, :, 0] = [1, -1, 1, -1, 1, -1]  # standard deviation 1
    truth[0, :, 1] = [4, -4, 4, -4, 4, -4]  # standard deviation 4
    dreamt = truth.copy()
    dreamt[0, -1] += [3, 16]  # 3 and 4 standard deviations: root mean square is sqrt(12.5)
    errors = overall_errors(Dreams((*channels, Channel("reward", 0, "reward", "")), *_with_reward(truth, dreamt)))
    assert errors[0].mean == pytest.approx(np.sqrt(12.5))
    assert errors[1].mean == 0


def _with_reward(truth, dreamt):
    """Add a reward channel whose dream is wrong: it must not count."""
    zeros = np.zeros((*truth.shape[:2], 1))
    wrong = np.concatenate([dreamt, zeros + 99], axis=-1)
    exact = np.concatenate([truth, zeros], axis=-1)
    return exact, {"true": wrong, "swapped": exact}


def test_channel_names():
    records = {
        "observation/state": np.zeros((3, 4), np.float32),
        "observation/image": np.zeros((3, 8, 8, 3), np.uint8),
        "observation/height": np.zeros((3, 1), np.float32),
        "reward": np.zeros(3, np.float32),
    }
    labels = [channel.label for channel in channels_of("cartpole", records)]
    assert labels == [
        "height",
        "cart position [m]",
        "cart velocity [m/s]",
        "pole angle [rad]",
        "pole angular velocity [rad/s]",
        "reward",
        "continue [probability]",
    ]
    assert [c.name for c in channels_of("dmc/walker/walk", records)][1] == "state[0]"
