"""From a run's configuration to its parts."""

import ctypes
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from tensordict import TensorDict

from agents.configuration import RunConfig
from agents.dreamerv3 import ActionSpec, DreamerV3
from agents.environments import (
    ActionCodec,
    ContextDistribution,
    FixedContexts,
    RoundRobin,
    SerialVector,
    UniformContexts,
    VectorEnvironment,
    change_steps,
    draw_contexts,
    make_environment,
)
from agents.errors import UserError
from agents.replay import DeviceStorage, MemoryMappedStorage, PageStore, RamStorage, Spec, Storage
from agents.run_folder import RunFolder
from agents.seeding import seed_for
from agents.training.checkpoint import BestAgent, restore_state
from agents.training.scaling import ScaledVector
from worldmodels.context import ContextSpec

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names in malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD


def choose_device(config: RunConfig) -> torch.device:
    """Return the device to compute on.

    Raises:
        UserError: CUDA is asked for and there is none.
    """
    wanted, available = config.training.device, torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise UserError("training.device: cuda is not available here; valid here: auto, cpu")
    return torch.device("cuda" if available and wanted != "cpu" else "cpu")


def configure_torch(config: RunConfig) -> None:
    """Set torch's threads, flush denormal numbers and keep freed memory; to be called before anything is computed."""
    keep_freed_memory()
    torch.set_flush_denormal(True)
    torch.set_num_threads(config.training.threads)


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory for the next update, instead of giving it back to the system and asking anew.

    An update frees and takes hundreds of megabytes; without this a sixth of its time on a CPU goes into page faults.
    Elsewhere than under glibc nothing happens.
    """
    try:
        set_option = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    set_option(_MMAP_THRESHOLD, 2**25)  # the most that glibc accepts; larger blocks are mapped one by one
    set_option(_TRIM_THRESHOLD, 2**31 - 1)


def training_contexts(config: RunConfig) -> list[dict[str, float]]:
    """Return the contexts that stand for the training distribution, raw units.

    For a list these are all of it, for contexts drawn afresh at every reset ``count`` drawn ones.
    """
    training = config.contexts.training
    if training.distribution == "default":
        return [{}]
    if training.contexts:
        return [dict(context) for context in training.contexts]
    return draw_contexts(training.ranges, training.count, training.seed)


def training_distribution(config: RunConfig) -> ContextDistribution:
    """Return which context each training episode gets; the run's seed decides their order, not the list."""
    training = config.contexts.training
    seed = seed_for(config.seed, "contexts", training.seed)
    if training.distribution == "uniform":
        return UniformContexts(training.ranges, seed)
    if training.distribution == "round_robin":
        return RoundRobin(training_contexts(config), seed)
    return FixedContexts(training_contexts(config))


def change_steps_of(config: RunConfig, every: int | None) -> Sequence[int]:
    """Return before which steps of the agent the context of an episode changes.

    Args:
        config: of the run, whose environment has a time limit if ``every`` is given.
        every: steps in the same context; None: it never changes.
    """
    if every is None:
        return ()
    environment = make_environment(config.environment.name, **config.environment.settings())
    environment.close()
    assert environment.longest_episode is not None  # `check_contexts` has refused it
    return change_steps(every, environment.longest_episode)


def make_vector(
    config: RunConfig, num_envs: int, *, serial: bool = False, told: set[str] | None = None
) -> VectorEnvironment:
    """Return ``num_envs`` of the run's environments, their observations divided by the configured scale.

    Args:
        config: of the run.
        num_envs: number of environments, E.
        serial: in this process, whatever the configuration says, to play judged episodes: however many of them are
            dropped, the environment is not given up.
        told: kinds of invalid steps that were logged, see `InvalidSteps`.

    Raises:
        UserError: unknown environment or feature, or a scale that does not fit the observations.
    """
    environment = config.environment
    make = partial(make_environment, environment.name, **environment.settings())
    vector: VectorEnvironment
    if serial or environment.vector == "serial":
        vector = SerialVector([make] * num_envs, on_invalid=environment.on_invalid, told=told, give_up=not serial)
    else:
        from agents.environments import SubprocessVector

        vector = SubprocessVector([make] * num_envs, on_invalid=environment.on_invalid, told=told)
    return ScaledVector(vector, environment.observation_scale) if environment.observation_scale else vector


