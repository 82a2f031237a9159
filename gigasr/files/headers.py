"""Depth and size of images from file headers, before decoding."""

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from PIL import TiffImagePlugin as Tiff

_SUBFILE_TYPE = 254  # a TIFF tag with bits:
_SMALLER_VERSION, _MASK = 0b001, 0b100
_SUB_DIRECTORIES, _DNG_VERSION = 330, 50706  # tags in the first page of a camera's raw file
_PALETTE, _CIELAB = 3, 8  # values of PHOTOMETRIC_INTERPRETATION
_UNKNOWN = {  # values of PHOTOMETRIC_INTERPRETATION that no reader here knows
    9: "ICC Lab",
    10: "ITU Lab",
    32803: "a sensor's mosaic",
    34892: "a sensor's values",
}
_DOTS_PER_INCH = {2: 1.0, 3: 2.54}  # by RESOLUTION_UNIT: per inch, per centimetre


class ImageHeader(NamedTuple):
    """Description of one picture in a file's header."""

    bits: int = 8  # per sample; more than 8 are decoded to 16
    is_unsigned: bool = True
    pixels: int = 0  # 0 = left to Pillow
    page: int = 0  # number in a TIFF
    offset: int = 0  # of the directory in a TIFF, bytes
    white: int = 65_535  # the largest sample after decoding to 16 bit
    has_alpha: bool = True  # a TIFF may call samples beside the colours something else
    dpi: tuple[float, float] | None = None  # of a TIFF
    unknown: str = ""  # kind of samples, if no reader here knows it


def read_headers(file: BinaryIO) -> tuple[ImageHeader, ...]:
    """Read the depth and size of a file's pictures; a TIFF has one header per page.

    Formats other than PNG, TIFF and AVIF have 8 bit.
    """
    file.seek(0)
    head = file.read(26)
    if is_tiff(head):
        return tuple(_tiff_pages(file, head))
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        width, height, bits = struct.unpack(">2IB", head[16:25])
        return (ImageHeader(bits, pixels=width * height),)
    is_avif = head[4:12] in (b"ftypavif", b"ftypavis")
    bits = _avif_bits(file) if is_avif else 8
    if bits == 8:
        return (ImageHeader(),)
    largest = (1 << bits) - 1
    return (ImageHeader(16, white=largest << (16 - bits)),)


def is_tiff(head: bytes) -> bool:
    """Tell a TIFF or BigTIFF by the first four bytes."""
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _directories(head: bytes) -> Tiff.ImageFileDirectory_v2:
    """Make Pillow's reader for the directories of a TIFF or BigTIFF.

    head: at least the first 16 bytes of the file
    """
    is_big = 43 in head[2:4]
    num_bytes = 16 if is_big else 8
    return Tiff.ImageFileDirectory_v2(head[:num_bytes])


def first_directory(file: BinaryIO) -> int:
    """Return the offset of a TIFF's first directory, bytes."""
    file.seek(0)
    return int(_directories(file.read(16)).next)


def _tiff_pages(file: BinaryIO, head: bytes) -> Iterator[ImageHeader]:
    """Yield the pages of a TIFF, without thumbnails, smaller versions and masks."""
    tags = _directories(head)
    offset = tags.next
    page = 0
    seen = set[int]()  # a damaged file may link back to an earlier page
    while offset and offset not in seen:
        seen.add(offset)
        file.seek(offset)
        tags.load(file)
        is_additional = _subfile_type(tags) & (_SMALLER_VERSION | _MASK)
        if page == 0 or not is_additional:
            yield _page_header(tags, page, offset)
        offset = tags.next
        page += 1


def _subfile_type(tags: Tiff.ImageFileDirectory_v2) -> int:
    """Return the bits of a page's role: 1 smaller version, 4 mask; 0 if unknown."""
    kind = tags.get(_SUBFILE_TYPE)
    return kind if isinstance(kind, int) else 0


def _page_header(tags: Tiff.ImageFileDirectory_v2, page: int, offset: int) -> ImageHeader:
    """Make the header of a TIFF's page from the page's directory."""
    is_lab = tags.get(Tiff.PHOTOMETRIC_INTERPRETATION) == _CIELAB
    unsigned, signed, unspecified = 1, 2, 4
    formats = set(tags.get(Tiff.SAMPLEFORMAT, (unsigned,)))
    if is_lab:  # channels a and b are signed
        formats.discard(signed)
    bits = max(tags.get(Tiff.BITSPERSAMPLE, (1,)))
    kinds_of_alpha = {1, 2}  # premultiplied or not
    extra_samples = tags.get(Tiff.EXTRASAMPLES, ())
    return ImageHeader(
        bits,
        is_unsigned=formats <= {unsigned, unspecified},
        pixels=tags[Tiff.IMAGEWIDTH] * tags[Tiff.IMAGELENGTH],
        page=page,
        offset=offset,
        has_alpha=not kinds_of_alpha.isdisjoint(extra_samples),
        dpi=_page_dpi(tags),
        unknown=_unknown_kind(tags, bits),
    )


def _page_dpi(tags: Tiff.ImageFileDirectory_v2) -> tuple[float, float] | None:
    """Return a page's resolution (x, y); None if unknown or without unit of length."""
    x = tags.get(Tiff.X_RESOLUTION)
    y = tags.get(Tiff.Y_RESOLUTION)
    factor = _DOTS_PER_INCH.get(tags.get(Tiff.RESOLUTION_UNIT, 2))
    try:
        if not x or not y or not factor:
            return None
        return float(x) * factor, float(y) * factor
    except (TypeError, ValueError, ArithmeticError):  # tags of a wrong type
        return None


def _unknown_kind(tags: Tiff.ImageFileDirectory_v2, bits: int) -> str:
    """Name the contents of a page that no reader here knows; "" if readable."""
    is_preview = _subfile_type(tags) & _SMALLER_VERSION
    if is_preview and (_SUB_DIRECTORIES in tags or _DNG_VERSION in tags):
        return "a camera's raw file"
    kind = tags.get(Tiff.PHOTOMETRIC_INTERPRETATION, 1)
    if kind == _PALETTE and bits == 16:
        return "a palette of 16 bit"
    return _UNKNOWN.get(kind, "")


def _avif_bits(file: BinaryIO) -> int:
    """Read the bits per sample (8, 10 or 12) of an AVIF.

    The codec's configuration (box av1C) lies in the box after the file type.
    """
    file.seek(0)
    file.seek(_read_uint32(file))
    properties = file.read(_read_uint32(file))
    position = properties.find(b"av1C")
    flags = properties[position + 6] if position >= 0 else 0
    is_high, is_twelve = flags & 0x40, flags & 0x20
    if not is_high:
        return 8
    return 12 if is_twelve else 10


def _read_uint32(file: BinaryIO) -> int:
    """Read a big-endian number of four bytes."""
    (number,) = struct.unpack(">I", file.read(4))
    return int(number)
