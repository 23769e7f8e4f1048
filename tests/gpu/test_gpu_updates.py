"""Updates on a GPU: those of a CUDA graph are those of eager launches, and these are those of the CPU."""

import pytest
import torch

from agents.replay import DeviceStorage, PageStore, RamStorage, Replay, Spec
from agents.seeding import numpy_generator, torch_generator
from agents.training.capture import WARM_UP, CapturedUpdate, GraphRecorder
from agents.training.learner import Learner
from tests.agents.training.training_run import TINY_AGENT
from tests.agents.training.update_inputs import (
    INFERRED,
    MIXED,
    VECTOR,
    population,
    population_inputs,
    random_batch,
    tiny_agent,
)

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU with CUDA")
CUDA = torch.device("cuda")
# In float64 the order in which a GPU's threads add does not show: LaProp makes full steps of rounding errors.
CLOSE = {"rtol": 1e-7, "atol": 1e-9}


def on_gpu(tensors):
    return {name: value.to(CUDA) for name, value in tensors.items()}


def make_learner(agent, captured, precision="float32"):
    recorder = GraphRecorder(CUDA) if captured else None
    return Learner(agent, agent.initial_state(1), seed=2, device=CUDA, precision=precision, recorder=recorder)


def assert_close(one, other, **tolerance):
    for path in one.keys(include_nested=True, leaves_only=True):
        torch.testing.assert_close(one.get(path), other.get(path), **tolerance, msg=lambda m, p=path: f"{p}: {m}")


def update_both(learners, batch):
    for learner in learners:
        learner.update(on_gpu(batch))


@pytest.mark.parametrize("kind", ["discrete", "continuous", "image and stored latents", "inferred"])
def test_graph_equals_eager_updates(kind):
    """With new batches, hyperparameters, a restored tree and other shapes; metrics and latents included."""
    shapes = MIXED if kind.startswith("image") else VECTOR
    model = INFERRED if kind == "inferred" else TINY_AGENT["world_model"]
    agent = tiny_agent(shapes, discrete=kind == "discrete", device="cuda", dtype=torch.float64, world_model=model)
    learners = make_learner(agent, captured=False), make_learner(agent, captured=True)
    eager, captured = learners
    host = tiny_agent(shapes) if kind.startswith("image") else None
    start = eager.state.clone()
    for number in range(WARM_UP + 3):
        update_both(learners, random_batch(number, shapes, agent=host))
        assert_close(eager.state, captured.state, **CLOSE)
        assert all(torch.equal(eager.latents[name], captured.latents[name]) for name in eager.latents)
    assert captured._captured._replay is not None
    assert eager.pop_metrics() == pytest.approx(captured.pop_metrics(), rel=1e-7)

    given = agent.config.hyperparameters.model_copy(update={"learning_rate": 0.0})
    for learner in learners:
        agent.apply_hyperparameters(learner.state, given)
    before = captured.state["parameters"].clone()
    update_both(learners, random_batch(20, shapes, agent=host))
    assert_close(before, captured.state["parameters"], rtol=0, atol=0)

    given = given.model_copy(update={"learning_rate": 0.01, "entropy": 0.5, "slow_rate": 0.3})
    for learner in learners:
        learner.state.copy_(start)
        agent.apply_hyperparameters(learner.state, given)
    for number in range(30, 33):
        update_both(learners, random_batch(number, shapes, agent=host))
        assert_close(eager.state, captured.state, **CLOSE)
    for number in range(WARM_UP + 2):
        update_both(learners, random_batch(number, shapes, size=2, length=5, agent=host))
    assert_close(eager.state, captured.state, **CLOSE)
    assert captured._captured._replay is not None


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("shapes", [VECTOR, MIXED], ids=["vector", "image"])
def test_graph_computes_in_the_precision_asked_for(precision, shapes):
    """One update from the same tree; autocast's cached casts of the weights are not those of the recording."""
    agent = tiny_agent(shapes, device="cuda")
    learners = make_learner(agent, False, precision), make_learner(agent, True, precision)
    for number in range(WARM_UP + 4):
        learners[0].state.copy_(learners[1].state)
        update_both(learners, random_batch(number, shapes))
        eager, captured = (learner.pop_metrics() for learner in learners)
        assert captured == pytest.approx(eager, rel=1e-3, abs=1e-5)
    assert captured["loss/total"] != pytest.approx(0.0)


