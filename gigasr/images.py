"""Image files and PIL images to pictures: 8 and 16 bit, gray, alpha, ICC, EXIF, frames, and PIL's (W, H) order."""

import logging
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from gigasr.colour import cmyk_to_srgb
from gigasr.exif import INPUT_FORMATS, ORIENTATION, comment_texts, exif_bytes, portable_tags, read_exif
from gigasr.headers import Header, is_tiff, read_headers
from gigasr.picture import Picture

logger = logging.getLogger(__name__)

MAX_PIXELS = 178_956_970  # px; a file whose header claims more is refused as a decompression bomb (Pillow's own limit)
MAX_FRAME_PIXELS = 20 * MAX_PIXELS  # px of all frames or pages of a file together
ANIMATED_FORMATS = ("GIF", "PNG", "WEBP", "AVIF")
OUTPUT_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
}
INPUT_SUFFIXES = frozenset(OUTPUT_FORMATS) | {".gif", ".avif"}

_DECODER_ERRORS = (ValueError, SyntaxError, LookupError, TypeError, EOFError, ArithmeticError, struct.error, zlib.error)

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def is_image_file(path: Path) -> bool:
    """Tell by its suffix whether a file is an image that read_image knows."""
    return path.suffix.lower() in INPUT_SUFFIXES


@dataclass(frozen=True, eq=False)
class Frames:
    """The pictures of a file: one, the frames of an animation or the pages of a TIFF; decoded when asked for."""

    path: Path
    headers: tuple[Header, ...]  # one, or one per page
    durations: tuple[float, ...] = ()  # ms per frame; none where it is no animation
    plays: int = 1  # of an animation; 0 = for ever
    mode: str = ""  # PIL mode in which all frames of an animation are given

    def __len__(self) -> int:
        return len(self.durations) or len(self.headers)

    def __iter__(self) -> Iterator[Picture]:
        """Decode one after the other; ValueError for one that is damaged or unknown."""
        with open(self.path, "rb") as file:
            for header in self.headers:
                _check(header, self.path)
                if header.bits == 16:
                    with _decoding(self.path):
                        picture = _read_deep(file, self.path, header)
                    yield picture
                    continue
                with _decoding(self.path):
                    image = Image.open(file, formats=INPUT_FORMATS)
                skipped = int("default_image" in image.info) if self.durations else header.page
                for index in range(skipped, skipped + (len(self.durations) or 1)):
                    with _decoding(self.path):
                        image.seek(index)
                        picture = _from_pil(image, str(self.path), self.mode)
                    yield picture


def read_frames(path: Path) -> Frames:
    """Read how many pictures a PNG, JPEG, WebP, TIFF, BMP, GIF or AVIF file has, and of an animation their timing.

    The pictures are decoded, upright, when they are asked for. Their depth comes from the header, never from the
    values. CMYK and Lab become sRGB through the embedded profile; other profiles are kept and the values left alone.
    ValueError for a file that is no image, is damaged, is larger than MAX_PIXELS or has samples that are not integers
    of up to 16 bit; the disk's errors stay OSErrors.
    """
    with open(path, "rb") as file:
        if not file.read(1):
            raise ValueError(f"{path}: expected an image, got an empty file; replace it")
        with _decoding(path):
            headers = read_headers(file)
        if not headers:
            raise ValueError(f"{path}: expected an intact image, got a TIFF without pages; replace it")
        _check(headers[0], path)
        if headers[0].bits == 16:
            return Frames(path, headers)
        with _decoding(path):
            image = Image.open(file, formats=INPUT_FORMATS)
            if image.format not in ANIMATED_FORMATS or not getattr(image, "is_animated", False):
                return Frames(path, headers)
            skipped, count = int("default_image" in image.info), getattr(image, "n_frames", 1)
        if (pixels := count * image.width * image.height) > MAX_FRAME_PIXELS:
            raise ValueError(f"{path}: expected at most {MAX_FRAME_PIXELS} px in all frames, got {pixels}; cut it")
        with _decoding(path):
            return Frames(path, headers, *_read_timing(image, range(skipped, count)))


def _read_timing(image: Image.Image, indices: range) -> tuple[tuple[float, ...], int, str]:
    """Decode an animation once: ms of each frame, how often it plays, and the mode that holds all frames."""
    durations, modes = [], set()
    for index in indices:
        image.seek(index)
        image.load()
        durations.append(float(image.info.get("duration") or 0))
        modes.add(_plain_mode(image))
    plays = int(image.info.get("loop", 0 if image.format == "AVIF" else 1))
    if image.format == "GIF" and "loop" in image.info and plays:
        plays += 1  # GIF counts repetitions
    is_gray = modes <= {"L", "LA"}
    return tuple(durations), plays, ("L" if is_gray else "RGB") + "A" * any(mode.endswith("A") for mode in modes)


def read_image(path: Path) -> Picture:
    """Read the picture of a file or, with a warning, the first of several; see read_frames."""
    frames = read_frames(path)
    if len(frames) > 1:
        logger.warning("%s: has %d pictures; only the first is read", path, len(frames))
    return next(iter(frames))


def from_pil(image: Image.Image) -> Picture:
    """Convert a PIL image, with its orientation, profile, EXIF and transparency; 16 bit in the I;16 modes only.

    PIL reduces 16-bit RGB to 8 bit when it opens a file; read_image doesn't.
    """
    return _from_pil(image, "image")


