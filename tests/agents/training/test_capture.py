"""Recorded updates: the same numbers as eager ones, whatever changes between replays, and nothing a graph cannot hold.

Two stand-ins take the place of a CUDA graph. `Tape` calls the function again. `Trace` keeps, as a graph does, the
operations on the tensors of the recording and nothing of the Python around them: new tensors in the place of old ones
and Python numbers that change are lost on it, and whatever needs a value on the host cannot be recorded.
"""

from collections.abc import Callable

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from agents.seeding import torch_generator
from agents.training.capture import WARM_UP, CapturedUpdate, choose_recorder
from agents.training.learner import Learner
from tests.agents.training.training_run import TINY_AGENT
from tests.agents.training.update_inputs import (
    INFERRED,
    MIXED,
    VECTOR,
    differing,
    population,
    population_inputs,
    random_batch,
    stacked,
    tiny_agent,
)

CPU = torch.device("cpu")


class Tape:
    """Replays by calling the recorded function again."""

    def __init__(self) -> None:
        self.runs = self.records = self.replays = 0

    def run(self, function):
        self.runs += 1
        function()

    def record(self, function):
        self.records += 1

        def replay():
            self.replays += 1
            function()

        return replay


class Operations(TorchDispatchMode):
    """Lists the operations that run, with their arguments and results."""

    def __init__(self) -> None:
        super().__init__()
        self.list = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("a value is asked for on the host")
        result = function(*args, **(kwargs or {}))
        self.list.append((function, args, kwargs or {}, result))
        return result


class Trace:
    """Records the operations on tensors, with these very tensors; Python is gone at the replay.

    Args:
        tensors: returns all tensors that the function may write; tracing runs it, which a recording must not.
    """

    def __init__(self, tensors: Callable[[], list[torch.Tensor]]) -> None:
        self.tensors = tensors
        self.records = 0

    def run(self, function):
        function()

    def record(self, function):
        self.records += 1
        kept = [(tensor, tensor.clone()) for tensor in self.tensors()]
        with Operations() as operations:
            function()
        for tensor, before in kept:
            tensor.copy_(before)
        return lambda: run_again(operations.list)


@torch.no_grad()
def run_again(operations):
    """Run listed operations on the same tensors, but for those that the list itself made: they are made anew."""
    made = {}

    def present(value):
        return made.get(id(value), value)

    for function, args, kwargs, result in operations:
        args, kwargs = tree_map(present, (args, kwargs))
        for old, new in zip(tree_leaves(result), tree_leaves(function(*args, **kwargs)), strict=True):
            made[id(old)] = new


def make_learner(agent, recorder=None, precision="float32"):
    return Learner(agent, agent.initial_state(1), seed=2, device=CPU, precision=precision, recorder=recorder)


def traced_learner(agent, precision="float32"):
    """A learner whose updates are replays of a trace."""

    def written():
        return [*learner.state.values(True, True), *learner.latents.values(), learner._sums]

    learner = make_learner(agent, Trace(written), precision)
    return learner


def update_both(learners, batch):
    for learner in learners:
        learner.update({name: value.clone() for name, value in batch.items()})


def assert_alike(learners):
    one, other = learners
    assert differing(one.state, other.state) == []
    assert all(torch.equal(one.latents[name], other.latents[name]) for name in one.latents | other.latents)


