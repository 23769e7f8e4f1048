"""Image encoder and decoder against plain NumPy in the reference's names and layouts.

The NumPy side is written from the layout notes alone: kernels [kh, kw, in, out], one image at a time, every
enlarged picture made in full. Weights, biases and norm scales are all random, so that none can be left out.
"""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from worldmodels.config import WorldModelConfig
from worldmodels.context import ContextSpec
from worldmodels.images import ImageDecoder, ImageEncoder
from worldmodels.layers import initialize
from worldmodels.world_model import WorldModel

CONFIG = WorldModelConfig(deter=16, hidden=8, units=6, stoch=4, classes=3, depth=3, blocks=4, bins=11)
SHAPES = {"wrist": (32, 16, 1), "camera": (32, 16, 3)}  # not square, not in alphabetical order
LATENT, CONTEXT = 12, 2
Arrays = dict[str, np.ndarray]


def randomize(module: nn.Module, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    initialize(module.double(), generator)
    for parameter in module.parameters():
        if parameter.dim() == 1:  # biases and scales
            parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return module


def random_images(seed: int, batch: tuple[int, ...]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.randint(0, 256, (*batch, *shape), generator=generator, dtype=torch.uint8)
        for key, shape in SHAPES.items()
    }


# NumPy ---------------------------------------------------------------------------------------------------------


def reference_layout(module: ImageEncoder | ImageDecoder) -> Arrays:
    """The module's parameters under the reference's names."""
    if isinstance(module, ImageEncoder):
        names = {f"convolutions.{i}": f"cnn{i}" for i in range(4)} | {f"norms.{i}": f"cnn{i}norm" for i in range(4)}
    else:
        names = {"deter_in": "sp0", "stoch_in.linears.0": "sp1", "stoch_in.norms.0": "sp1norm"}
        names |= {"stoch_out": "sp2", "norm": "spnorm", "output": "imgout"}
        names |= {f"convolutions.{i}": f"conv{2 - i}" for i in range(3)}
        names |= {f"norms.{i}": f"conv{2 - i}norm" for i in range(3)}
    arrays = {}
    for name, parameter in module.named_parameters():
        layer, leaf = name.rsplit(".", 1)
        arrays[f"{names[layer]}/{leaf}"] = to_reference(parameter.detach().numpy())
    return arrays


def to_reference(array: np.ndarray) -> np.ndarray:
    """[O, I, kh, kw] to [kh, kw, I, O], [O, I] to [I, O]; the rest is stored alike."""
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0).copy()
    return array.T.copy() if array.ndim == 2 else array.copy()


