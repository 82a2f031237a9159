"""The result of the aura-sr package itself: a new z for every tile, its random stream, its rounding.

Byte for byte for its tiles; of its overlapped tiles single bytes differ by one level (1 of 302,400 in a test).

For comparisons. What gigasr makes of the same weights by default has one z, no seams and takes a fraction of the time.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from gigasr.inference.devices import Place
from gigasr.inference.rows import Rows
from gigasr.models.aurasr import AuraWeights
from gigasr.pixels import signed_to_uint8, uint8_to_signed

BATCH = 8  # tiles at a time; part of the random stream
SMALLEST = 33  # px; reflection needs sides longer than half a tile


class TileModel:
    """AuraSR as its package runs it: a model whose results are the package's, to be used with fidelity 0."""

    takes_text = False

    def __init__(self, weights: AuraWeights, is_overlapped: bool) -> None:
        self.weights, self.is_overlapped, self.scale = weights, is_overlapped, weights.plan.scale
        self.scales = [self.scale]

    def engine(self, prompt: str, seed: int, place: Place, scale: int | None = None) -> "TileModel":
        """The model itself: it runs in fp32, and z is drawn for every tile."""
        return self

    def strips(self, lr: Rows, seed: int) -> Iterator[Tensor]:
        """lr: [1, 3, H, W] in [-1, 1], of 8 bits -> the result as one strip"""
        pixels = signed_to_uint8(torch.cat(list(lr), dim=2)[0])
        yield uint8_to_signed(upscale_tiles(self.weights, pixels, seed, self.is_overlapped)[None])


@torch.inference_mode()
def upscale_tiles(weights: AuraWeights, image: Tensor, seed: int, is_overlapped: bool) -> Tensor:
    """Enlarge an image 4 times as AuraSR.upscale_4x does after torch.manual_seed(seed), or upscale_4x_overlapped.

    image:   [3, H, W] uint8, on the device to work on
    returns: [3, 4H, 4W] uint8
    """
    _, height, width = image.shape
    if min(height, width) < SMALLEST:
        raise ValueError(f"image: expected sides of at least {SMALLEST} px, got {width}x{height}; leave it to gigasr")
    tile, scale = weights.config.input_image_size, weights.plan.scale
    rng = torch.Generator(image.device).manual_seed(seed)
    x = F.pad(image[None].float() / 255, (0, -width % tile, 0, -height % tile), mode="reflect")
    result = one_grid(weights, x, rng)
    if is_overlapped:
        edge = tile // 2
        shifted = one_grid(weights, F.pad(x, (edge,) * 4, mode="reflect"), rng)
        inner = slice(edge * scale, -edge * scale)
        result = blend(result, shifted[:, inner, inner], tile * scale)
    return (result[:, : height * scale, : width * scale] * 255).to(torch.uint8)


def one_grid(weights: AuraWeights, x: Tensor, rng: torch.Generator) -> Tensor:
    """Enlarge tile by tile. x: [1, 3, H, W] in [0, 1], multiples of a tile -> [3, 4H, 4W] in [0, 1]"""
    tile = weights.config.input_image_size
    rows, columns = x.shape[2] // tile, x.shape[3] // tile
    tiles = x[0].unflatten(1, (rows, tile)).unflatten(3, (columns, tile)).permute(1, 3, 0, 2, 4).flatten(0, 1)
    results = [run_batch(weights, part, rng) for part in tiles.split(BATCH)]
    y = torch.cat(results).unflatten(0, (rows, columns)).permute(2, 0, 3, 1, 4)
    return y.flatten(3, 4).flatten(1, 2)


def run_batch(weights: AuraWeights, tiles: Tensor, rng: torch.Generator) -> Tensor:
    """tiles: [B, 3, h, w] in [0, 1] -> [B, 3, 4h, 4w] in [0, 1]"""

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, device=rng.device)

    z_shape = len(tiles), weights.config.style_network.dim_in
    network = weights.per_sample(draw(*z_shape))
    noisy = tiles + draw(*tiles.shape) * 0.001
    draw(*z_shape)  # the original draws a z that it doesn't use
    return network.unit_tail(network.unit_body(noisy)).clamp_(0, 1)


def blend(result: Tensor, shifted: Tensor, tile: int) -> Tensor:
    """Weigh two grids, the second shifted by half a tile, by a bell around each tile's centre."""
    axis = torch.linspace(-1, 1, tile, device=result.device)
    bell = torch.exp(-16 * (axis[:, None].square() + axis.square()))
    rows, columns = result.shape[1] // tile, result.shape[2] // tile
    here = bell.repeat(rows, columns)
    other = bell.repeat(rows + 1, columns + 1)[tile // 2 : -tile // 2, tile // 2 : -tile // 2]
    return result * (here / (here + other)) + shifted * (other / (here + other))