@pytest.mark.parametrize("kind", ["vector", "image and stored latents", "bfloat16", "inferred"])
def test_replays_of_a_trace_equal_eager_updates(kind):
    """Bit for bit, metrics included, with new batches, new hyperparameters and a restored tree in between."""
    shapes = MIXED if kind.startswith("image") else VECTOR
    model = INFERRED if kind == "inferred" else TINY_AGENT["world_model"]
    agent = tiny_agent(shapes, discrete=kind == "vector", horizon=1, world_model=model)
    precision = "bfloat16" if kind == "bfloat16" else "float32"
    eager, traced = learners = make_learner(agent, precision=precision), traced_learner(agent, precision)
    latents = agent if kind.startswith("image") else None
    start = eager.state.clone()
    for number in range(WARM_UP + 2):
        update_both(learners, random_batch(number, shapes, agent=latents))
        assert_alike(learners)
    assert (traced._captured._recorder.records, eager.updates, traced.updates) == (1, WARM_UP + 2, WARM_UP + 2)
    assert set(traced.latents) == ({"latent/deter", "latent/stoch"} if latents else set())

    given = agent.config.hyperparameters.model_copy(update={"learning_rate": 0.0})
    agent.apply_hyperparameters(traced.state, given)
    before = traced.state["parameters"].clone()
    batch = random_batch(50, shapes, agent=latents)
    traced.update(batch)
    assert differing(traced.state["parameters"], before) == []
    agent.apply_hyperparameters(eager.state, given)
    eager.update(batch)

    given = given.model_copy(update={"learning_rate": 0.03, "entropy": 0.5, "slow_rate": 0.3})
    for learner in learners:
        agent.apply_hyperparameters(learner.state, given)
    update_both(learners, random_batch(51, shapes, agent=latents))
    assert_alike(learners)
    assert differing(traced.state["parameters"], before) != []

    for learner in learners:
        learner.state.copy_(start)
    update_both(learners, random_batch(52, shapes, agent=latents))
    assert_alike(learners)
    assert eager.pop_metrics() == traced.pop_metrics()
    update_both(learners, random_batch(53, shapes, agent=latents))
    assert eager.pop_metrics() == traced.pop_metrics()
    assert traced._captured._recorder.records == 1


def test_a_trace_is_as_forgetful_as_a_graph():
    """What the tests above would notice: a Python number that changes, and a buffer that is not the recorded one."""
    scale, source, target = 2.0, torch.ones(2), torch.zeros(2)

    def function():
        target.copy_(source * scale)

    replay = Trace(lambda: [target]).record(function)
    assert target.tolist() == [0, 0]
    scale = 3.0
    replay()
    assert target.tolist() == [2, 2]
    source.fill_(5.0)
    replay()
    assert target.tolist() == [10, 10]
    source = torch.zeros(2)
    replay()
    assert target.tolist() == [10, 10]
    with pytest.raises(RuntimeError, match="asked for on the host"):
        Trace(lambda: []).record(lambda: target.copy_(target + (target * 2).sum().item()))


def test_population_is_replayed_like_it_is_updated():
    agent = tiny_agent(horizon=1)
    eager, captured = population(agent, 2), population(agent, 2)

    def update(state, batch, noise):
        return agent.update(state, batch, noise)[1]

    trace = Trace(lambda: [*captured.values(True, True), *replayed._outputs.values()])
    replayed = CapturedUpdate(update, captured, trace)
    for number in range(WARM_UP + 2):
        batch, noise = population_inputs(agent, 2, number)
        metrics, found = update(eager, batch, noise), replayed(batch, noise)
        assert metrics.keys() == found.keys()
        assert all(torch.equal(metrics[name], found[name]) for name in metrics)
        assert differing(eager, captured) == []
    assert trace.records == 1 and found["loss/total"].shape == (2,)


def test_every_call_is_one_update_and_shapes_decide_on_recordings():
    agent = tiny_agent()
    tape = Tape()
    learners = make_learner(agent), make_learner(agent, tape)
    for number in range(WARM_UP + 2):
        update_both(learners, random_batch(number))
    assert (tape.runs, tape.records, tape.replays) == (WARM_UP, 1, 2)
    for number in range(WARM_UP + 3):
        update_both(learners, random_batch(number, size=2, length=5))
    assert (tape.runs, tape.records, tape.replays) == (2 * WARM_UP, 2, 5)
    update_both(learners, random_batch(9, size=2, length=5, agent=agent))  # another entry
    assert (tape.runs, tape.records, tape.replays) == (2 * WARM_UP + 1, 2, 5)
    assert_alike(learners)
    assert learners[0].pop_metrics() == learners[1].pop_metrics()


def test_results_stay_where_they_are():
    """Replays write into the same tensors; none of them are those of the caller's batch."""
    agent = tiny_agent()
    learner = make_learner(agent, Tape())
    learner.update(random_batch(0, agent=agent))
    places = {name: value.data_ptr() for name, value in learner.latents.items()}
    state = {path: learner.state.get(path).data_ptr() for path in learner.state.keys(True, True)}
    before = {name: value.clone() for name, value in learner.latents.items()}
    for number in range(1, WARM_UP + 3):
        batch = random_batch(number, agent=agent)
        learner.update(batch)
        batch["reward"].fill_(float("nan"))  # the caller's own again
    assert {name: value.data_ptr() for name, value in learner.latents.items()} == places
    assert {path: learner.state.get(path).data_ptr() for path in state} == state
    assert any(not torch.equal(before[name], learner.latents[name]) for name in before)
    assert all(value == value for value in learner.pop_metrics().values())


