"""What an image file's header says of its depth and size, before anything is decoded."""

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from PIL import TiffImagePlugin as Tiff

SUBFILE_TYPE = 254  # a tag of TIFF
SUB_DIRECTORIES, DNG_VERSION = 330, 50706  # tags, in the first page of a camera's raw file
PALETTE, CIELAB = 3, 8  # PHOTOMETRIC_INTERPRETATION
_UNKNOWN = {9: "ICC Lab", 10: "ITU Lab", 32803: "a sensor's mosaic", 34892: "a sensor's values"}  # likewise
_INCHES = {2: 1.0, 3: 2.54}  # RESOLUTION_UNIT: per inch, per centimetre


class ImageHeader(NamedTuple):
    """One picture of a file, as its header describes it."""

    bits: int = 8  # per sample; above 8 they are decoded to 16
    is_unsigned: bool = True
    pixels: int = 0  # 0 = left to Pillow
    page: int = 0  # its number in a TIFF
    offset: int = 0  # of its directory in a TIFF, bytes
    white: int = 65_535  # the largest sample once decoded to 16 bit
    has_alpha: bool = True  # whether samples beside the colours are alpha, as a TIFF says
    dpi: tuple[float, float] | None = None  # of a TIFF
    unknown: str = ""  # the kind of samples that nobody here can read


def read_headers(file: BinaryIO) -> tuple[ImageHeader, ...]:
    """Read the depth from a PNG, TIFF or AVIF header; the other formats have 8 bit. A TIFF has one header per page."""
    file.seek(0)
    head = file.read(26)
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        width, height, bits = struct.unpack(">2IB", head[16:25])
        return (ImageHeader(bits, pixels=width * height),)
    if is_tiff(head):
        return tuple(_tiff_pages(file, head))
    if head[4:12] in (b"ftypavif", b"ftypavis"):
        bits = _avif_bits(file)
        return (ImageHeader(16, white=((1 << bits) - 1) << (16 - bits)),) if bits > 8 else (ImageHeader(),)
    return (ImageHeader(),)


def is_tiff(head: bytes) -> bool:
    """Tell a TIFF or BigTIFF by its first four bytes."""
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def _directories(head: bytes) -> Tiff.ImageFileDirectory_v2:
    """Pillow's reader of the directories of a TIFF or BigTIFF that begins so."""
    return Tiff.ImageFileDirectory_v2(head[: 16 if 43 in head[2:4] else 8])


def first_directory(file: BinaryIO) -> int:
    """Where the directory of a TIFF's first page begins, bytes."""
    file.seek(0)
    return int(_directories(file.read(16)).next)


def _tiff_pages(file: BinaryIO, head: bytes) -> Iterator[ImageHeader]:
    """The pages of a TIFF, without thumbnails, smaller versions and masks."""
    tags = _directories(head)
    offset, page, seen = tags.next, 0, set[int]()
    while offset and offset not in seen:
        seen.add(offset)
        file.seek(offset)
        tags.load(file)
        if page == 0 or not _subfile_type(tags) & 0b101:
            yield _page_header(tags, page, offset)
        offset, page = tags.next, page + 1


def _subfile_type(tags: Tiff.ImageFileDirectory_v2) -> int:
    """What a page is to the others, in bits: 1 a smaller version, 4 a mask; 0 where it isn't said in a number."""
    kind = tags.get(SUBFILE_TYPE)
    return kind if isinstance(kind, int) else 0


def _page_header(tags: Tiff.ImageFileDirectory_v2, page: int, offset: int) -> ImageHeader:
    """The header of a TIFF's page from its directory."""
    known = {1, 2, 4} if tags.get(Tiff.PHOTOMETRIC_INTERPRETATION) == CIELAB else {1, 4}  # Lab's a and b are signed
    is_unsigned = set(tags.get(Tiff.SAMPLEFORMAT, (1,))) <= known  # or unspecified
    pixels = tags[Tiff.IMAGEWIDTH] * tags[Tiff.IMAGELENGTH]
    has_alpha = not {1, 2}.isdisjoint(tags.get(Tiff.EXTRASAMPLES, ()))
    bits = max(tags.get(Tiff.BITSPERSAMPLE, (1,)))
    dpi, unknown = _page_dpi(tags), _unknown_kind(tags, bits)
    return ImageHeader(bits, is_unsigned, pixels, page, offset, has_alpha=has_alpha, dpi=dpi, unknown=unknown)


def _page_dpi(tags: Tiff.ImageFileDirectory_v2) -> tuple[float, float] | None:
    """The resolution that a page has, where its unit is a length."""
    x, y = tags.get(Tiff.X_RESOLUTION), tags.get(Tiff.Y_RESOLUTION)
    inches = _INCHES.get(tags.get(Tiff.RESOLUTION_UNIT, 2))
    try:
        return (float(x) * inches, float(y) * inches) if x and y and inches else None
    except (TypeError, ValueError, ArithmeticError):  # of another type than it should have
        return None


def _unknown_kind(tags: Tiff.ImageFileDirectory_v2, bits: int) -> str:
    """What a page holds that can't be read, or would be read as something else; "" for all others."""
    if _subfile_type(tags) & 1 and (SUB_DIRECTORIES in tags or DNG_VERSION in tags):
        return "a camera's raw file"  # whose first page is a preview
    kind = tags.get(Tiff.PHOTOMETRIC_INTERPRETATION, 1)
    return "a palette of 16 bit" if kind == PALETTE and bits == 16 else _UNKNOWN.get(kind, "")


def _avif_bits(file: BinaryIO) -> int:
    """Bits per sample from the codec's configuration (box av1C) in the box that follows the file type."""
    file.seek(0)
    file.seek(struct.unpack(">I", file.read(4))[0])
    properties = file.read(struct.unpack(">I", file.read(4))[0])
    at = properties.find(b"av1C")
    flags = properties[at + 6] if at >= 0 else 0
    is_high, is_twelve = flags & 0x40, flags & 0x20
    return 8 if not is_high else 12 if is_twelve else 10
