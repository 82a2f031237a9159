"""Writing of PNG files, still or animated, block by block of rows.

Pillow has no 16-bit colour and no strips. pyvips writes texts in the wrong encoding, and EXIF of its own.
"""

import itertools
import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import BinaryIO

import numpy as np
from PIL import PngImagePlugin
from zlib_ng import zlib_ng

from gigasr.files.encoding import PixelRows, make_compressor
from gigasr.files.exif import exif_bytes
from gigasr.files.picture import AnimationTiming
from gigasr.files.xmp import PNG_KEY

_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # PNG's number by the count of channels
_AVERAGE = 3  # PNG's number of the filter
_METRES_PER_INCH = 0.0254


def write_png(
    file: BinaryIO, images: Iterator[PixelRows], texts: dict[str, str], timing: AnimationTiming | None = None
) -> None:
    """Write a PNG; samples are taken block by block.

    images: a picture, or the frames of an animation, equal in all but the samples
    texts:   replace equal keys of the first pixel_rows's texts; tEXt chunks, or iTXt for more than Latin-1
    timing:  of an animation
    """
    first = next(images)
    file.write(b"\x89PNG\r\n\x1a\n")
    _put_head(file, first, texts)
    if timing is None:
        for data in _image_data(first):
            PngImagePlugin.putchunk(file, b"IDAT", data)
    else:
        _put_frames(file, itertools.chain([first], images), timing)
    PngImagePlugin.putchunk(file, b"IEND")


def _put_head(file: BinaryIO, pixel_rows: PixelRows, texts: dict[str, str]) -> None:
    """Write the chunks before the pixels."""
    height, width = pixel_rows.size
    depth = 8 * pixel_rows.dtype.itemsize
    colour_type = _COLOUR_TYPES[pixel_rows.channels]
    PngImagePlugin.putchunk(file, b"IHDR", struct.pack(">2I5B", width, height, depth, colour_type, 0, 0, 0))
    if pixel_rows.icc_profile:
        PngImagePlugin.putchunk(file, b"iCCP", b"ICC Profile\0\0", zlib_ng.compress(pixel_rows.icc_profile))
    if pixel_rows.dpi:
        x, y = (round(dpi / _METRES_PER_INCH) for dpi in pixel_rows.dpi)
        per_metre = 1  # PNG's number of the unit
        PngImagePlugin.putchunk(file, b"pHYs", struct.pack(">2IB", x, y, per_metre))
    exif = exif_bytes(pixel_rows.tags)
    if exif:
        PngImagePlugin.putchunk(file, b"eXIf", exif.removeprefix(b"Exif\0\0"))
    if pixel_rows.xmp:
        uncompressed_and_without_language = bytes(5)
        PngImagePlugin.putchunk(file, b"iTXt", PNG_KEY.encode() + uncompressed_and_without_language, pixel_rows.xmp)
    _put_texts(file, {**pixel_rows.texts, **texts})


def _put_texts(file: BinaryIO, texts: dict[str, str]) -> None:
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    for name, data, *_ in info.chunks:
        PngImagePlugin.putchunk(file, name, data)


def _put_frames(file: BinaryIO, images: Iterator[PixelRows], timing: AnimationTiming) -> None:
    """Write an animation's chunks; programs without animation show the first frame."""
    PngImagePlugin.putchunk(file, b"acTL", struct.pack(">2I", len(timing.durations), timing.loop_count))
    numbers = itertools.count()  # of the chunks fcTL and fdAT
    for frame, (pixel_rows, duration) in enumerate(zip(images, timing.durations, strict=True)):
        control = _frame_control(next(numbers), pixel_rows.size, duration)
        PngImagePlugin.putchunk(file, b"fcTL", control)
        for data in _image_data(pixel_rows):
            if frame == 0:
                PngImagePlugin.putchunk(file, b"IDAT", data)
            else:
                number = struct.pack(">I", next(numbers))
                PngImagePlugin.putchunk(file, b"fdAT", number, data)


def _frame_control(number: int, size: tuple[int, int], duration: float) -> bytes:
    """Encode the chunk before a frame.

    number:   of the chunk
    size:     (height, width), px
    duration: ms
    """
    height, width = size
    max_denominator = 65_535 // (1 + int(duration / 1000))  # keeps the numerator within 16 bits, too
    seconds = Fraction(duration / 1000).limit_denominator(max_denominator)
    left = top = 0
    rectangle = (width, height, left, top)
    disposal = blending = 0  # the next frame replaces all pixels
    return struct.pack(">5I2H2B", number, *rectangle, seconds.numerator, seconds.denominator, disposal, blending)


def _image_data(pixel_rows: PixelRows) -> Iterator[bytes]:
    """Yield the samples, filtered and deflated: a zlib stream (RFC 1950) in parts.

    Every block of rows is deflated separately.
    """
    pixel_bytes = pixel_rows.channels * pixel_rows.dtype.itemsize
    row_bytes = pixel_rows.size[1] * pixel_bytes
    big_endian = pixel_rows.dtype.newbyteorder(">")
    above = np.zeros((1, row_bytes), np.uint8)
    stream_header = b"\x78\x01"
    checksum = 1
    for block in pixel_rows.rows(pixel_rows.rows_per_block):
        samples = block.astype(big_endian, copy=False).view(np.uint8).reshape(len(block), -1)
        filtered = _filter_average(samples, above, pixel_bytes)
        compressor = make_compressor(filtered, -zlib_ng.MAX_WBITS)
        deflated = compressor.compress(filtered.data) + compressor.flush(zlib_ng.Z_SYNC_FLUSH)
        yield stream_header + deflated
        stream_header = b""
        checksum = zlib_ng.adler32(filtered.data, checksum)
        above = samples[-1:].copy()
    empty_last_block = b"\x03\0"
    yield empty_last_block + struct.pack(">I", checksum)


def _filter_average(samples: np.ndarray, above: np.ndarray, pixel_bytes: int) -> np.ndarray:
    """Apply PNG's filter Average to rows.

    The filter subtracts from each byte the mean, rounded down, of the bytes one pixel to the left and one row above.

    samples: [rows, bytes]
    above:   [1, bytes], the row before
    returns: [rows, 1 + bytes]; each row begins with the filter's number
    """
    filtered = np.empty((len(samples), 1 + samples.shape[1]), np.uint8)
    filtered[:, 0] = _AVERAGE
    up = np.concatenate([above, samples[:-1]])
    mean = filtered[:, 1:]
    mean[:, :pixel_bytes] = up[:, :pixel_bytes] >> 1
    left, up = samples[:, :-pixel_bytes], up[:, pixel_bytes:]
    mean[:, pixel_bytes:] = (left & up) + ((left ^ up) >> 1)  # without overflow of bytes
    np.subtract(samples, mean, out=mean)
    return filtered
