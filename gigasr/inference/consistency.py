"""Correct a result towards its low-res image, and scale its detail.

The low-res correction (also: back-projection, data consistency) is y += U(G(x - D(y))). D downsamples (antialiased
bicubic, as in PIL) and U upsamples (bicubic). The small filter G inverts D U, hence one application suffices. D, U and
G are local, hence the correction runs on strips.
"""

from collections.abc import Iterable, Iterator
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from gigasr.inference.row_stream import RowStream, block_rows, resize_rows
from gigasr.networks.ops import add_upsampled_, downsample_bicubic, upsample_bicubic

RADIUS = 8  # taps of G on each side; the taps beyond are below 1e-4


@cache
@torch.inference_mode(False)  # the cached tensor must serve with and without gradients
def inverse_filter(scale: int) -> Tensor:
    """Compute the taps of G along one axis.

    G is the inverse of the response of D U to an impulse.

    returns: [2 * RADIUS + 1] float32, sum 1
    """
    length = 64
    impulse = torch.zeros(1, 1, length, length, dtype=torch.float64)
    impulse[..., length // 2] = 1.0
    response = downsample_bicubic(upsample_bicubic(impulse, scale), scale)[0, 0, length // 2].roll(-(length // 2))
    inverse = torch.fft.irfft(1.0 / torch.fft.rfft(response), length).roll(RADIUS)[: 2 * RADIUS + 1]
    return (inverse / inverse.sum()).float()


def invert(residual: Tensor, scale: int) -> Tensor:
    """Apply G along both axes.

    residual: [B, C, H, W]
    returns:  [B, C, H, W]  replicated beyond the border
    """
    channels = residual.shape[1]
    taps = inverse_filter(scale).to(residual).view(1, 1, 1, -1).expand(channels, -1, -1, -1)
    x = F.pad(residual, (RADIUS, RADIUS, RADIUS, RADIUS), mode="replicate")
    x = F.conv2d(x, taps, groups=channels)
    return F.conv2d(x, taps.transpose(2, 3), groups=channels)


def correct_strips(strips: Iterable[Tensor], lr: RowStream, scale: int, fidelity: float = 1.0) -> Iterator[Tensor]:
    """Correct a result strip by strip towards its low-res image.

    Memory holds one strip and about twenty low-res rows.

    strips:   [B, C, rows * scale, W * scale] from top to bottom; overwritten
    lr:       [B, C, H, W]  the low-res image, in the range of the strips
    fidelity: 0..1, the share of the difference to remove
    returns:  the corrected strips
    """
    height, width = lr.size
    y = RowStream((height * scale, width * scale), strips)
    reduced = resize_rows(y.tee(), lr.size)
    residual = RowStream(lr.size, _invert_rows(RowStream(lr.size, _subtract(lr, reduced)), scale))
    top = 0
    for strip in y:
        _add_rows(strip, residual, top, scale, fidelity)
        top += strip.shape[2] // scale
        yield strip
        del strip


def scale_detail(strips: Iterable[Tensor], lr: RowStream, scale: int, detail: float) -> Iterator[Tensor]:
    """Scale the detail that a result adds to bicubic upsampling, strip by strip.

    strips:  [B, C, rows * scale, W * scale] from top to bottom; overwritten
    lr:      [B, C, H, W]  the low-res image, in the range of the strips
    detail:  0 = bicubic upsampling alone, 1 = the result unchanged, above 1 = more detail
    returns: the scaled strips
    """
    top = 0
    for strip in strips:
        strip.mul_(detail)
        _add_rows(strip, lr, top, scale, 1 - detail)
        top += strip.shape[2] // scale
        yield strip
        del strip


def _add_rows(strip: Tensor, image: RowStream, top: int, scale: int, factor: float) -> None:
    """Add an image's upsampled rows, times a factor, to a strip.

    top: low-res row at which the strip begins
    """
    height, width = image.size
    block = block_rows(width)
    for start in range(0, strip.shape[2] // scale, block):
        stop = min(start + block, strip.shape[2] // scale)
        first, last = top + start - 2, top + stop + 2
        rows = image.read(max(first, 0), min(last, height))
        rows = F.pad(rows, (0, 0, max(-first, 0), max(last - height, 0)), mode="replicate")
        add_upsampled_(strip[:, :, start * scale : stop * scale], rows, scale, factor)


def _subtract(lr: RowStream, reduced: RowStream) -> Iterator[Tensor]:
    top = 0
    for strip in reduced:
        yield lr.read(top, top + strip.shape[2]) - strip
        top += strip.shape[2]


def _invert_rows(residual: RowStream, scale: int) -> Iterator[Tensor]:
    """Apply `invert` strip by strip."""
    height, block = residual.size[0], block_rows(residual.size[1])
    for top in range(0, height, block):
        bottom = min(top + block, height)
        first, last = max(top - RADIUS, 0), min(bottom + RADIUS, height)
        yield invert(residual.read(first, last), scale)[:, :, top - first : bottom - first]
