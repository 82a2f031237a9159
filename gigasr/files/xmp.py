"""XMP packets, updated for a new size, and the IPTC blocks of JPEG and TIFF."""

import logging
import re
import struct

from PIL import Image
from PIL import TiffImagePlugin as Tiff

logger = logging.getLogger(__name__)

XMP_TAG, IPTC_TAG = Tiff.XMP, Tiff.IPTC_NAA_CHUNK
PNG_KEY = "XML:com.adobe.xmp"
_IPTC_RESOURCE = 0x0404  # number among Photoshop's blocks
_IPTC_MARK = b"\x1c"  # first byte of every entry
_MAX_SEGMENT_BYTES = 65_502  # bytes of XMP, or of IPTC, in a segment
_FALSE = (
    *("tiff:XResolution", "tiff:YResolution", "tiff:ResolutionUnit", "xmp:Thumbnails", "xap:Thumbnails"),
    *("xmpNote:HasExtendedXMP", "Container:Directory", "GContainer:Directory"),
)
_FALSE_KINDS = r"hdrgm:\w+|GCamera:(?:MotionPhoto|MicroVideo)\w*|GPano:\w+"  # appended files, panoramas


def update_xmp_size(xmp: bytes | None, size: tuple[int, int]) -> bytes | None:
    """Update an XMP packet to a picture's present (height, width), upright.

    Outdated entries are removed: resolution, thumbnails, gain maps and videos appended to the old file, and the place
    in a panorama. Returns None, with a warning, for a packet not in UTF-8: every format but TIFF demands UTF-8.
    """
    try:
        text = (xmp or b"").decode("utf-8").strip("\0")
    except UnicodeDecodeError:
        logger.warning("XMP left out: expected UTF-8, got something else")
        return None
    height, width = size
    facts = {
        "tiff:Orientation": 1,
        "tiff:ImageWidth": width,
        "tiff:ImageLength": height,
        "exif:PixelXDimension": width,
        "exif:PixelYDimension": height,
    }
    for name, value in facts.items():
        text = re.sub(rf"(\s{name}\s?=\s?)([\"'])[^\"']*\2", rf"\g<1>\g<2>{value}\g<2>", text)
        text = re.sub(rf"(<{name}>)[^<]*(</{name}>)", rf"\g<1>{value}\g<2>", text)
    for name in _FALSE:
        text = _without_attribute(text, name)
        text = _without_element(text, name)
    text = _without_attribute(text, _FALSE_KINDS)
    text = re.sub(rf"<({_FALSE_KINDS})>[^<]*</\1>", "", text)
    return text.encode("utf-8") or None


def _without_attribute(text: str, pattern: str) -> str:
    """Remove the attributes whose names match a pattern."""
    return re.sub(rf"\s(?:{pattern})\s?=\s?([\"'])[^\"']*\1", "", text)


def _without_element(text: str, name: str) -> str:
    """Remove the elements of a name, with their contents.

    By search: a regular expression would take quadratic time on a hostile file.
    """
    opening, closing = f"<{name}>", f"</{name}>"
    kept = []
    position = 0
    while True:
        start = text.find(opening, position)
        stop = text.find(closing, start) if start >= 0 else -1
        if stop < 0:
            break
        kept.append(text[position:start])
        position = stop + len(closing)
    kept.append(text[position:])
    return "".join(kept)


def read_xmp(image: Image.Image) -> bytes | None:
    """Return the XMP packet of an opened image, also from compressed chunks of PNG.

    libvips writes such chunks.
    """
    xmp = image.info.get("xmp") or image.info.get(PNG_KEY)
    if isinstance(xmp, str):
        xmp = xmp.encode("latin-1", "ignore")
    return xmp if isinstance(xmp, bytes) and xmp else None


def read_iptc(image: Image.Image) -> bytes | None:
    """Return the IPTC block of an opened JPEG."""
    blocks = image.info.get("photoshop")
    iptc = blocks.get(_IPTC_RESOURCE) if isinstance(blocks, dict) else None
    return iptc if isinstance(iptc, bytes) and iptc else None


def iptc_of_tiff(exif: Image.Exif) -> bytes | None:
    """Return the IPTC block of a TIFF's tags, of any type; None if damaged or missing.

    Many programs declare the block as numbers of four bytes. Pillow's interface returns only the first number, so the
    bytes are taken from the file. A block without IPTC's first byte is damaged, for example by swapped bytes.
    """
    directory = getattr(exif, "_info", None)
    raw_tags = getattr(directory, "_tagdata", {})
    data = bytes(raw_tags.get(IPTC_TAG, b""))
    return data if data.startswith(_IPTC_MARK) else None


def jpeg_segments(xmp: bytes | None, iptc: bytes | None) -> dict[str, bytes]:
    """Return the arguments of Pillow's JPEG encoder for XMP and IPTC.

    Data too long for a segment is left out with a warning.
    """
    arguments = {}
    if xmp and _fits_jpeg("XMP", xmp):
        arguments["xmp"] = xmp
    if iptc and _fits_jpeg("IPTC", iptc):
        block = b"Photoshop 3.0\0" + b"8BIM"
        block += struct.pack(">HHL", _IPTC_RESOURCE, 0, len(iptc))
        block += iptc
        block += bytes(len(iptc) % 2)
        segment_length = struct.pack(">H", len(block) + 2)
        arguments["extra"] = b"\xff\xed" + segment_length + block
    return arguments


def _fits_jpeg(name: str, data: bytes) -> bool:
    if len(data) <= _MAX_SEGMENT_BYTES:
        return True
    logger.warning("%s left out: expected at most %d bytes for JPEG, got %d", name, _MAX_SEGMENT_BYTES, len(data))
    return False
