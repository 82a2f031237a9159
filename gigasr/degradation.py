"""Low-res images from high-res ones: bicubic reduction, and mild camera-like degradations (blur, noise, JPEG)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def round_to_8_bit(x: Tensor) -> Tensor:
    """x: [-1, 1] -> the nearest of the 256 levels a file can hold, in [-1, 1]"""
    return ((x.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def bicubic(hr: Tensor, scale: int) -> Tensor:
    """Reduce as PIL's BICUBIC does, antialiased, to 8 bit.

    hr:      [B, 3, H, W] in [-1, 1], multiples of scale
    returns: [B, 3, H / scale, W / scale] in [-1, 1]
    """
    size = (hr.shape[2] // scale, hr.shape[3] // scale)
    return round_to_8_bit(F.interpolate(hr, size, mode="bicubic", antialias=True, align_corners=False))


def uniform(low: float, high: float, count: int, rng: torch.Generator) -> Tensor:
    """returns: [count] uniform in [low, high)"""
    return low + (high - low) * torch.rand(count, generator=rng)


def camera(lr: Tensor, rng: torch.Generator) -> Tensor:
    """Degrade as a phone and a website do: blur, noise, JPEG, each drawn per sample.

    lr:      [B, 3, H, W] in [-1, 1]
    rng:     on the CPU
    returns: [B, 3, H, W] in [-1, 1], 8 bit levels
    """
    from kornia.enhance import jpeg_codec_differentiable
    from kornia.filters import gaussian_blur2d

    count, height, width = len(lr), *lr.shape[2:]
    sigma = uniform(0.2, 0.8, count, rng)[:, None].expand(-1, 2).to(lr.device)
    x = gaussian_blur2d(lr, (5, 5), sigma, border_type="replicate")
    noise_std = uniform(0.0, 0.03, count, rng)[:, None, None, None]
    x = x + (noise_std * torch.randn(x.shape, generator=rng)).to(x.device)
    x = F.pad(x, (0, -width % 16, 0, -height % 16), mode="replicate")
    x = jpeg_codec_differentiable((x.clamp(-1, 1) + 1) / 2, uniform(60.0, 98.0, count, rng).to(x.device))
    return round_to_8_bit(x[:, :, :height, :width] * 2 - 1)


def degrade(hr: Tensor, scale: int, probability: float, rng: torch.Generator) -> Tensor:
    """Make the low-res input of training: bicubic always, camera degradations for some samples.

    hr:          [B, 3, H, W] in [-1, 1]
    probability: share of the samples that `camera` degrades
    rng:         on the CPU; the same state gives the same images
    returns:     [B, 3, H / scale, W / scale] in [-1, 1]
    """
    lr = bicubic(hr, scale)
    chosen = torch.rand(len(hr), generator=rng) < probability
    if chosen.any():
        lr = lr.clone()
        lr[chosen] = camera(lr[chosen], rng)
    return lr
