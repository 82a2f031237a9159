"""Pictures to files: PNG, JPEG, WebP, TIFF and BMP, atomically, with profile, EXIF and texts."""

import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image, PngImagePlugin, TiffImagePlugin, TiffTags

from gigasr.exif import exif_bytes, jpeg_exif, output_tags
from gigasr.files import replacing
from gigasr.images import OUTPUT_FORMATS, Picture

_LONGEST_SIDE = {"JPEG": 65_500, "WEBP": 16_383}  # px; limits of the formats
_DEFAULT_QUALITY = 95
_DEFLATE_LEVEL = 2  # a third of the time of level 6 for a sixth more bytes
_TIFF_STRIP_BYTES = 1 << 18
_PNG_BLOCK_BYTES = 1 << 22


def to_pil(picture: Picture) -> Image.Image:
    """Convert to a PIL image: I;16 for 16-bit gray without alpha, else L, LA, RGB or RGBA with 8 bit."""
    is_deep = picture.bit_depth == 16 and picture.is_gray and picture.alpha is None
    image = _samples_to_pil(_to_samples(picture, np.uint16 if is_deep else np.uint8))
    image.info.update(_pil_options(picture, output_tags(picture.exif, picture.size, {})))
    return image


def write_image(
    path: Path, picture: Picture, metadata: dict[str, str] | None = None, quality: int | None = None
) -> None:
    """Write a picture in the format of the path's suffix, or leave the path as it was.

    metadata: texts for read_metadata; as PNG text chunks, or as one JSON string in the EXIF comment of JPEG, WebP and
              TIFF; BMP has no room for them
    quality:  1..100 for JPEG and WebP, where 100 makes WebP lossless; None = 95

    16 bit is kept by PNG and TIFF. JPEG and BMP have no alpha: transparent pixels are laid on white. The file is
    written next to the target under another name, synced and then moved over it.
    """
    file_format = _output_format(path, picture.size)
    if quality is not None and not 1 <= quality <= 100:
        raise ValueError(f"quality: expected 1..100, got {quality}; 95 is a good value")
    with replacing(path) as temporary, temporary.open("xb") as file:
        _encode(file, file_format, picture, metadata or {}, _DEFAULT_QUALITY if quality is None else quality)


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


def _encode(file: BinaryIO, file_format: str, picture: Picture, texts: dict[str, str], quality: int) -> None:
    has_alpha = file_format not in ("JPEG", "BMP")
    is_deep = picture.bit_depth == 16 and file_format in ("PNG", "TIFF")
    samples = _to_samples(picture if has_alpha else _on_white(picture), np.uint16 if is_deep else np.uint8)
    tags = output_tags(picture.exif, picture.size, {} if file_format == "PNG" else texts)
    if file_format == "TIFF":
        return _write_tiff(file, samples, picture, tags)
    if is_deep:
        return _write_deep_png(file, samples, picture, tags, texts)
    options = _pil_options(picture, tags)
    if file_format == "PNG":
        options |= {"pnginfo": _png_texts(texts), "compress_level": _DEFLATE_LEVEL}
    elif file_format == "JPEG":
        options |= {"quality": quality, "subsampling": 0, "exif": jpeg_exif(tags)}
    elif file_format == "WEBP":
        options |= {"quality": quality, "lossless": quality == 100, "exact": True}
        if picture.is_gray:
            options.pop("icc_profile", None)  # WebP has no gray, and a gray profile doesn't fit RGB
    _samples_to_pil(samples).save(file, file_format, **options)


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


def _png_texts(texts: dict[str, str]) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)  # tEXt, or iTXt for what Latin-1 doesn't have
    return info


def _write_deep_png(
    file: BinaryIO, samples: np.ndarray, picture: Picture, tags: dict[int, Any], texts: dict[str, str]
) -> None:
    """Write a 16-bit PNG: Pillow can't, and pyvips writes texts in the wrong encoding and EXIF of its own."""
    height, width, channels = samples.shape
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    file.write(b"\x89PNG\r\n\x1a\n")
    PngImagePlugin.putchunk(file, b"IHDR", struct.pack(">2I5B", width, height, 16, colour_type, 0, 0, 0))
    if picture.icc_profile:
        PngImagePlugin.putchunk(file, b"iCCP", b"ICC Profile\0\0", zlib.compress(picture.icc_profile))
    if picture.dpi:
        per_metre = [round(dpi / 0.0254) for dpi in picture.dpi]
        PngImagePlugin.putchunk(file, b"pHYs", struct.pack(">2IB", *per_metre, 1))
    if exif := exif_bytes(tags):
        PngImagePlugin.putchunk(file, b"eXIf", exif.removeprefix(b"Exif\0\0"))
    for name, text, *_ in _png_texts(texts).chunks:
        PngImagePlugin.putchunk(file, name, text)
    compressor = zlib.compressobj(_DEFLATE_LEVEL)
    rows = max(_PNG_BLOCK_BYTES // (width * channels * 2), 1)
    for y in range(0, height, rows):
        block = samples[y : y + rows].astype(">u2").view(np.uint8).reshape(-1, width * channels * 2)
        filtered = np.empty((len(block), 1 + block.shape[1]), np.uint8)
        filtered[:, 0] = 1  # the Sub filter: differences to the pixel on the left
        filtered[:, 1:] = block
        filtered[:, 1 + channels * 2 :] -= block[:, : -channels * 2]
        PngImagePlugin.putchunk(file, b"IDAT", compressor.compress(filtered.data))
    PngImagePlugin.putchunk(file, b"IDAT", compressor.flush())
    PngImagePlugin.putchunk(file, b"IEND")


def _write_tiff(file: BinaryIO, samples: np.ndarray, picture: Picture, tags: dict[int, Any]) -> None:
    """Write a deflated TIFF: Pillow has no 16-bit colour and loses EXIF when it compresses; pyvips has no EXIF."""
    height, width, channels = samples.shape
    rows = max(_TIFF_STRIP_BYTES // (width * channels * samples.itemsize), 1)
    little_endian = samples.dtype.newbyteorder("<")
    strips = []
    for y in range(0, height, rows):
        differences = np.diff(samples[y : y + rows], axis=1, prepend=samples.dtype.type(0))
        strips.append(zlib.compress(differences.astype(little_endian).data, _DEFLATE_LEVEL))
    sizes = [len(strip) for strip in strips]
    if sum(sizes) >= 4 << 30:
        raise ValueError(f"picture: expected a TIFF of less than 4 GiB, got {sum(sizes)} bytes; write PNG")
    directory = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    directory[256], directory[257] = width, height
    directory[258] = (8 * samples.itemsize,) * channels
    directory[259], directory[317] = 8, 2  # deflate, differences to the pixel on the left
    directory[262] = 1 if channels < 3 else 2  # 0 = black, or RGB
    directory[277], directory[278], directory[284] = channels, rows, 1
    if channels in (2, 4):
        directory[338] = 2  # alpha, not premultiplied
    directory.tagtype[273] = directory.tagtype[279] = TiffTags.LONG
    directory[273] = tuple(np.cumsum([0, *sizes[:-1]]).tolist())  # moved behind the directory by Pillow
    directory[279] = tuple(sizes)
    if picture.dpi:
        directory[282], directory[283], directory[296] = (*picture.dpi, 2)
    if picture.icc_profile:
        directory[34675] = picture.icc_profile
    for tag, value in tags.items():
        directory[tag] = value
    directory.save(file)
    file.writelines(strips)
