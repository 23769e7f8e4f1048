"""Dreams of a kept agent: files, numbers, the picture, and mistakes."""

import csv
import io

import numpy as np
import pytest
import torch
from kept_run import ENVIRONMENT, keep_agent, make_config

from agents.dream import dream, spread_jobs
from agents.environments import make_environment
from agents.errors import UserError
from agents.evaluation.episodes import evaluation_seed
from agents.run_folder import RunFolder
from agents.training.build import load_agent

SCALE = np.array(ENVIRONMENT["observation_scale"]["state"], np.float32)
PICTURE = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = keep_agent(tmp_path_factory.mktemp("runs") / "tiny", make_config())
    dream(folder, episodes=6, horizon=12)
    return folder


def read(folder, name):
    return list(csv.DictReader(io.StringIO((folder / "dream" / f"{name}.csv").read_text())))


def test_files_hold_every_episode_step_and_quantity(run):
    assert (run / "dream" / "dream.png").read_bytes().startswith(PICTURE)
    rows, episodes = read(run, "dream"), read(run, "episodes")
    columns = "episode step key dimension name unit truth dream_true_context dream_swapped_context"
    assert list(rows[0]) == columns.split()
    assert list(episodes[0]) == (
        ["episode", "region", "context_id", "seed", "gravity", "length", "swapped_gravity", "swapped_length"]
    )
    assert [int(row["context_id"]) for row in episodes] == [0, 0, 1, 2, 2, 3]
    quantities = {(row["key"], row["dimension"], row["name"], row["unit"]) for row in rows}
    assert ("observation/state", "2", "pole angle", "rad") in quantities
    assert {key for key, *_ in quantities} == {"observation/state", "reward", "continue"}
    assert len(quantities) == 6
    by_episode = [{int(row["step"]) for row in rows if row["episode"] == str(e)} for e in range(6)]
    assert all(steps == set(range(len(steps))) and 5 < len(steps) <= 17 for steps in by_episode)
    assert len(rows) == 6 * sum(len(steps) for steps in by_episode)


def test_truth_is_what_the_environment_does(run):
    """Play the agent again by hand from the seed that the file names; compare in physical units."""
    agent, state, _ = load_agent(RunFolder(run))
    source = read(run, "episodes")[2]
    context = {name: float(source[name]) for name in ("gravity", "length")}
    assert int(source["seed"]) == evaluation_seed(0, "training", int(source["context_id"]), 0)
    env = make_environment("cartpole", features=["gravity", "length"])
    observation, info = env.reset(seed=int(source["seed"]), options={"context": context})
    carry, states, over, first = agent.initial_carry(1), [], False, True
    rewards, terminated = [0.0], [False]
    while True:
        states.append(observation["state"])
        if over or len(states) == 17:
            break
        records = {
            "observation/state": torch.from_numpy(observation["state"] / SCALE)[None],
            "is_first": torch.tensor([first]),
            "context": torch.from_numpy(np.array(info["context"]))[None],
        }
        action, carry = agent.act(state, carry, records, None)
        observation, reward, end, truncated, info = env.step(int(action.argmax()))
        rewards.append(reward)
        terminated.append(end)
        over, first = end or truncated, False
    rows = [row for row in read(run, "dream") if row["episode"] == "2"]
    for dimension in range(4):
        truth = [float(row["truth"]) for row in rows if row["key"] == "observation/state"][dimension::4]
        np.testing.assert_allclose(truth, np.stack(states)[:, dimension], rtol=1e-5)
    assert [float(row["truth"]) for row in rows if row["key"] == "reward"] == rewards
    assert [float(row["truth"]) for row in rows if row["key"] == "continue"] == [float(not end) for end in terminated]


def test_errors_are_those_of_the_values(run):
    values, errors = read(run, "dream"), read(run, "errors")
    angle = [row for row in values if row["name"] == "pole angle"]
    for column, context in (("dream_true_context", "true"), ("dream_swapped_context", "swapped")):
        for horizon in (1, 4):
            difference = [
                abs(float(row[column]) - float(row["truth"])) for row in angle if int(row["step"]) == 4 + horizon
            ]
            (error,) = [
                row
                for row in errors
                if (row["name"], row["context"], row["horizon"]) == ("pole angle", context, str(horizon))
            ]
            assert int(error["episodes"]) == len(difference)
            assert float(error["mean"]) == pytest.approx(np.mean(difference))
            assert float(error["median"]) == pytest.approx(np.median(difference))
            assert float(error["quartile3"]) == pytest.approx(np.quantile(difference, 0.75))
    assert {row["key"] for row in errors} == {"observation", "observation/state", "reward", "continue"}


