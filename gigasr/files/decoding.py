"""Decoding of one picture, from PIL images or 16-bit files, and decoders' errors."""

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

MAX_PIXELS = 178_956_970  # px; more in a header is refused as a decompression bomb (Pillow's own limit)

DECODER_ERRORS = (  # raised by Pillow, libvips and our readers for damaged images
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
    """Turn decoders' errors for a bad file into a ValueError of one line.

    Errors of the disk pass unchanged.
    """
    try:
        yield
    except UnidentifiedImageError as error:
        formats = ", ".join(INPUT_FORMATS)
        raise ValueError(f"{path}: expected an image ({formats}), got something else; remove or convert it") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path}: expected at most {MAX_PIXELS} px, got more; cut it into parts") from error
    except DECODER_ERRORS as error:
        is_of_disk = isinstance(error, OSError) and error.errno is not None
        if is_of_disk:
            raise
        reason = join_lines(str(error)) or type(error).__name__
        raise ValueError(f"{path}: expected an intact image, got a damaged one ({reason}); replace it") from error


class _Details(NamedTuple):
    """Properties of a 16-bit file besides the samples."""

    format: str
    tags: dict[int, Any]
    dpi: Any  # as Pillow gives it
    texts: dict[str, str]
    xmp: bytes | None


def read_16bit(file: BinaryIO, path: Path, header: ImageHeader) -> Picture:
    """Read a 16-bit picture with pyvips: Pillow has no 16-bit colour.

    file: open at path
    """
    import pyvips

    details = _read_details(file, header)
    orientation = details.tags.get(Base.Orientation, 1)
    try:
        source = pyvips.Source.new_from_file(os.fsencode(path))
        options = {"page": header.page} if details.format == "TIFF" else {}
        image = pyvips.Image.new_from_source(source, "", access="sequential", fail_on="error", **options)
        image = _to_rgb(image).copy_memory()
        if details.format == "PNG":  # libvips overlooks some orientations
            image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
        image = image.autorot()
        samples = image.numpy()
        icc_profile = _get_field(image, "icc-profile-data")
        xmp = _get_field(image, "xmp-data")
    except pyvips.Error as error:
        raise ValueError(error) from error
    if samples.dtype != np.uint16:
        raise ValueError(f"16-bit samples that decode to {samples.dtype}")
    if not header.has_alpha and samples.ndim == 3:  # Pillow does the same at 8 bit
        num_colours = 1 if samples.shape[2] < 3 else 3
        samples = samples[:, :, :num_colours]
    picture = _to_picture(samples, header.white, icc_profile, details.tags)
    dpi = _upright(_clean_dpi(details.dpi), orientation)
    return replace(picture, dpi=dpi, xmp=xmp or details.xmp, texts=details.texts)


def _get_field(image: Any, name: str) -> bytes | None:
    """Return a field of a libvips image; None if missing."""
    return image.get(name) if image.get_typeof(name) else None


def _read_details(file: BinaryIO, header: ImageHeader) -> _Details:
    """Read properties with Pillow: libvips ignores a PNG's chunks after the pixels."""
    file.seek(0)
    if is_tiff(file.read(4)):
        tags = portable_tags(lambda: read_exif(file, header.offset))
        return _Details("TIFF", tags, header.dpi, {}, None)
    file.seek(0)
    image = Image.open(file, formats=INPUT_FORMATS)
    if image.format == "PNG":
        with suppress(*DECODER_ERRORS):  # libvips reports damaged pixels
            image.load()
        _warn_of_gamma(image)
    tags = portable_tags(image.getexif)
    texts = user_texts(image.info)
    return _Details(image.format or "", tags, image.info.get("dpi"), texts, read_xmp(image))


def _to_rgb(image: Any) -> Any:
    """Convert the CMYK or Lab colours of a 16-bit libvips image to RGB.

    Alpha and the colours of other images are unchanged.
    """
    if image.interpretation == "cmyk":
        bands = 4
        inks = image.extract_band(0, n=bands)
        colours = inks.icc_transform("srgb", embedded=True, input_profile="cmyk", depth=16, intent="relative")
    elif image.interpretation in ("lab", "labs"):
        bands = 3
        colours = image.extract_band(0, n=bands).colourspace("rgb16")
    else:
        return image
    if image.bands <= bands:
        return colours
    alpha = image[bands].copy(format="ushort")
    return colours.bandjoin(alpha)


def _warn_of_gamma(image: Image.Image) -> None:
    """Warn of a PNG with a gamma other than sRGB's: results have no gAMA chunk.

    An ICC profile or an sRGB chunk overrules gAMA.
    """
    gamma = image.info.get("gamma")
    has_colour_space = {"icc_profile", "srgb"} & image.info.keys()
    if gamma and not has_colour_space and abs(gamma - 1 / 2.2) > 0.01:
        logger.warning("gamma %.3g left out: the values are taken for sRGB; give the file an ICC profile", gamma)


