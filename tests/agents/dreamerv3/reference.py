"""Reads the parity fixtures: one update of danijar/dreamerv3 (e3f0224), number by number, in our names and layouts.

The fixtures hold float32 numbers of the reference implementation in which every sample is replaced by its mode;
``offset/`` values use action = mean + 0.5 deviation.
"""

import json
import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from agents.dreamerv3 import ActionSpec, DreamerV3, DreamerV3Config
from worldmodels.context import ContextSpec

FOLDER = Path(__file__).parent / "fixtures"
HEADS = {
    "rew": "world_model.reward",
    "con": "world_model.continuation",
    "val": "critic",
    "slowval": "slow_critic",
}
LAYERS = {
    "dynin0": "deter_in.linears.0",
    "dynin1": "stoch_in.linears.0",
    "dynin2": "action_in.linears.0",
    "dynhid0": "core",
    "dyngru": "gates",
    "obslogit": "posterior_out",
    "priorlogit": "prior_out",
    "dynin0norm": "deter_in.norms.0",
    "dynin1norm": "stoch_in.norms.0",
    "dynin2norm": "action_in.norms.0",
    "dynhid0norm": "core_norm",
    "dyngrunorm": "",
}


def our_name(name: str) -> str:
    """Translate a parameter name of the reference into ours."""
    module, _, leaf = name.rpartition("/")
    leaf = {"kernel": "weight", "scale": "weight"}.get(leaf, leaf)
    return f"{_module(module)}.{leaf}"


def _module(module: str) -> str:
    head, _, rest = module.partition("/")
    if head == "enc":
        match = re.fullmatch(r"mlp(\d)(norm)?", rest)
        assert match
        return f"world_model.encoder.{'norms' if match[2] else 'linears'}.{match[1]}"
    if head == "dyn":
        if match := re.fullmatch(r"(obs|prior)(\d)(norm)?", rest):
            name = {"obs": "posterior", "prior": "prior"}[match[1]]
            return f"world_model.rssm.{name}.{'norms' if match[3] else 'linears'}.{match[2]}"
        return f"world_model.rssm.{LAYERS[rest]}"
    if head == "dec" and rest.startswith("vec/"):
        return f"world_model.reconstructions.{rest.split('/')[1]}"
    prefix = {"dec": "world_model.decoder", "pol": "actor"}.get(head) or HEADS[head]
    if match := re.fullmatch(r"mlp/(linear|norm)(\d)", rest):
        mlp = prefix if head == "dec" else f"{prefix}.mlp"
        return f"{mlp}.{match[1]}s.{match[2]}"
    last = rest.split("/")[-1]
    if head == "pol":
        return f"actor.outputs.{ {'mean': 'mean', 'stddev': 'deviation', 'logits': 'logits'}[last] }"
    return f"{prefix}.output"


