"""Pictures to files: PNG, JPEG, WebP, TIFF, BMP, GIF and AVIF, atomically, with profile, EXIF, texts and timing."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from gigasr.files.atomic import atomic_write
from gigasr.files.colour import srgb_converter
from gigasr.files.encoding import PixelRows, write_png, write_tiff
from gigasr.files.exif import comment_of, exif_bytes, jpeg_exif, output_tags
from gigasr.files.formats import ANIMATED_FORMATS, OUTPUT_FORMATS
from gigasr.files.picture import AnimationTiming, Picture, PictureStrips, on_white, to_gray
from gigasr.files.xmp import jpeg_segments, update_xmp_size

_MAX_SIDE = {"JPEG": 65_500, "WEBP": 16_383, "GIF": 65_535, "AVIF": 65_535}  # px; limits of the formats
_MAX_FRAME_DURATION = {"GIF": 655_350.0, "WEBP": 2.0**24 - 1}  # ms
_MAX_LOOPS = 65_535  # more are for ever
_JPEG_DPI = 65_535  # at most
_DEEP_FORMATS = ("PNG", "TIFF")
_WITHOUT_ALPHA, _WITHOUT_PROFILE = ("JPEG", "BMP"), ("BMP", "GIF")
_WITHOUT_GRAY = ("WEBP", "AVIF")  # written as RGB, which a gray profile doesn't fit
_DEFAULT_QUALITY = 95
_BLOCK_PIXELS = 1 << 20  # converted to integers at a time


def to_pil(picture: Picture) -> Image.Image:
    """Convert to a PIL image: I;16 for 16-bit gray without alpha, else L, LA, RGB or RGBA with 8 bit."""
    is_16bit = picture.bit_depth == 16 and picture.is_gray and picture.alpha is None
    image = _samples_to_pil(_to_samples(picture, np.uint16 if is_16bit else np.uint8))
    image.info.update(_pil_options(picture, output_tags(picture.exif, picture.size, {})))
    return image


def write_image(
    path: Path, picture: Picture, metadata: dict[str, str] | None = None, quality: int | None = None
) -> None:
    """Write a picture in the format of the path's suffix, or leave the path as it was; see write_frames."""
    write_frames(path, [PictureStrips(picture.size, iter([picture]))], None, metadata, quality)


def write_frames(
    path: Path,
    pictures: Iterable[PictureStrips],
    timing: AnimationTiming | None = None,
    metadata: dict[str, str] | None = None,
    quality: int | None = None,
) -> None:
    """Write pictures that come as strips in the format of the path's suffix, or leave the path as it was.

    pictures: one; the frames of an animation, for PNG, WebP, GIF and AVIF; or pages, for TIFF
    timing:   of an animation; None for a single picture or pages
    metadata: texts for read_metadata; as PNG text chunks beside the picture's own, or as one JSON string in the
              comment of the others; BMP has no room for them
    quality:  1..100 for JPEG, WebP and AVIF, where 100 makes WebP lossless; None = 95

    16 bit is kept by PNG and TIFF. JPEG and BMP have no alpha: transparent pixels are laid on white; GIF's is 0 or 1.
    Where a format can't carry the profile, colours become sRGB. PNG and TIFF, from 4 GiB on BigTIFF, are written as the
    strips come and hold one of them; the encoders of the others want the whole picture, 1 to 4 bytes a pixel, and that
    of GIF all frames. The file is written next to the target under another name, synced and then moved over it.
    """
    path = Path(path)
    file_format = _output_format(path)
    if quality is not None and not 1 <= quality <= 100:
        raise ValueError(f"quality: expected 1..100, got {quality}; 95 is a good value")
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        images = (_to_pixel_rows(path, picture, metadata or {}) for picture in pictures)
        if file_format == "TIFF":
            write_tiff(file, images)
        elif file_format == "PNG":
            write_png(file, images, metadata or {}, timing)
        else:
            options = _options(file_format, metadata or {}, _DEFAULT_QUALITY if quality is None else quality)
            _write_pil(file, file_format, images, timing, options)


def check_format(path: Path, bit_depth: int | None = None) -> None:
    """Raise ValueError unless write_frames can write a file of this name, and of 16 bit where that is asked for."""
    file_format = _output_format(path)
    if bit_depth == 16 and file_format not in _DEEP_FORMATS:
        raise ValueError(f"{path}: expected .png, .tif or .tiff for 16 bit, got {path.suffix}; choose another format")


