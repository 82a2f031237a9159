"""EXIF: which tags of a photograph are worth keeping, and the texts that gigasr adds to a file."""

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

# Tags that describe the photograph; the others of IFD0 describe the file: strips, depth, resolution, thumbnail.
KEPT_TAGS = {
    *(Base.ImageDescription, Base.Make, Base.Model, Base.Software, Base.DateTime, Base.Artist, Base.HostComputer),
    *(Base.Rating, Base.RatingPercent, Base.Copyright),
    *(Base.XPTitle, Base.XPComment, Base.XPAuthor, Base.XPKeywords, Base.XPSubject),
}
STALE_TEXTS = ("XML:com.adobe.xmp", "Raw profile type", "Thumb::")  # of a PNG: other kinds of metadata, and old sizes
MAX_EXIF_BYTES = 65_533  # bytes of EXIF that a segment holds
ENTRY_BYTES = 12  # bytes of a tag in its directory, beside a longer value
DESCRIPTIONS = {"Title", "Author", "Description", "Copyright", "Creation Time", "Disclaimer", "Source", "Comment"}
COMMENT_PREFIX = b"ASCII\0\0\0"  # EXIF's name for the encoding of a UserComment


def read_exif(file: BinaryIO, offset: int = 0) -> Image.Exif:
    """Read the EXIF block; in TIFF without opening the image, as Pillow doesn't know every 16-bit TIFF.

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
    """Return the tags worth keeping in another file, orientation and IPTC; {} for a damaged EXIF block."""
    try:
        exif = load()
        tags = _as_read({tag: exif[tag] for tag in exif if tag in KEPT_TAGS or tag == Base.Orientation})
        if iptc := iptc_of_tiff(exif):
            tags[IPTC_TAG] = iptc
        for ifd in (IFD.Exif, IFD.GPSInfo):
            if nested := dict(exif.get_ifd(ifd)):
                nested.pop(IFD.Interop, None)  # an offset into the old file
                tags[ifd] = _as_read(nested)
        exif_bytes(tags)
    except Exception as error:  # a damaged EXIF block raises anything, and must not cost the picture
        logger.warning("EXIF ignored as it is damaged: %s", error)
        return {}
    return tags


def _as_read(tags: dict[int, Any]) -> dict[int, Any]:
    """Tags with the bytes of their texts where these are more than ASCII, which Pillow reads but doesn't write."""
    return {
        tag: value.encode("latin-1") if isinstance(value, str) and not value.isascii() else value
        for tag, value in tags.items()
    }


def user_texts(info: Mapping[Any, Any]) -> dict[str, str]:
    """The texts worth keeping of those that Pillow finds in a PNG; of gigasr's own results what others wrote.

    info: of an opened PNG
    """
    texts = {key: text for key, text in info.items() if isinstance(text, str) and not str(key).startswith(STALE_TEXTS)}
    if written_by_gigasr(texts):
        return {key: text for key, text in texts.items() if key in DESCRIPTIONS}
    return texts


def written_by_gigasr(texts: Mapping[str, str]) -> bool:
    """Tell by the texts of a file whether gigasr has written it."""
    return texts.get("Software", "").startswith("gigasr")


def exif_bytes(tags: dict[int, Any]) -> bytes | None:
    """Tags as an EXIF block; None where there are none."""
    exif = Image.Exif()
    exif.update(tags)
    return exif.tobytes() if tags else None


def output_tags(exif: bytes | None, size: tuple[int, int], texts: dict[str, str]) -> dict[int, Any]:
    """Return a picture's EXIF tags with its present (height, width), and the texts as a comment."""

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
    """Put texts into the comment, beside what others wrote there; of an earlier run nothing else stays."""
    comment = tags.get(Base.UserComment)
    earlier = comment_texts(comment)
    others = earlier.get("Comment", "") if written_by_gigasr(earlier) else _plain_comment(comment)
    if texts:
        tags[Base.UserComment] = COMMENT_PREFIX + comment_of(texts | ({"Comment": others} if others else {}))
    elif written_by_gigasr(earlier) and others:
        tags[Base.UserComment] = COMMENT_PREFIX + others.encode("ascii", "replace")
    elif written_by_gigasr(earlier):
        del tags[Base.UserComment]


def _plain_comment(comment: object) -> str:
    """A UserComment's text; "" for none or one in another encoding than ASCII."""
    kinds = (COMMENT_PREFIX, bytes(len(COMMENT_PREFIX)))
    if not isinstance(comment, bytes) or not comment.startswith(kinds):
        return ""
    return comment[len(COMMENT_PREFIX) :].decode("ascii", "replace").strip("\0 ")


def jpeg_exif(tags: dict[int, Any]) -> bytes:
    """Return EXIF that fits a JPEG segment of 64 KiB: if need be without the longest blocks, with a warning."""
    exif = exif_bytes(tags) or b""
    blocks = [(ifd, tag) for ifd in (tags, *tags.values()) if isinstance(ifd, dict) for tag in ifd]
    blocks = [(ifd, tag) for ifd, tag in blocks if isinstance(ifd[tag], str | bytes | tuple)]
    blocks.sort(key=lambda block: len(block[0][block[1]]))
    left_out = []
    while (excess := len(exif) - MAX_EXIF_BYTES) > 0 and blocks:
        while excess > 0 and blocks:  # many at a time, by about what each takes: to encode them all takes long
            ifd, tag = blocks.pop()
            excess -= ENTRY_BYTES + len(ifd.pop(tag))
            left_out.append(tag)
        exif = exif_bytes(tags) or b""
    if left_out:
        some = ", ".join(map(str, left_out[:5]))
        if len(left_out) > 5:
            some += ", …"
        logger.warning("EXIF left out: expected at most %d bytes for JPEG, got more; tags %s", MAX_EXIF_BYTES, some)
    return exif


def comment_of(texts: dict[str, str]) -> bytes:
    """Texts as one ASCII comment."""
    return json.dumps(texts).encode("ascii")


def comment_texts(comment: object) -> dict[str, str]:
    """Return the texts of a comment, with EXIF's prefix or without; {} for none or somebody else's."""
    try:
        texts = json.loads(comment.removeprefix(COMMENT_PREFIX)) if isinstance(comment, bytes) else None
    except ValueError:
        return {}
    return {str(key): str(text) for key, text in texts.items()} if isinstance(texts, dict) else {}
