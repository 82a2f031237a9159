"""Damaged low-res images, each with the target of the root.

Work in 8 bit with Pillow, as files are: fast enough for the processes that read training examples.
"""

import io
import math
from random import Random
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from gigasr.data.damage import LARGER, Blur, Damage, Jpeg, Noise
from gigasr.pixels import LUMA

Pixels = NDArray[np.uint8]
Field = NDArray[np.floating[Any]]
PilSize = tuple[int, int]  # width and height, as Pillow has it

FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
}
CHROMA_COARSENESS = 2.0  # times that of the luma, in a camera's noise
MARGIN = 16  # px; mirrored border of a picture during filtering by its spectrum


class Spoilt(NamedTuple):
    """A low-res image and the target of the root, both [h, w, 3]."""

    lr: Pixels
    target: Pixels
    has_truth: bool  # whether the high-res image shows the target; False if the target keeps noise or all damage


def spoil(hr: Pixels, scale: int, damage: Damage, rng: Random) -> Spoilt:
    """Reduce a picture and damage it, without a shift by part of a pixel.

    hr:      [h * scale, w * scale, 3]
    returns: without damage, Pillow's antialiased bicubic reduction as both images
    """
    picture = Image.fromarray(hr)
    size = (picture.width // scale, picture.height // scale)
    clean = picture.resize(size, Image.Resampling.BICUBIC)
    if damage.is_clean:
        return Spoilt(np.asarray(clean), np.asarray(clean), True)
    seed = rng.getrandbits(64)
    lr = np.asarray(spoil_picture(picture, size, damage, seed))
    if damage.keep == "all":
        return Spoilt(lr, lr, False)
    if damage.keep == "grain" and damage.noise:
        return Spoilt(lr, np.asarray(add_noise(clean, damage.noise, seed)), False)
    return Spoilt(lr, np.asarray(clean), True)


def spoil_picture(picture: Image.Image, size: PilSize, damage: Damage, seed: int) -> Image.Image:
    """Damage a picture and reduce it to the size.

    picture: at least of that size
    seed:    decides the noise
    """
    if damage.before:
        picture = spoil_picture(picture, (size[0] * LARGER, size[1] * LARGER), damage.before, seed + 1)
    if damage.blur and damage.blur.kind == "gaussian":
        picture = picture.filter(ImageFilter.GaussianBlur(damage.blur.sigma * picture.width / size[0]))
    picture = picture.resize(size, FILTERS[damage.reduction])
    if damage.blur and damage.blur.kind != "gaussian":
        picture = blur_optically(picture, damage.blur)
    if damage.shrunk > 1:
        picture = lose_resolution(picture, damage.shrunk)
    if damage.noise:
        picture = add_noise(picture, damage.noise, seed)
    if damage.sharpening:
        mask = ImageFilter.UnsharpMask(damage.sharpening.radius, damage.sharpening.percent, threshold=0)
        picture = picture.filter(mask)
    if damage.colours:
        picture = picture.quantize(damage.colours).convert("RGB")
    for jpeg in damage.jpegs:
        picture = compress(picture, jpeg)
    return picture


def lose_resolution(picture: Image.Image, factor: float) -> Image.Image:
    """Shrink a picture by the factor and resize it back: fine detail is lost."""
    small = (max(1, round(picture.width / factor)), max(1, round(picture.height / factor)))
    return picture.resize(small, Image.Resampling.BICUBIC).resize(picture.size, Image.Resampling.BICUBIC)


def compress(picture: Image.Image, jpeg: Jpeg) -> Image.Image:
    """Save as JPEG and read again; jpeg.offset shifts the grid of blocks."""
    left, top = jpeg.offset
    pixels = np.pad(np.asarray(picture), ((top, 0), (left, 0), (0, 0)), mode="edge") if left or top else picture
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(pixels)).save(buffer, "JPEG", quality=jpeg.quality, subsampling=jpeg.subsampling)
    with Image.open(buffer) as opened:
        return opened.convert("RGB").crop((left, top, left + picture.width, top + picture.height))


