"""One decoded picture: from PIL images, from 16-bit files, and what decoders raise for damaged ones."""

import logging
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from PIL.ExifTags import Base

from gigasr.errors import join_lines
from gigasr.files.colour import cmyk_to_srgb
from gigasr.files.exif import exif_bytes, portable_tags, read_exif, user_texts
from gigasr.files.formats import INPUT_FORMATS
from gigasr.files.headers import ImageHeader, is_tiff
from gigasr.files.picture import Picture
from gigasr.files.xmp import IPTC_TAG, read_iptc, read_xmp

logger = logging.getLogger(__name__)

MAX_PIXELS = 178_956_970  # px; a file whose header claims more is refused as a decompression bomb (Pillow's own limit)

DECODER_ERRORS = (  # what Pillow, libvips and our readers raise for damaged images
    *(ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError, SyntaxError),
    *(TypeError, ValueError, struct.error, zlib.error, Image.DecompressionBombError),
)

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turn what decoders raise for a bad file into a ValueError of one line; let the disk's errors pass."""
    try:
        yield
    except UnidentifiedImageError as error:
        formats = ", ".join(INPUT_FORMATS)
        raise ValueError(f"{path}: expected an image ({formats}), got something else; remove or convert it") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path}: expected at most {MAX_PIXELS} px, got more; cut it into parts") from error
    except DECODER_ERRORS as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = join_lines(str(error)) or type(error).__name__
        raise ValueError(f"{path}: expected an intact image, got a damaged one ({reason}); replace it") from error


class _Details(NamedTuple):
    """What a file of more than 8 bit says beside its samples."""

    format: str
    tags: dict[int, Any]
    dpi: Any  # as Pillow gives it
    texts: dict[str, str]
    xmp: bytes | None


def read_16bit(file: BinaryIO, path: Path, header: ImageHeader) -> Picture:
    """Read a picture of more than 8 bit with pyvips, as Pillow has no 16-bit colour."""
    import pyvips

    details = _read_details(file, header)
    try:
        source = pyvips.Source.new_from_file(os.fsencode(path))
        options = {"page": header.page} if details.format == "TIFF" else {}
        image = pyvips.Image.new_from_source(source, "", access="sequential", fail_on="error", **options)
        image = _to_rgb(image).copy_memory()
        if details.format == "PNG":  # where libvips doesn't find every orientation
            image.set_type(pyvips.GValue.gint_type, "orientation", details.tags.get(Base.Orientation, 1))
        image = image.autorot()
        samples = image.numpy()
        icc_profile, xmp = (
            image.get(name) if image.get_typeof(name) else None for name in ("icc-profile-data", "xmp-data")
        )
    except pyvips.Error as error:
        raise ValueError(error) from error
    if samples.dtype != np.uint16:
        raise ValueError(f"16-bit samples that decode to {samples.dtype}")
    if not header.has_alpha and samples.ndim == 3:  # as Pillow does at 8 bit
        samples = samples[:, :, : 1 if samples.shape[2] < 3 else 3]
    picture = _to_picture(samples, header.white, icc_profile, details.tags)
    dpi = _upright(_clean_dpi(details.dpi), details.tags.get(Base.Orientation))
    return replace(picture, dpi=dpi, xmp=xmp or details.xmp, texts=details.texts)


def _read_details(file: BinaryIO, header: ImageHeader) -> _Details:
    """What Pillow finds; in a PNG behind the pixels too, where libvips doesn't look."""
    file.seek(0)
    if is_tiff(file.read(4)):
        tags = portable_tags(lambda: read_exif(file, header.offset))
        return _Details("TIFF", tags, header.dpi, {}, None)
    file.seek(0)
    image = Image.open(file, formats=INPUT_FORMATS)
    if image.format == "PNG":
        with suppress(*DECODER_ERRORS):  # the pixels are libvips' to judge
            image.load()
        _warn_of_gamma(image)
    tags = portable_tags(image.getexif)
    return _Details(image.format or "", tags, image.info.get("dpi"), user_texts(image.info), read_xmp(image))


