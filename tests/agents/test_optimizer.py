"""AGC and LaProp in NumPy, and a population's step against single ones."""

import numpy as np
import pytest
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


def run(start: list[float], gradients: list[list[float]], rate: float = 0.1, clip: float = 1e9) -> list[torch.Tensor]:
    """Parameter, rms and momentum of one tensor after one step for each gradient."""
    tensors = [[double(start)], [torch.zeros(len(start)).double()], [torch.zeros(len(start)).double()]]
    for n, gradient in enumerate(gradients, 1):
        parameters, rms, momentum = tensors
        laprop_step(parameters, [double(gradient)], rms, momentum, torch.tensor(n), double(rate), double(clip))
    return [tensor[0] for tensor in tensors]


def test_two_steps_by_hand() -> None:
    """Step 1: g / sqrt(g^2) = +-1 whatever the size, so the parameter moves by the rate: both corrections cancel.

    Step 2 with g = (4, 0) after (2, 8). First entry: rms = 0.999 * 0.004 + 0.001 * 16 = 0.019996, corrected by
    1 - 0.999^2 = 0.001999 it is 10.003, so 4 / 3.16275 = 1.26472; momentum = 0.9 * 0.1 + 0.1 * 1.26472 = 0.216472,
    corrected by 0.19 it is 1.13933. Second entry: momentum 0.09, corrected 0.473684: it still moves.
    """
    parameter, rms, momentum = run([5.0, -5.0], [[2.0, 8.0]])
    np.testing.assert_allclose(parameter, [4.9, -5.1], rtol=1e-12)
    np.testing.assert_allclose(rms, [0.004, 0.064], rtol=1e-12)
    np.testing.assert_allclose(momentum, [0.1, 0.1], rtol=1e-12)
    parameter, rms, momentum = run([5.0, -5.0], [[2.0, 8.0], [4.0, 0.0]])
    np.testing.assert_allclose(rms, [0.019996, 0.063936], rtol=1e-12)
    np.testing.assert_allclose(momentum, [0.216472, 0.09], rtol=3e-6)
    np.testing.assert_allclose(parameter, [4.9 - 0.113933, -5.1 - 0.0473684], rtol=1e-6)


def test_momentum_averages_scaled_gradients_and_not_the_other_way_round() -> None:
    """LaProp, not Adam: after gradients 1 and 100 Adam's first moment 10.09 over its deviation 70.7 gives 0.75."""
    parameter, _, _ = run([0.0], [[1.0], [100.0]], rate=1.0)
    scaled = 100 / ((0.999 * 0.001 + 0.001 * 10_000) / (1 - 0.999**2)) ** 0.5  # 1.41385
    assert parameter.item() == pytest.approx(-1 - (0.9 * 0.1 + 0.1 * scaled) / 0.19, rel=1e-12)  # -1 - 1.21782


@pytest.mark.parametrize(
    ("start", "limit"),
    [
        ([3.0, 4.0], 0.3 * 5.0),
        ([0.0, 0.0], 0.3 * 1e-3),  # the floor
        ([3e-4, 4e-4], 0.3 * 1e-3),
        ([6e-4, 8e-4], 0.3 * 1e-3),  # exactly at it
        ([6e-3, 8e-3], 0.3 * 1e-2),
    ],
)
def test_clipping_by_hand(start: list[float], limit: float) -> None:
    """A gradient of norm 10 shrinks to clip * max(1e-3, norm of the parameter); one below the limit is kept."""
    _, rms, _ = run(start, [[6.0, 8.0]], clip=0.3)
    np.testing.assert_allclose(rms, 0.001 * (limit * np.array([0.6, 0.8])) ** 2, rtol=1e-12)
    small = [0.6 * limit * 0.99, 0.8 * limit * 0.99]
    _, rms, _ = run(start, [small], clip=0.3)
    np.testing.assert_allclose(rms, 0.001 * np.array(small) ** 2, rtol=1e-12)


def test_clipping_is_by_tensor_and_the_smallest_factor_is_told() -> None:
    """Gradients of norm 10 and 1 on parameters of norm 5 and 100: factors 0.15 and 1; the total norm is sqrt(101)."""
    parameters, gradients = [double([3.0, 4.0]), double([100.0])], [double([6.0, 8.0]), double([1.0])]
    rms, momentum = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
    norms = laprop_step(parameters, gradients, rms, momentum, torch.tensor(1), double(0.0), double(0.3))
    np.testing.assert_allclose(rms[0], [0.00081, 0.00144], rtol=1e-12)
    np.testing.assert_allclose(rms[1], [0.001], rtol=1e-12)
    assert norms.clip.item() == pytest.approx(0.15) and norms.gradient.item() == pytest.approx(101**0.5)


def test_zero_gradients_move_nothing_and_stay_finite() -> None:
    parameter, rms, momentum = run([1.0, 0.0], [[0.0, 0.0]] * 3, clip=0.3)
    assert parameter.tolist() == [1.0, 0.0]
    assert rms.tolist() == momentum.tolist() == [0.0, 0.0]


def test_the_epsilon_is_small_enough_for_the_smallest_gradients() -> None:
    """1e-20 beside a deviation of 1e-15: the step is still the whole rate."""
    parameter, _, _ = run([0.0], [[1e-15]])
    assert parameter.item() == pytest.approx(-0.1, rel=1e-4)
