"""Real-ESRGAN's degradation: two rounds of blur, resizing, noise and JPEG.

Source: Real-ESRGAN (arXiv:2107.10833), high-order degradation, with the shares and ranges of its x4plus training.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gigasr.networks.ops import resize
from gigasr.pixels import LUMA, to_uint8

_Range = tuple[float, float]

TUNED_SCALE = 4  # high-res over low-res size for which the ranges below were chosen
KERNEL_SIZE = 21  # px; all kernels are padded to it
SINC_SHARE = 0.1  # of the kernels of either stage
FINAL_SINC_SHARE = 0.8  # of the images
GRAY_SHARE = 0.4  # of the noise


@dataclass(frozen=True)
class DegradationRound:
    """Probabilities and ranges of one round of degradation."""

    blur: float  # probability
    sigma: _Range  # px, of the blur kernels
    directions: tuple[float, float, float]  # shares of upsampling, downsampling, keeping the size
    resize: _Range  # of the factor
    gaussian: _Range  # of the std, in 8-bit levels
    poisson: _Range  # of the gain
    quality: _Range = (30, 95)  # of JPEG


FIRST = DegradationRound(1.0, (0.2, 3.0), (0.2, 0.7, 0.1), (0.15, 1.5), (1, 30), (0.05, 3.0))
SECOND = DegradationRound(0.8, (0.2, 1.5), (0.3, 0.4, 0.3), (0.3, 1.2), (1, 25), (0.05, 2.5))


def uniform(limits: _Range, rng: torch.Generator) -> float:
    """Draw a number uniformly from [low, high)."""
    low, high = limits
    return low + (high - low) * torch.rand((), generator=rng).item()


def draw_bool(probability: float, rng: torch.Generator) -> bool:
    """Draw True with this probability."""
    return torch.rand((), generator=rng).item() < probability


def pick(shares: Sequence[float], rng: torch.Generator) -> int:
    """Draw an index; the shares are the probabilities."""
    return int(torch.multinomial(torch.tensor(shares, dtype=torch.float32), 1, generator=rng))


def field_rng(rng: torch.Generator, device: torch.device) -> torch.Generator:
    """Make a generator on the device for fields of noise, seeded from rng."""
    return torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=rng)))


def generalised_gaussian(distance: Tensor, beta: float) -> Tensor:
    """Evaluate a generalised Gaussian; beta 1 is the Gaussian, less is more pointed.

    distance: squared, in sigmas
    """
    return torch.exp(-0.5 * distance**beta)


def plateau(distance: Tensor, beta: float) -> Tensor:
    """Evaluate a bell with a flat top; a larger beta is flatter within one sigma.

    distance: squared, in sigmas
    """
    return 1 / (1 + distance**beta)


BLUR_KERNELS: tuple[tuple[Callable[[Tensor, float], Tensor], _Range, bool, float], ...] = (
    (
        generalised_gaussian,
        (1.0, 1.0),
        True,
        0.45,
    ),  # profile, range of beta, whether equally wide in all directions, share
    (generalised_gaussian, (1.0, 1.0), False, 0.25),
    (generalised_gaussian, (0.5, 4.0), True, 0.12),
    (generalised_gaussian, (0.5, 4.0), False, 0.03),
    (plateau, (1.0, 2.0), True, 0.12),
    (plateau, (1.0, 2.0), False, 0.03),
)


def grid(size: int) -> tuple[Tensor, Tensor]:
    """Return the coordinates y [K, 1] and x [1, K], px from the centre."""
    axis = torch.arange(size) - (size - 1) / 2
    return axis[:, None], axis[None, :]


def squared_distance(size: int, sigma_x: float, sigma_y: float, angle: float) -> Tensor:
    """Measure squared distances from the centre in sigmas of a rotated ellipse.

    sigma_x, sigma_y: px, along the two axes of the ellipse
    angle:            radians from the x axis of the image towards its y axis (down)
    returns:          [K, K]
    """
    y, x = grid(size)
    cos, sin = math.cos(angle), math.sin(angle)
    return ((x * cos + y * sin) / sigma_x).square() + ((y * cos - x * sin) / sigma_y).square()


def sinc_kernel(size: int, cutoff: float) -> Tensor:
    """Compute the ideal circular low-pass filter, cut to a square.

    The filter rings, as sharpened pictures do.

    cutoff:  radians per px; pi keeps everything up to the pixel grid's limit along the axes
    returns: [K, K]  cutoff J1(cutoff r) / (2 pi r), scaled to sum 1
    """
    y, x = grid(size)
    radius = torch.hypot(x, y)
    centre = radius == 0
    safe = radius.masked_fill(centre, 1.0)
    kernel = cutoff * torch.special.bessel_j1(cutoff * safe) / (2 * math.pi * safe)
    kernel = kernel.masked_fill(centre, cutoff**2 / (4 * math.pi))
    return kernel / kernel.sum()


def pad_kernel(kernel: Tensor) -> Tensor:
    """kernel: [K, K], K odd -> [21, 21] with zeros around"""
    return F.pad(kernel, [(KERNEL_SIZE - len(kernel)) // 2] * 4)


def draw_size(rng: torch.Generator) -> int:
    """Draw a kernel size, one of the odd numbers 7..21."""
    return 7 + 2 * int(torch.randint(8, (), generator=rng))


def draw_blur_kernel(sigma: _Range, rng: torch.Generator) -> Tensor:
    """Draw a blur kernel: mostly bells of several shapes, sometimes a sinc.

    sigma:   px, range of the bells' widths
    returns: [21, 21]  sum 1
    """
    size = draw_size(rng)
    if draw_bool(SINC_SHARE, rng):
        return pad_kernel(sinc_kernel(size, uniform((math.pi / (3 if size < 13 else 5), math.pi), rng)))
    profile, (low, high), is_round, _ = BLUR_KERNELS[pick([bell[-1] for bell in BLUR_KERNELS], rng)]
    sigma_x = uniform(sigma, rng)
    sigma_y, angle = (sigma_x, 0.0) if is_round else (uniform(sigma, rng), uniform((-math.pi, math.pi), rng))
    beta = uniform((low, 1.0) if draw_bool(0.5, rng) else (1.0, high), rng)
    kernel = profile(squared_distance(size, sigma_x, sigma_y, angle), beta)
    return pad_kernel(kernel / kernel.sum())


def blur(x: Tensor, kernels: Tensor) -> Tensor:
    """Filter each image with its own kernel, in one grouped convolution.

    x:       [B, 3, H, W]
    kernels: [B, K, K]  K odd
    returns: [B, 3, H, W]
    """
    from kornia.filters import filter2d

    return filter2d(x, kernels.to(x.device), border_type="replicate")


def random_resize(x: Tensor, size: tuple[int, int], rng: torch.Generator) -> Tensor:
    """Resize by area, bilinear or bicubic interpolation, drawn.

    x:       [B, 3, H, W]
    returns: [B, 3, *size]

    Differs from the paper: shrinking is always antialiased.
    """
    mode = ("area", "bilinear", "bicubic")[pick([1, 1, 1], rng)]
    if size == tuple(x.shape[2:]):
        return x
    return F.interpolate(x, size, mode=mode, antialias=mode != "area")


def draw_factor(stage: DegradationRound, rng: torch.Generator) -> float:
    """Draw the factor of a resize; 1 keeps the size."""
    low, high = stage.resize
    return uniform(((1.0, high), (low, 1.0), (1.0, 1.0))[pick(stage.directions, rng)], rng)


def scaled(size: tuple[int, int], factor: float) -> tuple[int, int]:
    """Return size * factor, rounded, at least one pixel."""
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def gaussian_noise(x: Tensor, std: float, is_gray: bool, rng: torch.Generator) -> Tensor:
    """x: [1, 3, H, W], rng on x's device -> [1, 1 or 3, H, W]"""
    return std * torch.randn(1, 1 if is_gray else 3, *x.shape[2:], device=x.device, generator=rng)


