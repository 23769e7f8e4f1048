"""`training.timeouts: terminal` trains episodes cut by time as if the world ended there, and changes nothing else."""

from pathlib import Path

import numpy as np
import torch
from torch.func import functional_call

from agents.configuration import RunConfig, differences
from agents.dreamerv3 import losses
from agents.run_folder import RunFolder
from agents.seeding import numpy_generator, torch_generator
from agents.training.session import Session
from tests.agents.training.training_run import TINY_AGENT, tiny_config

ENVIRONMENT = {"name": "cartpole", "num_envs": 2, "time_limit": 20}  # an untrained agent falls in 8 to 40 steps
HORIZON = 50.0  # of the discount


def collected(folder: Path, **training: str) -> tuple[RunConfig, Session, dict[str, torch.Tensor]]:
    """Step 150 times without an update; return the session and a batch [32, 6, ...] of what it recorded."""
    agent = TINY_AGENT | {"hyperparameters": {"discount_horizon": HORIZON}}
    config = tiny_config(environment=ENVIRONMENT, replay={"capacity": 1000}, training=training, agent=agent)
    session = Session(config, RunFolder.prepare(folder, config))
    for _ in range(150):
        session.collector.tick()
    return config, session, session.data.batch(session.replay.draw(32, 6, numpy_generator(0, "test")))


def loss_maps(session: Session, batch: dict[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    """Everything of one update, of an agent whose continue head and critic say something."""
    agent, state = session.learner.agent, session.learner.state.clone()
    for name, value in state["parameters"].items():
        if "continuation" in name or "critic" in name:
            value.add_(0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(len(name))))
    branches = [dict(state[branch].items()) for branch in ("parameters", "slow", "hyperparameters", "normalizer")]
    noise = agent.update_noise(*batch["is_first"].shape, torch_generator(0, "test"))
    arguments = (losses.update_trace, agent.cast(batch), *branches[2:], noise, agent.config.horizon)
    with torch.no_grad():
        return functional_call(agent.networks, branches[0] | branches[1], arguments)


def test_timeouts_as_terminals_change_the_records_and_the_continue_targets_and_nothing_else(tmp_path: Path) -> None:
    plain, session, batch = collected(tmp_path / "truncate")
    parity, other, changed = collected(tmp_path / "terminal", timeouts="terminal")
    assert plain.training.timeouts == "truncate"  # the default
    assert differences(plain, parity) == {"training.timeouts": ("truncate", "terminal")}

    cut = batch["is_last"] & ~batch["is_terminal"]
    assert cut.any() and batch["is_terminal"].any()  # both kinds of ends are there
    assert batch.keys() == changed.keys()
    assert [key for key in batch if not torch.equal(batch[key], changed[key])] == ["is_terminal"]
    assert torch.equal(changed["is_terminal"], batch["is_last"])
    # What an exact resume compares is what the environments said.
    for key, value in session.collector.records.items():
        assert np.array_equal(value, other.collector.records[key]), key

    before, after = loss_maps(session, batch), loss_maps(other, changed)
    touched = {name for name in before["maps"] if not torch.equal(before["maps"][name], after["maps"][name])}
    assert touched == {"continue", "replay_value"}
    # Cross-entropy to a target t is softplus(x) - t x for the logit x: t falls from the discount to 0 at a time-out.
    logits = before["world_model"]["continue_logits"]
    gained = (1 - 1 / HORIZON) * logits * cut
    torch.testing.assert_close(after["maps"]["continue"] - before["maps"]["continue"], gained, rtol=1e-5, atol=1e-5)
    # The return of the step that leads to a time-out no longer holds what would have come after.
    returns, ended = before["replay"]["returns"], after["replay"]["returns"]
    assert torch.equal(ended[cut[:, 1:]], batch["reward"][:, 1:][cut[:, 1:]])
    beyond = torch.flip(torch.cumsum(torch.flip(cut[:, 1:].int(), [1]), 1), [1]) == 0  # no time-out is ahead
    assert torch.equal(returns[beyond], ended[beyond])
    session.close()
    other.close()