def _to_rgb(image: Any) -> Any:
    """A libvips image of 16 bit whose CMYK or Lab, if it is that, has become RGB; its alpha as it was."""
    if image.interpretation == "cmyk":
        colours, bands = image.extract_band(0, n=4), 4
        colours = colours.icc_transform("srgb", embedded=True, input_profile="cmyk", depth=16, intent="relative")
    elif image.interpretation in ("lab", "labs"):
        colours, bands = image.extract_band(0, n=3).colourspace("rgb16"), 3
    else:
        return image
    return colours.bandjoin(image[bands].copy(format="ushort")) if image.bands > bands else colours


def _warn_of_gamma(image: Image.Image) -> None:
    """Tell of a PNG whose values aren't sRGB's, by its gAMA chunk alone, which results don't have."""
    gamma = image.info.get("gamma")
    if gamma and abs(gamma - 1 / 2.2) > 0.01 and not {"icc_profile", "srgb"} & image.info.keys():
        logger.warning("gamma %.3g left out: the values are taken for sRGB; give the file an ICC profile", gamma)


def from_pil(image: Image.Image, name: str = "image", mode: str = "") -> Picture:
    """Convert a PIL image, with its orientation, profile, EXIF and transparency; 16 bit in the I;16 modes only.

    PIL reduces 16-bit RGB to 8 bit when it opens a file; read_image doesn't.

    name: of the image in messages
    mode: PIL mode to convert to; "" = the plain one that holds what is in it
    """
    of_tiff = getattr(image, "tag_v2", {}).get(Base.Orientation)  # by which Pillow turns as it loads
    image.load()
    tags, xmp, iptc = portable_tags(image.getexif), read_xmp(image), read_iptc(image)
    texts = user_texts(image.info) if image.format == "PNG" else {}
    _warn_of_gamma(image)
    dpi = _upright(_clean_dpi(image.info.get("dpi")), of_tiff or tags.get(Base.Orientation))
    if tags.get(Base.Orientation) in _TRANSPOSE:
        image = image.transpose(_TRANSPOSE[tags[Base.Orientation]])
    samples = np.asarray(_to_plain_mode(image, name, mode or plain_mode(image)))
    white = np.iinfo(samples.dtype).max
    picture = _to_picture(samples, white, image.info.get("icc_profile"), tags)
    return replace(picture, dpi=dpi, xmp=xmp, iptc=picture.iptc or iptc, texts=texts)


def plain_mode(image: Image.Image) -> str:
    """L, LA, RGB or RGBA: the mode that holds what is in an image of 8 bit."""
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    return f"{mode}A" if image.has_transparency_data else mode


def _to_plain_mode(image: Image.Image, name: str, mode: str) -> Image.Image:
    """Convert to a plain mode, or I;16."""
    if image.mode in ("F", "I"):
        raise ValueError(f"{name}: expected 8 or 16 bit integers, got PIL mode {image.mode}; convert it to I;16 or L")
    if image.mode.startswith("I;16"):
        return image
    if image.mode == "CMYK":
        return cmyk_to_srgb(image, name)
    return image if image.mode == mode else image.convert(mode)


def _to_picture(samples: np.ndarray, white: int, icc_profile: bytes | None, tags: dict[int, Any]) -> Picture:
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
        exif=exif_bytes({tag: value for tag, value in tags.items() if tag not in (Base.Orientation, IPTC_TAG)}),
        iptc=tags.get(IPTC_TAG),
    )


def _upright(dpi: tuple[float, float] | None, orientation: int | None) -> tuple[float, float] | None:
    """The resolution (x, y) of a picture that has been brought upright."""
    return dpi[::-1] if dpi is not None and orientation in (5, 6, 7, 8) else dpi


def _clean_dpi(dpi: Iterable[float] | None) -> tuple[float, float] | None:
    try:
        x, y = map(float, dpi or ())
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if 1 < x < 65536 and 1 < y < 65536 else None  # Pillow gives 1 for an unknown one