def context_spec(config: RunConfig, vector: VectorEnvironment) -> ContextSpec:
    """Return the context features and the range, raw units, that each has in training."""
    defaults = {feature.name: feature.default for feature in vector.features}
    contexts = [defaults | context for context in training_contexts(config)]
    ranges = config.contexts.training.ranges
    low = {name: min(context[name] for context in contexts) for name in defaults}
    high = {name: max(context[name] for context in contexts) for name in defaults}
    for name, bounds in ranges.items():
        low[name], high[name] = bounds
    return ContextSpec(tuple(defaults), tuple(low.values()), tuple(high.values()))


def build_agent(
    config: RunConfig, vector: VectorEnvironment | None = None, device: torch.device | None = None
) -> DreamerV3:
    """Return the run's agent.

    Args:
        config: of the run.
        vector: environments of the run, for the shapes; one is made, and closed, where none is given.
        device: where it computes; the configuration's where none is given.

    Raises:
        UserError: an observation that is neither a vector nor an image of a size the world model reads.
    """
    if vector is None:
        vector = make_vector(config, 1, serial=True)
        try:
            return build_agent(config, vector, device)
        finally:
            vector.close()
    codec = ActionCodec(vector.action_space)
    shapes = {key: tuple(space.shape or ()) for key, space in vector.observation_space.items()}
    action, context = ActionSpec(codec.size, codec.discrete), context_spec(config, vector)
    try:
        return DreamerV3(config.agent, shapes, action, context, device=device or choose_device(config))
    except ValueError as error:
        raise UserError(f"environment {config.environment.name}: {error}") from error


def record_specs(vector: VectorEnvironment) -> dict[str, Spec]:
    """Return what one record of replay holds."""
    specs = {
        f"observation/{key}": Spec(tuple(space.shape or ()), np.dtype(space.dtype))
        for key, space in vector.observation_space.items()
    }
    specs["action"] = Spec((ActionCodec(vector.action_space).size,), np.float32)
    specs["reward"] = Spec((), np.float32)
    for key in ("is_first", "is_terminal", "is_last"):
        specs[key] = Spec((), np.bool_)
    specs["context"] = Spec((len(vector.features),), np.float32)
    specs["context_id"] = Spec((), np.int32)
    return specs


def make_store(config: RunConfig, run: RunFolder, specs: dict[str, Spec]) -> PageStore:
    """Return the arena that the replay's pages lie in: main memory, files in the run folder, or a device's memory."""
    return PageStore(specs, config.replay.page_length, _make_storage(config, run, specs))


def _make_storage(config: RunConfig, run: RunFolder, specs: dict[str, Spec]) -> Storage:
    device = choose_device(config)
    pinned = device.type == "cuda"
    if config.replay.storage == "device":
        return DeviceStorage(specs, device)
    if config.replay.storage == "mmap":
        return MemoryMappedStorage(specs, run.replay, pinned=pinned)
    return RamStorage(specs, pinned=pinned)


def load_agent(run: RunFolder) -> tuple[DreamerV3, TensorDict, RunConfig]:
    """Return the kept agent of a run with its state tree and configuration.

    Raises:
        UserError: nothing was kept yet, or it is damaged or of another configuration.
    """
    config = run.config()
    agent = build_agent(config)
    state = agent.initial_state(config.seed)
    best = BestAgent(run.checkpoints / "best")
    restore_state(state, best.load(), best.folder)
    agent.apply_hyperparameters(state, config.agent.hyperparameters)
    return agent, state, config