def test_the_swapped_context_changes_the_dream_and_only_the_dream(run):
    rows = read(run, "dream")
    observed = [row for row in rows if int(row["step"]) < 5]
    dreamt = [row for row in rows if int(row["step"]) >= 5 and row["key"] == "observation/state"]
    assert all(row["dream_true_context"] == row["dream_swapped_context"] for row in observed)
    assert all(row["dream_true_context"] != row["dream_swapped_context"] for row in dreamt)
    for row in read(run, "episodes"):
        assert (row["gravity"], row["length"]) != (row["swapped_gravity"], row["swapped_length"])


def test_dreams_repeat_byte_for_byte(run, capsys):
    files = sorted(path for path in (run / "dream").iterdir())
    assert [path.name for path in files] == ["dream.csv", "dream.png", "episodes.csv", "errors.csv"]
    before = [path.read_bytes() for path in files]
    dream(run, episodes=6, horizon=12)
    assert [path.read_bytes() for path in files] == before
    printed = capsys.readouterr().out
    assert "Dream errors" in printed and "swapped" in printed and "dream.png" in printed


@pytest.mark.parametrize("preset", ["hidden", "concat"])
def test_agents_whose_dream_does_not_see_the_context(tmp_path, capsys, preset):
    folder = keep_agent(tmp_path / preset, make_config(context=preset))
    true, swapped = dream(folder, episodes=3, horizon=8)
    np.testing.assert_array_equal(true.median, swapped.median)
    assert "under a swapped context it dreams the same" in " ".join(capsys.readouterr().out.split())


def test_one_context_cannot_be_swapped(tmp_path, capsys):
    folder = keep_agent(tmp_path / "default", make_config(contexts={}))
    true, swapped = dream(folder, episodes=3, horizon=8)
    np.testing.assert_array_equal(true.median, swapped.median)
    assert "All episodes have the same context" in " ".join(capsys.readouterr().out.split())


def test_continuous_actions_and_unnamed_dimensions(tmp_path):
    environment = {"name": "pendulum", "num_envs": 2, "features": ["g", "l"], "time_limit": 20}
    contexts = {"training": {"distribution": "fixed", "contexts": [{"g": 5.0}, {"g": 15.0, "l": 2.0}]}}
    folder = keep_agent(tmp_path / "pendulum", make_config(environment=environment, contexts=contexts))
    true, _ = dream(folder, episodes=2, horizon=45)
    # Records 0 .. 20; horizon h is step 4 + h: there is nothing to compare after horizon 16.
    assert true.episodes.tolist() == [2] * 16
    assert {row["step"] for row in read(folder, "dream")} == {str(step) for step in range(21)}


def test_jobs_are_spread_over_contexts():
    contexts = [{"gravity": float(index)} for index in range(1, 11)]
    jobs = spread_jobs(contexts, 4, seed=0)
    assert [job.context_id for job in jobs] == [0, 2, 5, 7]
    jobs = spread_jobs(contexts[:3], 6, seed=0)
    assert [job.context_id for job in jobs] == [0, 0, 1, 1, 2, 2]
    assert len({job.seed for job in jobs}) == 6


def test_mistakes_are_told_in_one_line(run, tmp_path):
    with pytest.raises(UserError, match="episodes is 0"):
        dream(run, episodes=0)
    with pytest.raises(UserError, match="horizon is 0"):
        dream(run, horizon=0)
    with pytest.raises(UserError, match="no such run folder"):
        dream(tmp_path / "nowhere")
    short = keep_agent(tmp_path / "short", make_config(environment={**ENVIRONMENT, "time_limit": 4}))
    with pytest.raises(UserError, match="every episode is over before step 5"):
        dream(short, episodes=3)
    assert not (short / "dream").exists()