class Reference:
    """One fixture file with the agent, state, batch and noise that reproduce it."""

    def __init__(self, name: str, dtype: torch.dtype = torch.float32) -> None:
        self.data = dict(np.load(FOLDER / f"{name}.npz"))
        self.description = json.loads(str(self.data["config"]))
        settings = self.description["agent"]
        self.deter, self.stoch, self.classes = (settings[f"dyn.rssm.{k}"] for k in ("deter", "stoch", "classes"))
        space = self.description["act_space"]["action"]
        self.discrete = space["discrete"]
        self.actions = space["classes"] if self.discrete else space["shape"][0]
        self.keys = sorted(set(self.description["obs_space"]) - {"reward", "is_first", "is_last", "is_terminal"})
        shapes = {key: tuple(self.description["obs_space"][key]["shape"]) for key in self.keys}
        config = DreamerV3Config.model_validate(
            {
                "world_model": {
                    "deter": self.deter,
                    "hidden": settings["dyn.rssm.hidden"],
                    "stoch": self.stoch,
                    "classes": self.classes,
                    "units": settings["policy.units"],
                    "context": "hidden",
                },
                "horizon": self["img/rew"].shape[1] - 1,
                "hyperparameters": {"learning_rate": settings["opt.lr"], "warmup": settings["opt.warmup"]},
            }
        )
        self.agent = DreamerV3(config, shapes, ActionSpec(self.actions, self.discrete), ContextSpec(), dtype=dtype)
        self.state = self.agent.initial_state(0)
        for branch in ("parameters", "slow"):
            for key, tensor in self.state[branch].items():
                tensor.copy_(self.parameter("params/", key))
        for key in ("low", "high"):
            self.state["normalizer", key].copy_(self[f"state/retnorm/{key[:2]}"])

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(np.array(self.data[key.replace("high", "hi")]))

    @property
    def names(self) -> list[str]:
        """Optimised tensors in the reference's order, in our names."""
        return [our_name(name) for name in self.data["names"]]

    def parameter(self, prefix: str, name: str) -> Tensor:
        """A parameter or gradient of the reference in our layout."""
        original = next(n for n in self.data["names_all"] if our_name(n) == name)
        return self.to_our_layout(name, self[f"{prefix}{original}"])

    def has_parameter(self, prefix: str, name: str) -> bool:
        """Whether the file holds this parameter under ``prefix``."""
        return any(our_name(n) == name and f"{prefix}{n}" in self.data for n in self.data["names_all"])

    def to_our_layout(self, name: str, value: Tensor) -> Tensor:
        """Transpose linear kernels and make everything that touches the latents class-major."""
        latent = self.stoch * self.classes
        if name.endswith("rior_out.weight") or name.endswith("rior_out.bias"):
            value = self._class_major(value, -1)
        elif name == "world_model.rssm.stoch_in.linears.0.weight":
            value = self._class_major(value, 0)
        elif name == "world_model.decoder.linears.0.weight":  # concat(stoch, deter)
            value = torch.cat([self._class_major(value[:latent], 0), value[latent:]])
        elif self._head_input(name):  # concat(deter, stoch)
            value = torch.cat([value[: self.deter], self._class_major(value[self.deter :], 0)])
        transpose = name.endswith("weight") and value.dim() == 2
        return value.T.contiguous() if transpose else value

    @staticmethod
    def _head_input(name: str) -> bool:
        heads = ("world_model.reward", "world_model.continuation", "actor", "critic", "slow_critic")
        return name in {f"{head}.mlp.linears.0.weight" for head in heads}

    def _class_major(self, value: Tensor, dim: int) -> Tensor:
        return (
            value.unflatten(dim, (self.stoch, self.classes))
            .transpose(dim - (dim < 0), dim + (dim >= 0))
            .flatten(dim - (dim < 0), dim + (dim >= 0))
        )

    def latent(self, key: str) -> Tensor:
        """A latent or its logits, class-major."""
        return self[key].transpose(-1, -2)

    def encode_action(self, action: Tensor) -> Tensor:
        """One-hot vectors for discrete actions."""
        if not self.discrete:
            return action.float()
        return torch.nn.functional.one_hot(action.long(), self.actions).float()

    def batch(self) -> dict[str, Tensor]:
        """The replayed sequences, carry included."""
        batch = {f"observation/{key}": self[f"batch/{key}"] for key in self.keys}
        batch |= {key: self[f"batch/{key}"] for key in ("reward", "is_first", "is_last", "is_terminal")}
        batch["action"] = self.encode_action(self["batch/action"])
        batch["context"] = torch.zeros(*batch["reward"].shape, 0)
        batch["carry/deter"], batch["carry/stoch"] = self["carry/deter"], self.latent("carry/stoch")
        batch["carry/action"] = self.encode_action(self["carry/action"])
        return self.agent.cast(batch)

    def noise(self, action_offset: float = 0.0) -> dict[str, Tensor]:
        """Zero noise, but for a constant offset of continuous actions in deviations."""
        shape = self["batch/reward"].shape
        noise = self.agent.update_noise(*shape, torch.Generator().manual_seed(0))
        noise = {name: torch.zeros_like(value) for name, value in noise.items()}
        noise["action"] += action_offset
        return noise
