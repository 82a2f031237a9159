"""Reading of image files: single pictures, frames of animations, pages of TIFFs.

Pictures have 8 or 16 bit, are gray or RGB, and keep alpha, ICC profile and metadata.
"""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps
from PIL.ExifTags import IFD, Base

from gigasr.files.decoding import DECODER_ERRORS, MAX_PIXELS, decoding, from_pil, plain_mode, read_16bit
from gigasr.files.exif import comment_texts, portable_tags, read_exif
from gigasr.files.formats import ANIMATED_FORMATS, INPUT_FORMATS
from gigasr.files.headers import ImageHeader, is_tiff, read_headers
from gigasr.files.picture import AnimationTiming, Picture

logger = logging.getLogger(__name__)

MAX_FRAME_PIXELS = 20 * MAX_PIXELS  # px of all frames or pages of a file together
_OF_SEVERAL = (".gif", ".webp", ".avif", ".tif", ".tiff")  # may hold frames or pages; animated PNGs end in .png anyway


@dataclass(frozen=True, eq=False)
class Frames:
    """Pictures of a file: one, an animation's frames, or a TIFF's pages.

    Iteration decodes one picture at a time.
    """

    path: Path
    headers: tuple[ImageHeader, ...]  # one, or one per page
    timing: AnimationTiming | None = None  # of an animation
    mode: str = ""  # PIL mode common to the frames of an animation

    def __len__(self) -> int:
        return len(self.headers) if self.timing is None else len(self.timing.durations)

    def __iter__(self) -> Iterator[Picture]:
        """Decode the pictures in order; ValueError for damaged or unknown contents."""
        with open(self.path, "rb") as file:
            for header in self.headers:
                if header.bits == 16:
                    with decoding(self.path):
                        picture = read_16bit(file, self.path, header)
                    yield picture
                else:
                    yield from self._read_8bit(file, header)

    def _read_8bit(self, file: BinaryIO, header: ImageHeader) -> Iterator[Picture]:
        """Decode a page, or all frames of an animation, with Pillow."""
        with decoding(self.path):
            image = Image.open(file, formats=INPUT_FORMATS)
        has_scaled_gray = image.mode == "L" and header.bits in (2, 4)
        if has_scaled_gray and "transparency" in image.info:  # Pillow scales the samples, but not this gray level
            largest = 2**header.bits - 1
            image.info["transparency"] *= 255 // largest
        indices = [header.page] if self.timing is None else _frame_indices(image)
        for index in indices:
            with decoding(self.path):
                image.seek(index)
                picture = from_pil(image, str(self.path), self.mode)
            yield picture


def read_frames(path: Path) -> Frames:
    """Read the number of pictures in a file, and the timing of an animation.

    The file is a PNG, JPEG, WebP, TIFF, BMP, GIF or AVIF. Iteration over the result decodes the pictures, upright. The
    depth comes from the header, never from the values. CMYK and Lab become sRGB through the embedded profile; for RGB
    and gray, profile and values stay.

    Raises ValueError if the file is not an image, is damaged, is larger than MAX_PIXELS, or has samples other than
    integers of up to 16 bit. Errors of the disk stay OSErrors.
    """
    path = Path(path)
    with open(path, "rb") as file:
        if not file.read(1):
            raise ValueError(f"{path}: expected an image, got an empty file; replace it")
        with decoding(path):
            headers = read_headers(file)
        if not headers:
            raise ValueError(f"{path}: expected an intact image, got a TIFF without pages; replace it")
        for header in headers:
            _check(header, path)
        _check_sum(sum(header.pixels for header in headers), path)
        is_16bit = headers[0].bits == 16
        if is_16bit and headers[0].offset:  # a TIFF; Pillow refuses some
            return Frames(path, headers)
        with decoding(path):
            image = Image.open(file, formats=INPUT_FORMATS)
            if not _is_animation(image):
                return Frames(path, headers)
            count = getattr(image, "n_frames", 1)
        if is_16bit:
            raise ValueError(f"{path}: expected frames of 8 bit, got an animation of more; convert it")
        _check_sum(count * image.width * image.height, path)
        with decoding(path):
            timing, mode = _read_timing(image)
        return Frames(path, headers, timing, mode)


def _is_animation(image: Image.Image) -> bool:
    return image.format in ANIMATED_FORMATS and getattr(image, "is_animated", False)


def _frame_indices(image: Image.Image) -> range:
    """Return Pillow's numbers of an animation's frames.

    An APNG may begin with a still for programs without animation; the still is not a frame.
    """
    has_still = "default_image" in image.info
    first = 1 if has_still else 0
    return range(first, getattr(image, "n_frames", 1))