def poisson_noise(x: Tensor, gain: float, is_gray: bool, rng: torch.Generator) -> Tensor:
    """Draw the noise of a sensor that counts 255 photons at white.

    x:       [1, 3, H, W] in [0, 1]
    rng:     on x's device
    returns: [1, 1 or 3, H, W]  variance gain^2 x / 255; of the luma if gray

    Differs from the source. The count at white is always 255. The source takes the number of levels in the image, so
    flat pictures drown in noise.
    """
    if is_gray:
        x = (x * x.new_tensor(LUMA)[:, None, None]).sum(dim=1, keepdim=True)
    photons = to_uint8(x).to(x.dtype)
    return gain * (torch.poisson(photons, generator=rng) - photons) / 255


def add_drawn_noise(x: Tensor, stage: DegradationRound, rng: torch.Generator) -> Tensor:
    """x: [1, 3, H, W] in [0, 1] -> the same with Gaussian or Poisson noise, coloured or gray"""
    is_gray = draw_bool(GRAY_SHARE, rng)
    if draw_bool(0.5, rng):
        noise = gaussian_noise(x, uniform(stage.gaussian, rng) / 255, is_gray, field_rng(rng, x.device))
    else:
        noise = poisson_noise(x, uniform(stage.poisson, rng), is_gray, field_rng(rng, x.device))
    return (x + noise).clamp(0, 1)


