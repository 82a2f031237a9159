"""Atomic writing of PNG, JPEG, WebP, TIFF, BMP, GIF and AVIF files.

Files keep profile, metadata, texts and timing.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from gigasr.files.atomic import atomic_write
from gigasr.files.colour import srgb_converter
from gigasr.files.encoding import PixelRows
from gigasr.files.exif import comment_of, exif_bytes, jpeg_exif, output_tags
from gigasr.files.formats import ANIMATED_FORMATS, OUTPUT_FORMATS
from gigasr.files.integer_samples import sample_blocks, samples_to_pil, to_samples
from gigasr.files.picture import AnimationTiming, Picture, PictureStrips, on_white
from gigasr.files.png_writer import write_png
from gigasr.files.tiff_writer import write_tiff
from gigasr.files.xmp import jpeg_segments, update_xmp_size

_MAX_SIDE = {"JPEG": 65_500, "WEBP": 16_383, "GIF": 65_535, "AVIF": 65_535}  # px; limits of the formats
_MAX_FRAME_DURATION = {"GIF": 655_350.0, "WEBP": 2.0**24 - 1}  # ms
_MAX_LOOPS = 65_535  # more plays are written as for ever
_JPEG_DPI = 65_535  # maximum
_FORMATS_16BIT = ("PNG", "TIFF")
_WITHOUT_ALPHA, _WITHOUT_PROFILE = ("JPEG", "BMP"), ("BMP", "GIF")
_WITHOUT_GRAY = ("WEBP", "AVIF")  # gray is written as RGB, without a gray profile
_DEFAULT_QUALITY = 95


def to_pil(picture: Picture) -> Image.Image:
    """Convert to a PIL image of 8 bit: L, LA, RGB or RGBA.

    16-bit gray without alpha becomes I;16.
    """
    is_16bit = picture.bit_depth == 16 and picture.is_gray and picture.alpha is None
    dtype = np.uint16 if is_16bit else np.uint8
    image = samples_to_pil(to_samples(picture, dtype))
    tags = output_tags(picture.exif, picture.size, {})
    info = {"icc_profile": picture.icc_profile, "dpi": picture.dpi, "exif": exif_bytes(tags)}
    image.info.update({name: value for name, value in info.items() if value})
    return image


def write_image(
    path: Path, picture: Picture, metadata: dict[str, str] | None = None, quality: int | None = None
) -> None:
    """Write a picture in the format of the path's suffix; see write_frames."""
    strips = PictureStrips(picture.size, iter([picture]))
    write_frames(path, [strips], None, metadata, quality)


