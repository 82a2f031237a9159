"""Pictures to files: PNG, JPEG, WebP, TIFF and BMP, atomically, with profile, EXIF and texts."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image

from gigasr.exif import exif_bytes, jpeg_exif, output_tags
from gigasr.files import replacing
from gigasr.images import OUTPUT_FORMATS
from gigasr.picture import Picture, PictureStrips
from gigasr.raster import Raster, write_png, write_tiff

_LONGEST_SIDE = {"JPEG": 65_500, "WEBP": 16_383}  # px; limits of the formats
_DEFAULT_QUALITY = 95
_BLOCK_PIXELS = 1 << 20  # converted to integers at a time


def to_pil(picture: Picture) -> Image.Image:
    """Convert to a PIL image: I;16 for 16-bit gray without alpha, else L, LA, RGB or RGBA with 8 bit."""
    is_deep = picture.bit_depth == 16 and picture.is_gray and picture.alpha is None
    image = _samples_to_pil(_to_samples(picture, np.uint16 if is_deep else np.uint8))
    image.info.update(_pil_options(picture, output_tags(picture.exif, picture.size, {})))
    return image


def write_image(
    path: Path, picture: Picture, metadata: dict[str, str] | None = None, quality: int | None = None
) -> None:
    """Write a picture in the format of the path's suffix, or leave the path as it was; see write_strips."""
    write_strips(path, PictureStrips(picture.size, iter([picture])), metadata, quality)


def write_strips(
    path: Path, stream: PictureStrips, metadata: dict[str, str] | None = None, quality: int | None = None
) -> None:
    """Write a picture that comes as strips in the format of the path's suffix, or leave the path as it was.

    metadata: texts for read_metadata; as PNG text chunks, or as one JSON string in the EXIF comment of JPEG, WebP and
              TIFF; BMP has no room for them
    quality:  1..100 for JPEG and WebP, where 100 makes WebP lossless; None = 95

    16 bit is kept by PNG and TIFF. JPEG and BMP have no alpha: transparent pixels are laid on white. PNG and TIFF, from
    4 GiB on BigTIFF, are written as the strips come and hold one of them; the encoders of the others want the whole
    picture, 1 to 4 bytes a pixel. The file is written next to the target under another name, synced and then moved over
    it.
    """
    file_format = _output_format(path, stream.size)
    if quality is not None and not 1 <= quality <= 100:
        raise ValueError(f"quality: expected 1..100, got {quality}; 95 is a good value")
    with replacing(path) as temporary, temporary.open("xb") as file:
        _encode(file, file_format, stream, metadata or {}, _DEFAULT_QUALITY if quality is None else quality)


def check_format(path: Path) -> None:
    """Raise ValueError unless write_image can write a file of this name."""
    _output_format(path, (1, 1))


def _output_format(path: Path, size: tuple[int, int]) -> str:
    file_format = OUTPUT_FORMATS.get(path.suffix.lower())
    if file_format is None:
        known = ", ".join(OUTPUT_FORMATS)
        raise ValueError(f"{path}: expected a name that ends in {known}, got '{path.suffix}'; rename it")
    longest = _LONGEST_SIDE.get(file_format)
    if longest and max(size) > longest:
        raise ValueError(
            f"{path}: expected at most {longest} px a side in {file_format}, got {size[0]}x{size[1]} px; write PNG"
        )
    return file_format


def _encode(file: BinaryIO, file_format: str, stream: PictureStrips, texts: dict[str, str], quality: int) -> None:
    first = next(stream.strips)
    strips = itertools.chain([first], stream.strips)
    has_alpha = file_format not in ("JPEG", "BMP")
    dtype = np.uint16 if first.bit_depth == 16 and file_format in ("PNG", "TIFF") else np.uint8
    channels = (1 if first.is_gray else 3) + (first.alpha is not None and has_alpha)
    tags = output_tags(first.exif, stream.size, {} if file_format == "PNG" else texts)
    blocks = _blocks(strips if has_alpha else map(_on_white, strips), dtype)
    raster = Raster(stream.size, channels, np.dtype(dtype), blocks, first.icc_profile, first.dpi, tags)
    if file_format == "TIFF":
        return write_tiff(file, raster)
    if file_format == "PNG":
        return write_png(file, raster, texts)
    options = _pil_options(first, tags)
    if file_format == "JPEG":
        options |= {"quality": quality, "subsampling": 0, "exif": jpeg_exif(tags)}
    elif file_format == "WEBP":
        options |= {"quality": quality, "lossless": quality == 100, "exact": True}
        if first.is_gray:
            options.pop("icc_profile", None)  # WebP has no gray, and a gray profile doesn't fit RGB
    _samples_to_pil(raster.whole()).save(file, file_format, **options)


def _blocks(strips: Iterable[Picture], dtype: type[np.uint8] | type[np.uint16]) -> Iterator[np.ndarray]:
    """Strips as integers [rows, W, C], some rows at a time."""
    for strip in strips:
        rows = max(_BLOCK_PIXELS // strip.size[1], 1)
        for top in range(0, strip.size[0], rows):
            alpha = None if strip.alpha is None else strip.alpha[:, top : top + rows]
            yield _to_samples(replace(strip, rgb=strip.rgb[:, top : top + rows], alpha=alpha), dtype)


def _on_white(picture: Picture) -> Picture:
    if picture.alpha is None:
        return picture
    rgb = picture.rgb[:1] if picture.is_gray else picture.rgb
    return replace(picture, rgb=torch.lerp(torch.ones(()), rgb, picture.alpha).expand(3, -1, -1), alpha=None)


def _to_samples(picture: Picture, dtype: type[np.uint8] | type[np.uint16]) -> np.ndarray:
    """Round to [H, W, C] integers, C as in the picture; a gray picture whose colours differ gives its luma."""
    red, green, blue = picture.rgb
    if not picture.is_gray:
        planes = [red, green, blue]
    elif picture.rgb.stride(0) == 0:
        planes = [red]
    else:
        planes = [0.299 * red + 0.587 * green + 0.114 * blue]
    if picture.alpha is not None:
        planes.append(picture.alpha[0])
    limit = int(np.iinfo(dtype).max)
    samples = np.empty((*picture.size, len(planes)), dtype)
    for i, plane in enumerate(planes):
        scaled = plane * limit
        if not scaled.isfinite().all():
            raise ValueError("picture: expected finite values, got NaN or infinity; compute in float32")
        samples[:, :, i] = scaled.round_().clamp_(0, limit).numpy()
    return samples


def _samples_to_pil(samples: np.ndarray) -> Image.Image:
    return Image.fromarray(samples[:, :, 0] if samples.shape[2] == 1 else samples)


def _pil_options(picture: Picture, tags: dict[int, Any]) -> dict[str, Any]:
    options = {"icc_profile": picture.icc_profile, "dpi": picture.dpi, "exif": exif_bytes(tags)}
    return {name: value for name, value in options.items() if value}
