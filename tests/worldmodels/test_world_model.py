"""RSSM and world model: recurrence in NumPy, resets, context flags and sizes."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from worldmodels.config import SIZES, ContextFlags, WorldModelConfig
from worldmodels.context import ContextSpec
from worldmodels.layers import initialize
from worldmodels.rssm import RSSM
from worldmodels.world_model import WorldModel

CONTEXT = ContextSpec(("gravity", "length"), (4.9, 0.35), (14.7, 0.75))
SMALL = {"deter": 16, "hidden": 8, "units": 8, "stoch": 4, "classes": 3, "blocks": 2, "bins": 11}


def small_model(context: str | dict = "crssm") -> WorldModel:
    model = WorldModel(WorldModelConfig(**SMALL, context=context), {"state": (4,), "goal": (2,)}, 3, CONTEXT)
    initialize(model, torch.Generator().manual_seed(0))
    return model


def test_recurrence_in_numpy() -> None:
    """deter <- u tanh(r candidate) + (1 - u) deter with u = sigmoid(update - 1), thirds within each block."""
    rssm = RSSM(WorldModelConfig(**SMALL), 8, 3, 0)
    initialize(rssm, torch.Generator().manual_seed(1))
    rng = np.random.default_rng(0)
    for bias in (rssm.core.bias, rssm.gates.bias):
        bias.data = torch.from_numpy(rng.normal(size=bias.shape).astype(np.float32))
    deter = torch.from_numpy(rng.normal(size=(5, 16)).astype(np.float32))
    stoch = torch.from_numpy(rng.normal(size=(5, 3, 4)).astype(np.float32))
    action = rssm.embed_action(torch.from_numpy(rng.normal(size=(5, 3)).astype(np.float32)), None)
    ours = rssm.recur(rssm.cell_weights(), deter, stoch, action).detach().numpy()

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    shared = [rssm.deter_in(deter), rssm.stoch_in(stoch.flatten(-2)), action]
    shared = np.concatenate([part.detach().numpy() for part in shared], -1)
    state, core, gates = deter.numpy(), rssm.core.weight.detach().numpy(), rssm.gates.weight.detach().numpy()
    hidden = [np.concatenate([state[:, 8 * g : 8 * g + 8], shared], -1) @ core[g] for g in range(2)]
    hidden = np.concatenate(hidden, -1) + rssm.core.bias.detach().numpy()
    hidden = hidden / np.sqrt((hidden**2).mean(-1, keepdims=True) + 1e-4)
    hidden = hidden * sigmoid(hidden)
    expected = np.empty_like(state)
    for g in range(2):
        block = slice(8 * g, 8 * g + 8)
        out = hidden[:, block] @ gates[g] + rssm.gates.bias.detach().numpy()[24 * g : 24 * g + 24]
        reset, candidate, update = out[:, :8], out[:, 8:16], out[:, 16:]
        update = sigmoid(update - 1)
        expected[:, block] = update * np.tanh(sigmoid(reset) * candidate) + (1 - update) * state[:, block]
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)


def observe(rssm: RSSM, is_first: torch.Tensor, tokens: torch.Tensor, actions: torch.Tensor) -> dict:
    return rssm.observe(rssm.initial(len(tokens), tokens), tokens, actions, is_first, None, None)


def test_a_reset_forgets_the_past() -> None:
    """From the reset on, the posterior is that of a sequence which starts there."""
    rssm = RSSM(WorldModelConfig(**SMALL), 8, 3, 0)
    initialize(rssm, torch.Generator().manual_seed(0))
    tokens, actions = torch.randn(2, 7, 8), torch.randn(2, 7, 3)
    is_first = torch.zeros(2, 7, dtype=torch.bool)
    is_first[:, 4] = True
    whole = observe(rssm, is_first, tokens, actions)
    cut = observe(rssm, is_first[:, 4:], tokens[:, 4:], actions[:, 4:])
    torch.testing.assert_close(whole["deter"][:, 4:], cut["deter"])
    without = observe(rssm, torch.zeros_like(is_first), tokens, actions)
    assert (whole["deter"][:, 4] - without["deter"][:, 4]).abs().max() > 1e-3


def test_actions_beyond_one_are_scaled_elementwise() -> None:
    rssm = RSSM(WorldModelConfig(**SMALL), 8, 3, 0)
    large, cut = torch.tensor([[2.5, -4.0, 0.5]]), torch.tensor([[1.0, -1.0, 0.5]])
    torch.testing.assert_close(rssm.embed_action(large, None), rssm.embed_action(cut, None))


def test_context_maps_the_training_range_to_one_and_is_not_clipped() -> None:
    normalized = small_model().normalize_context(torch.tensor([[4.9, 0.35], [14.7, 0.75], [19.6, 0.55]]))
    expected = torch.tensor([[-1.0, -1.0], [1.0, 1.0], [2.0, 0.0]])
    torch.testing.assert_close(normalized, expected, atol=1e-5, rtol=1e-5)


def test_a_feature_that_never_varies_has_a_finite_scale() -> None:
    center, half = ContextSpec(("g", "wind"), (9.8, 0.0), (9.8, 0.0)).center_and_half_width()
    torch.testing.assert_close(center, torch.tensor([9.8, 0.0]))
    torch.testing.assert_close(half, torch.tensor([4.9, 1.0]))


@pytest.mark.parametrize(
    "bounds", [((1.0,), ()), ((2.0,), (1.0,)), ((float("nan"),), (1.0,)), ((0.0,), (float("inf"),))]
)
def test_context_ranges_are_checked(bounds: tuple) -> None:
    with pytest.raises(ValueError, match="context"):
        ContextSpec(("g",), *bounds)


@pytest.mark.parametrize("flag", [name for name in ContextFlags.model_fields if name != "inferred"])
def test_each_flag_lets_the_context_reach_its_module_alone(flag: str) -> None:
    """A changed context changes what the flag names, directly, and nothing else of the world model."""
    model = small_model({flag: True})
    latent = {"deter": torch.randn(5, 16), "stoch": torch.randn(5, 3, 4)}
    records = {"observation/state": torch.randn(5, 4), "observation/goal": torch.randn(5, 2)}

    def outputs(context: torch.Tensor) -> dict[str, torch.Tensor]:
        joined = context if model.flags.sequence else None
        features = model.features(latent)
        return {
            "observation": model.encode(model.observations(records, context)),
            "sequence": model.rssm.embed_action(torch.ones(5, 3), joined),
            "decoder": torch.cat(list(model.decode(latent, context).values()), -1),
            "reward": model.reward.mlp(torch.cat([features, context], -1)) if flag == "reward" else features,
            "continuation": model.continue_logits(features, context),
        }

    first, second = outputs(torch.zeros(5, 2)), outputs(torch.ones(5, 2))
    changed = {name for name in first if not torch.equal(first[name], second[name])}
    assert changed == ({flag} if flag in first else set())


def test_presets() -> None:
    assert not ContextFlags.preset("hidden").any
    assert ContextFlags.preset("concat").model_dump() == ContextFlags(observation=True).model_dump()
    assert ContextFlags.preset("crssm") == ContextFlags(
        sequence=True, decoder=True, reward=True, continuation=True, actor=True, critic=True
    )
    inferred = ContextFlags.preset("inferred")
    assert inferred.inferred and inferred.model_copy(update={"inferred": False}) == ContextFlags.preset("crssm")
    assert small_model("concat").keys == ["context", "goal", "state"]
    assert small_model("crssm").keys == ["goal", "state"]


def test_losses_by_hand() -> None:
    """Free nats hold each KL up; the continue loss is the binary cross-entropy; reconstruction sums squares."""
    model = small_model("hidden")
    deter, probabilities = torch.randn(2, 3, 16), torch.softmax(torch.randn(2, 3, 3, 4), -2)
    posterior = {"deter": deter, "stoch": probabilities, "probabilities": probabilities}
    observations = {"state": torch.randn(2, 3, 4) * 9, "goal": torch.randn(2, 3, 2)}
    reward, continues = torch.randn(2, 3), torch.rand(2, 3)
    context = torch.zeros(2, 3, 2)
    losses, outputs = model.losses(posterior, observations, reward, continues, context, torch.tensor(1e6))
    assert (losses["dynamics"] == 1e6).all() and (losses["representation"] == 1e6).all()
    losses, outputs = model.losses(posterior, observations, reward, continues, context, torch.tensor(0.0))
    q = 0.99 * torch.softmax(outputs["prior_logits"], -2) + 0.01 / 3
    kl = (probabilities * (probabilities / q).log()).sum((-2, -1))
    torch.testing.assert_close(losses["dynamics"], kl)
    torch.testing.assert_close(losses["representation"], kl)
    p = torch.sigmoid(outputs["continue_logits"])
    torch.testing.assert_close(losses["continue"], -(continues * p.log() + (1 - continues) * (1 - p).log()))
    target = np.sign(observations["state"].numpy()) * np.log1p(np.abs(observations["state"].numpy()))
    squares = (outputs["reconstruction/state"].detach().numpy() - target) ** 2
    np.testing.assert_allclose(losses["reconstruction/state"].detach().numpy(), squares.sum(-1), rtol=1e-5)


def test_kl_terms_train_one_side_each() -> None:
    model = small_model("hidden")
    logits = torch.randn(1, 1, 3, 4, requires_grad=True)
    deter = torch.randn(1, 1, 16, requires_grad=True)
    probabilities = torch.softmax(logits, -2)
    posterior = {"deter": deter, "stoch": probabilities.detach(), "probabilities": probabilities}
    observations = {"state": torch.zeros(1, 1, 4), "goal": torch.zeros(1, 1, 2)}
    ones = torch.ones(1, 1)
    losses, _ = model.losses(posterior, observations, ones, ones, torch.zeros(1, 1, 2), torch.tensor(0.0))
    for name, trained, fixed in (("dynamics", deter, logits), ("representation", logits, deter)):
        gradients = torch.autograd.grad(losses[name].sum(), [trained, fixed], allow_unused=True, retain_graph=True)
        assert gradients[0] is not None and gradients[0].abs().sum() > 0
        assert gradients[1] is None


def test_sizes_and_overrides() -> None:
    assert WorldModelConfig(size="12m").dimensions == SIZES["12m"]
    assert WorldModelConfig(size="12m", units=32).dimensions == SIZES["12m"]._replace(units=32)


@pytest.mark.parametrize(("field", "value"), [("blocks", 7), ("bins", 254), ("context", "crsm"), ("deter", 0)])
def test_impossible_configurations_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        WorldModelConfig(**{field: value})