def write_frames(
    path: Path,
    pictures: Iterable[PictureStrips],
    timing: AnimationTiming | None = None,
    metadata: dict[str, str] | None = None,
    quality: int | None = None,
) -> None:
    """Write pictures in strips, in the format of the path's suffix, atomically.

    pictures: a single picture; frames of an animation, for PNG, WebP, GIF and AVIF; or pages, for TIFF
    timing:   of an animation; None for a single picture or pages
    metadata: texts for read_metadata: text chunks in PNG, besides the picture's own; JSON in the comment of other
              formats; lost in BMP
    quality:  1..100 for JPEG, WebP and AVIF, 100 = lossless WebP; None = 95

    PNG and TIFF keep 16 bit. JPEG and BMP have no alpha: transparent pixels are laid on white. Alpha in GIF is 0 or 1.
    Colours become sRGB if the format cannot hold the profile. PNG, TIFF and BigTIFF (from 4 GiB) are written strip by
    strip. Encoders of other formats hold the whole picture, 1 to 4 bytes per pixel; the GIF encoder holds all frames.

    Raises ValueError for pictures that the format cannot hold. If anything fails the path is unchanged.
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
            arguments = _encoder_arguments(
                file_format, metadata or {}, _DEFAULT_QUALITY if quality is None else quality
            )
            _write_pil(file, file_format, images, timing, arguments)


def check_format(path: Path, bit_depth: int | None = None) -> None:
    """Raise ValueError unless write_frames writes a file of this name.

    bit_depth: 16 demands a format with 16 bit
    """
    file_format = _output_format(path)
    if bit_depth == 16 and file_format not in _FORMATS_16BIT:
        raise ValueError(f"{path}: expected .png, .tif or .tiff for 16 bit, got {path.suffix}; choose another format")


def check_frames(path: Path, count: int, is_animation: bool) -> None:
    """Raise ValueError unless a file of this name can hold the frames or pages."""
    kind, formats = ("frames", ANIMATED_FORMATS) if is_animation else ("pages", ("TIFF",))
    if count > 1 and _output_format(path) not in formats:
        raise ValueError(
            f"{path}: expected a format for {count} {kind} ({', '.join(formats)}), got {path.suffix}; choose another"
        )


def check_image_size(path: Path, size: tuple[int, int]) -> None:
    """Raise ValueError if (height, width) is too large for a file of this name."""
    file_format = _output_format(path)
    maximum = _MAX_SIDE.get(file_format)
    if maximum and max(size) > maximum:
        raise ValueError(
            f"{path}: expected at most {maximum} px a side in {file_format}, got {size[1]}x{size[0]} px; write PNG"
        )


def _output_format(path: Path) -> str:
    """Return the format of a path's suffix; ValueError if unknown."""
    file_format = OUTPUT_FORMATS.get(path.suffix.lower())
    if file_format is None:
        known = ", ".join(OUTPUT_FORMATS)
        raise ValueError(f"{path}: expected a name that ends in {known}, got '{path.suffix}'; rename it")
    return file_format


def _to_pixel_rows(path: Path, picture: PictureStrips, texts: dict[str, str]) -> PixelRows:
    """Convert a picture to the samples and properties for a file of this name.

    texts: for the EXIF comment; PNG has text chunks instead
    """
    file_format = _output_format(path)
    size = picture.size
    check_image_size(path, size)
    first = next(picture.strips)
    strips: Iterator[Picture] = itertools.chain([first], picture.strips)
    has_alpha = first.alpha is not None and file_format not in _WITHOUT_ALPHA
    if not has_alpha:
        strips = map(on_white, strips)
    is_16bit = first.bit_depth == 16 and file_format in _FORMATS_16BIT
    dtype = np.uint16 if is_16bit else np.uint8
    blocks = sample_blocks(strips, dtype)
    profile = first.icc_profile
    loses_gray = first.is_gray and file_format in _WITHOUT_GRAY
    if profile and (loses_gray or file_format in _WITHOUT_PROFILE):
        convert = srgb_converter(profile, first.is_gray, path)
        blocks = map(partial(_convert, convert=convert), blocks)
        profile = None
    comment = {} if file_format == "PNG" else texts
    colours = 1 if first.is_gray else 3
    return PixelRows(
        size,
        channels=colours + 1 if has_alpha else colours,
        dtype=np.dtype(dtype),
        blocks=blocks,
        icc_profile=profile,
        dpi=first.dpi,
        tags=output_tags(first.exif, size, comment),
        xmp=update_xmp_size(first.xmp, size),
        iptc=first.iptc,
        texts=first.texts,
    )


