"""XMP packets, made true for a new size, and IPTC blocks as they lie in JPEG and TIFF."""

import logging
import re
import struct

from PIL import Image
from PIL import TiffImagePlugin as Tiff

logger = logging.getLogger(__name__)

XMP_TAG, IPTC_TAG = Tiff.XMP, Tiff.IPTC_NAA_CHUNK
IPTC_RESOURCE = 0x0404  # of Photoshop's blocks
PNG_KEY = "XML:com.adobe.xmp"
IPTC_MARK = b"\x1c"  # with which every entry of a block begins
MAX_SEGMENT_BYTES = 65_502  # bytes of XMP, or of IPTC, that a segment holds
_FALSE = (
    *("tiff:XResolution", "tiff:YResolution", "tiff:ResolutionUnit", "xmp:Thumbnails", "xap:Thumbnails"),
    *("xmpNote:HasExtendedXMP", "Container:Directory", "GContainer:Directory"),
)
_FALSE_KINDS = r"hdrgm:\w+|GCamera:(?:MotionPhoto|MicroVideo)\w*|GPano:\w+"  # of appended files, of panoramas


def update_xmp_size(xmp: bytes | None, size: tuple[int, int]) -> bytes | None:
    """An XMP packet with a picture's present (height, width) and upright; what is no longer true is left out.

    That is its resolution, thumbnails, gain maps and videos appended to the old file, and its place in a panorama.
    None, with a warning, for one that is no UTF-8, as all but TIFF demand.
    """
    try:
        text = (xmp or b"").decode("utf-8").strip("\0")
    except UnicodeDecodeError:
        logger.warning("XMP left out: expected UTF-8, got something else")
        return None
    height, width = size
    facts = {"tiff:Orientation": 1, "tiff:ImageWidth": width, "tiff:ImageLength": height}
    for name, value in (facts | {"exif:PixelXDimension": width, "exif:PixelYDimension": height}).items():
        text = re.sub(rf"(\s{name}\s?=\s?)([\"'])[^\"']*\2", rf"\g<1>\g<2>{value}\g<2>", text)
        text = re.sub(rf"(<{name}>)[^<]*(</{name}>)", rf"\g<1>{value}\g<2>", text)
    for name in _FALSE:
        text = re.sub(rf"\s{name}\s?=\s?([\"'])[^\"']*\1", "", text)
        text = _without_element(text, name)
    text = re.sub(rf"\s(?:{_FALSE_KINDS})\s?=\s?([\"'])[^\"']*\1", "", text)
    text = re.sub(rf"<({_FALSE_KINDS})>[^<]*</\1>", "", text)
    return text.encode("utf-8") or None


def _without_element(text: str, name: str) -> str:
    """Cut out an element; by search, as a pattern would take quadratic time for a hostile file."""
    kept, position = [], 0
    while (start := text.find(f"<{name}>", position)) >= 0 and (stop := text.find(f"</{name}>", start)) >= 0:
        kept.append(text[position:start])
        position = stop + len(name) + 3
    return "".join([*kept, text[position:]])


def read_xmp(image: Image.Image) -> bytes | None:
    """The XMP packet of an opened image, of a compressed chunk of PNG too, as libvips writes it."""
    xmp = image.info.get("xmp") or image.info.get(PNG_KEY)
    if isinstance(xmp, str):
        xmp = xmp.encode("latin-1", "ignore")
    return xmp if isinstance(xmp, bytes) and xmp else None


def read_iptc(image: Image.Image) -> bytes | None:
    """The IPTC block of an opened JPEG."""
    blocks = image.info.get("photoshop")
    iptc = blocks.get(IPTC_RESOURCE) if isinstance(blocks, dict) else None
    return iptc if isinstance(iptc, bytes) and iptc else None


def iptc_of_tiff(exif: Image.Exif) -> bytes | None:
    """The IPTC block of a TIFF's tags, whatever their type: many programs call it numbers of four bytes.

    Pillow's interface gives no more than the first of these, hence the bytes as they lie in the file. None for a block
    that does not begin as IPTC, such as one whose bytes a program has swapped.
    """
    data = bytes(getattr(getattr(exif, "_info", None), "_tagdata", {}).get(IPTC_TAG, b""))
    return data if data.startswith(IPTC_MARK) else None


def jpeg_segments(xmp: bytes | None, iptc: bytes | None) -> dict[str, bytes]:
    """What Pillow's JPEG encoder is to be told of both; without what is too long, with a warning."""
    options = {}
    for name, data in (("XMP", xmp), ("IPTC", iptc)):
        if data and len(data) > MAX_SEGMENT_BYTES:
            logger.warning(
                "%s left out: expected at most %d bytes for JPEG, got %d", name, MAX_SEGMENT_BYTES, len(data)
            )
        elif data and name == "XMP":
            options["xmp"] = data
        elif data:
            block = b"Photoshop 3.0\0" + b"8BIM" + struct.pack(">HHL", IPTC_RESOURCE, 0, len(data)) + data
            block += bytes(len(data) % 2)
            options["extra"] = b"\xff\xed" + struct.pack(">H", len(block) + 2) + block
    return options
