"""CartPole written down once more in NumPy, and agents whose world model it is."""

import numpy as np
import torch

from agents.dreaming.grid import ContextGrid
from agents.environments import Reset, SerialVector, make_environment
from agents.evaluation.episodes import Job
from agents.evaluation.rollout import Episode

CART, POLE, FORCE, TAU = 1.0, 0.1, 10.0, 0.02
FEATURES = ["gravity", "length"]


def push(state, right, gravity, length):
    """The state [..., 4] after a push; equations of Barto, Sutton and Anderson (1983), explicit Euler."""
    x, speed, angle, turn = np.moveaxis(np.asarray(state, np.float64), -1, 0)
    mass = CART + POLE
    pulled = (np.where(right, FORCE, -FORCE) + POLE * length * turn**2 * np.sin(angle)) / mass
    twist = gravity * np.sin(angle) - np.cos(angle) * pulled
    twist = twist / (length * (4 / 3 - POLE * np.cos(angle) ** 2 / mass))
    pull = pulled - POLE * length * twist * np.cos(angle) / mass
    return np.stack([x + TAU * speed, speed + TAU * pull, angle + TAU * turn, turn + TAU * twist], -1)


def upright(state):
    return (np.abs(state[..., 0]) <= 2.4) & (np.abs(state[..., 2]) <= 12 * 2 * np.pi / 360)


class Simulator:
    """An agent that knows CartPole and is told gravity and length; its latent is the state."""

    infers = False

    def known(self, context):
        return context

    def condition(self, state, batch):
        return batch["context"]

    def observe(self, state, batch, noise=None):
        deter = batch["observation/state"].double()
        return {"deter": deter, "stoch": torch.zeros(*deter.shape, 1)}

    def imagine(self, state, start, actions, context, noise=None):
        gravity, length = self.known(context.double().numpy()).T
        present, states = start["deter"].numpy(), []
        for action in actions.unbind(1):
            present = push(present, action[:, 1].numpy() > 0.5, gravity, length)
            states.append(present)
        deter = torch.from_numpy(np.stack(states, 1))
        return {"deter": deter, "stoch": torch.zeros(*deter.shape, 1)}

    def decode(self, state, latent, context):
        deter = latent["deter"]
        going = torch.from_numpy(upright(deter.numpy()).astype(np.float64))
        return {"observation/state": deter, "reward": torch.ones(deter.shape[:-1]), "continue": going}


class Blind(Simulator):
    """Always dreams of the same context."""

    def known(self, context):
        return np.broadcast_to([9.8, 0.5], context.shape)


class Contrary(Simulator):
    """Knows the default context and moves away from it in the wrong direction."""

    def known(self, context):
        return 2 * np.array([9.8, 0.5]) - context


class Late(Simulator):
    """Gives the state before each action instead of the one after it."""

    def imagine(self, state, start, actions, context, noise=None):
        after = super().imagine(state, start, actions, context)["deter"]
        deter = torch.cat([start["deter"][:, None], after[:, :-1]], 1)
        return {"deter": deter, "stoch": torch.zeros(*deter.shape, 1)}


class Early(Simulator):
    """Takes each action one step too early."""

    def imagine(self, state, start, actions, context, noise=None):
        return super().imagine(state, start, actions.roll(-1, dims=1), context)


def make_grid(contexts, sources=(0,)):
    """A grid of (gravity, length); the first is the default."""
    named = tuple(dict(zip(FEATURES, map(float, context), strict=True)) for context in contexts)
    axes = {name: tuple(sorted({context[name] for context in named})) for name in FEATURES}
    outside = tuple(int(not 5 <= c["gravity"] <= 15) + int(not 0.3 <= c["length"] <= 0.8) for c in named)
    return ContextGrid(axes, named, tuple(sources), outside, 0)


def make_vector():
    return SerialVector([lambda: make_environment("cartpole", features=FEATURES)])


def record(vector, context, seed, pushes):
    """An episode whose cart is pushed as told, 1 to the right; it may end sooner."""
    job = Job("by hand", 7, context, seed)
    actions = np.eye(2, dtype=np.float32)[list(pushes)]
    history = []
    for command, action in zip([Reset(seed, context, 7), *actions], [*actions, np.zeros(2, np.float32)], strict=True):
        made = {key: value[0].copy() for key, value in vector.step([command]).items() if key != "lost"}
        history.append({**made, "action": np.zeros_like(action) if made["is_last"] else action})
        if made["is_last"]:
            break
    records = {key: np.stack([step[key] for step in history]) for key in history[0]}
    return Episode(job, float(records["reward"].sum()), len(history) - 1, records)


def balanced(steps, seed):
    """Pushes that take turns, with a few chance repeats."""
    generator = np.random.default_rng(seed)
    return [int((step + (generator.random() < 0.15)) % 2) for step in range(steps)]
