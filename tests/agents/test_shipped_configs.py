"""Every shipped configuration: its environments are made and stepped, its agent built; presets are the reference's."""

import ctypes.util
from importlib.util import find_spec

import numpy as np
import pytest

from agents.configuration import load_config, shipped_configs
from agents.environments import ActionCodec, Reset
from agents.training import build

SHIPPED = sorted(path.stem for path in shipped_configs().glob("*.yaml"))
EXTRAS = {"box2d": "Box2D", "minigrid": "minigrid", "crafter": "crafter", "atari": "ale_py"}  # by start of the name


def needed(name):
    """Return what is missing to step the environments of a configuration, if anything."""
    config = load_config(name).environment
    package = EXTRAS.get(config.name.split("/")[0])
    if package is not None and find_spec(package) is None:
        return package
    drawn = config.observations in ("pixels", "both") and config.name.startswith("dmc/")
    return "EGL" if drawn and ctypes.util.find_library("EGL") is None else None


@pytest.mark.parametrize("name", SHIPPED)
def test_its_environments_step_and_its_agent_is_built(name):
    if needed(name):
        pytest.skip(f"{needed(name)} is missing")
    config = load_config(name)
    vector = build.make_vector(config, 1, serial=True)
    try:
        codec = ActionCodec(vector.action_space)
        context, context_id = build.training_distribution(config).context(0)
        records = vector.step([Reset(0, context, context_id)])
        records = vector.step([np.eye(codec.size, dtype=np.float32)[0]])
        assert not records["is_first"][0] and not records["lost"][0]
        specs = build.record_specs(vector)
        assert all(records[key].shape[1:] == specs[key].shape for key in specs.keys() - {"action"})
        ranks = {len(spec.shape) for key, spec in specs.items() if key.startswith("observation/")}
        assert ranks == {3} if config.environment.observations == "pixels" else ranks <= {1, 3}
        if config.agent.world_model.dimensions.deter <= 512:
            agent = build.build_agent(config, vector)
            assert agent.context.names == tuple(feature.name for feature in vector.features)
    finally:
        vector.close()


@pytest.mark.parametrize(
    ("name", "size", "ratio", "repeat", "environment_steps"),
    [
        ("dmc_state_paper", "12m", 512, 2, 500_000),
        ("dmc_state", "1m", 1024, 1, 500_000),
        ("dmc_pixels_paper", "12m", 512, 2, 1_000_000),
        ("dmc_pixels", "200m", 256, 1, 1_000_000),
    ],
)
def test_the_two_published_protocols(name, size, ratio, repeat, environment_steps):
    """danijar/dreamerv3 at e3f0224: configs.yaml (defaults, dmc_proprio, dmc_vision), and its paper."""
    config = load_config(name)
    training, environment, agent = config.training, config.environment, config.agent
    assert (agent.world_model.size, training.train_ratio, environment.action_repeat) == (size, ratio, repeat)
    assert training.environment_steps * repeat == environment_steps
    assert (environment.num_envs, environment.image_size or 64, environment.camera) == (16, 64, None)
    assert environment.observations == ("pixels" if "pixels" in name else "state")
    assert (environment.features, config.contexts.training.distribution) == ((), "default")
    assert (training.batch_size, training.batch_length, training.sequence_start) == (16, 64, "stored")
    assert (training.precision, config.replay.page_length) == ("bfloat16", 1024)
    assert config.replay.capacity >= training.environment_steps  # nothing is forgotten, as with 5,000,000
    model, numbers = agent.world_model, agent.hyperparameters
    assert (model.stoch, model.blocks, model.unimix, model.bins) == (32, 8, 0.01, 255)
    layers = (model.encoder_layers, model.decoder_layers, model.prior_layers, model.posterior_layers)
    assert layers == (3, 3, 2, 1)
    assert (model.reward_layers, model.continue_layers, agent.actor_layers, agent.critic_layers) == (1, 1, 3, 3)
    assert not model.flags.any
    assert agent.horizon == 15
    assert numbers.model_dump() == {
        "learning_rate": 4e-5,
        "warmup": 1000,
        "gradient_clip": 0.3,
        "reconstruction_scale": 1.0,
        "reward_scale": 1.0,
        "continue_scale": 1.0,
        "dynamics_scale": 1.0,
        "representation_scale": 0.1,
        "policy_scale": 1.0,
        "value_scale": 1.0,
        "replay_value_scale": 0.3,
        "free_nats": 1.0,
        "discount_horizon": 333,
        "return_lambda": 0.95,
        "entropy": 3e-4,
        "slow_regularizer": 1.0,
        "slow_rate": 0.02,
        "return_rate": 0.01,
        "return_floor": 1.0,
    }
