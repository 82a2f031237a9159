"""Writing of deflated TIFF and BigTIFF files, strip by strip.

Pillow has no 16-bit colour, loses EXIF when compressing and has no strips; pyvips has no EXIF. tifffile cannot write
the directories of EXIF and GPS.
"""

import itertools
import os
import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import TiffImagePlugin as Tiff
from PIL import TiffTags

from gigasr.files.encoding import PixelRows, make_compressor
from gigasr.files.xmp import IPTC_TAG, XMP_TAG

_CLASSIC_BYTES = (1 << 32) - (1 << 26)  # of samples; more need the 64-bit offsets of BigTIFF
_DIRECTORY_BYTES = 1 << 25  # room for the last directory, with profile and EXIF
_DEFLATE, _DIFFERENCES = 8, 2  # COMPRESSION, PREDICTOR: difference to the pixel on the left
_BLACK_IS_0, _RGB = 1, 2  # PHOTOMETRIC_INTERPRETATION
_INTERLEAVED = 1  # PLANAR_CONFIGURATION
_UNASSOCIATED_ALPHA = 2  # EXTRASAMPLES: colours are not premultiplied
_INCH = 2  # RESOLUTION_UNIT


class _Layout(NamedTuple):
    """Numbers of bytes and words of a kind of TIFF."""

    start: bytes  # of the file, before the first link
    letter: str  # of offsets, for struct
    count_bytes: int  # of a directory's count of entries
    entry_bytes: int

    def pack(self, *offsets: int) -> bytes:
        """Encode offsets in little-endian order."""
        return struct.pack(f"<{len(offsets)}{self.letter}", *offsets)


_CLASSIC = _Layout(b"II" + struct.pack("<H", 42), "I", count_bytes=2, entry_bytes=12)
_BIG = _Layout(b"II" + struct.pack("<3H", 43, 8, 0), "Q", count_bytes=8, entry_bytes=20)


def write_tiff(file: BinaryIO, images: Iterator[PixelRows]) -> None:
    """Write a TIFF; each page's directory follows the samples.

    The file is a BigTIFF if the first page may need more than 4 GiB. Raises ValueError if later pages do.

    images: a picture, or pages
    """
    first = next(images)
    layout = _BIG if first.num_bytes > _CLASSIC_BYTES else _CLASSIC
    file.write(layout.start + layout.pack(0))
    link = len(layout.start)
    for pixel_rows in itertools.chain([first], images):
        link = _put_page(file, pixel_rows, layout, link)


def _put_page(file: BinaryIO, pixel_rows: PixelRows, layout: _Layout, link: int) -> int:
    """Append a page, and write the directory's offset at a link.

    returns: the position of the link to the next page, bytes
    """
    offsets, sizes = _put_strips(file, pixel_rows)
    _pad(file)
    position = file.tell()
    if layout is _CLASSIC and position + _DIRECTORY_BYTES > 1 << 32:
        raise ValueError(f"picture: expected pages of less than 4 GiB in all, got {position} bytes; write one per file")
    directory = _make_directory(pixel_rows, layout, position, sizes)
    file.write(_encode_directory(directory, layout, position, offsets))
    _pad(file)
    file.seek(link)
    file.write(layout.pack(position))
    file.seek(0, os.SEEK_END)
    return position + layout.count_bytes + layout.entry_bytes * len(directory)


def _pad(file: BinaryIO) -> None:
    """Fill up to an even offset, as TIFF demands of directories."""
    file.write(bytes(file.tell() % 2))


def _put_strips(file: BinaryIO, pixel_rows: PixelRows) -> tuple[list[int], list[int]]:
    """Append the samples in deflated strips; return offsets and sizes, bytes."""
    little_endian = pixel_rows.dtype.newbyteorder("<")
    offsets, sizes = [], []
    for block in pixel_rows.rows(pixel_rows.rows_per_block):
        differences = np.diff(block, axis=1, prepend=pixel_rows.dtype.type(0))
        differences = differences.astype(little_endian, copy=False)
        compressor = make_compressor(differences)
        data = compressor.compress(differences.data) + compressor.flush()
        offsets.append(file.tell())
        sizes.append(len(data))
        file.write(data)
    return offsets, sizes


def _make_directory(
    pixel_rows: PixelRows, layout: _Layout, position: int, sizes: list[int]
) -> Tiff.ImageFileDirectory_v2:
    """Make the directory of a page, with zeros for the strips' offsets.

    position: of the directory, bytes
    sizes:    of the strips, bytes
    """
    height, width = pixel_rows.size
    channels = pixel_rows.channels
    directory = Tiff.ImageFileDirectory_v2(layout.start + layout.pack(position))
    directory[Tiff.IMAGEWIDTH] = width
    directory[Tiff.IMAGELENGTH] = height
    directory[Tiff.BITSPERSAMPLE] = (8 * pixel_rows.dtype.itemsize,) * channels
    directory[Tiff.COMPRESSION] = _DEFLATE
    directory[Tiff.PREDICTOR] = _DIFFERENCES
    directory[Tiff.PHOTOMETRIC_INTERPRETATION] = _BLACK_IS_0 if channels < 3 else _RGB
    directory[Tiff.SAMPLESPERPIXEL] = channels
    directory[Tiff.PLANAR_CONFIGURATION] = _INTERLEAVED
    if channels in (2, 4):
        directory[Tiff.EXTRASAMPLES] = _UNASSOCIATED_ALPHA
    directory[Tiff.ROWSPERSTRIP] = pixel_rows.rows_per_block
    directory.tagtype[Tiff.STRIPOFFSETS] = TiffTags.LONG8 if layout is _BIG else TiffTags.LONG
    directory.tagtype[Tiff.STRIPBYTECOUNTS] = TiffTags.LONG
    directory[Tiff.STRIPOFFSETS] = (0,) * len(sizes)
    directory[Tiff.STRIPBYTECOUNTS] = tuple(sizes)
    _set_metadata(directory, pixel_rows)
    return directory


def _set_metadata(directory: Tiff.ImageFileDirectory_v2, pixel_rows: PixelRows) -> None:
    """Set resolution, profile, EXIF, XMP and IPTC."""
    if pixel_rows.dpi:
        directory[Tiff.X_RESOLUTION], directory[Tiff.Y_RESOLUTION] = pixel_rows.dpi
        directory[Tiff.RESOLUTION_UNIT] = _INCH
    if pixel_rows.icc_profile:
        directory[Tiff.ICCPROFILE] = pixel_rows.icc_profile
    for tag, value in pixel_rows.tags.items():
        directory[tag] = value
    if pixel_rows.xmp:
        directory[XMP_TAG] = pixel_rows.xmp
    if pixel_rows.iptc:
        directory[IPTC_TAG] = pixel_rows.iptc


def _encode_directory(
    directory: Tiff.ImageFileDirectory_v2, layout: _Layout, position: int, offsets: list[int]
) -> bytes:
    """Encode a directory at a position, with the offsets of strips.

    The offsets replace zeros after encoding: Pillow would shift them, since it assumes strips after the directory.
    """
    encoded = bytearray(directory.tobytes(position))
    values = layout.pack(*offsets)
    index = sorted(directory).index(Tiff.STRIPOFFSETS)
    end_of_entry = layout.count_bytes + layout.entry_bytes * (index + 1)
    place = end_of_entry - struct.calcsize(layout.letter)
    if len(offsets) > 1:  # the entry holds the position of the values
        (absolute,) = struct.unpack_from(f"<{layout.letter}", encoded, place)
        place = absolute - position
    encoded[place : place + len(values)] = values
    return bytes(encoded)
