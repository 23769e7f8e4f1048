"""References: CartPole's controller against the simulator, the random policy, experts that were trained, the file."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest

from agents.configuration import RunConfig, load_config, save_config
from agents.environments import make_environment
from agents.environments.classic import CARTPOLE_FEATURES
from agents.errors import UserError
from agents.evaluation.comparison import context_key
from agents.evaluation.episodes import Job
from agents.evaluation.experts import cartpole_controller, cartpole_dynamics, cartpole_gain, play, random_policy
from agents.evaluation.rollout import Episode
from agents.evaluation.summary import write_csv
from agents.references import read_references, references
from agents.run_folder import RunFolder

CONFIG = """\
name: small
environment: {name: NAME, features: [FEATURES]}
contexts:
  evaluation:
    regions:
      here: [{}]
      there: [{FIRST: 2.45}]
"""
EXTREMES = [{"gravity": gravity, "length": length} for gravity in (0.98, 9.8, 19.6) for length in (0.1, 0.5, 1.0)]


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = CONFIG.replace("NAME", "cartpole").replace("FEATURES", "gravity, length").replace("FIRST", "gravity")
    (tmp_path / "small.yaml").write_text(text)
    return str(tmp_path / "small.yaml")


@pytest.mark.parametrize("context", [*EXTREMES, {"masscart": 3.0, "masspole": 0.4, "tau": 0.01}])
def test_the_linear_dynamics_are_the_simulators(context):
    env = make_environment("cartpole")
    env.reset(seed=0)
    env.set_context(context)
    a, b = cartpole_dynamics(context)
    state = np.array([1e-4, -2e-4, 3e-4, 1e-4])
    for action, force in ((0, -10.0), (1, 10.0)):
        env._world.state = tuple(state)
        moved = np.array(env._step_world(action)[0]["state"], dtype=np.float64)
        # Terms of second order in states of 1e-4 are left out; the simulator's observation is float32.
        np.testing.assert_allclose(moved, a @ state + b[:, 0] * force, atol=1e-6)


@pytest.mark.parametrize("context", EXTREMES)
def test_the_regulator_is_stable(context):
    a, b = cartpole_dynamics(context)
    assert np.abs(np.linalg.eigvals(a)).max() > 1  # the pole falls by itself
    assert np.abs(np.linalg.eigvals(a - b @ cartpole_gain(context))).max() < 1


@pytest.mark.parametrize("context", [EXTREMES[0], EXTREMES[2], EXTREMES[6], EXTREMES[8]])
def test_the_controller_balances_in_the_corners(context):
    env = make_environment("cartpole", features=["gravity", "length"])
    assert play(env, cartpole_controller(context), context, seed=11) == 500.0


def test_the_controller_needs_its_context():
    """The regulator of a short pole in strong gravity is not one for everything: signs and scales matter."""
    env = make_environment("cartpole", features=["gravity", "length"])
    upside_down = cartpole_controller({})
    assert play(env, lambda observation: 1 - upside_down(observation), {}, seed=3) < 50


def test_random_policies_follow_their_seed():
    env = make_environment("cartpole")
    actions = [[random_policy(env.action_space, seed)(None) for _ in range(1)] for seed in (1, 1)]
    assert actions[0] == actions[1]
    policy = random_policy(env.action_space, 5)
    drawn = [policy({}) for _ in range(400)]
    assert set(drawn) == {0, 1} and 160 < sum(drawn) < 240


def test_references_of_cartpole(config, tmp_path, capsys):
    found = references(config, seeds=3, episodes=4)
    assert [(one.region, one.policy) for one in found] == [
        ("here", "random"), ("here", "expert"), ("there", "random"), ("there", "expert"),
    ]  # fmt: skip
    assert [(one.seeds, one.episodes) for one in found] == [(3, 12), (3, 3)] * 2
    assert [one.mean for one in found if one.policy == "expert"] == [500.0, 500.0]
    random = found[0]
    assert 12 < random.mean < 35 and random.low < random.mean < random.high
    file = tmp_path / "references_small.csv"
    rows = list(csv.DictReader(io.StringIO(file.read_text())))
    assert list(rows[0])[:5] == ["region", "context_id", "gravity", "length", "policy"]
    assert float(rows[2]["gravity"]) == 2.45 and rows[1]["made_by"].startswith("linear-quadratic regulator")
    means = read_references(file)
    assert means[context_key({"gravity": 9.8, "length": 0.5})] == (random.mean, 500.0)
    again = references(config, seeds=3, episodes=4, output=tmp_path / "b.csv")
    assert again == found and (tmp_path / "b.csv").read_bytes() == file.read_bytes()
    assert "expert: mean return 500.0 to 500.0 over 2 contexts" in capsys.readouterr().out


def write_expert(path, seed, trained, returns, features=CARTPOLE_FEATURES[:1] + CARTPOLE_FEATURES[3:4]):
    """A run that was trained in some contexts and judged in these, with one list of returns."""
    run = RunFolder(path)
    training = {"distribution": "fixed", "contexts": trained}
    if trained is None:
        training = {"distribution": "default"}
    data = {
        "name": "x",
        "seed": seed,
        "environment": {"name": "cartpole", "features": ["gravity", "length"]},
        "contexts": {"training": training},
    }
    save_config(RunConfig.model_validate(data), run.config_file)
    episodes = [
        Episode(Job("training", number, context, 1), value, 9, {})
        for number, context in enumerate(trained or [{}])
        for value in returns
    ]
    run.evaluation.write_bytes(write_csv(episodes, features))


def test_experts_that_were_trained_are_means_over_seeds(config, tmp_path):
    write_expert(tmp_path / "e" / "default" / "seed0", 0, None, [500.0, 400.0])
    write_expert(tmp_path / "e" / "default" / "seed1", 1, None, [300.0, 300.0])
    write_expert(tmp_path / "e" / "light" / "seed0", 0, [{"gravity": 2.45}], [444.0])
    found = references(config, experts=[tmp_path / "e"], seeds=2, episodes=2)
    experts = [one for one in found if one.policy == "expert"]
    assert [(one.mean, one.seeds, one.episodes) for one in experts] == [(375.0, 2, 4), (444.0, 1, 1)]
    assert (experts[0].low, experts[0].high) == (300.0, 450.0)  # the best seed has 450: it is not taken
    assert np.isnan(experts[1].low)


def test_what_experts_must_be(config, tmp_path):
    write_expert(tmp_path / "a", 0, None, [500.0])
    with pytest.raises(UserError, match="no expert .* trained in the context gravity 2.45, length 0.5"):
        references(config, experts=[tmp_path / "a"], seeds=1, episodes=1)
    write_expert(tmp_path / "b", 0, [{}, {"gravity": 2.45}], [500.0])
    with pytest.raises(UserError, match="b: was trained in several contexts"):
        references(config, experts=[tmp_path / "b"], seeds=1, episodes=1)
    write_expert(tmp_path / "c", 0, [{"gravity": 2.45}], [500.0])
    file = tmp_path / "c" / "evaluation.csv"
    file.write_text(file.read_text().replace("2.45", "2.5"))
    with pytest.raises(UserError, match="c: was not judged in the context it was trained in"):
        references(config, experts=[tmp_path / "c"], seeds=1, episodes=1)


def test_what_has_no_references(config, tmp_path):
    with pytest.raises(UserError, match="--seeds and --episodes must be at least 1"):
        references(config, seeds=0)
    text = CONFIG.replace("NAME", "pendulum").replace("FEATURES", "g").replace("FIRST", "g")
    (tmp_path / "pendulum.yaml").write_text(text)
    with pytest.raises(UserError, match="pendulum has no built-in expert; train agents in one context each"):
        references(str(tmp_path / "pendulum.yaml"))
    (tmp_path / "none.yaml").write_text("name: none\nenvironment: {name: cartpole}\n")
    with pytest.raises(UserError, match="has no contexts.evaluation.regions"):
        references(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",20.0,", ",many,", "line 2 is damaged"),
        (",20.0,", ",nan,", "line 2 is damaged"),
        ("expert", "best", "needs a random and an expert return in the context gravity 9.8"),
        (",500.0,", ",20.0,", "the expert is no better than random in the context gravity 9.8"),
    ],
)
def test_damaged_references(tmp_path, old, new, message):
    path = tmp_path / "references.csv"
    header = "region,context_id,gravity,policy,made_by,seeds,episodes,mean,low,high"
    path.write_text(f"{header}\nhere,0,9.8,random,x,1,1,20.0,,\nhere,0,9.8,expert,x,1,1,500.0,,\n")
    assert read_references(path) == {(("gravity", 9.8),): (20.0, 500.0)}
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=message):
        read_references(path)


def test_missing_references(tmp_path):
    with pytest.raises(UserError, match="cannot be read .No such file"):
        read_references(tmp_path / "gone.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(UserError, match="has no references"):
        read_references(tmp_path / "empty.csv")


def test_the_shipped_references_are_of_the_shipped_contexts():
    """notebooks/results/references_cartpole.csv holds all contexts of configs/cartpole.yaml, and what it says of a
    context can be made again."""
    path = Path(__file__).resolve().parents[2] / "notebooks" / "results" / "references_cartpole.csv"
    config = load_config("cartpole")
    env = make_environment("cartpole", **config.environment.settings())
    wanted = {
        context_key(env.complete_context(context))
        for listed in config.contexts.evaluation.regions.values()
        for context in listed
    }
    means = read_references(path)
    assert set(means) == wanted and len(wanted) == 84
    rows = list(csv.DictReader(path.open(newline="")))
    assert {row["seeds"] for row in rows} == {"10"}
    assert all(float(row["low"]) <= float(row["mean"]) <= float(row["high"]) for row in rows)
