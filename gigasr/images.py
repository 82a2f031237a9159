"""Image files and PIL images to tensors and back: 8 and 16 bit, gray, alpha, ICC, EXIF, and PIL's (W, H) order."""

import io
import json
import logging
import os
import struct
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageCms, PngImagePlugin, TiffImagePlugin, TiffTags, UnidentifiedImageError
from torch import Tensor

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

_INPUT_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF")
_LONGEST_SIDE = {"JPEG": 65_500, "WEBP": 16_383}  # px; limits of the formats
_DEFAULT_QUALITY = 95
_DEFLATE_LEVEL = 2  # a third of the time of level 6 for a sixth more bytes
_TIFF_STRIP_BYTES = 1 << 18
_PNG_BLOCK_BYTES = 1 << 22
_DECODER_ERRORS = (ValueError, SyntaxError, LookupError, TypeError, EOFError, ArithmeticError, struct.error, zlib.error)

_ORIENTATION, _EXIF_IFD, _GPS_IFD = 0x0112, 0x8769, 0x8825
_MAKER_NOTE, _USER_COMMENT, _PIXEL_WIDTH, _PIXEL_HEIGHT, _INTEROP_IFD = 0x927C, 0x9286, 0xA002, 0xA003, 0xA005
# Tags that describe the photograph; the others of IFD0 describe the file: strips, depth, resolution, thumbnail.
_KEPT_TAGS = {0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x013C, 0x4746, 0x4749, 0x8298, *range(0x9C9B, 0x9CA0)}
_COMMENT_PREFIX = b"ASCII\0\0\0"  # EXIF's name for the encoding of a UserComment
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


# Reading


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
            image = Image.open(file, formats=_INPUT_FORMATS)
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
        formats = ", ".join(_INPUT_FORMATS)
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
        dpi = Image.open(file, formats=_INPUT_FORMATS).info.get("dpi")  # here pyvips gives 72 for unknown
    return _to_picture(samples, icc_profile, _portable_tags(lambda: _read_exif(file)), dpi)


def _from_pil(image: Image.Image, name: str) -> Picture:
    image.load()
    tags = _portable_tags(image.getexif)
    if tags.get(_ORIENTATION) in _TRANSPOSE:
        image = image.transpose(_TRANSPOSE[tags[_ORIENTATION]])
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
        exif=_exif_bytes({tag: value for tag, value in tags.items() if tag != _ORIENTATION}),
        dpi=_clean_dpi(dpi),
    )


def _clean_dpi(dpi: Iterable[float] | None) -> tuple[float, float] | None:
    try:
        x, y = map(float, dpi or ())
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if 1 < x < 65536 and 1 < y < 65536 else None  # Pillow gives 1 for an unknown one


# EXIF and texts


def read_metadata(path: Path) -> dict[str, str]:
    """Return the texts that write_image put into a file, or other texts of a PNG; {} where there are none."""
    with open(path, "rb") as file, _decoding(path):
        if file.read(4) == b"\x89PNG":
            info = Image.open(file, formats=_INPUT_FORMATS).info
            return {str(key): str(text) for key, text in info.items() if isinstance(text, str)}
        comment = _portable_tags(lambda: _read_exif(file)).get(_EXIF_IFD, {}).get(_USER_COMMENT)
    try:
        texts = json.loads(comment.removeprefix(_COMMENT_PREFIX)) if isinstance(comment, bytes) else None
    except ValueError:
        return {}  # somebody else's comment
    return {str(key): str(text) for key, text in texts.items()} if isinstance(texts, dict) else {}


def _read_exif(file: BinaryIO) -> Image.Exif:
    """Read the EXIF block; in TIFF without opening the image, as Pillow doesn't know every 16-bit TIFF."""
    file.seek(0)
    is_classic_tiff = file.read(4) in (b"II*\0", b"MM\0*")
    file.seek(0)
    if not is_classic_tiff:
        return Image.open(file, formats=_INPUT_FORMATS).getexif()
    exif = Image.Exif()
    exif.load_from_fp(file)
    return exif