def _check(header: Header, path: Path) -> None:
    if not header.is_unsigned or header.bits not in (1, 2, 4, 8, 16):
        raise ValueError(
            f"{path}: expected unsigned integers of 1 to 8 or of 16 bit, got {header.bits} bit "
            f"{'integers' if header.is_unsigned else 'signed or float numbers'}; convert it to 16 bit"
        )
    if header.pixels > MAX_PIXELS:
        raise ValueError(f"{path}: expected at most {MAX_PIXELS} px, got {header.pixels}; cut it into parts")


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Turn what decoders raise for a bad file into a ValueError of one line; let the disk's errors pass."""
    try:
        yield
    except UnidentifiedImageError as error:
        formats = ", ".join(INPUT_FORMATS)
        raise ValueError(f"{path}: expected an image ({formats}), got something else; remove or convert it") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path}: expected at most {MAX_PIXELS} px, got more; cut it into parts") from error
    except (OSError, *_DECODER_ERRORS) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: expected an intact image, got a damaged one ({reason}); replace it") from error


def _read_deep(file: BinaryIO, path: Path, header: Header) -> Picture:
    """Read a picture of more than 8 bit with pyvips, as Pillow has no 16-bit colour."""
    import pyvips

    file.seek(0)
    is_page = is_tiff(file.read(4))
    try:
        source = pyvips.Source.new_from_file(os.fspath(path))
        options = {"page": header.page} if is_page else {}
        image = pyvips.Image.new_from_source(source, "", access="sequential", fail_on="error", **options)
        if image.interpretation == "cmyk":
            image = image.icc_transform("srgb", embedded=True, input_profile="cmyk", depth=16, intent="relative")
        elif image.interpretation in ("lab", "labs"):
            image = image.colourspace("rgb16")
        image = image.copy_memory().autorot()
        samples = image.numpy()
        icc_profile = image.get("icc-profile-data") if image.get_typeof("icc-profile-data") else None
    except pyvips.Error as error:
        raise ValueError(error) from error
    if samples.dtype != np.uint16:
        raise ValueError(f"16-bit samples that decode to {samples.dtype}")
    if is_page:
        dpi = None if image.xres == 1 else (image.xres * 25.4, image.yres * 25.4)  # 1 px/mm stands for unknown
    else:
        file.seek(0)
        dpi = Image.open(file, formats=INPUT_FORMATS).info.get("dpi")  # here pyvips gives 72 for unknown
    tags = portable_tags(lambda: read_exif(file, header.offset))
    return _to_picture(samples, header.white, icc_profile, tags, dpi)


def _from_pil(image: Image.Image, name: str, mode: str = "") -> Picture:
    image.load()
    tags = portable_tags(image.getexif)
    if tags.get(ORIENTATION) in _TRANSPOSE:
        image = image.transpose(_TRANSPOSE[tags[ORIENTATION]])
    samples = np.asarray(_to_plain_mode(image, name, mode or _plain_mode(image)))
    white = np.iinfo(samples.dtype).max
    return _to_picture(samples, white, image.info.get("icc_profile"), tags, image.info.get("dpi"))


def _plain_mode(image: Image.Image) -> str:
    """L, LA, RGB or RGBA: the mode that holds what is in an image of 8 bit."""
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    return mode + "A" * image.has_transparency_data


def _to_plain_mode(image: Image.Image, name: str, mode: str) -> Image.Image:
    """Convert to a plain mode, or I;16."""
    if image.mode in ("F", "I"):
        raise ValueError(f"{name}: expected 8 or 16 bit integers, got PIL mode {image.mode}; convert it to I;16 or L")
    if image.mode.startswith("I;16"):
        return image
    if image.mode == "CMYK":
        return cmyk_to_srgb(image, name)
    return image if image.mode == mode else image.convert(mode)


def _to_picture(
    samples: np.ndarray, white: int, icc_profile: bytes | None, tags: dict[int, Any], dpi: Iterable[float] | None
) -> Picture:
    """samples: [H, W] or [H, W, C] unsigned integers up to white, C = gray, gray + alpha, RGB, or RGB + alpha"""
    samples = samples.reshape(*samples.shape[:2], -1)
    channels = samples.shape[2]
    planes = np.empty((min(channels, 4), *samples.shape[:2]), np.float32)
    np.divide(np.moveaxis(samples, 2, 0)[:4], np.float32(white), out=planes)
    is_gray = channels < 3
    colours = 1 if is_gray else 3
    tensor = torch.from_numpy(planes)
    space = b"GRAY" if is_gray else b"RGB "
    return Picture(
        rgb=tensor[:colours].expand(3, -1, -1),
        alpha=tensor[colours : colours + 1] if channels > colours else None,
        is_gray=is_gray,
        bit_depth=8 * samples.dtype.itemsize,
        icc_profile=icc_profile if icc_profile and icc_profile[16:20] == space else None,
        exif=exif_bytes({tag: value for tag, value in tags.items() if tag != ORIENTATION}),
        dpi=_clean_dpi(dpi),
    )


def _clean_dpi(dpi: Iterable[float] | None) -> tuple[float, float] | None:
    try:
        x, y = map(float, dpi or ())
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if 1 < x < 65536 and 1 < y < 65536 else None  # Pillow gives 1 for an unknown one


def read_metadata(path: Path) -> dict[str, str]:
    """Return the texts that write_image put into a file, or other texts of a PNG; {} where there are none."""
    with open(path, "rb") as file, _decoding(path):
        if file.read(4) == b"\x89PNG":
            info = Image.open(file, formats=INPUT_FORMATS).info
            return {str(key): str(text) for key, text in info.items() if isinstance(text, str)}
        return comment_texts(portable_tags(lambda: read_exif(file)))