def to_levels(values: Field) -> Image.Image:
    """values: [h, w, 3] in 8-bit levels, of any size -> picture of the nearest levels"""
    return Image.fromarray(values.clip(0, 255).round().astype(np.uint8))


def frequencies(height: int, width: int) -> tuple[Field, Field]:
    """Return the frequencies of a real image's spectrum, in cycles per px.

    returns: y [height, 1] and x [1, width // 2 + 1]
    """
    return np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]


def filter_spectrum(values: Field, transfer: Field) -> Field:
    """Multiply the spectrum by a transfer function, with wrapped borders.

    values:   [h, w, C]
    transfer: [h, w // 2 + 1]
    returns:  [h, w, C]
    """
    spectrum = np.fft.rfft2(values, axes=(0, 1)) * transfer[..., None]
    return np.fft.irfft2(spectrum, values.shape[:2], axes=(0, 1))


def blur_optically(picture: Image.Image, blur: Blur) -> Image.Image:
    """Blur by the closed-form transfer function of a disc, or of a straight path."""
    values = np.pad(np.asarray(picture, np.float64), ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)), mode="symmetric")
    y, x = frequencies(*values.shape[:2])
    if blur.kind == "motion":
        length = blur.sigma * math.sqrt(12)  # a uniform path of this length has std sigma
        transfer = np.sinc(length * (x * math.cos(blur.angle) + y * math.sin(blur.angle)))
    else:
        phase = np.maximum(2 * math.pi * 2 * blur.sigma * np.hypot(y, x), 1e-9)  # a disc of radius 2 sigma
        transfer = 2 * torch.special.bessel_j1(torch.from_numpy(phase)).numpy() / phase
    return to_levels(filter_spectrum(values, transfer)[MARGIN:-MARGIN, MARGIN:-MARGIN])


def correlate(field: Field, sigma: float) -> Field:
    """Blur white noise by a Gaussian of sigma px and keep its variance.

    field: [h, w, C] -> [h, w, C]
    """
    height, width = field.shape[:2]
    along_y, along_x = (np.exp(-2 * (math.pi * sigma * np.fft.fftfreq(n)) ** 2) for n in (height, width))
    gain = 1 / math.sqrt((along_y**2).mean() * (along_x**2).mean())
    return filter_spectrum(field, gain * along_y[:, None] * along_x[None, : width // 2 + 1])


def add_noise(picture: Image.Image, noise: Noise, seed: int) -> Image.Image:
    """Add noise of that kind.

    With one seed, pictures of equal brightness get equal noise.
    """
    values = np.asarray(picture, np.float64)
    return to_levels(values + noise.std * unit_noise(values, noise, np.random.default_rng(seed)))


def unit_noise(values: Field, noise: Noise, generator: np.random.Generator) -> Field:
    """Draw a field of noise; its std is 1 at middle gray, in every channel.

    values:  [h, w, 3] in 8-bit levels; photon noise grows with them
    returns: [h, w, 1 or 3]
    """
    shape = values.shape[:2]
    luma = values @ np.array(LUMA)[:, None] / 255
    match noise.kind:
        case "white":
            return generator.standard_normal((*shape, 3))
        case "gray":
            return generator.standard_normal((*shape, 1))
        case "shot":
            return generator.standard_normal((*shape, 3)) * np.sqrt(2 * values / 255)
        case "grain":  # strongest between black and white
            field = correlate(generator.standard_normal((*shape, 1)), noise.coarseness)
            return field * np.sqrt(0.2 + 3.2 * luma * (1 - luma))
    fine = correlate(generator.standard_normal((*shape, 1)), noise.coarseness)
    coarse = correlate(generator.standard_normal((*shape, 3)), noise.coarseness * CHROMA_COARSENESS)
    return (fine + coarse) * np.sqrt((0.3 + 1.4 * luma) / 2)  # variance: electronics, constant, plus light