def _read_timing(image: Image.Image) -> tuple[AnimationTiming, str]:
    """Decode an animation once for the timing and the PIL mode common to all frames."""
    durations = []
    modes = set()
    for index in _frame_indices(image):
        image.seek(index)
        image.load()
        durations.append(float(image.info.get("duration") or 0))
        modes.add(plain_mode(image))
    default_plays = 0 if image.format == "AVIF" else 1
    loop_count = int(image.info.get("loop", default_plays))
    if image.format == "GIF" and "loop" in image.info and loop_count:
        loop_count += 1  # GIF counts repetitions
    mode = "L" if modes <= {"L", "LA"} else "RGB"
    if any(each.endswith("A") for each in modes):
        mode += "A"
    return AnimationTiming(tuple(durations), loop_count), mode


def read_image(path: Path) -> Picture:
    """Read the picture of a file; see read_frames.

    Of several pictures the first is read, with a warning.
    """
    frames = read_frames(path)
    if len(frames) > 1:
        logger.warning("%s: has %d pictures; only the first is read", path, len(frames))
    return next(iter(frames))


def _check(header: ImageHeader, path: Path) -> None:
    if header.unknown:
        raise ValueError(f"{path}: expected gray, RGB, CMYK or CIE Lab, got {header.unknown}; convert it to RGB")
    if not header.is_unsigned or header.bits not in (1, 2, 4, 8, 16):
        kind = "integers" if header.is_unsigned else "signed or float numbers"
        raise ValueError(
            f"{path}: expected unsigned integers of 1 to 8 or of 16 bit, got {header.bits} bit {kind}; "
            "convert it to 16 bit"
        )
    if header.pixels > MAX_PIXELS:
        raise ValueError(f"{path}: expected at most {MAX_PIXELS} px, got {header.pixels}; cut it into parts")


def _check_sum(pixels: int, path: Path) -> None:
    if pixels > MAX_FRAME_PIXELS:
        raise ValueError(f"{path}: expected at most {MAX_FRAME_PIXELS} px in all frames or pages, got {pixels}; cut it")


def read_metadata(path: Path) -> dict[str, str]:
    """Return the texts from write_frames, or all texts of a PNG; {} if none."""
    with open(path, "rb") as file, decoding(path):
        if is_tiff(file.read(4)):
            return _exif_texts(lambda: read_exif(file))
        image = Image.open(file, formats=INPUT_FORMATS)
        if image.format == "PNG":
            return {str(key): str(text) for key, text in image.info.items() if isinstance(text, str)}
        if image.format == "GIF":
            return comment_texts(image.info.get("comment"))
        return _exif_texts(image.getexif)


def _exif_texts(load: Callable[[], Image.Exif]) -> dict[str, str]:
    """Return the texts in the comment of an EXIF block."""
    photo_tags = portable_tags(load).get(IFD.Exif, {})
    return comment_texts(photo_tags.get(Base.UserComment))


def default_suffix(path: Path) -> str:
    """Return the suffix of a lossless output for an input.

    ".png", or the input's own format for animations and ".tif" for several pages. Only files with a suffix of such
    formats are opened.
    """
    if path.suffix.lower() not in _OF_SEVERAL:
        return ".png"
    with suppress(ValueError, OSError), open(path, "rb") as file, decoding(path):
        if len(read_headers(file)) > 1:
            return ".tif"
        image = Image.open(file, formats=INPUT_FORMATS)
        if _is_animation(image):
            return f".{str(image.format).lower()}"
    return ".png"


def load_rgb(file: Path | BinaryIO) -> Image.Image:
    """Read an upright RGB image of 8 bit; transparent pixels become white.

    Raises one of DECODER_ERRORS for a damaged file.
    """
    with Image.open(file) as opened:
        opened.load()
        try:
            image = ImageOps.exif_transpose(opened)
        except DECODER_ERRORS:  # of damaged EXIF; the pixels are good
            image = opened.copy()
    if image.mode.startswith("I"):  # 16 bit; convert() would clip the values
        samples = np.asarray(image).clip(0, 65535).astype(np.int64)
        rounded = (samples + 128) // 257
        image = Image.fromarray(rounded.astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def shorter_side(file: Path | BinaryIO) -> float:
    """Read the shorter side in px from a file's header; infinite if unreadable.

    Loading such a file raises the error.
    """
    try:
        with Image.open(file) as image:
            return min(image.size)
    except DECODER_ERRORS:
        return math.inf
