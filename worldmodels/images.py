"""Encoder and decoder of images (danijar/dreamerv3 at e3f0224, ``rssm.Encoder`` and ``rssm.Decoder``).

Symbols: N any leading dimensions; B one batch dimension; H, W, C height, width and channels; I, O channels in and
out; D deter; S latents and whatever joins them; U features. Images are channels-last, [..., H, W, C], and the
convolutions see that memory as it is: PyTorch's ``channels_last`` format is the same bytes under permuted strides.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from worldmodels.config import WorldModelConfig
from worldmodels.layers import MLP, BlockLinear, Linear, RMSNorm, full_precision, truncated_normal_

KERNEL = 5  # side of every convolution
MULTIPLES = (2, 3, 4, 4)  # channels of the four levels, in multiples of the depth
FACTOR = 2 ** len(MULTIPLES)  # by which height and width shrink: 64 to 4
HIGHEST = 255  # of a pixel


def check_image_shapes(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int]:
    """Return the (height, width) that all images share.

    Raises:
        ValueError: when a side is not a multiple of 16, a size is not positive, or images differ in height or width.
    """
    for key, (height, width, channels) in shapes.items():
        if min(height, width, channels) < 1 or height % FACTOR or width % FACTOR:
            valid = f"valid are images [H, W, C] with H and W multiples of {FACTOR} and C at least 1, like [64, 64, 3]"
            raise ValueError(f"observation '{key}' has shape {tuple(shapes[key])}; {valid}")
    if len({shape[:2] for shape in shapes.values()}) > 1:
        given = ", ".join(f"'{key}' {tuple(shape)}" for key, shape in sorted(shapes.items()))
        raise ValueError(f"images need one height and width, since their channels are joined, not {given}")
    height, width, _ = next(iter(shapes.values()))
    return height, width


class Convolution(nn.Module):
    """A 5x5 convolution of stride 1 with bias and zero padding that keeps height and width.

    ``weight`` is [O, I, 5, 5] and not flipped (a cross-correlation, as is usual).
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, KERNEL, KERNEL))
        self.bias = nn.Parameter(torch.empty(outputs))

    def initialize(self, generator: torch.Generator) -> None:
        """Draw the weights with a fan-in of 25 I; biases are 0."""
        truncated_normal_(self.weight, self.weight[0].numel(), 1.0, generator)
        nn.init.zeros_(self.bias)

    def forward(self, x: Float[Tensor, "B H W I"]) -> Float[Tensor, "B H W O"]:
        """Convolve."""
        return F.conv2d(x.movedim(-1, 1), self.weight, self.bias, padding=KERNEL // 2).movedim(1, -1)


class DoublingConvolution(Convolution):
    """The same after doubling height and width by repetition (nearest neighbour).

    The enlarged image is never made. Seen from one output pixel, five neighbours of the enlarged image are copies of
    three of the original, in one of two ways: an even row sees them under the weights (0+1, 2+3, 4), an odd row under
    (0, 1+2, 3+4), columns likewise. So one 3x3 convolution of the original with four times the outputs gives the four
    pixels in the place of each, for 9/25 of the multiplications.
    """

    def forward(self, x: Float[Tensor, "B H W I"]) -> Float[Tensor, "B 2*H 2*W O"]:
        """Double and convolve."""
        outputs, inputs = self.weight.shape[:2]
        pairs = F.pad(self.weight, (1, 1, 1, 1))
        pairs = pairs[..., 1:] + pairs[..., :-1]
        pairs = pairs[..., 1:, :] + pairs[..., :-1, :]  # sums 0, 0+1, 1+2, 2+3, 3+4, 4 in both directions
        phases = pairs.unflatten(-1, (3, 2)).unflatten(-3, (3, 2)).flip(-1, -3)  # [O, I, 3, row, 3, column]
        weight = phases.permute(3, 5, 0, 1, 2, 4).reshape(4 * outputs, inputs, 3, 3)
        y = F.conv2d(x.movedim(-1, 1), weight, self.bias.repeat(4), padding=1).movedim(1, -1)
        y = y.unflatten(-1, (2, 2, outputs)).movedim(3, 2)  # [B, H, row, W, column, O]
        return y.flatten(3, 4).flatten(1, 2)


class ImageEncoder(nn.Module):
    """Convolution -> 2x2 max-pooling -> RMSNorm over channels -> SiLU, four times, on all images' channels together.

    Args:
        config: sizes.
        shapes: [H, W, C] of each image, by observation key; keys are joined in alphabetical order.

    Raises:
        ValueError: see ``check_image_shapes``.
    """

    def __init__(self, config: WorldModelConfig, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__()
        height, width = check_image_shapes(shapes)
        depth = config.dimensions.depth
        self.shapes = {key: tuple(shapes[key]) for key in sorted(shapes)}
        channels = [sum(shape[-1] for shape in shapes.values()), *(depth * multiple for multiple in MULTIPLES)]
        self.convolutions = nn.ModuleList(Convolution(a, b) for a, b in zip(channels, channels[1:], strict=False))
        self.norms = nn.ModuleList(RMSNorm(outputs) for outputs in channels[1:])
        self.size = height // FACTOR * (width // FACTOR) * channels[-1]

    def forward(self, images: Mapping[str, Tensor]) -> Float[Tensor, "*N U"]:
        """Return the features of uint8 images [..., H, W, C], flattened as (h, w, c).

        Raises:
            ValueError: when an image is not uint8 or not of the shape that the encoder was made for.
        """
        for key, shape in self.shapes.items():
            image = images[key]
            if image.dtype != torch.uint8 or image.shape[-3:] != shape:
                given = f"{image.dtype} {tuple(image.shape[-3:])}"
                raise ValueError(f"observation '{key}' is {given}; valid is torch.uint8 {shape} with values 0 to 255")
        joined = [images[key] for key in self.shapes]
        pixels = joined[0] if len(joined) == 1 else torch.cat(joined, -1)
        return self._features(pixels)

    def _features(self, pixels: UInt8[Tensor, "*N H W C"]) -> Float[Tensor, "*N U"]:
        batch = pixels.shape[:-3]
        x = pixels.reshape(-1, *pixels.shape[-3:]).to(next(self.parameters()).dtype)
        x = x.div_(HIGHEST).sub_(0.5)  # in place: the conversion has made a copy
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.max_pool2d(convolution(x).movedim(-1, 1), 2).movedim(1, -1)
            x = F.silu(norm(x))
        return x.reshape(*batch, self.size)


class ImageDecoder(nn.Module):
    """From a latent to images: a picture of H/16 x W/16 from deter and stoch, then four times twice as large.

    Each block of deter draws its own channels of the first picture (BlockLinear). What stoch adds passes a layer of
    twice the units. Their sum is normalized; then come nearest-neighbour doubling and convolution, with RMSNorm and
    SiLU between, and a sigmoid.

    Args:
        config: sizes.
        shapes: [H, W, C] of each image, by observation key.
        stoch: width S of the flat latents and whatever joins them.

    Raises:
        ValueError: when ``blocks`` does not divide the channels, and see ``check_image_shapes``.
    """

    def __init__(self, config: WorldModelConfig, shapes: Mapping[str, tuple[int, ...]], stoch: int) -> None:
        super().__init__()
        height, width = check_image_shapes(shapes)
        size, self.blocks = config.dimensions, config.blocks
        widths = [size.depth * multiple for multiple in reversed(MULTIPLES)]
        channels = widths[0]
        if channels % self.blocks:
            last = f"the {channels} channels of the smallest picture ({MULTIPLES[-1]} * depth)"
            raise ValueError(f"blocks={self.blocks} must divide {last} where there are images")
        self.channels = {key: shapes[key][-1] for key in sorted(shapes)}
        self.smallest = (height // FACTOR, width // FACTOR, channels)
        pixels = height // FACTOR * (width // FACTOR) * channels
        self.deter_in = BlockLinear(size.deter, pixels, self.blocks)
        self.stoch_in = MLP(stoch, 2 * size.units, 1)
        self.stoch_out = Linear(2 * size.units, pixels)
        self.norm = RMSNorm(channels)
        self.convolutions = nn.ModuleList(DoublingConvolution(a, b) for a, b in zip(widths, widths[1:], strict=False))
        self.norms = nn.ModuleList(RMSNorm(outputs) for outputs in widths[1:])
        self.output = DoublingConvolution(widths[-1], sum(self.channels.values()))

    def forward(self, deter: Float[Tensor, "*N D"], stoch: Float[Tensor, "*N S"]) -> dict[str, Tensor]:
        """Return each image [..., H, W, C] in [0, 1], in full precision."""
        batch = deter.shape[:-1]
        x = F.silu(self.norm(self._smallest(deter.reshape(-1, deter.shape[-1]), stoch.reshape(-1, stoch.shape[-1]))))
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.silu(norm(convolution(x)))
        x = torch.sigmoid(full_precision(self.output(x)))
        x = x.reshape(*batch, *x.shape[1:])
        return dict(zip(self.channels, x.split(list(self.channels.values()), -1), strict=True))

    def _smallest(self, deter: Float[Tensor, "B D"], stoch: Float[Tensor, "B S"]) -> Float[Tensor, "B h w c"]:
        """The first picture, before its norm: the block's channels of deter's part lie behind (block, h, w)."""
        height, width, channels = self.smallest
        blocks = self.deter_in(deter).unflatten(-1, (self.blocks, height, width, channels // self.blocks))
        return blocks.movedim(1, 3).flatten(-2) + self.stoch_out(self.stoch_in(stoch)).unflatten(-1, self.smallest)
