"""The whole update as one CUDA graph: forward, backward, optimizer, slow critic and the sums of the metrics.

An update is some thousands of small kernels, and launching them one by one takes longer than running them. A graph
holds the launches: they are recorded once and given to the device together, again and again. Whatever a replay
reads or writes lies where it lay when it was recorded, and whatever Python computed is a constant. Hence:

* Batch and noise are copied into buffers that stay, results are copied out of the graph's memory into such.
* The state tree is only ever written in place (``copy_``): restoring, forking and new hyperparameters need no new
  recording. From the first call on the tree is locked, so that replacing one of its tensors is an error.
* The first updates run eagerly, as updates that count, so that libraries are loaded, handles and work spaces made and
  algorithms chosen before the recording. Recording runs nothing: the update at which it is due is the first replay.
* Autocast, if any, begins and ends inside: its cached casts of weights would otherwise be those of the recording.
* Random numbers are inputs: generators advance on the host, which a replay does not visit.
* Other shapes, types or entries of the inputs discard the graph and its memory, and everything begins again.

No GPU has run this yet: the tests replay a trace of the same operations on the CPU (tests/gpu waits for one).
"""

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from tensordict import TensorDict
from torch import Tensor

WARM_UP = 3  # eager updates before the recording; PyTorch's notes on CUDA graphs advise "a few", and show 3

Tensors = dict[str, Tensor]
Update = Callable[[TensorDict, Tensors, Tensors], Tensors]


class Recorder(Protocol):
    """Runs a function of fixed tensors, now or again from a recording."""

    def run(self, function: Callable[[], None]) -> None:
        """Run ``function`` eagerly, in the same circumstances as when it is recorded."""

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        """Record ``function`` without effect; return what does to the same tensors what ``function`` would do."""


class GraphRecorder:
    """Records CUDA graphs, on a stream of its own, which neither eager updates nor a replay may leave.

    Args:
        device: of all tensors.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)

    def run(self, function: Callable[[], None]) -> None:
        """Run ``function`` on the stream; what comes after on the present one waits for it on the device."""
        present = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(present)
        with torch.cuda.stream(self._stream):
            function()
        present.wait_stream(self._stream)

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        """Record ``function`` into a graph with a memory pool of its own; replays run on the present stream."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            function()
        return graph.replay


def choose_recorder(device: torch.device, capture: str) -> Recorder | None:
    """Return what records updates on ``device``, None where they run eagerly.

    Args:
        device: of state and batches.
        capture: ``training.capture``: "auto" records on CUDA, "never" nowhere.
    """
    return GraphRecorder(device) if device.type == "cuda" and capture == "auto" else None


class CapturedUpdate:
    """An update of one state tree that is recorded once for each shape of its inputs, and then replayed.

    Args:
        update: reads a state tree, a batch and noise, writes the tree (and whatever else it keeps) in place and
            returns tensors. It must not wait for the device, allocate anything that outlives it after its first
            call, or depend on anything but tensors that stay.
        state: the tree; locked from now on.
        recorder: how to record.
    """

    def __init__(self, update: Update, state: TensorDict, recorder: Recorder) -> None:
        self._update = update
        self._state = state.lock_()
        self._recorder = recorder
        self._forget()

    def _forget(self) -> None:
        self._replay: Callable[[], None] | None = None
        self._signature: tuple[object, ...] = ()
        self._inputs: tuple[Tensors, Tensors] = ({}, {})
        self._outputs: Tensors = {}
        self._eager = 0

    def __call__(self, batch: Mapping[str, Tensor], noise: Mapping[str, Tensor]) -> Tensors:
        """Update the state once; return the update's tensors, in buffers that the next call overwrites."""
        signature = (_signature(batch), _signature(noise))
        if signature != self._signature:
            self._forget()
            self._signature = signature
            self._inputs = _buffers(batch), _buffers(noise)
        for buffers, values in zip(self._inputs, (batch, noise), strict=True):
            for name, buffer in buffers.items():
                buffer.copy_(values[name])
        if self._eager < WARM_UP:
            self._recorder.run(self._step)
            self._eager += 1
            return self._outputs
        if self._replay is None:
            self._replay = self._recorder.record(self._step)
        self._replay()
        return self._outputs

    def _step(self) -> None:
        results = self._update(self._state, *self._inputs)
        if results.keys() != self._outputs.keys():
            self._outputs = _buffers(results)
        for name, value in results.items():
            self._outputs[name].copy_(value)


def _signature(tensors: Mapping[str, Tensor]) -> tuple[object, ...]:
    return tuple((name, value.shape, value.dtype, value.device) for name, value in tensors.items())


def _buffers(like: Mapping[str, Tensor]) -> Tensors:
    return {name: torch.empty_like(value) for name, value in like.items()}