def _convert(block: np.ndarray, convert: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Convert the colours of a block, but not the alpha."""
    num_colours = 3 if block.shape[2] > 2 else 1
    colours, alpha = np.split(block, [num_colours], axis=2)
    return np.concatenate([convert(colours), alpha], axis=2)


def _encoder_arguments(file_format: str, texts: dict[str, str], quality: int) -> dict[str, Any]:
    """Return the arguments of PIL's encoder for a format."""
    if file_format == "JPEG":
        return {"quality": quality, "subsampling": 0}
    if file_format == "WEBP":
        return {"quality": quality, "lossless": quality == 100, "exact": True}
    if file_format == "AVIF":
        return {"quality": quality, "subsampling": "4:4:4"}
    if file_format == "GIF" and texts:
        return {"comment": comment_of(texts)}
    return {}


def _write_pil(
    file: BinaryIO,
    file_format: str,
    images: Iterator[PixelRows],
    timing: AnimationTiming | None,
    arguments: dict[str, Any],
) -> None:
    """Write a picture or an animation with PIL; frames are made on demand."""
    first = next(images)
    sequence = _FrameSequence(_to_image(pixel_rows, file_format) for pixel_rows in itertools.chain([first], images))
    arguments = arguments | {"icc_profile": first.icc_profile, **_metadata_arguments(file_format, first)}
    if timing is not None:
        sequence.n_frames, sequence.is_animated = len(timing.durations), True
        arguments |= {"save_all": True, **_timing_arguments(file_format, timing)}
        if file_format == "GIF" and sequence.mode == "RGBA":
            arguments["disposal"] = 2  # clears each frame before the next, also below transparent pixels
    sequence.save(file, file_format, **{name: value for name, value in arguments.items() if value is not None})


def _metadata_arguments(file_format: str, pixel_rows: PixelRows) -> dict[str, Any]:
    """Return the arguments of PIL's encoder for resolution, EXIF, XMP and IPTC."""
    if file_format != "JPEG":
        return {"dpi": pixel_rows.dpi, "exif": exif_bytes(pixel_rows.tags), "xmp": pixel_rows.xmp}
    fits = pixel_rows.dpi is None or max(pixel_rows.dpi) <= _JPEG_DPI
    return {
        "dpi": pixel_rows.dpi if fits else None,
        "exif": jpeg_exif(pixel_rows.tags),
        **jpeg_segments(pixel_rows.xmp, pixel_rows.iptc),
    }


def _timing_arguments(file_format: str, timing: AnimationTiming) -> dict[str, Any]:
    """Return the arguments of PIL's encoder for an animation's timing."""
    loop_count = timing.loop_count if timing.loop_count <= _MAX_LOOPS else 0
    maximum = _MAX_FRAME_DURATION.get(file_format, math.inf)
    durations = [min(duration, maximum) for duration in timing.durations]
    if file_format != "GIF":
        return {"duration": [round(duration) for duration in durations], "loop": loop_count}
    arguments: dict[str, Any] = {
        "duration": [10 * round(duration / 10) for duration in durations]
    }  # GIF has 10 ms steps
    if loop_count != 1:
        arguments["loop"] = max(loop_count - 1, 0)  # GIF counts repetitions; 0 = for ever
    return arguments


def _to_image(pixel_rows: PixelRows, file_format: str) -> Image.Image:
    """Make a PIL image in a mode of the format's encoder."""
    is_gif = file_format == "GIF"
    samples = pixel_rows.whole()
    if is_gif and pixel_rows.channels in (2, 4):
        alpha = samples[:, :, -1]
        samples[:, :, -1] = np.where(alpha < 128, 0, 255)
    image = samples_to_pil(samples)
    loses_alpha = is_gif and image.mode == "LA"  # in Pillow
    if image.mode[0] == "L" and (loses_alpha or file_format in _WITHOUT_GRAY):
        return image.convert(image.mode.replace("L", "RGB"))
    return image


class _FrameSequence(Image.Image):
    """Animation for PIL's encoders; frames are made in order and on demand."""

    n_frames, is_animated = 1, False

    def __init__(self, frames: Iterator[Image.Image]) -> None:
        super().__init__()
        self.frames, self.position = frames, -1
        self.seek(0)

    def seek(self, frame: int) -> None:
        """Make a frame the present image.

        Earlier frames than the present are ignored: encoders never go back.
        """
        if frame >= self.n_frames:
            raise EOFError(f"{frame}")
        while self.position < frame:
            shown = next(self.frames)
            self.im, self._mode, self._size = shown.im, shown.mode, shown.size
            self.position += 1

    def tell(self) -> int:
        """Return the number of the present frame."""
        return self.position
