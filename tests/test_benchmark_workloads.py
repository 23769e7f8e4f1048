"""What the benchmarks time is what they say: sizes, complete updates, equal parameters of TorchRL's agent."""

import math

import pytest
import torch
from torch import Tensor

from agents.dreamerv3.agent import SLOW
from tests.agents.training.test_capture import Tape
from tests.benchmarks.machine import until_done
from tests.benchmarks.test_members import Population
from tests.benchmarks.torchrl_dreamer import TorchRLDreamer
from tests.benchmarks.workloads import WALKER, Workload

CPU = torch.device("cpu")
PARAMETERS = 640_867  # of danijar/dreamerv3 at e3f0224, size 1m, walker's state and 6 actions
UPDATES = 4  # the first has a step of length 0, the second moves output layers that began with zeros


def unchanged(before: list[Tensor], after: list[Tensor]) -> int:
    return sum(torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_torchrl_trains_every_parameter_and_the_slow_critic() -> None:
    learner = TorchRLDreamer("1m", WALKER, 6, (2, 3), CPU)
    assert sum(value.numel() for value in learner.parameters) == PARAMETERS
    slow = list(learner.stepper.loss_module.value_loss.target_value_model_params.values(True, True))
    before = [[value.detach().clone() for value in values] for values in (learner.parameters, slow)]
    losses = [learner.update() for _ in range(UPDATES)][-1]
    assert unchanged(before[0], learner.parameters) == 0
    assert unchanged(before[1], slow) < len(slow)
    names = {"model_reco", "model_reward", "model_dynamic", "model_representation", "model_continue"}
    names |= {"actor", "value", "replay_value"}
    assert names == {name.removeprefix("loss_") for name in sorted(losses.keys()) if name.startswith("loss_")}
    assert all(losses[f"loss_{name}"].isfinite() for name in names)


def test_the_published_size_has_the_published_parameters() -> None:
    parameters = Workload("1m").agent(CPU).networks.named_parameters()
    assert sum(value.numel() for name, value in parameters if not name.startswith(SLOW)) == PARAMETERS


@pytest.mark.parametrize(
    "workload", [Workload("cartpole", batch=2, length=3), Workload("1m", "pixels", "bfloat16", 1, 2)]
)
def test_a_workload_is_updated_on_its_batch(workload: Workload) -> None:
    learner = workload.learner(CPU)
    batch = workload.random_batch(learner.agent)
    assert batch["is_first"].shape == (workload.batch, workload.length)
    before = [value.clone() for value in learner.state["parameters"].values()]
    for _ in range(UPDATES):
        until_done(learner.update, CPU)(batch)
    assert unchanged(before, list(learner.state["parameters"].values())) == 0
    assert all(math.isfinite(value) for value in learner.pop_metrics().values())


def test_every_member_of_a_population_is_updated() -> None:
    population = Population(Workload("cartpole", batch=2, length=3), 2, CPU)
    before = population.state["parameters"].clone()
    for _ in range(UPDATES):
        population.update()
    for name, value in population.state["parameters"].items():
        assert not torch.equal(value[0], before[name][0]) and not torch.equal(value[1], before[name][1]), name
    assert population.state["counters", "updates"].tolist() == [UPDATES, UPDATES]


def test_a_recorded_population_is_updated_as_an_eager_one() -> None:
    workload = Workload("cartpole", batch=2, length=3)
    tape = Tape()
    eager, recorded = Population(workload, 2, CPU), Population(workload, 2, CPU, tape)
    for _ in range(UPDATES + 1):
        eager.update()
        recorded.update()
    assert tape.replays > 0 and (eager.state == recorded.state).all()
