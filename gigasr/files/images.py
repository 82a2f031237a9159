"""Image files to pictures: 8 and 16 bit, gray, alpha, ICC, EXIF, the frames of animations, the pages of TIFFs."""

import logging
import math
from collections.abc import Iterator
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
_OF_SEVERAL = (".gif", ".webp", ".avif", ".tif", ".tiff")  # that may hold frames or pages; an animated PNG stays one


@dataclass(frozen=True, eq=False)
class Frames:
    """The pictures of a file: one, the frames of an animation or the pages of a TIFF; decoded when asked for."""

    path: Path
    headers: tuple[ImageHeader, ...]  # one, or one per page
    timing: AnimationTiming | None = None  # of an animation
    mode: str = ""  # PIL mode in which all frames of an animation are given

    def __len__(self) -> int:
        return len(self.headers) if self.timing is None else len(self.timing.durations)

    def __iter__(self) -> Iterator[Picture]:
        """Decode one after the other; ValueError for one that is damaged or unknown."""
        with open(self.path, "rb") as file:
            for header in self.headers:
                if header.bits == 16:
                    with decoding(self.path):
                        picture = read_16bit(file, self.path, header)
                    yield picture
                    continue
                with decoding(self.path):
                    image = Image.open(file, formats=INPUT_FORMATS)
                if image.mode == "L" and header.bits in (2, 4) and "transparency" in image.info:
                    image.info["transparency"] *= 255 // (2**header.bits - 1)  # Pillow scales the samples alone
                indices = [header.page] if self.timing is None else _frame_indices(image)
                for index in indices:
                    with decoding(self.path):
                        image.seek(index)
                        picture = from_pil(image, str(self.path), self.mode)
                    yield picture


def read_frames(path: Path) -> Frames:
    """Read how many pictures a PNG, JPEG, WebP, TIFF, BMP, GIF or AVIF file has, and of an animation their timing.

    The pictures are decoded, upright, when they are asked for. Their depth comes from the header, never from the
    values. CMYK and Lab become sRGB through the embedded profile; other profiles are kept and the values left alone.
    ValueError for a file that is no image, is damaged, is larger than MAX_PIXELS or has samples that are not integers
    of up to 16 bit; the disk's errors stay OSErrors.
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
        if is_16bit and headers[0].offset:  # a TIFF that Pillow may not know
            return Frames(path, headers)
        with decoding(path):
            image = Image.open(file, formats=INPUT_FORMATS)
            if image.format not in ANIMATED_FORMATS or not getattr(image, "is_animated", False):
                return Frames(path, headers)
            count = getattr(image, "n_frames", 1)
        if is_16bit:
            raise ValueError(f"{path}: expected frames of 8 bit, got an animation of more; convert it")
        _check_sum(count * image.width * image.height, path)
        with decoding(path):
            return Frames(path, headers, *_read_timing(image))


def _frame_indices(image: Image.Image) -> range:
    """Pillow's numbers of an animation's frames; an APNG's still that stands in for them is none."""
    return range("default_image" in image.info, getattr(image, "n_frames", 1))


def _read_timing(image: Image.Image) -> tuple[AnimationTiming, str]:
    """Decode an animation once: its timing, and the mode that holds all frames."""
    durations, modes = [], set()
    for index in _frame_indices(image):
        image.seek(index)
        image.load()
        durations.append(float(image.info.get("duration") or 0))
        modes.add(plain_mode(image))
    loop_count = int(image.info.get("loop", 0 if image.format == "AVIF" else 1))
    if image.format == "GIF" and "loop" in image.info and loop_count:
        loop_count += 1  # GIF counts repetitions
    mode = "L" if modes <= {"L", "LA"} else "RGB"
    if any(each.endswith("A") for each in modes):
        mode += "A"
    return AnimationTiming(tuple(durations), loop_count), mode


def read_image(path: Path) -> Picture:
    """Read the picture of a file or, with a warning, the first of several; see read_frames."""
    frames = read_frames(path)
    if len(frames) > 1:
        logger.warning("%s: has %d pictures; only the first is read", path, len(frames))
    return next(iter(frames))


def _check(header: ImageHeader, path: Path) -> None:
    if header.unknown:
        raise ValueError(f"{path}: expected gray, RGB, CMYK or CIE Lab, got {header.unknown}; convert it to RGB")
    if not header.is_unsigned or header.bits not in (1, 2, 4, 8, 16):
        raise ValueError(
            f"{path}: expected unsigned integers of 1 to 8 or of 16 bit, got {header.bits} bit "
            f"{'integers' if header.is_unsigned else 'signed or float numbers'}; convert it to 16 bit"
        )
    if header.pixels > MAX_PIXELS:
        raise ValueError(f"{path}: expected at most {MAX_PIXELS} px, got {header.pixels}; cut it into parts")


def _check_sum(pixels: int, path: Path) -> None:
    if pixels > MAX_FRAME_PIXELS:
        raise ValueError(f"{path}: expected at most {MAX_FRAME_PIXELS} px in all frames or pages, got {pixels}; cut it")


def read_metadata(path: Path) -> dict[str, str]:
    """Return the texts that write_frames put into a file, or other texts of a PNG; {} where there are none."""
    with open(path, "rb") as file, decoding(path):
        if is_tiff(file.read(4)):
            return comment_texts(portable_tags(lambda: read_exif(file)).get(IFD.Exif, {}).get(Base.UserComment))
        image = Image.open(file, formats=INPUT_FORMATS)
        if image.format == "PNG":
            return {str(key): str(text) for key, text in image.info.items() if isinstance(text, str)}
        if image.format == "GIF":
            return comment_texts(image.info.get("comment"))
        return comment_texts(portable_tags(image.getexif).get(IFD.Exif, {}).get(Base.UserComment))


def default_suffix(path: Path) -> str:
    """What an output is called that loses nothing: ".png", but of several frames or pages the suffix of their kind.

    Only files are opened whose own suffix says that they may hold several.
    """
    if path.suffix.lower() in _OF_SEVERAL:
        with suppress(ValueError, OSError), open(path, "rb") as file, decoding(path):
            if len(read_headers(file)) > 1:
                return ".tif"
            image = Image.open(file, formats=INPUT_FORMATS)
            if image.format in ANIMATED_FORMATS and getattr(image, "is_animated", False):
                return f".{image.format.lower()}"
    return ".png"


def load_rgb(file: Path | BinaryIO) -> Image.Image:
    """Read an upright RGB image of 8 bit; what is transparent becomes white. Raises one of DECODER_ERRORS."""
    with Image.open(file) as opened:
        opened.load()
        try:
            image = ImageOps.exif_transpose(opened)
        except DECODER_ERRORS:  # damaged EXIF does not cost the picture
            image = opened.copy()
    if image.mode.startswith("I"):  # 16 bit, which convert() would clip
        image = Image.fromarray(((np.asarray(image).clip(0, 65535).astype(np.int64) + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def shorter_side(file: Path | BinaryIO) -> float:
    """The shorter side in px, from the file's header; infinite where it can't be read: loading it will say why."""
    try:
        with Image.open(file) as image:
            return min(image.size)
    except DECODER_ERRORS:
        return math.inf