def convolution(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    height, width, _ = x.shape
    padded = np.pad(x, ((2, 2), (2, 2), (0, 0)))
    out = np.empty((height, width, kernel.shape[-1]))
    for h in range(height):
        for w in range(width):
            out[h, w] = np.tensordot(padded[h : h + 5, w : w + 5], kernel, 3) + bias
    return out


def pool(x: np.ndarray) -> np.ndarray:
    height, width, channels = x.shape
    out = np.empty((height // 2, width // 2, channels))
    for h in range(height // 2):
        for w in range(width // 2):
            out[h, w] = x[2 * h : 2 * h + 2, 2 * w : 2 * w + 2].reshape(4, channels).max(0)
    return out


def double(x: np.ndarray) -> np.ndarray:
    return x.repeat(2, 0).repeat(2, 1)


def norm_silu(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-4) * scale
    return x / (1 + np.exp(-x))


def numpy_encoder(p: Arrays, images: Arrays) -> np.ndarray:
    """Features of one uint8 image per key."""
    x = np.concatenate([images[key] for key in sorted(images)], -1) / 255 - 0.5
    for i in range(4):
        x = norm_silu(pool(convolution(x, p[f"cnn{i}/weight"], p[f"cnn{i}/bias"])), p[f"cnn{i}norm/weight"])
    return x.flatten()


def numpy_decoder(p: Arrays, deter: np.ndarray, stoch: np.ndarray) -> np.ndarray:
    """All images of one latent, their channels joined, in [0, 1]."""
    blocks = len(p["sp0/weight"])
    parts = [part @ matrix for part, matrix in zip(np.split(deter, blocks), p["sp0/weight"], strict=True)]
    x0 = (np.concatenate(parts) + p["sp0/bias"]).reshape(blocks, 2, 1, -1)  # (block, h, w, c) for 32 x 16 pixels
    x0 = np.stack([np.concatenate([x0[g, h, 0] for g in range(blocks)])[None] for h in range(2)])
    x1 = norm_silu(stoch @ p["sp1/weight"] + p["sp1/bias"], p["sp1norm/weight"])
    x1 = (x1 @ p["sp2/weight"] + p["sp2/bias"]).reshape(2, 1, -1)
    x = norm_silu(x0 + x1, p["spnorm/weight"])
    for i in (2, 1, 0):
        x = norm_silu(convolution(double(x), p[f"conv{i}/weight"], p[f"conv{i}/bias"]), p[f"conv{i}norm/weight"])
    return 1 / (1 + np.exp(-convolution(double(x), p["imgout/weight"], p["imgout/bias"])))


def directional_differences(p: Arrays, loss, seed: int, step: float = 1e-6) -> dict[str, tuple[np.ndarray, float]]:
    """For every array a random direction and the central difference of ``loss(p)`` along it."""
    rng, found = np.random.default_rng(seed), {}
    for name, value in p.items():
        direction = rng.normal(size=value.shape)
        ahead, behind = (loss({**p, name: value + sign * step * direction}) for sign in (1, -1))
        found[name] = direction, (ahead - behind) / (2 * step)
    return found


def assert_gradients(module: ImageEncoder | ImageDecoder, differences: dict[str, tuple[np.ndarray, float]]) -> None:
    gradients = type(module).named_parameters(module)
    gradients = {name: to_reference(parameter.grad.numpy()) for name, parameter in gradients}
    assert len(gradients) == len(differences)
    for (name, gradient), (direction, difference) in zip(gradients.items(), differences.values(), strict=True):
        assert (gradient * direction).sum() == pytest.approx(difference, rel=1e-5, abs=1e-7), name


# Tests ---------------------------------------------------------------------------------------------------------


def test_encoder_in_numpy() -> None:
    """Alphabetical keys joined over channels; convolution, pooling, norm, SiLU; flattened as (h, w, c)."""
    encoder = randomize(ImageEncoder(CONFIG, SHAPES), 0)
    images = random_images(1, (2, 2))
    p = reference_layout(encoder)
    features = encoder(images)
    assert features.shape == (2, 2, encoder.size) and encoder.size == 2 * 1 * 12
    for b in range(2):
        for t in range(2):
            expected = numpy_encoder(p, {key: image[b, t].numpy() for key, image in images.items()})
            np.testing.assert_allclose(features[b, t].detach().numpy(), expected, rtol=1e-10, atol=1e-12)


def test_gradients_of_the_encoder_by_differences() -> None:
    encoder = randomize(ImageEncoder(CONFIG, SHAPES), 2)
    images = random_images(3, ())
    weights = np.random.default_rng(0).normal(size=encoder.size)
    arrays = {key: image.numpy() for key, image in images.items()}
    differences = directional_differences(
        reference_layout(encoder), lambda p: float((numpy_encoder(p, arrays) * weights).sum()), seed=4
    )
    (encoder(images) * torch.from_numpy(weights)).sum().backward()
    assert_gradients(encoder, differences)


def random_latent(seed: int, batch: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = (CONFIG.dimensions.deter, LATENT + CONTEXT)
    deter, stoch = (torch.randn(*batch, n, generator=generator, dtype=torch.float64) for n in sizes)
    return deter, stoch


def test_decoder_in_numpy() -> None:
    decoder = randomize(ImageDecoder(CONFIG, SHAPES, LATENT + CONTEXT), 0)
    deter, stoch = random_latent(1, (2, 2))
    p = reference_layout(decoder)
    pictures = decoder(deter, stoch)
    assert list(pictures) == ["camera", "wrist"]
    joined = torch.cat(list(pictures.values()), -1).detach().numpy()
    for b in range(2):
        for t in range(2):
            expected = numpy_decoder(p, deter[b, t].numpy(), stoch[b, t].numpy())
            np.testing.assert_allclose(joined[b, t], expected, rtol=1e-10, atol=1e-12)
    assert joined.std() > 0.05  # so that a constant picture would not do


def test_gradients_of_the_reconstruction_loss_by_differences() -> None:
    """Of every parameter and of the latents, through the loss as the world model defines it."""
    shapes = SHAPES
    model = WorldModel(CONFIG.model_copy(update={"context": "hidden"}), shapes, 2, ContextSpec()).double()
    decoder = randomize(model.image_decoder, 5)
    deter, stoch = random_latent(6, ())
    stoch = stoch[:LATENT]
    images = random_images(7, ())
    targets = np.concatenate([images[key].numpy() for key in sorted(images)], -1) / 255

    def loss(p: Arrays) -> float:
        return float(((numpy_decoder(p, p["deter"], p["stoch"]) - targets) ** 2).sum())

    inputs = {"deter": deter.numpy(), "stoch": stoch.numpy()}
    differences = directional_differences(reference_layout(decoder) | inputs, loss, seed=8)
    latent = {
        "deter": deter.expand(1, 1, -1).clone().requires_grad_(),
        "stoch": stoch.reshape(1, 1, 3, 4).clone().requires_grad_(),
    }
    posterior = latent | {"probabilities": torch.full((1, 1, 3, 4), 1 / 3, dtype=torch.float64)}
    ones, nothing = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, 0, dtype=torch.float64)
    observations = {key: image.expand(1, 1, *image.shape) for key, image in images.items()}
    losses, _ = model.losses(posterior, observations, ones, ones, nothing, ones[0, 0])
    total = losses["reconstruction/camera"].sum() + losses["reconstruction/wrist"].sum()
    assert total.item() == pytest.approx(loss(reference_layout(decoder) | inputs), rel=1e-10)
    total.backward()
    for name, value in latent.items():
        direction, difference = differences.pop(name)
        assert (value.grad.flatten().numpy() * direction).sum() == pytest.approx(difference, rel=1e-5)
    assert_gradients(decoder, differences)


def test_a_convolution_is_not_flipped_and_pads_with_zeros() -> None:
    """By hand: a kernel with one weight moves the picture, what enters at the border is 0."""
    encoder = ImageEncoder(CONFIG, {"image": (16, 16, 1)})
    layer = encoder.convolutions[0]
    nn.init.zeros_(layer.weight), nn.init.zeros_(layer.bias)
    layer.weight.data[0, 0, 1, 4] = 2.0  # one row up, two columns right of the centre
    x = torch.arange(1.0, 257.0).reshape(1, 16, 16, 1)
    y = layer(x)[0, :, :, 0]
    expected = torch.zeros(16, 16)
    expected[1:, :-2] = 2 * x[0, :-1, 2:, 0]
    assert torch.equal(y, expected)


@pytest.mark.parametrize("value", [0, 255])
def test_extreme_pixels(value: int) -> None:
    """0 and 255 enter as -0.5 and 0.5 and are the ends of what the decoder can say, without overflow."""
    model = WorldModel(CONFIG.model_copy(update={"context": "hidden"}), SHAPES, 2, ContextSpec()).double()
    encoder, decoder = randomize(model.image_encoder, 0), randomize(model.image_decoder, 1)
    images = {key: torch.full((1, 1, *shape), value, dtype=torch.uint8) for key, shape in SHAPES.items()}
    seen = []
    encoder.convolutions[0].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    features = encoder(images)
    assert (seen[0] == (0.5 if value else -0.5)).all()
    expected = numpy_encoder(reference_layout(encoder), {key: image[0, 0].numpy() for key, image in images.items()})
    np.testing.assert_allclose(features[0, 0].detach().numpy(), expected, rtol=1e-10, atol=1e-12)

    zeros = {name: torch.zeros(1, 1, *shape, dtype=torch.float64) for name, shape in (("deter", (16,)), ("s", (3, 4)))}
    latent = {"deter": zeros["deter"], "stoch": zeros["s"]}
    ones, nothing = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, 0, dtype=torch.float64)
    posterior = latent | {"probabilities": zeros["s"] + 1 / 3}
    for said, bias in ((255, 1e4), (0, -1e4)):
        nn.init.constant_(decoder.output.bias, bias)
        losses, _ = model.losses(posterior, images, ones, ones, nothing, ones[0, 0])
        for key, shape in SHAPES.items():
            wrong = 0.0 if said == value else float(np.prod(shape))  # every pixel is off by 1
            assert losses[f"reconstruction/{key}"].item() == wrong
            assert (model.predict(latent, nothing)[f"observation/{key}"] == said).all()


def test_leading_dimensions_make_no_difference() -> None:
    encoder = randomize(ImageEncoder(CONFIG, SHAPES), 0)
    decoder = randomize(ImageDecoder(CONFIG, SHAPES, LATENT + CONTEXT), 1)
    images, (deter, stoch) = random_images(2, (2, 3)), random_latent(3, (2, 3))
    one = encoder({key: image[1, 2] for key, image in images.items()})
    torch.testing.assert_close(one, encoder(images)[1, 2])
    picture = decoder(deter[1, 2], stoch[1, 2])["camera"]
    assert picture.shape == SHAPES["camera"]
    torch.testing.assert_close(picture, decoder(deter, stoch)["camera"][1, 2])


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"image": (64, 64)}, r"'image' has shape \(64, 64\); valid are vectors \[n\] and images \[H, W, C\]"),
        ({"image": (4, 64, 64, 3)}, r"'image' has shape \(4, 64, 64, 3\); valid are vectors"),
        ({"image": (64, 60, 3)}, r"'image' has shape \(64, 60, 3\); valid .* multiples of 16"),
        ({"image": (3, 64, 64)}, r"'image' has shape \(3, 64, 64\); valid .* multiples of 16"),
        ({"image": (0, 64, 3)}, r"'image' has shape \(0, 64, 3\)"),
        ({"a": (64, 64, 3), "b": (32, 64, 3)}, r"one height and width.*'a' \(64, 64, 3\), 'b' \(32, 64, 3\)"),
        ({"context": (3,)}, "'context' needs another name"),
    ],
)
def test_impossible_shapes_are_refused_in_one_line(shapes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        WorldModel(CONFIG, shapes, 2, ContextSpec())
    assert "\n" not in str(error.value)


def test_blocks_that_do_not_divide_the_channels_are_refused_with_images_alone() -> None:
    config = CONFIG.model_copy(update={"blocks": 16})
    with pytest.raises(ValueError, match=r"blocks=16 must divide the 12 channels"):
        WorldModel(config, SHAPES, 2, ContextSpec())
    WorldModel(config, {"state": (3,)}, 2, ContextSpec())


@pytest.mark.parametrize(
    "image", [torch.rand(2, 32, 16, 3), torch.zeros(2, 16, 16, 3, dtype=torch.uint8), torch.zeros(2, 3, 32, 16)]
)
def test_images_of_another_type_or_shape_are_refused(image: Tensor) -> None:
    encoder = ImageEncoder(CONFIG, {"image": (32, 16, 3)})
    with pytest.raises(ValueError, match=r"'image' is torch\..*; valid is torch.uint8 \(32, 16, 3\) with values 0 to"):
        encoder({"image": image})