def check_frames(path: Path, count: int, is_animation: bool) -> None:
    """Raise ValueError unless a file of this name holds as many frames, or pages."""
    kind, formats = ("frames", ANIMATED_FORMATS) if is_animation else ("pages", ("TIFF",))
    if count > 1 and _output_format(path) not in formats:
        raise ValueError(
            f"{path}: expected a format for {count} {kind} ({', '.join(formats)}), got {path.suffix}; choose another"
        )


def check_image_size(path: Path, size: tuple[int, int]) -> None:
    """Raise ValueError unless a picture of (height, width) fits into a file of this name."""
    file_format = _output_format(path)
    maximum = _MAX_SIDE.get(file_format)
    if maximum and max(size) > maximum:
        raise ValueError(
            f"{path}: expected at most {maximum} px a side in {file_format}, got {size[1]}x{size[0]} px; write PNG"
        )


def _output_format(path: Path) -> str:
    file_format = OUTPUT_FORMATS.get(path.suffix.lower())
    if file_format is None:
        known = ", ".join(OUTPUT_FORMATS)
        raise ValueError(f"{path}: expected a name that ends in {known}, got '{path.suffix}'; rename it")
    return file_format


def _to_pixel_rows(path: Path, picture: PictureStrips, texts: dict[str, str]) -> PixelRows:
    """The samples and facts that a file of this name holds of a picture."""
    file_format, size = _output_format(path), picture.size
    check_image_size(path, size)
    first = next(picture.strips)
    strips: Iterator[Picture] = itertools.chain([first], picture.strips)
    has_alpha = first.alpha is not None and file_format not in _WITHOUT_ALPHA
    if not has_alpha:
        strips = map(on_white, strips)
    dtype = np.uint16 if first.bit_depth == 16 and file_format in _DEEP_FORMATS else np.uint8
    blocks, profile = _blocks(strips, dtype), first.icc_profile
    if profile and (file_format in _WITHOUT_PROFILE or first.is_gray and file_format in _WITHOUT_GRAY):
        convert = srgb_converter(profile, first.is_gray, path)
        blocks, profile = map(partial(_convert, convert=convert), blocks), None
    tags = output_tags(first.exif, size, {} if file_format == "PNG" else texts)
    channels = (1 if first.is_gray else 3) + has_alpha
    facts = profile, first.dpi, tags, update_xmp_size(first.xmp, size), first.iptc, first.texts
    return PixelRows(size, channels, np.dtype(dtype), blocks, *facts)


