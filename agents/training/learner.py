"""An agent with its state tree and update counter; metrics stay on the device until they are asked for."""

from collections.abc import Mapping

import numpy as np
import torch
from tensordict import TensorDict

from agents.dreamerv3 import DreamerV3
from agents.seeding import torch_generator
from agents.training.capture import CapturedUpdate, Recorder
from agents.transfer import to_device

Tensors = dict[str, torch.Tensor]


class Learner:
    """Updates and acts with one state tree; draws noise by counters and averages metrics on the device.

    Args:
        agent: the agent; a function library over its state tree.
        state: the state tree, updated in place.
        seed: the run's seed; update ``n`` draws its noise from (seed, "update", n), the action of tick ``t``
            from (seed, "act", t).
        device: where state and batches live.
        precision: "float32" or "bfloat16", which the networks then compute in by autocast.
        recorder: with one, updates are recorded and replayed (see ``agents.training.capture``); without, eager.
    """

    def __init__(
        self,
        agent: DreamerV3,
        state: TensorDict,
        *,
        seed: int,
        device: torch.device,
        precision: str = "float32",
        recorder: Recorder | None = None,
    ) -> None:
        self.agent = agent
        self._state = state
        self.seed = seed
        self.device = device
        self.updates = 0
        # Of the last batch, compact [B, T, ...], where it started from stored ones; the next update may overwrite them.
        self.latents: Tensors = {}
        self._autocast = precision == "bfloat16"
        self._names: list[str] = []
        self._sums: torch.Tensor | None = None
        self._count = 0
        self._captured = CapturedUpdate(self._step, state, recorder) if recorder is not None else None

    @property
    def state(self) -> TensorDict:
        """The state tree; it is written in place and never replaced, since recorded updates know its tensors."""
        return self._state

    def update(self, batch: Tensors) -> None:
        """Apply one update to the state tree.

        Args:
            batch: as sampled from replay, every entry [B, T, ...], with what it starts from (``losses.observe``).
        """
        size, length = batch["is_first"].shape
        generator = torch_generator(self.seed, "update", self.updates, device=self.device)
        noise = self.agent.update_noise(size, length, generator)
        if self._captured is None:
            self.latents = self._step(self.state, batch, noise)
        else:
            self.latents = self._captured(batch, noise)
        self.updates += 1
        self._count += 1

    def _step(self, state: TensorDict, batch: Tensors, noise: Tensors) -> Tensors:
        """Update ``state``, add the metrics to their sums and return the latents, all on the device."""
        with self._precision():
            _, metrics, latents = self.agent.update(state, batch, noise)
        values = torch.stack(list(metrics.values())).detach().double()
        if self._sums is None:
            self._names, self._sums = list(metrics), torch.zeros_like(values)
        self._sums += values
        return latents

    def act(self, carry: Tensors, records: Mapping[str, np.ndarray], tick: int) -> tuple[np.ndarray, Tensors]:
        """Choose an action per environment.

        Args:
            carry: what the last call returned, or ``agent.initial_carry``.
            records: of E environments, at least ``observation/*``, ``is_first`` and ``context``, [E, ...].
            tick: numbers the noise.

        Returns:
            Actions, float32 [E, A], and the next carry.
        """
        inputs = {
            key: to_device(torch.from_numpy(np.ascontiguousarray(value)), self.device)
            for key, value in records.items()
            if key.startswith("observation/") or key in ("is_first", "context")
        }
        generator = torch_generator(self.seed, "act", tick, device=self.device)
        noise = self.agent.act_noise(len(records["is_first"]), generator)
        with self._precision():
            action, carry = self.agent.act(self.state, carry, inputs, noise)
        return action.float().cpu().numpy(), carry

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast)

    def pop_metrics(self) -> dict[str, float]:
        """Return the mean of every metric since the last call (empty without updates); the only host sync."""
        if self._sums is None or self._count == 0:
            return {}
        means = (self._sums / self._count).tolist()
        self._sums.zero_()  # in place: a recorded update adds to this very tensor
        self._count = 0
        return dict(zip(self._names, means, strict=True))
