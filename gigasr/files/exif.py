"""EXIF: tags kept from photographs, and texts that gigasr adds to files."""

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from PIL import Image
from PIL.ExifTags import IFD, Base

from gigasr.files.formats import INPUT_FORMATS
from gigasr.files.headers import first_directory, is_tiff
from gigasr.files.xmp import IPTC_TAG, iptc_of_tiff

logger = logging.getLogger(__name__)

# Tags that describe the photograph; the rest of IFD0 describes the file: strips, depth, resolution, thumbnail.
_KEPT_TAGS = {
    *(Base.ImageDescription, Base.Make, Base.Model, Base.Software, Base.DateTime, Base.Artist, Base.HostComputer),
    *(Base.Rating, Base.RatingPercent, Base.Copyright),
    *(Base.XPTitle, Base.XPComment, Base.XPAuthor, Base.XPKeywords, Base.XPSubject),
}
STALE_TEXTS = ("XML:com.adobe.xmp", "Raw profile type", "Thumb::")  # of a PNG: EXIF and XMP as text, and old sizes
_MAX_EXIF_BYTES = 65_533  # bytes of EXIF in a segment
_ENTRY_BYTES = 12  # of a tag in the directory; longer values lie elsewhere
_DESCRIPTIONS = {"Title", "Author", "Description", "Copyright", "Creation Time", "Disclaimer", "Source", "Comment"}
_COMMENT_PREFIX = b"ASCII\0\0\0"  # EXIF's name for the encoding of a UserComment


def read_exif(file: BinaryIO, offset: int = 0) -> Image.Exif:
    """Read the EXIF block of a file.

    A TIFF is not opened as an image: Pillow refuses some 16-bit TIFFs.

    offset: of the page's directory in a TIFF, bytes; 0 = the first
    """
    file.seek(0)
    head = file.read(4)
    file.seek(0)
    if not is_tiff(head):
        return Image.open(file, formats=INPUT_FORMATS).getexif()
    exif = Image.Exif()
    exif.endian = "<" if head.startswith(b"II") else ">"
    exif.bigtiff = 43 in head
    exif.load_from_fp(file, offset or first_directory(file))
    return exif


def portable_tags(load: Callable[[], Image.Exif]) -> dict[int, Any]:
    """Return the tags to keep in another file, the orientation and IPTC.

    Returns {}, with a warning, for a damaged EXIF block.
    """
    try:
        exif = load()
        portable = _KEPT_TAGS | {Base.Orientation}
        tags = _as_read({tag: exif[tag] for tag in exif if tag in portable})
        if iptc := iptc_of_tiff(exif):
            tags[IPTC_TAG] = iptc
        for ifd in (IFD.Exif, IFD.GPSInfo):
            if nested := dict(exif.get_ifd(ifd)):
                nested.pop(IFD.Interop, None)  # an offset into the old file
                tags[ifd] = _as_read(nested)
        exif_bytes(tags)
    except Exception as error:  # a damaged EXIF block raises anything; the picture is still good
        logger.warning("EXIF ignored as it is damaged: %s", error)
        return {}
    return tags


def _as_read(tags: dict[int, Any]) -> dict[int, Any]:
    """Encode texts with more than ASCII to the bytes in the file.

    Pillow decodes such texts when reading, but cannot write the result.
    """
    encoded = {}
    for tag, value in tags.items():
        needs_bytes = isinstance(value, str) and not value.isascii()
        encoded[tag] = value.encode("latin-1") if needs_bytes else value
    return encoded


def user_texts(info: Mapping[Any, Any]) -> dict[str, str]:
    """Return the PNG text chunks to keep; for gigasr's own outputs only the user's.

    info: of an opened PNG
    """
    texts = {}
    for key, text in info.items():
        if isinstance(text, str) and not str(key).startswith(STALE_TEXTS):
            texts[key] = text
    if written_by_gigasr(texts):
        return {key: text for key, text in texts.items() if key in _DESCRIPTIONS}
    return texts


def written_by_gigasr(texts: Mapping[str, str]) -> bool:
    """Tell by a file's texts whether gigasr wrote the file."""
    return texts.get("Software", "").startswith("gigasr")