def jpeg(x: Tensor, qualities: Sequence[float]) -> Tensor:
    """Compress and decompress with subsampled colours, each image at its own quality.

    x:         [B, 3, H, W] in [0, 1], any size
    qualities: B numbers from 1 to 100
    returns:   [B, 3, H, W] in [0, 1]
    """
    from kornia.enhance import jpeg_codec_differentiable

    height, width = x.shape[2:]
    x = F.pad(x.clamp(0, 1), (0, -width % 16, 0, -height % 16), mode="replicate")
    return jpeg_codec_differentiable(x, x.new_tensor(qualities))[:, :, :height, :width].clamp(0, 1)


def downsample_to_low_res(x: Tensor, size: tuple[int, int], rng: torch.Generator) -> Tensor:
    """x: [1, 3, h, w] -> [1, 3, *size], most with the ringing of a sinc"""
    x = random_resize(x, size, rng)
    if draw_bool(FINAL_SINC_SHARE, rng):
        x = blur(x, pad_kernel(sinc_kernel(draw_size(rng), uniform((math.pi / 3, math.pi), rng)))[None])
    return x


def after_first_blur(x: Tensor, size: tuple[int, int], rng: torch.Generator) -> Tensor:
    """Apply everything after the first blur to one image.

    x:       [1, 3, H, W] in [0, 1]
    size:    of the low-res image
    returns: [1, 3, *size] in [0, 1]
    """
    height, width = x.shape[2:]
    x = random_resize(x, scaled((height, width), draw_factor(FIRST, rng)), rng)
    x = jpeg(add_drawn_noise(x, FIRST, rng), [uniform(FIRST.quality, rng)])
    if draw_bool(SECOND.blur, rng):
        x = blur(x, draw_blur_kernel(SECOND.sigma, rng)[None])
    x = random_resize(x, scaled(size, draw_factor(SECOND, rng)), rng)
    x = add_drawn_noise(x, SECOND, rng)
    quality = [uniform(SECOND.quality, rng)]
    if draw_bool(0.5, rng):
        return jpeg(downsample_to_low_res(x, size, rng), quality)
    return downsample_to_low_res(jpeg(x, quality), size, rng).clamp(0, 1)


def degrade_real_esrgan(hr: Tensor, scale: int, rngs: Sequence[torch.Generator]) -> Tensor:
    """Degrade in two rounds, with draws per image.

    hr:      [B, 3, H, W] in [-1, 1], multiples of scale
    rngs:    B, on the CPU
    returns: [B, 3, H / scale, W / scale] in [-1, 1], not rounded

    Differs from the paper. Its ranges suit images four times the low-res size. Unchanged at scale 8, a first blur of 3
    px would be half as wide in the low-res image. So larger scales first reduce to four times the low-res size, and
    every range acts as at scale 4. Draws are per image, not per batch, and the truth is not sharpened. As in the
    source, the second resize is relative to the low-res size.
    """
    size = (hr.shape[2] // scale, hr.shape[3] // scale)
    start = scaled(size, min(scale, TUNED_SCALE))
    x = resize(hr, start).clamp(-1, 1) / 2 + 0.5
    x = blur(x, torch.stack([draw_blur_kernel(FIRST.sigma, rng) for rng in rngs]))
    return torch.cat([after_first_blur(x[i : i + 1], size, rng) for i, rng in enumerate(rngs)]) * 2 - 1