def from_pil(image: Image.Image, name: str = "image", mode: str = "") -> Picture:
    """Convert a PIL image with orientation, profile, metadata and transparency.

    Only the modes I;16 have 16 bit: PIL reduces 16-bit RGB to 8 bit when opening a file, unlike read_image.

    name: of the image in messages
    mode: PIL mode to convert to; "" = plain_mode

    Raises ValueError for the modes F and I.
    """
    tiff_orientation = getattr(image, "tag_v2", {}).get(Base.Orientation)  # image.load() applies and removes the tag
    image.load()
    tags = portable_tags(image.getexif)
    xmp, iptc = read_xmp(image), read_iptc(image)
    texts = user_texts(image.info) if image.format == "PNG" else {}
    _warn_of_gamma(image)
    orientation = tags.get(Base.Orientation)
    dpi = _upright(_clean_dpi(image.info.get("dpi")), tiff_orientation or orientation)
    if orientation in _TRANSPOSE:
        image = image.transpose(_TRANSPOSE[orientation])
    samples = np.asarray(_to_plain_mode(image, name, mode or plain_mode(image)))
    white = np.iinfo(samples.dtype).max
    picture = _to_picture(samples, white, image.info.get("icc_profile"), tags)
    return replace(picture, dpi=dpi, xmp=xmp, iptc=picture.iptc or iptc, texts=texts)


def plain_mode(image: Image.Image) -> str:
    """Return the mode for an 8-bit image's channels: L, LA, RGB or RGBA."""
    is_gray = image.mode in ("1", "L", "LA", "La")
    mode = "L" if is_gray else "RGB"
    return f"{mode}A" if image.has_transparency_data else mode


def _to_plain_mode(image: Image.Image, name: str, mode: str) -> Image.Image:
    """Convert to a plain mode; 16-bit gray stays I;16, and CMYK becomes RGB."""
    if image.mode in ("F", "I"):
        raise ValueError(f"{name}: expected 8 or 16 bit integers, got PIL mode {image.mode}; convert it to I;16 or L")
    if image.mode.startswith("I;16"):
        return image
    if image.mode == "CMYK":
        return cmyk_to_srgb(image, name)
    return image if image.mode == mode else image.convert(mode)


def _to_picture(samples: np.ndarray, white: int, icc_profile: bytes | None, tags: dict[int, Any]) -> Picture:
    """Make a picture of samples in [0, white]; samples after the fourth are dropped.

    samples: [H, W] or [H, W, C] unsigned integers; C = gray, gray + alpha, RGB, or RGB + alpha
    tags:    from portable_tags
    """
    samples = samples.reshape(*samples.shape[:2], -1)
    channels = samples.shape[2]
    planes = np.empty((min(channels, 4), *samples.shape[:2]), np.float32)
    samples_first = np.moveaxis(samples, 2, 0)
    np.divide(samples_first[:4], np.float32(white), out=planes)
    tensor = torch.from_numpy(planes)
    is_gray = channels < 3
    num_colours = 1 if is_gray else 3
    has_alpha = channels > num_colours
    exif_tags = {tag: value for tag, value in tags.items() if tag not in (Base.Orientation, IPTC_TAG)}
    return Picture(
        rgb=tensor[:num_colours].expand(3, -1, -1),
        alpha=tensor[num_colours : num_colours + 1] if has_alpha else None,
        is_gray=is_gray,
        bit_depth=8 * samples.dtype.itemsize,
        icc_profile=_matching_profile(icc_profile, is_gray),
        exif=exif_bytes(exif_tags),
        iptc=tags.get(IPTC_TAG),
    )


def _matching_profile(profile: bytes | None, is_gray: bool) -> bytes | None:
    """Return a profile; None if the profile is for another colour space."""
    space = b"GRAY" if is_gray else b"RGB "
    return profile if profile and profile[16:20] == space else None


def _upright(dpi: tuple[float, float] | None, orientation: int | None) -> tuple[float, float] | None:
    """Return the resolution (x, y) after turning a picture upright."""
    is_turned = orientation in (5, 6, 7, 8)
    return dpi[::-1] if dpi is not None and is_turned else dpi


def _clean_dpi(dpi: Iterable[float] | None) -> tuple[float, float] | None:
    """Return a resolution (x, y); None if missing, invalid or implausible."""
    try:
        x, y = map(float, dpi or ())
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    is_known = 1 < x < 65536 and 1 < y < 65536  # 1 is Pillow's value for an unknown resolution
    return (x, y) if is_known else None