def _convert(block: np.ndarray, convert: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Convert the colours of a block and leave its alpha alone."""
    colours = 3 if block.shape[2] > 2 else 1
    return np.concatenate([convert(block[:, :, :colours]), block[:, :, colours:]], axis=2)


def _options(file_format: str, texts: dict[str, str], quality: int) -> dict[str, Any]:
    """What PIL's encoders are told beside the picture."""
    if file_format == "JPEG":
        return {"quality": quality, "subsampling": 0}
    if file_format == "WEBP":
        return {"quality": quality, "lossless": quality == 100, "exact": True}
    if file_format == "AVIF":
        return {"quality": quality, "subsampling": "4:4:4"}
    return {"comment": comment_of(texts)} if file_format == "GIF" and texts else {}


def _write_pil(
    file: BinaryIO,
    file_format: str,
    images: Iterator[PixelRows],
    timing: AnimationTiming | None,
    options: dict[str, Any],
) -> None:
    """Write a picture or an animation by PIL, which takes each frame when its encoder gets there."""
    first = next(images)
    sequence = FrameSequence(_to_image(pixel_rows, file_format) for pixel_rows in itertools.chain([first], images))
    exif = jpeg_exif(first.tags) if file_format == "JPEG" else exif_bytes(first.tags)
    dpi = None if file_format == "JPEG" and first.dpi and max(first.dpi) > _JPEG_DPI else first.dpi
    options = options | {"icc_profile": first.icc_profile, "dpi": dpi, "exif": exif}
    options |= jpeg_segments(first.xmp, first.iptc) if file_format == "JPEG" else {"xmp": first.xmp}
    if timing is not None:
        sequence.n_frames, sequence.is_animated = len(timing.durations), True
        options |= {"save_all": True, **_timing_options(file_format, timing)}
        if file_format == "GIF" and sequence.mode == "RGBA":
            options["disposal"] = 2  # each frame replaces the last one, where it is transparent too
    sequence.save(file, file_format, **{name: value for name, value in options.items() if value is not None})


def _timing_options(file_format: str, timing: AnimationTiming) -> dict[str, Any]:
    loop_count = timing.loop_count if timing.loop_count <= _MAX_LOOPS else 0
    maximum = _MAX_FRAME_DURATION.get(file_format, math.inf)
    durations = [min(duration, maximum) for duration in timing.durations]
    if file_format != "GIF":
        return {"duration": [round(duration) for duration in durations], "loop": loop_count}
    hundredths = [10 * round(duration / 10) for duration in durations]
    loop = {} if loop_count == 1 else {"loop": max(loop_count - 1, 0)}  # repetitions after the first
    return {"duration": hundredths, **loop}


def _to_image(pixel_rows: PixelRows, file_format: str) -> Image.Image:
    samples = pixel_rows.whole()
    if file_format == "GIF" and pixel_rows.channels in (2, 4):
        samples[:, :, -1] = np.where(samples[:, :, -1] < 128, 0, 255)
    image = _samples_to_pil(samples)
    needs_rgb = file_format in _WITHOUT_GRAY or file_format == "GIF" and image.mode == "LA"  # Pillow's GIFs lose that A
    return image.convert(f"RGB{image.mode[1:]}") if needs_rgb and image.mode[0] == "L" else image


class FrameSequence(Image.Image):
    """An animation for PIL's encoders, which ask for its frames one after the other."""

    n_frames, is_animated = 1, False

    def __init__(self, frames: Iterator[Image.Image]) -> None:
        super().__init__()
        self.frames, self.position = frames, -1
        self.seek(0)

    def seek(self, frame: int) -> None:
        """Make a frame the image; an earlier one than the present is none of an encoder's needs and ignored."""
        if frame >= self.n_frames:
            raise EOFError(f"{frame}")
        while self.position < frame:
            shown = next(self.frames)
            self.im, self._mode, self._size = shown.im, shown.mode, shown.size
            self.position += 1

    def tell(self) -> int:
        """The number of the frame that the image is."""
        return self.position


def _blocks(strips: Iterable[Picture], dtype: type[np.uint8] | type[np.uint16]) -> Iterator[np.ndarray]:
    """Strips as integers [rows, W, C], some rows at a time."""
    for strip in strips:
        rows = max(_BLOCK_PIXELS // strip.size[1], 1)
        for top in range(0, strip.size[0], rows):
            alpha = None if strip.alpha is None else strip.alpha[:, top : top + rows]
            yield _to_samples(replace(strip, rgb=strip.rgb[:, top : top + rows], alpha=alpha), dtype)
        del strip, alpha  # or they live while the next strip is made


def _to_samples(picture: Picture, dtype: type[np.uint8] | type[np.uint16]) -> np.ndarray:
    """Round to [H, W, C] integers, C as in the picture; a gray picture whose colours differ gives its luma."""
    rgb = picture.rgb.detach()
    if not picture.is_gray:
        planes = [*rgb]
    elif rgb.stride(0) == 0:
        planes = [rgb[0]]
    else:
        planes = [*to_gray(rgb)]
    if picture.alpha is not None:
        planes.append(picture.alpha[0])
    limit = int(np.iinfo(dtype).max)
    samples = np.empty((*picture.size, len(planes)), dtype)
    for i, plane in enumerate(planes):
        scaled = plane * limit
        if not scaled.sum().isfinite():
            raise ValueError("picture: expected finite values, got NaN or infinity; compute in float32")
        samples[:, :, i] = scaled.round_().clamp_(0, limit).numpy()
    return samples


def _samples_to_pil(samples: np.ndarray) -> Image.Image:
    return Image.fromarray(samples[:, :, 0] if samples.shape[2] == 1 else samples)


def _pil_options(picture: Picture, tags: dict[int, Any]) -> dict[str, Any]:
    options = {"icc_profile": picture.icc_profile, "dpi": picture.dpi, "exif": exif_bytes(tags)}
    return {name: value for name, value in options.items() if value}
