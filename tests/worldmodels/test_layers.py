"""Layers against plain NumPy, and their initial weights against the stated statistics."""

import numpy as np
import pytest
import torch

from worldmodels.layers import MLP, BlockLinear, Head, Linear, RMSNorm, block_map, initialize, norm_silu


def test_rms_norm_in_numpy() -> None:
    norm = RMSNorm(6)
    torch.nn.init.normal_(norm.weight, generator=torch.Generator().manual_seed(0))
    x = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    expected = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-4) * norm.weight.detach().numpy()
    np.testing.assert_allclose(norm(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-5)


def test_block_linear_is_a_block_diagonal_matrix() -> None:
    layer = BlockLinear(6, 9, 3)
    initialize(layer, torch.Generator().manual_seed(0))
    torch.nn.init.normal_(layer.bias)
    dense = torch.block_diag(*layer.weight)
    x = torch.randn(5, 6)
    torch.testing.assert_close(layer(x), x @ dense + layer.bias)


def test_split_block_linear_sees_its_slice_and_then_the_shared_inputs() -> None:
    layer = BlockLinear(6, 6, 3, shared=4)
    initialize(layer, torch.Generator().manual_seed(0))
    own, shared = layer.split()
    x, y = torch.randn(5, 6), torch.randn(5, 4)
    blocks = [torch.cat([x[:, 2 * g : 2 * g + 2], y], -1) @ layer.weight[g] for g in range(3)]
    torch.testing.assert_close(block_map(x, own) + y @ shared, torch.cat(blocks, -1))


def test_mlp_in_numpy() -> None:
    mlp = MLP(3, 4, 2)
    initialize(mlp, torch.Generator().manual_seed(0))
    x = y = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    for linear in mlp.linears:
        y = y @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()
        y = y / np.sqrt((y**2).mean(-1, keepdims=True) + 1e-4)
        y = y / (1 + np.exp(-y))
    np.testing.assert_allclose(mlp(torch.from_numpy(x)).detach().numpy(), y, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("module", "fan_in"), [(Linear(400, 300), 400), (BlockLinear(400, 400, 4, shared=50), 600)])
def test_initial_weights(module: torch.nn.Module, fan_in: int) -> None:
    """Standard deviation sqrt(1 / fan_in), cut at two untruncated deviations; BlockLinear's fan-in is full."""
    initialize(module, torch.Generator().manual_seed(0))
    weight = module.weight.detach()
    assert weight.std().item() == pytest.approx(fan_in**-0.5, rel=0.01)
    assert weight.mean().abs().item() < 4 * fan_in**-0.5 / weight.numel() ** 0.5
    bound = 2 * 1.1368 * fan_in**-0.5
    assert 0.98 * bound < weight.abs().max().item() <= bound * (1 + 1e-6)
    assert module.bias.abs().max() == 0


def test_scaled_outputs() -> None:
    zero, small = Head(16, 32, 1, 255, scale=0.0), Linear(4096, 64, scale=0.01)
    initialize(zero, torch.Generator().manual_seed(0))
    initialize(small, torch.Generator().manual_seed(0))
    assert zero.output.weight.abs().max() == 0
    assert zero.mlp.linears[0].weight.abs().max() > 0
    assert small.weight.std().item() == pytest.approx(0.01 / 64, rel=0.02)


def test_initialization_depends_on_the_generator_alone() -> None:
    first, second, other = MLP(3, 4, 2), MLP(3, 4, 2), MLP(3, 4, 2)
    for mlp, seed in ((first, 0), (second, 0), (other, 1)):
        initialize(mlp, torch.Generator().manual_seed(seed))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.linears[0].weight, other.linears[0].weight)


def test_norm_and_silu_by_hand() -> None:
    """Values and gradients against the formula and autograd, on one row and on several dimensions of rows."""
    for shape in ((6,), (5, 6), (2, 5, 6)):
        x = torch.randn(*shape, dtype=torch.float64, requires_grad=True)
        scale = torch.randn(6, dtype=torch.float64, requires_grad=True)
        normalized = x / (x.square().mean(-1, keepdim=True) + 1e-4).sqrt() * scale
        expected = normalized * torch.sigmoid(normalized)
        ours = norm_silu(x, scale)
        torch.testing.assert_close(ours, expected)
        torch.testing.assert_close(norm_silu(x.detach(), scale.detach()), expected)
        weight = torch.randn_like(x)
        for one, other in zip(
            torch.autograd.grad((ours * weight).sum(), (x, scale)),
            torch.autograd.grad((expected * weight).sum(), (x, scale)),
            strict=True,
        ):
            torch.testing.assert_close(one, other)