def test_tensors_of_a_recorded_tree_cannot_be_replaced():
    agent = tiny_agent()
    learner = make_learner(agent, Tape())
    with pytest.raises(RuntimeError, match="locked"):
        learner.state["normalizer", "low"] = torch.zeros(())
    with pytest.raises(AttributeError):
        learner.state = agent.initial_state(3)
    learner.state["normalizer", "low"].fill_(1.0)


def test_nothing_is_recorded_on_the_cpu_or_when_told_so():
    assert choose_recorder(CPU, "auto") is None
    assert choose_recorder(torch.device("cuda"), "never") is None


class CaptureRules(TorchDispatchMode):
    """Refuses operations that a CUDA graph cannot hold: values on the host, sizes from data, host copies, randomness.

    On the meta device no operation can look at a value, and tensors that were left on the host are told apart from
    the others, as on a GPU.
    """

    FORBIDDEN = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "lift_fresh", "bincount", "equal")
    RANDOM = ("rand", "normal", "exponential", "uniform", "bernoulli", "multinomial", "dropout", "random")

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += 1
        name = function._schema.name.removeprefix("aten::").rstrip("_")
        assert name not in self.FORBIDDEN, f"{name} needs the host"
        assert not name.startswith(self.RANDOM), f"{name} is random"
        if name == "index":
            assert all(index is None or index.dtype != torch.bool for index in args[1]), "index by a mask"
        result = function(*args, **(kwargs or {}))
        leaves = tree_leaves((args, kwargs, result))
        devices = {leaf.device.type for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.dim() > 0}
        assert devices <= {"meta"}, f"{name} works on {devices}"
        if name in ("copy", "_to_copy"):
            devices = {leaf.device.type for leaf in leaves if isinstance(leaf, torch.Tensor)}
            assert len(devices) == 1, f"{name} between {devices}"
        return result


def on_meta(tensors):
    return {name: value.to("meta") for name, value in tensors.items()}


@pytest.mark.parametrize(
    "kind", ["discrete", "continuous image", "stored latents", "burn-in", "population", "inferred"]
)
def test_update_holds_nothing_that_a_graph_cannot(kind, monkeypatch):
    """Every operation of an update, backward and optimizer included, stays on the device and waits for nothing."""
    shapes = MIXED if kind == "continuous image" else VECTOR
    model = INFERRED if kind == "inferred" else TINY_AGENT["world_model"]
    agent = tiny_agent(shapes, discrete=kind == "discrete", world_model=model)
    state, noise = agent.initial_state(0), agent.update_noise(3, 2, torch_generator(0, "noise"))
    batch = random_batch(0, shapes, agent=agent if kind == "stored latents" else None)
    if kind == "burn-in":
        batch |= {f"burn_in/{name}": value for name, value in random_batch(1, shapes, length=2).items()}
    if kind == "inferred":
        batch |= {f"history/{name}": value for name, value in random_batch(1, shapes, length=2).items()}
    if kind == "population":
        state, batch, noise = population(agent, 2), stacked([batch] * 2), stacked([noise] * 2)
    meta = tiny_agent(shapes, discrete=kind == "discrete", device="meta", world_model=model)
    state, batch, noise = state.to("meta"), on_meta(batch), on_meta(noise)
    for name in ("tensor", "as_tensor", "from_numpy"):  # they copy from the host, which the meta device does not show
        monkeypatch.setattr(torch, name, None)
    with CaptureRules() as rules:
        _, metrics, _ = meta.update(state, batch, noise)
    assert rules.count > 500
    assert {value.device.type for value in metrics.values()} == {"meta"}


@pytest.mark.parametrize(
    "offence",
    [
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: x + torch.arange(4),
        lambda x: x.copy_(torch.ones(4)),
        lambda x: torch.rand(4, device="meta"),
        lambda x: x.sum().to("cpu"),
    ],
)
def test_rules_are_kept(offence):
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError)), CaptureRules():
        offence(torch.ones(4, device="meta"))
