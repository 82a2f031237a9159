"""Low-res images from high-res ones: bicubic reduction and degradations.

Degradations imitate cameras, websites and repeated copies.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from gigasr.config.training import DegradationConfig
from gigasr.data.real_esrgan import degrade_real_esrgan, field_rng, jpeg, uniform
from gigasr.networks.ops import downsample_bicubic
from gigasr.pixels import quantize_8bit


def bicubic_low_res(hr: Tensor, scale: int) -> Tensor:
    """Reduce as PIL's BICUBIC does, antialiased, to 8 bit.

    hr:      [B, 3, H, W] in [-1, 1], multiples of scale
    returns: [B, 3, H / scale, W / scale] in [-1, 1]
    """
    return quantize_8bit(downsample_bicubic(hr, scale))


def add_gaussian_noise(lr: Tensor, max_std: float, rngs: Sequence[torch.Generator]) -> Tensor:
    """Add Gaussian noise; its std is drawn per image.

    lr:      [B, 3, H, W]
    max_std: the std is uniform in [0, max_std]
    rngs:    B, on the CPU
    returns: [B, 3, H, W]
    """
    stds = lr.new_tensor([uniform((0.0, max_std), rng) for rng in rngs])[:, None, None, None]
    fields = [torch.randn(lr.shape[1:], generator=field_rng(rng, lr.device), device=lr.device) for rng in rngs]
    return lr + stds * torch.stack(fields)


def degrade_mild(lr: Tensor, rngs: Sequence[torch.Generator]) -> Tensor:
    """Degrade as a phone and a website do: blur, noise, JPEG.

    Strengths are drawn per image.

    lr:      [B, 3, H, W] in [-1, 1]
    rngs:    B, on the CPU
    returns: [B, 3, H, W] in [-1, 1], 8-bit levels
    """
    from kornia.filters import gaussian_blur2d

    sigma = lr.new_tensor([uniform((0.2, 0.8), rng) for rng in rngs])[:, None].expand(-1, 2)
    x = gaussian_blur2d(lr, (5, 5), sigma, border_type="replicate")
    x = add_gaussian_noise(x, 0.03, rngs)
    return quantize_8bit(jpeg(x / 2 + 0.5, [uniform((60.0, 98.0), rng) for rng in rngs]) * 2 - 1)


def degrade(hr: Tensor, scale: int, config: DegradationConfig, rngs: Sequence[torch.Generator]) -> Tensor:
    """Make the low-res input of training: one of three ways, then noise.

    The ways are bicubic alone, mild degradation, and Real-ESRGAN's; each image draws a way.

    hr:      [B, 3, H, W] in [-1, 1], multiples of scale
    config:  shares of the ways and the largest std of the noise
    rngs:    B, on the CPU; an image's draws come from the image's own generator, so batch mates change nothing
    returns: [B, 3, H / scale, W / scale]  8-bit levels in [-1, 1], plus the noise

    Raises ValueError for another number of generators.

    Source: GigaGAN (arXiv:2303.05511), noise augmentation of the upsampler's input.
    """
    if len(rngs) != len(hr):
        raise ValueError(f"rngs: expected {len(hr)} generators, got {len(rngs)}; give one per image")
    draws = [uniform((0.0, 1.0), rng) for rng in rngs]
    mild = [i for i, u in enumerate(draws) if u < config.mild]
    strong = [i for i, u in enumerate(draws) if config.mild <= u < config.mild + config.real_esrgan]
    lr = bicubic_low_res(hr, scale)
    if mild:
        lr[mild] = degrade_mild(lr[mild], [rngs[i] for i in mild])
    if strong:
        lr[strong] = quantize_8bit(degrade_real_esrgan(hr[strong], scale, [rngs[i] for i in strong]))
    return add_gaussian_noise(lr, config.noise, rngs) if config.noise else lr
