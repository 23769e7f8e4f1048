"""Time of a full update (world model, actor, critic, optimizer, slow critic) and of acting; replay excluded."""

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from agents.configuration import load_config
from agents.dreamerv3 import ActionSpec, DreamerV3, DreamerV3Config
from agents.seeding import torch_generator
from worldmodels.context import ContextSpec

WALKER = {"orientations": (14,), "height": (1,), "velocity": (9,)}
CONTEXT = ContextSpec(("gravity", "length"), (4.9, 0.35), (14.7, 0.75))


def small() -> tuple[DreamerV3, int, int]:
    """The agent of configs/cartpole.yaml with its batch size and length."""
    config = load_config("cartpole", [])
    agent = DreamerV3(config.agent, {"state": (4,)}, ActionSpec(2, True), CONTEXT)
    return agent, config.training.batch_size, config.training.batch_length


def walker() -> tuple[DreamerV3, int, int]:
    """Size 1m on walker's state, 16 x 64, as the published speeds are measured."""
    config = DreamerV3Config.model_validate({"world_model": {"size": "1m", "context": "hidden"}})
    return DreamerV3(config, WALKER, ActionSpec(6, False), ContextSpec()), 16, 64


def random_batch(agent: DreamerV3, batch: int, length: int, shapes: dict[str, tuple[int, ...]]) -> dict:
    generator = torch.Generator().manual_seed(0)
    flags = {name: torch.zeros(batch, length, dtype=torch.bool) for name in ("is_first", "is_last", "is_terminal")}
    return flags | {
        **{f"observation/{k}": torch.randn(batch, length, *shape, generator=generator) for k, shape in shapes.items()},
        "action": torch.rand(batch, length, agent.action.size, generator=generator),
        "reward": torch.randn(batch, length, generator=generator),
        "context": torch.rand(batch, length, agent.context.size, generator=generator),
    }


@pytest.fixture(params=[1, 2], ids=["1_thread", "2_threads"])
def threads(request: pytest.FixtureRequest):
    """Number of threads that torch computes with."""
    torch.set_flush_denormal(True)
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["cartpole", "walker_1m"])
def test_update(benchmark: BenchmarkFixture, name: str, threads: int) -> None:
    agent, batch, length = {"cartpole": small, "walker_1m": walker}[name]()
    shapes = {"state": (4,)} if name == "cartpole" else WALKER
    state = agent.initial_state(0)
    data = random_batch(agent, batch, length, shapes)
    noise = agent.update_noise(batch, length, torch_generator(0, "update", 0))
    benchmark.extra_info |= {
        "parameters": sum(value.numel() for value in state["parameters"].values()),
        "batch": f"{batch}x{length}",
    }
    benchmark.pedantic(agent.update, (state, data, noise), rounds=12, warmup_rounds=3)


@pytest.mark.parametrize("environments", [1, 16])
def test_act(benchmark: BenchmarkFixture, environments: int, threads: int) -> None:
    agent, _, _ = walker()
    state, carry = agent.initial_state(0), agent.initial_carry(environments)
    records = {f"observation/{key}": torch.randn(environments, *shape) for key, shape in WALKER.items()}
    records |= {"is_first": torch.zeros(environments, dtype=torch.bool), "context": torch.zeros(environments, 0)}
    noise = agent.act_noise(environments, torch_generator(0, "act", 0))
    benchmark.pedantic(agent.act, (state, carry, records, noise), rounds=50, warmup_rounds=5)
