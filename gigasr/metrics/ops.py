"""Differentiable functions of metrics and losses: luma, SSIM, power spectrum."""

import torch
import torch.nn.functional as F
from torch import Tensor

from gigasr.pixels import LUMA

NUM_RINGS = 32  # radial rings of the power spectrum, from zero to the Nyquist frequency
SSIM_WINDOW = 11  # px
SSIM_SIGMA = 1.5  # px


def luma(images: Tensor) -> Tensor:
    """images: [..., 3, H, W] in [0, 1] -> [..., H, W] BT.601 in studio range, 16..235, not rounded"""
    return torch.einsum("c,...chw->...hw", images.new_tensor([219 * weight for weight in LUMA]), images) + 16


def structural_similarity(x: Tensor, y: Tensor) -> Tensor:
    """Compare means, contrasts and structures in a Gaussian window per pixel.

    Only pixels whose window fits into the image count.

    x, y:    [..., H, W]  luma with a peak of 255
    returns: [..., H - SSIM_WINDOW + 1, W - SSIM_WINDOW + 1]  at most 1, for equal images

    Source: Image Quality Assessment: From Error Visibility to Structural Similarity (IEEE TIP 2004).
    """
    offsets = torch.arange(SSIM_WINDOW, dtype=x.dtype, device=x.device) - SSIM_WINDOW // 2
    window = torch.softmax(-0.5 * (offsets / SSIM_SIGMA) ** 2, dim=0)
    maps = torch.stack([x, y, x * x, y * y, x * y]).flatten(0, -3).unsqueeze(1)
    maps = F.conv2d(F.conv2d(maps, window.view(1, 1, 1, -1)), window.view(1, 1, -1, 1))
    mean_x, mean_y, square_x, square_y, product = maps.reshape(5, *x.shape[:-2], *maps.shape[2:])
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = (2 * mean_x * mean_y + c1) * (2 * (product - mean_x * mean_y) + c2)
    return similarity / ((mean_x**2 + mean_y**2 + c1) * (square_x - mean_x**2 + square_y - mean_y**2 + c2))


def radial_spectrum(luma: Tensor, noise: float = 0.0) -> Tensor:
    """Compute the power of each ring of frequencies in an image's central square.

    luma:    [..., H, W]  at least 2 * NUM_RINGS px a side
    noise:   variance of white noise, added to all rings
    returns: [..., NUM_RINGS - 1]  mean power per ring in dB, without the ring around zero frequency
    """
    size = min(luma.shape[-2:])
    top, left = ((length - size) // 2 for length in luma.shape[-2:])
    line = torch.hann_window(size, periodic=False, dtype=luma.dtype, device=luma.device)
    window = line * line[:, None]
    power = torch.fft.fft2(luma[..., top : top + size, left : left + size] * window).abs().square().flatten(-2)
    squared = (torch.fft.fftfreq(size, dtype=torch.float64) * size).round().square()  # in cycles per image
    ring = ((squared + squared[:, None]).sqrt() * 2 * NUM_RINGS / size).long()  # size / 2 is Nyquist
    ring = ring.clamp_max(NUM_RINGS).flatten().to(luma.device)
    total = power.new_zeros(*power.shape[:-1], NUM_RINGS + 1).index_add(-1, ring, power)
    mean = total / power.new_zeros(NUM_RINGS + 1).index_add(0, ring, power.new_ones(len(ring)))
    return 10 * (mean[..., 1:NUM_RINGS] + noise * window.square().sum()).clamp_min(1e-12).log10()