def _portable_tags(load: Callable[[], Image.Exif]) -> dict[int, Any]:
    """Return the tags worth keeping in another file, and the orientation; {} for a damaged EXIF block."""
    try:
        exif = load()
        tags = {tag: exif[tag] for tag in exif if tag in _KEPT_TAGS or tag == _ORIENTATION}
        for ifd in (_EXIF_IFD, _GPS_IFD):
            if nested := dict(exif.get_ifd(ifd)):
                nested.pop(_INTEROP_IFD, None)  # an offset into the old file
                tags[ifd] = nested
        _exif_bytes(tags)
    except Exception as error:  # a damaged EXIF block raises anything, and must not cost the picture
        logger.warning("EXIF ignored as it is damaged: %s", error)
        return {}
    return tags


def _exif_bytes(tags: dict[int, Any]) -> bytes | None:
    exif = Image.Exif()
    exif.update(tags)
    return exif.tobytes() if tags else None


def _output_tags(picture: Picture, texts: dict[str, str]) -> dict[int, Any]:
    """Return the picture's EXIF tags with its present size, and the texts as a comment."""

    def load() -> Image.Exif:
        exif = Image.Exif()
        exif.load(picture.exif or b"")
        return exif

    tags = _portable_tags(load)
    tags.pop(_ORIENTATION, None)
    if tags or texts:
        nested = tags.setdefault(_EXIF_IFD, {})
        nested[_PIXEL_HEIGHT], nested[_PIXEL_WIDTH] = picture.size
    if texts:
        nested[_USER_COMMENT] = _COMMENT_PREFIX + json.dumps(texts).encode("ascii")
    return tags


# Writing


def to_pil(picture: Picture) -> Image.Image:
    """Convert to a PIL image: I;16 for 16-bit gray without alpha, else L, LA, RGB or RGBA with 8 bit."""
    is_deep = picture.bit_depth == 16 and picture.is_gray and picture.alpha is None
    image = _samples_to_pil(_to_samples(picture, np.uint16 if is_deep else np.uint8))
    image.info.update(_pil_options(picture, _output_tags(picture, {})))
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
    with _replacing(path) as file:
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


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a new file in the target's folder; when all went well, sync it and move it over the target."""
    temporary = path.with_name(f".gigasr-{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _encode(file: BinaryIO, file_format: str, picture: Picture, texts: dict[str, str], quality: int) -> None:
    has_alpha = file_format not in ("JPEG", "BMP")
    is_deep = picture.bit_depth == 16 and file_format in ("PNG", "TIFF")
    samples = _to_samples(picture if has_alpha else _on_white(picture), np.uint16 if is_deep else np.uint8)
    tags = _output_tags(picture, {} if file_format == "PNG" else texts)
    if file_format == "TIFF":
        return _write_tiff(file, samples, picture, tags)
    if is_deep:
        return _write_deep_png(file, samples, picture, tags, texts)
    options = _pil_options(picture, tags)
    if file_format == "PNG":
        options |= {"pnginfo": _png_texts(texts), "compress_level": _DEFLATE_LEVEL}
    elif file_format == "JPEG":
        options |= {"quality": quality, "subsampling": 0, "exif": _jpeg_exif(tags)}
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
    options = {"icc_profile": picture.icc_profile, "dpi": picture.dpi, "exif": _exif_bytes(tags)}
    return {name: value for name, value in options.items() if value}


def _jpeg_exif(tags: dict[int, Any]) -> bytes:
    """Return EXIF that fits a JPEG segment of 64 KiB, if need be without the camera maker's private block."""
    exif = _exif_bytes(tags) or b""
    if len(exif) > 65_533:
        tags[_EXIF_IFD].pop(_MAKER_NOTE, None)
        exif = _exif_bytes(tags) or b""
    return exif


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
    if exif := _exif_bytes(tags):
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
