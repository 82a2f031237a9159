"""Low-res inputs of an evaluation: PIL's or MATLAB's bicubic, seeded degradations."""

import importlib
from collections.abc import Callable

import torch
from torch import Tensor

from gigasr.data.real_esrgan import (
    FIRST,
    SECOND,
    TUNED_SCALE,
    add_drawn_noise,
    blur,
    degrade_real_esrgan,
    draw_blur_kernel,
    draw_factor,
    jpeg,
    random_resize,
    scaled,
    uniform,
)
from gigasr.data.samples import sample_rng
from gigasr.evaluation.options import LowResKind
from gigasr.metrics import import_basicsr, low_res_from
from gigasr.networks.ops import resize
from gigasr.pixels import to_uint8

_Size = tuple[int, int]
Degrade = Callable[[Tensor, _Size, torch.Generator], Tensor]  # hr [1, 3, H, W], low-res size, rng


def downsample_matlab(hr: Tensor, scale: int) -> Tensor:
    """Downsample with MATLAB's bicubic imresize, in 8 bit.

    The classical super-resolution tables use such inputs.

    hr:      [3, H, W]  in [0, 1], multiples of scale
    returns: [3, H / scale, W / scale]  in [0, 1], multiples of 1/255

    Source: basicsr's imresize, rounded.
    """
    import_basicsr()
    imresize = importlib.import_module("basicsr.utils.matlab_functions").imresize
    reduced: Tensor = imresize(to_uint8(hr) / 255, 1 / scale)
    return to_uint8(reduced) / 255


def downscale(x: Tensor, size: _Size) -> Tensor:
    """x: [1, 3, H, W] -> [1, 3, *size] in [0, 1], antialiased bicubic"""
    return resize(x, size).clamp(0, 1)


def blurred(hr: Tensor, size: _Size, rng: torch.Generator) -> Tensor:
    """Blur with a drawn kernel, then downsample.

    The blur acts at up to four times the low-res size: the kernel widths were chosen for that scale.
    """
    large = downscale(hr, scaled(size, min(TUNED_SCALE, hr.shape[2] // size[0])))
    return downscale(blur(large, draw_blur_kernel(FIRST.sigma, rng)[None]), size)


def noisy(hr: Tensor, size: _Size, rng: torch.Generator) -> Tensor:
    """Add Gaussian or Poisson noise, coloured or grey, to the low-res image."""
    return add_drawn_noise(downscale(hr, size), FIRST, rng)


def compressed(hr: Tensor, size: _Size, rng: torch.Generator) -> Tensor:
    """Compress the low-res image as JPEG of a drawn quality."""
    return jpeg(downscale(hr, size), [uniform(FIRST.quality, rng)])


def resized(hr: Tensor, size: _Size, rng: torch.Generator) -> Tensor:
    """Resize with drawn filters: to two drawn sizes, then to the low-res size."""
    large = scaled(size, min(TUNED_SCALE, hr.shape[2] // size[0]))
    x = random_resize(downscale(hr, large), scaled(large, draw_factor(FIRST, rng)), rng)
    return random_resize(random_resize(x, scaled(size, draw_factor(SECOND, rng)), rng), size, rng)


def degrade_twice(hr: Tensor, size: _Size, rng: torch.Generator) -> Tensor:
    """Degrade in two rounds of blur, resizing, noise and JPEG, as in Real-ESRGAN."""
    return degrade_real_esrgan(hr * 2 - 1, hr.shape[2] // size[0], [rng]) / 2 + 0.5


DEGRADATIONS: dict[LowResKind, Degrade] = {
    "blur": blurred,
    "noise": noisy,
    "jpeg": compressed,
    "resize": resized,
    "blind": degrade_twice,
}


def degrade_by_kind(hr: Tensor, scale: int, kind: LowResKind, seed: int, name: str) -> Tensor:
    """Degrade an image by one of DEGRADATIONS; seed and name alone decide the draws.

    hr:      [3, H, W]  in [0, 1], multiples of scale
    returns: [3, H / scale, W / scale]  in [0, 1], multiples of 1/255
    """
    degraded = DEGRADATIONS[kind](hr[None], (hr.shape[1] // scale, hr.shape[2] // scale), sample_rng(seed, name))
    return to_uint8(degraded)[0] / 255


def make_low_res(hr: Tensor, scale: int, kind: LowResKind, seed: int, name: str) -> Tensor:
    """Make the low-res input of an image; only DEGRADATIONS use `seed` and `name`.

    hr:      [3, H, W]  in [0, 1], multiples of scale
    returns: [3, H / scale, W / scale]  in [0, 1], multiples of 1/255
    """
    if kind in DEGRADATIONS:
        return degrade_by_kind(hr, scale, kind, seed, name)
    return {"bicubic": low_res_from, "matlab": downsample_matlab}[kind](hr, scale)
