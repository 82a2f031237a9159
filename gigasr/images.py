"""Pictures, and image files and PIL images to them: 8 and 16 bit, gray, alpha, ICC, EXIF, and PIL's (W, H) order."""

import io
import logging
import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageCms, TiffImagePlugin, UnidentifiedImageError
from torch import Tensor

from gigasr.exif import INPUT_FORMATS, ORIENTATION, comment_texts, exif_bytes, portable_tags, read_exif

logger = logging.getLogger(__name__)

MAX_PIXELS = 178_956_970  # px; a file whose header claims more is refused as a decompression bomb (Pillow's own limit)
OUTPUT_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
}
INPUT_SUFFIXES = frozenset(OUTPUT_FORMATS) | {".gif"}

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


@dataclass(frozen=True, eq=False)
class Picture:
    """An upright image with what a file says about it; read it with read_image, write it with write_image."""

    rgb: Tensor  # [3, H, W] float32 in [0, 1]; the three are equal, and may share memory, in a gray picture
    alpha: Tensor | None = None  # [1, H, W] float32 in [0, 1], 1 = opaque; rgb is not premultiplied
    is_gray: bool = False  # written with one colour channel
    bit_depth: int = 8  # 8 or 16; of the file it came from, and to write where the format can
    icc_profile: bytes | None = None  # of rgb or, in a gray picture, of gray; None = sRGB
    exif: bytes | None = None  # without orientation, thumbnail and resolution
    dpi: tuple[float, float] | None = None  # x, y

    def __post_init__(self) -> None:
        if self.rgb.dim() != 3 or self.rgb.shape[0] != 3 or self.rgb.dtype != torch.float32:
            raise ValueError(
                f"picture.rgb: expected [3, H, W] float32, got {list(self.rgb.shape)} {self.rgb.dtype}; convert it"
            )
        if self.alpha is not None and (self.alpha.shape != (1, *self.size) or self.alpha.dtype != torch.float32):
            raise ValueError(
                f"picture.alpha: expected [1, {self.size[0]}, {self.size[1]}] float32, "
                f"got {list(self.alpha.shape)} {self.alpha.dtype}; resize it with rgb"
            )
        if self.bit_depth not in (8, 16):
            raise ValueError(f"picture.bit_depth: expected 8 or 16, got {self.bit_depth}; choose one")

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in px."""
        return self.rgb.shape[1], self.rgb.shape[2]


def is_image_file(path: Path) -> bool:
    """Tell by its suffix whether a file is an image that read_image knows."""
    return path.suffix.lower() in INPUT_SUFFIXES


def fill_transparent(rgb: Tensor, alpha: Tensor) -> Tensor:
    """Give fully transparent pixels the colour of what lies around, so that no hidden colour leaks into an edge.

    rgb:     [3, H, W] in [0, 1]
    alpha:   [1, H, W] in [0, 1]
    returns: [3, H, W] in [0, 1]; unchanged wherever alpha is above 0
    """
    if bool((alpha > 0).all()):
        return rgb
    return torch.where(alpha > 0, rgb, _surroundings((rgb * alpha)[None], alpha[None])[0])


def _surroundings(weighted: Tensor, alpha: Tensor) -> Tensor:
    """weighted: [1, 3, H, W] colour times alpha, alpha: [1, 1, H, W] -> mean colour of the nearest visible pixels."""
    if max(alpha.shape[2:]) == 1:
        return weighted / alpha.clamp(min=1e-6)
    half = [F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False) for x in (weighted, alpha)]
    farther = F.interpolate(_surroundings(half[0], half[1]), alpha.shape[2:], mode="bilinear", align_corners=False)
    return torch.where(alpha > 0, weighted / alpha.clamp(min=1e-6), farther)


def read_image(path: Path) -> Picture:
    """Read a PNG, JPEG, WebP, TIFF, BMP or GIF file, the first frame of it, upright.

    The depth comes from the header, never from the values. CMYK and Lab become sRGB through the embedded profile; other
    profiles are kept and the values left alone. ValueError for a file that is no image, is damaged, is larger than
    MAX_PIXELS or has samples that are not integers of up to 16 bit; the disk's errors stay OSErrors.
    """
    with open(path, "rb") as file:
        if not file.read(1):
            raise ValueError(f"{path}: expected an image, got an empty file; replace it")
        with _decoding(path):
            header = _read_header(file)
        if not header.is_unsigned or header.bits not in (1, 2, 4, 8, 16):
            raise ValueError(
                f"{path}: expected unsigned integers of 1 to 8 or of 16 bit, got {header.bits} bit "
                f"{'integers' if header.is_unsigned else 'signed or float numbers'}; convert it to 16 bit"
            )
        if header.pixels > MAX_PIXELS:
            raise ValueError(f"{path}: expected at most {MAX_PIXELS} px, got {header.pixels}; cut it into parts")
        with _decoding(path):
            if header.bits == 16:
                return _read_deep(file, path)
            image = Image.open(file, formats=INPUT_FORMATS)
            image.load()
        if getattr(image, "is_animated", False) and image.format != "MPO":
            logger.warning("%s: has several frames; only the first is read", path)
        return _from_pil(image, str(path))


def from_pil(image: Image.Image) -> Picture:
    """Convert a PIL image, with its orientation, profile, EXIF and transparency; 16 bit in the I;16 modes only.

    PIL reduces 16-bit RGB to 8 bit when it opens a file; read_image doesn't.
    """
    return _from_pil(image, "image")


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


class _Header(NamedTuple):
    bits: int = 8
    is_unsigned: bool = True
    pixels: int = 0  # 0 = left to Pillow


def _read_header(file: BinaryIO) -> _Header:
    """Read the depth from a PNG or TIFF header; other formats have 8 bit."""
    file.seek(0)
    head = file.read(26)
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        width, height, bits = struct.unpack(">2IB", head[16:25])
        return _Header(bits, True, width * height)
    if not _is_tiff(head):
        return _Header()
    tags = TiffImagePlugin.ImageFileDirectory_v2(head[: 16 if 43 in head[2:4] else 8])
    file.seek(tags.next)
    tags.load(file)
    known = {1, 2, 4} if tags.get(262) == 8 else {1, 4}  # unsigned or unspecified; Lab's a and b are signed
    return _Header(max(tags.get(258, (1,))), set(tags.get(339, (1,))) <= known, tags[256] * tags[257])


def _is_tiff(head: bytes) -> bool:
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _read_deep(file: BinaryIO, path: Path) -> Picture:
    """Read a 16-bit file with pyvips, as Pillow has no 16-bit colour."""
    import pyvips

    try:
        source = pyvips.Source.new_from_file(os.fspath(path))
        image = pyvips.Image.new_from_source(source, "", access="sequential", fail_on="error")
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
    file.seek(0)
    if _is_tiff(file.read(4)):
        dpi = None if image.xres == 1 else (image.xres * 25.4, image.yres * 25.4)  # 1 px/mm stands for unknown
    else:
        dpi = Image.open(file, formats=INPUT_FORMATS).info.get("dpi")  # here pyvips gives 72 for unknown
    return _to_picture(samples, icc_profile, portable_tags(lambda: read_exif(file)), dpi)


def _from_pil(image: Image.Image, name: str) -> Picture:
    image.load()
    tags = portable_tags(image.getexif)
    if tags.get(ORIENTATION) in _TRANSPOSE:
        image = image.transpose(_TRANSPOSE[tags[ORIENTATION]])
    samples = np.asarray(_to_plain_mode(image, name))
    return _to_picture(samples, image.info.get("icc_profile"), tags, image.info.get("dpi"))


def _to_plain_mode(image: Image.Image, name: str) -> Image.Image:
    """Convert to L, LA, RGB, RGBA or I;16."""
    if image.mode in ("F", "I"):
        raise ValueError(f"{name}: expected 8 or 16 bit integers, got PIL mode {image.mode}; convert it to I;16 or L")
    if image.mode.startswith("I;16"):
        return image
    if image.mode == "CMYK":
        return _cmyk_to_srgb(image, name)
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    if image.has_transparency_data:
        mode += "A"
    return image if image.mode == mode else image.convert(mode)


def _cmyk_to_srgb(image: Image.Image, name: str) -> Image.Image:
    profile = image.info.get("icc_profile")
    if not profile:
        return image.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), "CMYK", "RGB", intent)
        return transform.apply(image)
    except (ImageCms.PyCMSError, OSError) as error:
        logger.warning("%s: its CMYK profile is unusable (%s); converted without it", name, error)
        return image.convert("RGB")


def _to_picture(
    samples: np.ndarray, icc_profile: bytes | None, tags: dict[int, Any], dpi: Iterable[float] | None
) -> Picture:
    """samples: [H, W] or [H, W, C] unsigned integers, C = gray, gray + alpha, RGB, or RGB + alpha"""
    samples = samples.reshape(*samples.shape[:2], -1)
    channels = samples.shape[2]
    planes = np.empty((min(channels, 4), *samples.shape[:2]), np.float32)
    np.divide(np.moveaxis(samples, 2, 0)[:4], np.float32(np.iinfo(samples.dtype).max), out=planes)
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
