"""The environments of the extras: episodes that depend on their seed alone, and one line where a package is missing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tuning.cli
from agents.configuration import load_config
from agents.environments import Reset, make_environment
from agents.environments.extras import import_extra
from agents.errors import UserError
from agents.training.build import make_vector
from tests.agents.environments import domains
from tests.agents.environments.domains import WORLDS
from tests.extras import PACKAGES, needs

ROOT = Path(__file__).resolve().parents[3]

CONFIGS = {"box2d_lunar_lander": "box2d", "minigrid": "minigrid", "crafter": "crafter", "atari100k": "atari"}

worlds = pytest.mark.parametrize("name", [pytest.param(name, marks=needs(extra)) for name, extra in WORLDS.items()])


@pytest.fixture(scope="module")
def played_elsewhere():
    """Digests of an episode in each world, each played first of all in a process whose hashes are salted otherwise."""
    names = [name for name, extra in WORLDS.items() if not needs(extra).args[0]]
    finished = subprocess.run(
        [sys.executable, domains.__file__, *names],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1])


@worlds
def test_an_episode_depends_on_its_seed_alone(name, played_elsewhere):
    env = domains.make(name)
    assert domains.play(env, 5) != played_elsewhere[name]
    assert domains.play(env, domains.SEED) == played_elsewhere[name]  # after another episode, in another process


@worlds
def test_observations_are_of_their_space_and_time_limits_are_no_terminals(name):
    env = make_environment(name, time_limit=5)
    env.action_space.seed(0)
    observation, info = env.reset(seed=1)
    for step in range(5):
        assert env.observation_space.contains(observation)
        assert {value.dtype.name for value in observation.values()} <= {"uint8", "float32"}
        assert info["context"].shape == (len(env.features),)
        observation, _, terminated, truncated, info = env.step(env.action_space.sample())
        assert (terminated, truncated) == (False, step == 4)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=needs(WORLDS[name])) for name in ("minigrid/MiniGrid-Fetch-8x8-N3-v0", "atari/pong")],
)
def test_images_have_the_size_that_is_asked_for(name):
    env = make_environment(name, image_size=96)
    observation, _ = env.reset(seed=0)
    image = observation["image"]
    assert image.shape == env.observation_space["image"].shape == (96, 96, 3) and image.dtype == np.uint8
    assert image[48:].any() and image[:, 48:].any()  # it is filled
    assert env.features == ()


@pytest.mark.parametrize(("config", "extra"), CONFIGS.items())
def test_a_missing_package_is_told_in_a_line(config, extra, monkeypatch, capsys, tmp_path):
    package = PACKAGES[extra]
    for module in [module for module in sys.modules if module.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    assert tuning.cli.main(["train", config, "--run", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: environment ") and f"needs the package {package}, which is not installed" in line
    assert line.endswith(f"comes with: make setup EXTRAS=dev,{extra} (without make: pip install -e '.[{extra}]')")


def test_a_package_that_is_broken_is_told_with_the_reason(monkeypatch, tmp_path):
    (tmp_path / "broken_package.py").write_text("raise ImportError('libSDL.so: no such file')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"^environment w needs the package broken_package, which cannot be imported "):
        import_extra("broken_package", environment="w", extra="e")


@pytest.mark.parametrize("name", [pytest.param(name, marks=needs(extra)) for name, extra in CONFIGS.items()])
def test_the_shipped_configurations_environments_step(name):
    config = load_config(name)
    vector = make_vector(config, 1, serial=True)
    commands = [Reset(0, {}, 0)]
    for _ in range(3):
        records = vector.step(commands)
        assert not records["is_last"].any()
        commands = list(np.eye(vector.action_space.n, dtype=np.float32)[:1])
    assert records["context"].shape == (1, len(config.environment.features))
    vector.close()


@pytest.mark.parametrize(
    ("name", "steps", "ratio"),
    [
        pytest.param("atari100k", 110_000, 256, marks=needs("atari")),
        pytest.param("crafter", 1_100_000, 512, marks=needs("crafter")),
    ],
)
def test_the_presets_of_the_reference(name, steps, ratio):
    """danijar/dreamerv3 at e3f0224, configs.yaml."""
    config = load_config(name)
    training, environment = config.training, config.environment
    assert (training.environment_steps, training.train_ratio, environment.num_envs) == (steps, ratio, 1)
    assert (training.batch_size, training.batch_length, training.start_steps) == (16, 64, 1024)
    assert (training.sequence_start, training.precision) == ("stored", "bfloat16")
    assert config.agent.world_model.dimensions == (8192, 1024, 64, 1024, 64)
    assert config.replay.capacity >= steps  # nothing is forgotten, as with the reference's 5,000,000
    assert environment.image_size == 64
    assert environment.action_repeat == (4 if name == "atari100k" else 1)


def test_extras_that_are_promised_are_not_skipped(monkeypatch):
    monkeypatch.setitem(PACKAGES, "absent", "package_that_nobody_has")
    monkeypatch.setitem(os.environ, "EXTRAS", "dev")
    assert needs("absent").args[0]
    for promise in ("absent", "dev,domains"):
        monkeypatch.setitem(os.environ, "EXTRAS", promise)
        assert not needs("absent").args[0]
