"""A run folder with a kept agent that was never trained: all that evaluations and dreams need."""

from agents.configuration import RunConfig, save_config
from agents.run_folder import RunFolder
from agents.training.build import build_agent
from agents.training.checkpoint import BestAgent

WORLD_MODEL = {"deter": 32, "hidden": 16, "stoch": 4, "classes": 4, "units": 16, "blocks": 4, "depth": 2}
CONTEXTS = {
    "training": {"distribution": "round_robin", "ranges": {"gravity": [4.9, 14.7], "length": [0.2, 2.0]}, "count": 4},
    "evaluation": {
        "regions": {
            "interpolation": [{"gravity": 7.35}],
            "extrapolation": [{"gravity": 19.6, "length": 0.1}, {"length": 4.0}],
        }
    },
}
ENVIRONMENT = {
    "name": "cartpole",
    "num_envs": 2,
    "time_limit": 40,
    "features": ["gravity", "length"],
    "observation_scale": {"state": [2.4, 3.0, 0.21, 3.0]},
}


def make_config(*, context="crssm", contexts=CONTEXTS, environment=ENVIRONMENT, name="tiny"):
    """Configuration of a tiny agent on CartPole."""
    return RunConfig.model_validate(
        {
            "name": name,
            "environment": environment,
            "contexts": contexts,
            "agent": {"world_model": {**WORLD_MODEL, "context": context}},
            "training": {"environment_steps": 1000, "epoch_steps": 1000, "device": "cpu"},
            "evaluation": {"episodes_per_context": 3},
        }
    )


def keep_agent(path, config, scale=30.0):
    """Make a run folder and keep an agent whose actor and heads depend on what they see; return the folder."""
    run = RunFolder(path)
    save_config(config, run.config_file)
    agent = build_agent(config)
    state = agent.initial_state(0)
    for name, value in state["parameters"].items():  # outputs start at zero or nearly so
        if name.startswith("actor"):
            value.mul_(scale)
    BestAgent(run.checkpoints / "best").offer(state, 0, 0.0)
    return path
