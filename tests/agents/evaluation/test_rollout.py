"""Episodes in many environments at once equal episodes run one by one."""

import numpy as np
import pytest
import torch

from agents.dreamerv3.actor import ActionSpec
from agents.dreamerv3.agent import DreamerV3
from agents.dreamerv3.config import DreamerV3Config
from agents.environments import SerialVector, make_environment
from agents.errors import UserError
from agents.evaluation.episodes import Job, list_jobs
from agents.evaluation.rollout import ROWS, open_environments, run_episodes
from worldmodels.config import WorldModelConfig
from worldmodels.context import ContextSpec

CONTEXTS = [{"length": length} for length in (0.1, 0.3, 0.5, 0.9, 2.0)]
JOBS = list_jobs({"training": CONTEXTS, "extrapolation": [{"gravity": 50.0}]}, 3, seed=1)


def make_single():
    return make_environment("cartpole", time_limit=60)


def make():
    return SerialVector([make_single])


def run(agent, state, jobs, **options):
    """Run the jobs in as many environments as there are rows for them."""
    with open_environments(make, min(len(jobs), options.get("rows", ROWS))) as environments:
        return run_episodes(agent, state, environments, jobs, **options)


class LeaningAgent:
    """Pushes where the pole leans, delayed by a carry: right if this and the last angle say so on average."""

    def initial_carry(self, num_envs):
        return {"angle": torch.zeros(num_envs)}

    def act(self, state, carry, records, noise):
        assert noise is None, "evaluation is greedy"
        angle = records["observation/state"][:, 2]
        last = torch.where(records["is_first"], 0.0, carry["angle"])
        right = (angle + 0.5 * last > 0).long()
        return torch.nn.functional.one_hot(right, 2).float(), {"angle": angle}


def play(job):
    """The same policy in Gymnasium's own loop."""
    env = make_single()
    observation, _ = env.reset(seed=job.seed, options={"context": job.context, "context_id": job.context_id})
    observations, actions, last, over, total = [observation["state"]], [], np.float32(0), False, 0.0
    while not over:
        angle = observations[-1][2]
        actions.append(int(angle + np.float32(0.5) * last > 0))
        last = angle
        observation, reward, terminated, truncated, _ = env.step(actions[-1])
        observations.append(observation["state"])
        total += reward
        over = terminated or truncated
    return np.stack(observations), actions, total, terminated


@pytest.mark.parametrize("rows", [1, 4, 64])
def test_episodes_equal_a_plain_loop(rows):
    done = []
    episodes = run(LeaningAgent(), None, JOBS, record=True, rows=rows, on_episode=lambda: done.append(1))
    assert [episode.job for episode in episodes] == JOBS
    assert len(done) == len(JOBS)
    assert len({episode.length for episode in episodes}) > 3, "the test needs different episodes"
    for episode in episodes:
        observations, actions, total, terminated = play(episode.job)
        records = episode.records
        np.testing.assert_array_equal(records["observation/state"], observations)
        assert episode.episode_return == total == records["reward"].sum()
        assert episode.length == len(actions) == len(observations) - 1
        assert records["action"][:-1].argmax(-1).tolist() == actions
        assert records["action"][-1].tolist() == [0, 0]
        assert records["is_first"].tolist() == [True] + [False] * len(actions)
        assert records["is_last"].tolist() == [False] * len(actions) + [True]
        assert records["is_terminal"][-1] == terminated and not records["is_terminal"][:-1].any()
        index = [feature.name for feature in make().features].index("length")
        assert set(records["context"][:, index]) == {np.float32(episode.job.context.get("length", 0.5))}
        assert set(records["context_id"]) == {episode.job.context_id}
        dtypes = {key: value.dtype.name for key, value in records.items()}
        assert dtypes == {
            "observation/state": "float32",
            "action": "float32",
            "reward": "float32",
            "is_first": "bool",
            "is_terminal": "bool",
            "is_last": "bool",
            "context": "float32",
            "context_id": "int32",
        }


def test_records_are_kept_only_if_asked_for():
    assert [episode.records for episode in run(LeaningAgent(), None, JOBS[:2])] == [{}, {}]


def test_max_steps_cuts_records():
    jobs = [JOBS[7], JOBS[8]]
    whole = run(LeaningAgent(), None, jobs, record=True)
    cut = run(LeaningAgent(), None, jobs, record=True, max_steps=6)
    for long, short in zip(whole, cut, strict=True):
        assert long.length > 6 and short.length == 6
        for key, values in short.records.items():
            np.testing.assert_array_equal(values, long.records[key][:7])


@pytest.fixture(scope="module")
def dreamer():
    config = DreamerV3Config(world_model=WorldModelConfig(deter=32, hidden=16, stoch=4, classes=4, units=16, blocks=4))
    features = make().features
    names = tuple(feature.name for feature in features)
    low, high = (tuple(scale * feature.default for feature in features) for scale in (0.5, 1.5))
    agent = DreamerV3(config, {"state": (4,)}, ActionSpec(2, True), ContextSpec(names, low, high))
    state = agent.initial_state(0)
    for name, value in state["parameters"].items():
        # The actor starts at nearly zero: make its choices depend on what it sees.
        if name.startswith("actor"):
            value.mul_(10.0)
    return agent, state


def test_an_episode_does_not_depend_on_the_others(dreamer):
    agent, state = dreamer
    reference = run(agent, state, JOBS, record=True)
    assert len({episode.length for episode in reference}) > 3
    assert len({tuple(e.records["action"][:8, 0]) for e in reference}) > 1
    backwards = run(agent, state, JOBS[::-1], record=True)[::-1]
    alone = [run(agent, state, [job], record=True)[0] for job in JOBS[::5]]
    for other, expected in [
        *zip(backwards, reference, strict=True),
        *zip(alone, reference[::5], strict=True),
    ]:
        assert other.job == expected.job and other.episode_return == expected.episode_return
        for key, values in expected.records.items():
            np.testing.assert_array_equal(other.records[key], values)


def test_environments_are_closed_whatever_happens():
    closed = []

    def make_watched():
        env = make()
        env.close = lambda: closed.append(env)
        return env

    jobs = [Job("training", 0, {"gravitas": 1.0}, 3), JOBS[0]]
    with pytest.raises(UserError, match="gravitas"), open_environments(make_watched, 2) as environments:
        run_episodes(LeaningAgent(), None, environments, jobs)
    assert len(closed) == 2


def test_no_more_environments_than_rows():
    with open_environments(make, 10_000) as environments:
        assert len(environments) == ROWS


def test_action_repeat_counts_agent_steps():
    environments = [SerialVector([lambda: make_environment("cartpole", action_repeat=2)])]
    for episode in run_episodes(LeaningAgent(), None, environments, JOBS[:2], record=True):
        assert episode.length == len(episode.records["reward"]) - 1
        assert episode.length < episode.episode_return <= 2 * episode.length
