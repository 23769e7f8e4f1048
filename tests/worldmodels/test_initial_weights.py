"""Statistics of every layer's initial weights (danijar/dreamerv3 at e3f0224).

Weights are 1.1368 sqrt(1 / fan_in) times a unit normal cut at +-2, and so of deviation sqrt(1 / fan_in); biases are
0, norm scales 1; the outputs of reward, critic and actor are scaled by 0, 0 and 0.01.
"""

import math
import re

import pytest
import torch
from scipy.stats import truncnorm

from agents.dreamerv3 import ActionSpec, DreamerV3, DreamerV3Config
from worldmodels.context import ContextSpec

CUT = truncnorm(-2, 2)
WORLD_MODEL = {"deter": 256, "hidden": 48, "units": 40, "stoch": 16, "classes": 8, "depth": 8}
LATENT, SMALLEST, FEATURES, CONTEXT = 16 * 8, 2 * 2 * 32, 256 + 16 * 8, 3
FAN_IN = {  # of every weight, by hand; the context adds 3 inputs everywhere but in encoder, prior and posterior
    "world_model.encoder.linears.0": 7,
    "world_model.image_encoder.convolutions.0": 25 * 3,
    "world_model.image_encoder.convolutions.1": 25 * 16,
    "world_model.image_encoder.convolutions.2": 25 * 24,
    "world_model.image_encoder.convolutions.3": 25 * 32,
    "world_model.rssm.deter_in.linears.0": 256,
    "world_model.rssm.stoch_in.linears.0": LATENT,
    "world_model.rssm.action_in.linears.0": 6 + CONTEXT,
    "world_model.rssm.core": 256 + 8 * 3 * 48,  # all blocks' inputs, the shared ones once for each block
    "world_model.rssm.gates": 256,
    "world_model.rssm.prior.linears.0": 256,
    "world_model.rssm.prior.linears.1": 48,
    "world_model.rssm.prior_out": 48,
    "world_model.rssm.posterior.linears.0": 256 + 40 + SMALLEST,
    "world_model.rssm.posterior_out": 48,
    "world_model.decoder.linears.0": FEATURES + CONTEXT,
    "world_model.reconstructions.state": 40,
    "world_model.image_decoder.deter_in": 256,
    "world_model.image_decoder.stoch_in.linears.0": LATENT + CONTEXT,
    "world_model.image_decoder.stoch_out": 80,
    "world_model.image_decoder.convolutions.0": 25 * 32,
    "world_model.image_decoder.convolutions.1": 25 * 32,
    "world_model.image_decoder.convolutions.2": 25 * 24,
    "world_model.image_decoder.output": 25 * 16,
    "world_model.reward.mlp.linears.0": FEATURES + CONTEXT,
    "world_model.continuation.mlp.linears.0": FEATURES + CONTEXT,
    "world_model.continuation.output": 40,
    "actor.mlp.linears.0": FEATURES + CONTEXT,
    "critic.mlp.linears.0": FEATURES + CONTEXT,
}
HIDDEN = r"(world_model\.(en|de)coder|actor\.mlp|critic\.mlp)\.linears\.[12]"  # layers of 40 inputs, as the outputs are
SCALES = {"world_model.reward.output": 0.0, "critic.output": 0.0, "actor.outputs.mean": 0.01}
SCALES |= {"actor.outputs.deviation": 0.01}


@pytest.fixture(scope="module")
def parameters() -> dict[str, torch.Tensor]:
    config = DreamerV3Config.model_validate({"world_model": WORLD_MODEL})
    context = ContextSpec(("a", "b", "c"), (0.0,) * CONTEXT, (1.0,) * CONTEXT)
    shapes = {"image": (32, 32, 3), "state": (7,)}
    agent = DreamerV3(config, shapes, ActionSpec(6, discrete=False), context)
    return dict(agent.initial_state(0)["parameters"].items())


def test_the_cut_normal_has_a_unit_deviation() -> None:
    assert 1.1368 * CUT.std() == pytest.approx(1.0, abs=1e-4)


def test_weights(parameters: dict[str, torch.Tensor]) -> None:
    """Mean, deviation and cut of every weight, within 4.5 standard errors: of 43 tensors one in 1,700 runs."""
    kurtosis = CUT.expect(lambda x: x**4) / CUT.var() ** 2
    weights = {name.removesuffix(".weight"): w for name, w in parameters.items() if w.dim() > 1}
    assert set(FAN_IN) <= set(weights)
    for name, weight in weights.items():
        assert name in FAN_IN or name in SCALES or re.fullmatch(HIDDEN, name), name
        deviation = SCALES.get(name, 1.0) * FAN_IN.get(name, 40) ** -0.5
        count = weight.numel()
        if not deviation:
            assert weight.abs().max() == 0, name
            continue
        unit = weight.double() / deviation
        assert abs(unit.mean().item()) < 4.5 / math.sqrt(count), name
        assert unit.square().mean().item() == pytest.approx(1.0, abs=4.5 * math.sqrt((kurtosis - 1) / count)), name
        assert unit.abs().max().item() <= 2 * 1.1368 * (1 + 1e-6), name
        if count > 2000:
            assert unit.abs().max().item() > 2 * 1.1368 * 0.97, name


def test_biases_are_zero_and_scales_one(parameters: dict[str, torch.Tensor]) -> None:
    vectors = {name: value for name, value in parameters.items() if value.dim() == 1}
    scales = {name for name in vectors if re.search(r"norm(s\.\d)?\.weight$|core_norm\.weight$", name)}
    biases = {name for name in vectors if name.endswith(".bias")}
    assert scales | biases == set(vectors) and len(scales) > 20 and len(biases) > 30
    assert all((vectors[name] == 1).all() for name in scales)
    assert all((vectors[name] == 0).all() for name in biases)


def test_weights_of_a_block_differ_and_so_do_layers(parameters: dict[str, torch.Tensor]) -> None:
    blocks = parameters["world_model.image_decoder.deter_in.weight"]
    assert blocks.shape == (8, 32, SMALLEST // 8)
    flat = blocks.flatten(1)
    correlation = torch.corrcoef(flat) - torch.eye(8)
    assert correlation.abs().max().item() < 4.5 / math.sqrt(flat.shape[1])
