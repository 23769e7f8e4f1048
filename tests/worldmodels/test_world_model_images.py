"""Where images stand beside vectors and the context in the world model."""

import pytest
import torch
from torch import Tensor

from worldmodels.config import SIZES, ContextFlags, WorldModelConfig
from worldmodels.context import ContextSpec
from worldmodels.distributions import symexp
from worldmodels.layers import initialize
from worldmodels.world_model import WorldModel

CONTEXT = ContextSpec(("gravity", "length"), (4.9, 0.35), (14.7, 0.75))
SMALL = {"deter": 16, "hidden": 8, "units": 6, "stoch": 4, "classes": 3, "depth": 2, "blocks": 2, "bins": 11}
IMAGE = (32, 16, 3)


def make(context: str | dict, *keys: str, spec: ContextSpec = CONTEXT) -> WorldModel:
    shapes = {"image": IMAGE, "state": (4,), "goal": (2,)}
    model = WorldModel(WorldModelConfig(**SMALL, context=context), {key: shapes[key] for key in keys}, 3, spec)
    generator = torch.Generator().manual_seed(0)
    initialize(model, generator)
    for parameter in model.parameters():  # no zeros, so that everything that is joined also matters
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def records(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "observation/image": torch.randint(0, 256, (5, *IMAGE), generator=generator, dtype=torch.uint8),
        "observation/state": torch.randn(5, 4, generator=generator),
        "observation/goal": torch.randn(5, 2, generator=generator),
    }


def random_latent() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {"deter": torch.randn(5, 16, generator=generator), "stoch": torch.randn(5, 3, 4, generator=generator)}


def test_vector_features_come_before_image_features() -> None:
    both, context = make("hidden", "image", "state", "goal"), torch.zeros(5, 2)
    seen = records()
    tokens = both.encode(both.observations(seen, context))
    assert tokens.shape == (5, 6 + both.image_encoder.size)
    assert both.rssm.posterior.linears[0].in_features == 16 + tokens.shape[-1]
    other = records(1)
    for changed, part in (("state", slice(0, 6)), ("goal", slice(0, 6)), ("image", slice(6, None))):
        mixed = seen | {f"observation/{changed}": other[f"observation/{changed}"]}
        difference = both.encode(both.observations(mixed, context)) != tokens
        assert difference[:, part].any()
        difference[:, part] = False
        assert not difference.any()


def test_modules_of_what_is_observed_alone() -> None:
    """A model of vectors has the parameters it had, one of images no vector encoder or decoder."""

    def parts(model: WorldModel) -> set[str]:
        return {name.split(".")[0] for name, _ in model.named_parameters()}

    common = {"rssm", "reward", "continuation"}
    assert parts(make("hidden", "state", "goal")) == common | {"encoder", "decoder", "reconstructions"}
    assert parts(make("hidden", "image")) == common | {"image_encoder", "image_decoder"}
    both = parts(make("hidden", "image", "state"))
    assert both == common | {"encoder", "decoder", "reconstructions", "image_encoder", "image_decoder"}


@pytest.mark.parametrize("flag", [name for name in ContextFlags.model_fields if name != "inferred"])
def test_only_its_flag_lets_the_context_reach_the_picture(flag: str) -> None:
    """A swapped context changes the picture of the same latent where the decoder sees it, and the tokens where it
    is an observation; a model of images alone then has a vector encoder for it."""
    model = make({flag: True}, "image")
    latent = random_latent()
    first, second = torch.tensor([4.9, 0.35]).expand(5, 2), torch.tensor([14.7, 0.35]).expand(5, 2)
    contexts = [model.normalize_context(context) for context in (first, second)]
    decoded = [model.decode(latent, context) for context in contexts]
    tokens = [model.encode(model.observations(records(), context)) for context in contexts]
    change = (decoded[0]["image"] - decoded[1]["image"]).abs().flatten(1).amax(1)
    assert (change > 1e-4).all() if flag == "decoder" else (change == 0).all()
    assert torch.equal(*tokens) == (flag != "observation")
    assert set(decoded[0]) == ({"context", "image"} if flag == "observation" else {"image"})


def test_the_context_joins_stoch_behind_the_latent_and_not_deter() -> None:
    model = make("crssm", "image")
    assert model.image_decoder.stoch_in.linears[0].in_features == 3 * 4 + 2
    assert model.image_decoder.deter_in.weight.shape == (2, 8, 2 * 1 * 8 // 2)
    latent, context = random_latent(), torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    picture = model.decode(latent, context)["image"]
    model.image_decoder.stoch_in.linears[0].weight.data[:, -2:] = 0
    blind = model.decode(latent, context)["image"]
    assert torch.equal(blind, model.decode(latent, -context)["image"]) and not torch.equal(blind, picture)


@pytest.mark.parametrize("preset", ["hidden", "concat", "crssm"])
@pytest.mark.parametrize("keys", [("image",), ("state",), ("image", "state")])
def test_worlds_without_context_features(preset: str, keys: tuple[str, ...]) -> None:
    """A context vector of length 0 is no observation and adds no input anywhere."""
    model = make(preset, *keys, spec=ContextSpec())
    context = model.normalize_context(torch.zeros(5, 0))
    assert model.keys == sorted(keys)
    assert set(model.decode(random_latent(), context)) == set(keys)
    assert torch.isfinite(model.encode(model.observations(records(), context))).all()


def test_predictions_are_in_raw_units() -> None:
    model = make("hidden", "image", "state")
    latent, context = random_latent(), torch.zeros(5, 2)
    decoded, predicted = model.decode(latent, context), model.predict(latent, context)
    torch.testing.assert_close(predicted["observation/image"], 255 * decoded["image"])
    torch.testing.assert_close(predicted["observation/state"], symexp(decoded["state"]))
    assert predicted["observation/image"].shape == (5, *IMAGE)
    assert 0 <= predicted["observation/image"].min() < 100 < 150 < predicted["observation/image"].max() <= 255


def test_losses_of_images_and_vectors_stand_side_by_side() -> None:
    model = make("hidden", "image", "state")
    latent = {name: value.unsqueeze(0) for name, value in random_latent().items()}
    posterior = latent | {"probabilities": torch.full((1, 5, 3, 4), 1 / 3)}
    observations = {key: value.unsqueeze(0) for key, value in model.observations(records(), torch.zeros(5, 2)).items()}
    context, ones = torch.zeros(1, 5, 2), torch.ones(1, 5)
    losses, outputs = model.losses(posterior, observations, ones, ones, context, torch.tensor(1.0))
    error = outputs["reconstruction/image"] - observations["image"] / 255.0
    torch.testing.assert_close(losses["reconstruction/image"], (error**2).sum((-3, -2, -1)))
    assert losses["reconstruction/state"].shape == losses["reconstruction/image"].shape == (1, 5)


def test_depth_is_the_sizes_or_the_one_given() -> None:
    assert {name: size.depth for name, size in SIZES.items()} == {
        "1m": 4,
        "12m": 16,
        "25m": 24,
        "50m": 32,
        "100m": 48,
        "200m": 64,
        "400m": 96,
    }
    widths = [layer.weight.shape[0] for layer in make("hidden", "image").image_encoder.convolutions]
    assert widths == [4, 6, 8, 8]
