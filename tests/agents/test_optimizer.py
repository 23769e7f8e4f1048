"""AGC and LaProp in NumPy, and a population's step against single ones."""

import numpy as np
import torch

from agents.optimizer import laprop_step


def numpy_laprop(parameter: np.ndarray, gradients: list[np.ndarray], rates: list[float], clip: float) -> np.ndarray:
    parameter, rms, momentum = parameter.copy(), np.zeros_like(parameter), np.zeros_like(parameter)
    for n, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), 1):
        limit = clip * max(1e-3, np.linalg.norm(parameter))
        gradient = gradient / max(1.0, np.linalg.norm(gradient) / limit)
        rms = 0.999 * rms + 0.001 * gradient**2
        scaled = gradient / (np.sqrt(rms / (1 - 0.999**n)) + 1e-20)
        momentum = 0.9 * momentum + 0.1 * scaled
        parameter = parameter - rate * momentum / (1 - 0.9**n)
    return parameter


def double(value: float | list[float]) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def problem() -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
    rng = np.random.default_rng(0)
    shapes = [(3, 4), (5,), (2, 2, 2)]
    parameters = [rng.normal(size=shape) for shape in shapes]
    parameters[1] *= 1e-5  # below the norm floor
    gradients = [[rng.normal(size=shape) * 10.0 ** rng.integers(-3, 3) for shape in shapes] for _ in range(6)]
    return parameters, gradients


def test_six_steps_in_numpy() -> None:
    start, gradients = problem()
    rates = [0.0, 0.01, 0.02, 0.02, 0.005, 0.02]
    parameters = [torch.from_numpy(p.copy()) for p in start]
    rms, momentum = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
    for n, rate in enumerate(rates):
        step = [torch.from_numpy(g) for g in gradients[n]]
        norms = laprop_step(parameters, step, rms, momentum, torch.tensor(n + 1), double(rate), double(0.3))
        flat = np.concatenate([g.ravel() for g in gradients[n]])
        np.testing.assert_allclose(norms.gradient, np.linalg.norm(flat), rtol=1e-12)
    for i, parameter in enumerate(parameters):
        expected = numpy_laprop(start[i], [g[i] for g in gradients], rates, 0.3)
        np.testing.assert_allclose(parameter.numpy(), expected, rtol=1e-10, atol=1e-13)


def test_a_population_steps_like_its_members() -> None:
    """Different rates, clips and counts; norms must not mix members."""
    start, gradients = problem()
    rates, clips, counts = [0.01, 0.3], [0.3, 0.01], [1, 7]
    members = []
    for m in range(2):
        tensors = [torch.from_numpy(p.copy()) * (m + 1) for p in start]
        moments = [torch.ones_like(p) for p in tensors], [torch.ones_like(p) for p in tensors]
        step = [torch.from_numpy(g) for g in gradients[m]]
        members.append((tensors, step, *moments))
    stacked = [[torch.stack(pair) for pair in zip(*(member[i] for member in members), strict=True)] for i in range(4)]
    laprop_step(*stacked, torch.tensor(counts), double(rates), double(clips))
    for m, member in enumerate(members):
        laprop_step(*member, torch.tensor(counts[m]), double(rates[m]), double(clips[m]))
        for branch, own in zip((stacked[0], stacked[2], stacked[3]), (member[0], member[2], member[3]), strict=True):
            for together, alone in zip(branch, own, strict=True):
                torch.testing.assert_close(together[m], alone, rtol=1e-12, atol=0)