def exif_bytes(tags: dict[int, Any]) -> bytes | None:
    """Encode tags to an EXIF block; return None without tags."""
    if not tags:
        return None
    exif = Image.Exif()
    exif.update(tags)
    return exif.tobytes()


def output_tags(exif: bytes | None, size: tuple[int, int], texts: dict[str, str]) -> dict[int, Any]:
    """Return the EXIF tags to write: a picture's own, and texts as a comment.

    exif:  the picture's block
    size:  present (height, width), px
    texts: of gigasr
    """

    def load() -> Image.Exif:
        loaded = Image.Exif()
        loaded.load(exif or b"")
        return loaded

    tags = portable_tags(load)
    tags.pop(Base.Orientation, None)
    if tags or texts:
        nested = tags.setdefault(IFD.Exif, {})
        nested[Base.ExifImageHeight], nested[Base.ExifImageWidth] = size
        _update_comment(nested, texts)
    return tags


def _update_comment(tags: dict[int, Any], texts: dict[str, str]) -> None:
    """Put texts into the comment, and keep the user's comment among the texts.

    Texts of an earlier run are removed.
    """
    comment = tags.get(Base.UserComment)
    earlier = comment_texts(comment)
    is_from_gigasr = written_by_gigasr(earlier)
    users = earlier.get("Comment", "") if is_from_gigasr else _plain_comment(comment)
    if texts:
        if users:
            texts = texts | {"Comment": users}
        tags[Base.UserComment] = _COMMENT_PREFIX + comment_of(texts)
    elif is_from_gigasr and users:
        tags[Base.UserComment] = _COMMENT_PREFIX + users.encode("ascii", "replace")
    elif is_from_gigasr:
        del tags[Base.UserComment]


def _plain_comment(comment: object) -> str:
    """Return a UserComment's text; "" if missing or not in ASCII."""
    unspecified = bytes(len(_COMMENT_PREFIX))
    if not isinstance(comment, bytes) or not comment.startswith((_COMMENT_PREFIX, unspecified)):
        return ""
    return comment[len(_COMMENT_PREFIX) :].decode("ascii", "replace").strip("\0 ")


def jpeg_exif(tags: dict[int, Any]) -> bytes:
    """Encode EXIF for a JPEG segment of 64 KiB.

    The longest values are removed from the tags, with a warning, until the block fits.
    """
    exif = exif_bytes(tags) or b""
    removable = _values_by_length(tags)
    left_out = []
    excess = len(exif) - _MAX_EXIF_BYTES
    while excess > 0 and removable:
        while excess > 0 and removable:  # several at a time by their estimated size, since encoding is slow
            directory, tag = removable.pop()
            value = directory.pop(tag)
            excess -= _ENTRY_BYTES + len(value)
            left_out.append(tag)
        exif = exif_bytes(tags) or b""
        excess = len(exif) - _MAX_EXIF_BYTES
    if left_out:
        some = ", ".join(map(str, left_out[:5]))
        if len(left_out) > 5:
            some += ", …"
        logger.warning("EXIF left out: expected at most %d bytes for JPEG, got more; tags %s", _MAX_EXIF_BYTES, some)
    return exif


def _values_by_length(tags: dict[int, Any]) -> list[tuple[dict[int, Any], int]]:
    """List the directory and tag of every text, bytes or tuple, shortest first."""
    found = []
    for directory in (tags, *tags.values()):
        if not isinstance(directory, dict):
            continue
        for tag, value in directory.items():
            if isinstance(value, str | bytes | tuple):
                found.append((len(value), directory, tag))
    found.sort(key=lambda entry: entry[0])
    return [(directory, tag) for _, directory, tag in found]


def comment_of(texts: dict[str, str]) -> bytes:
    """Encode texts to one ASCII comment in JSON."""
    return json.dumps(texts).encode("ascii")


def comment_texts(comment: object) -> dict[str, str]:
    """Decode a comment, with or without EXIF's prefix, to the texts in it.

    Returns {} for a comment of another program, and without a comment.
    """
    if not isinstance(comment, bytes):
        return {}
    try:
        texts = json.loads(comment.removeprefix(_COMMENT_PREFIX))
    except ValueError:
        return {}
    if not isinstance(texts, dict):
        return {}
    return {str(key): str(text) for key, text in texts.items()}