def test_update_and_act_equal_those_of_the_cpu():
    cpu = tiny_agent(MIXED, dtype=torch.float64)
    gpu = tiny_agent(MIXED, device="cuda", dtype=torch.float64)
    state = cpu.initial_state(3)
    moved = state.to(CUDA)
    batch, noise = random_batch(0, MIXED), cpu.update_noise(3, 2, torch_generator(0, "noise"))
    _, expected, _ = cpu.update(state, batch, noise)
    _, found, _ = gpu.update(moved, on_gpu(batch), on_gpu(noise))
    for name, value in expected.items():
        torch.testing.assert_close(found[name].cpu(), value, **CLOSE, msg=lambda m, n=name: f"{n}: {m}")
    assert_close(state, moved.cpu(), **CLOSE)
    records = {name: value[:, 0] for name, value in batch.items()}
    noise = cpu.act_noise(3, torch_generator(1, "noise"))
    expected, _ = cpu.act(state, cpu.initial_carry(3), records, noise)
    found, carry = gpu.act(moved, gpu.initial_carry(3), on_gpu(records), on_gpu(noise))
    torch.testing.assert_close(found.cpu(), expected, **CLOSE)
    assert {value.device.type for value in carry.values()} == {"cuda"}


@pytest.mark.parametrize("members", [1, 2, 4, 8, 16])
def test_population_is_one_graph(members):
    agent = tiny_agent(device="cuda", dtype=torch.float64)
    eager, captured = population(agent, members), population(agent, members)

    def update(state, batch, noise):
        return agent.update(state, batch, noise)[1]

    replayed = CapturedUpdate(update, captured, GraphRecorder(CUDA))
    for number in range(WARM_UP + 2):
        batch, noise = (on_gpu(tensors) for tensors in population_inputs(agent, members, number))
        metrics, found = update(eager, batch, noise), replayed(batch, noise)
        for name, value in metrics.items():
            torch.testing.assert_close(found[name], value, **CLOSE)
        assert found["loss/total"].shape == (members,)
    assert_close(eager, captured, **CLOSE)


def filled_replay(kind):
    """A replay on the device, or in main memory with page-locked batches, of 200 records of a mixed observation."""
    specs = {
        f"observation/{key}": Spec(shape, "uint8" if len(shape) == 3 else "float32") for key, shape in MIXED.items()
    }
    specs |= {"action": Spec((3,), "float32"), "reward": Spec((), "float32"), "context": Spec((1,), "float32")}
    specs |= {name: Spec((), bool) for name in ("is_first", "is_last", "is_terminal")}
    storage = DeviceStorage(specs, CUDA) if kind == "device" else RamStorage(specs, pinned=True)
    replay = Replay(specs, capacity=300, streams=2, page_length=32, store=PageStore(specs, 32, storage))
    records = random_batch(0, MIXED, size=2, length=100)
    for step in range(100):
        replay.append({name: value[:, step].numpy() for name, value in records.items()})
    return replay


@pytest.mark.parametrize("kind", ["device", "ram"])
@pytest.mark.parametrize("captured", [True, False], ids=["graph", "eager"])
def test_loop_never_waits_for_the_device(kind, captured):
    """Sampling, noise, update and metrics' sums: any synchronization is an error; memory stays what it was."""
    agent = tiny_agent(MIXED, device="cuda")
    learner, replay = make_learner(agent, captured, "bfloat16"), filled_replay(kind)
    allocated = []
    for number in range(WARM_UP + 12):
        if number == WARM_UP + 1:
            torch.cuda.set_sync_debug_mode("error")
        try:
            learner.update(replay.sample(4, 8, numpy_generator(0, "sample", number), device=CUDA))
        finally:
            if number == WARM_UP + 11:
                torch.cuda.set_sync_debug_mode("default")
        allocated.append(torch.cuda.memory_allocated())
    assert len(set(allocated[WARM_UP + 3 :])) == 1
    assert all(value == value for value in learner.pop_metrics().values())


def test_waiting_would_be_noticed():
    torch.cuda.set_sync_debug_mode("error")
    try:
        with pytest.raises(RuntimeError, match="synchroniz"):
            torch.ones(2, device=CUDA).sum().item()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_acting_waits_once(recwarn):
    """Only the actions' way to the host is waited for."""
    agent = tiny_agent(MIXED, device="cuda")
    learner, carry = make_learner(agent, captured=True, precision="bfloat16"), agent.initial_carry(3)
    records = {name: value[:, 0].numpy() for name, value in random_batch(0, MIXED).items()}
    learner.act(carry, records, 0)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        recwarn.clear()
        action, carry = learner.act(carry, records, 1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len([warning for warning in recwarn if "synchroniz" in str(warning.message)]) == 1
    assert action.shape == (3, 3)
