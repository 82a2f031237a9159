"""PNG and TIFF files row by row: 8 and 16 bit, gray or colour, alpha, profile, EXIF, texts; nothing is held whole."""

import itertools
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, BinaryIO

import numpy as np
from PIL import PngImagePlugin, TiffTags
from PIL import TiffImagePlugin as Tiff
from zlib_ng import zlib_ng

from gigasr.files.exif import exif_bytes
from gigasr.files.picture import AnimationTiming
from gigasr.files.xmp import IPTC_TAG, PNG_KEY, XMP_TAG

_BLOCK_BYTES = 1 << 18  # of samples deflated at a time
_FLAT = 0.6  # share of repeated bytes above which looking for runs pays
_CLASSIC_TIFF_BYTES = (1 << 32) - (1 << 26)  # of samples; with more the offsets need the 64 bits of BigTIFF
_TIFF_DIRECTORY_BYTES = 1 << 25  # room left for the last directory, its profile and EXIF


@dataclass
class PixelRows:
    """Samples that come in blocks of rows, and what a file says about them."""

    size: tuple[int, int]  # (H, W), px
    channels: int  # 1 gray, 2 gray + alpha, 3 RGB, 4 RGB + alpha
    dtype: np.dtype  # uint8 or uint16
    blocks: Iterator[np.ndarray]  # [rows, W, C] of any number of rows, from top to bottom
    icc_profile: bytes | None
    dpi: tuple[float, float] | None
    tags: dict[int, Any]  # of EXIF
    xmp: bytes | None = None
    iptc: bytes | None = None  # PNG has no place for it
    texts: Mapping[str, str] = field(default_factory=dict)  # PNG alone has a place for them

    @property
    def num_bytes(self) -> int:
        """Of all samples."""
        return self.size[0] * self.size[1] * self.channels * self.dtype.itemsize

    def rows(self, count: int) -> Iterator[np.ndarray]:
        """The samples in blocks of `count` rows; the last may have fewer."""
        held: list[np.ndarray] = []
        num_held = 0
        for block in self.blocks:
            while num_held + len(block) >= count:
                cut = count - num_held
                yield block[:cut] if not held else np.concatenate([*held, block[:cut]])
                block, held, num_held = block[cut:], [], 0
            if len(block):
                held.append(block)
                num_held += len(block)
        if held:
            yield np.concatenate(held)

    def whole(self) -> np.ndarray:
        """All samples at once, [H, W, C]."""
        samples = np.empty((*self.size, self.channels), self.dtype)
        top = 0
        for block in self.blocks:
            samples[top : top + len(block)] = block
            top += len(block)
        return samples


def write_png(
    file: BinaryIO, images: Iterator[PixelRows], texts: dict[str, str], timing: AnimationTiming | None = None
) -> None:
    """Write a PNG: Pillow has no 16-bit colour and no strips; pyvips writes texts in the wrong encoding, EXIF its own.

    images: one, or the frames of an animation, equal in all but their samples
    texts:   beside, or for, those of the first raster; as tEXt chunks, or as iTXt for what Latin-1 doesn't have
    timing:  of an animation
    """
    first = next(images)
    file.write(b"\x89PNG\r\n\x1a\n")
    _put_png_head(file, first, texts)
    if timing is None:
        for data in _png_data(first):
            PngImagePlugin.putchunk(file, b"IDAT", data)
    else:
        _put_png_frames(file, itertools.chain([first], images), timing)
    PngImagePlugin.putchunk(file, b"IEND")


def _put_png_head(file: BinaryIO, pixel_rows: PixelRows, texts: dict[str, str]) -> None:
    (height, width), depth = pixel_rows.size, 8 * pixel_rows.dtype.itemsize
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[pixel_rows.channels]
    PngImagePlugin.putchunk(file, b"IHDR", struct.pack(">2I5B", width, height, depth, colour_type, 0, 0, 0))
    if pixel_rows.icc_profile:
        PngImagePlugin.putchunk(file, b"iCCP", b"ICC Profile\0\0", zlib_ng.compress(pixel_rows.icc_profile))
    if pixel_rows.dpi:
        per_metre = [round(dpi / 0.0254) for dpi in pixel_rows.dpi]
        PngImagePlugin.putchunk(file, b"pHYs", struct.pack(">2IB", *per_metre, 1))
    if exif := exif_bytes(pixel_rows.tags):
        PngImagePlugin.putchunk(file, b"eXIf", exif.removeprefix(b"Exif\0\0"))
    if pixel_rows.xmp:
        PngImagePlugin.putchunk(
            file, b"iTXt", PNG_KEY.encode() + bytes(5), pixel_rows.xmp
        )  # not compressed, no language
    info = PngImagePlugin.PngInfo()
    for key, text in {**pixel_rows.texts, **texts}.items():
        info.add_text(key, text)
    for name, data, *_ in info.chunks:
        PngImagePlugin.putchunk(file, name, data)


def _put_png_frames(file: BinaryIO, images: Iterator[PixelRows], timing: AnimationTiming) -> None:
    """The chunks of an animated PNG; programs that know no animation show the first frame."""
    PngImagePlugin.putchunk(file, b"acTL", struct.pack(">2I", len(timing.durations), timing.loop_count))
    numbers = itertools.count()
    for frame, (pixel_rows, duration) in enumerate(zip(images, timing.durations, strict=True)):
        height, width = pixel_rows.size
        # two 16-bit numbers: the bound keeps the numerator below 65,536 too
        seconds = Fraction(duration / 1000).limit_denominator(65_535 // (1 + int(duration / 1000)))
        control = (next(numbers), width, height, 0, 0, seconds.numerator, seconds.denominator, 0, 0)
        PngImagePlugin.putchunk(file, b"fcTL", struct.pack(">5I2H2B", *control))
        for data in _png_data(pixel_rows):
            if frame == 0:
                PngImagePlugin.putchunk(file, b"IDAT", data)
            else:
                PngImagePlugin.putchunk(file, b"fdAT", struct.pack(">I", next(numbers)), data)


def _png_data(pixel_rows: PixelRows) -> Iterator[bytes]:
    """The samples, filtered and deflated: one zlib stream (RFC 1950) of blocks of rows, each deflated for itself."""
    pixel_bytes = pixel_rows.channels * pixel_rows.dtype.itemsize
    above = np.zeros((1, pixel_rows.size[1] * pixel_bytes), np.uint8)
    head, checksum = b"\x78\x01", 1
    for block in pixel_rows.rows(max(_BLOCK_BYTES // (pixel_rows.size[1] * pixel_bytes), 1)):
        samples = block.astype(pixel_rows.dtype.newbyteorder(">"), copy=False).view(np.uint8).reshape(len(block), -1)
        filtered = _filter_average(samples, above, pixel_bytes)
        compressor = _compressor(filtered, -zlib_ng.MAX_WBITS)
        yield head + compressor.compress(filtered.data) + compressor.flush(zlib_ng.Z_SYNC_FLUSH)
        head, checksum = b"", zlib_ng.adler32(filtered.data, checksum)
        above = samples[-1:].copy()
    yield b"\x03\0" + struct.pack(">I", checksum)  # a last block, of nothing


def _filter_average(samples: np.ndarray, above: np.ndarray, pixel_bytes: int) -> np.ndarray:
    """The Average filter of PNG: the difference of each byte to the mean of those to the left and above, rounded down.

    samples: [rows, bytes]; above: [1, bytes], the row before
    returns: [rows, 1 + bytes], each row with the filter's number
    """
    filtered = np.empty((len(samples), 1 + samples.shape[1]), np.uint8)
    filtered[:, 0] = 3
    up, mean = np.concatenate([above, samples[:-1]]), filtered[:, 1:]
    mean[:, :pixel_bytes] = up[:, :pixel_bytes] >> 1
    left, up = samples[:, :-pixel_bytes], up[:, pixel_bytes:]
    mean[:, pixel_bytes:] = (left & up) + ((left ^ up) >> 1)
    np.subtract(samples, mean, out=mean)
    return filtered


def _compressor(data: np.ndarray, window_bits: int = zlib_ng.MAX_WBITS) -> "zlib_ng._Compress":
    """Huffman codes alone, as what a network makes repeats nothing exactly: half the time of looking for runs, and
    within 1 % of the bytes on photos. Runs are looked for where most bytes equal the last one, in flat areas."""
    flat = data.reshape(-1).view(np.uint8)
    is_flat = np.count_nonzero(flat[1:] == flat[:-1]) > _FLAT * flat.size
    return zlib_ng.compressobj(1, wbits=window_bits, strategy=zlib_ng.Z_RLE if is_flat else zlib_ng.Z_HUFFMAN_ONLY)


def write_tiff(file: BinaryIO, images: Iterator[PixelRows]) -> None:
    """Write a deflated TIFF, BigTIFF where its first page may need more than 4 GiB; directories follow the samples.

    Pillow has no 16-bit colour, loses EXIF when it compresses and has no strips; pyvips has no EXIF. tifffile
    cannot write the directories of EXIF and GPS.

    images: a picture, or pages
    """
    first = next(images)
    is_big = first.num_bytes > _CLASSIC_TIFF_BYTES
    file.write(b"II" + (struct.pack("<3HQ", 43, 8, 0, 0) if is_big else struct.pack("<HI", 42, 0)))
    link = 8 if is_big else 4  # where the place of the next directory is to be written
    for pixel_rows in itertools.chain([first], images):
        link = _put_tiff_page(file, pixel_rows, is_big, link)


def _put_tiff_page(file: BinaryIO, pixel_rows: PixelRows, is_big: bool, link: int) -> int:
    """Append a page, write its place at a link, and return where the link to the next one lies."""
    width, channels, depth = pixel_rows.size[1], pixel_rows.channels, pixel_rows.dtype.itemsize
    rows = max(_BLOCK_BYTES // (width * channels * depth), 1)
    little_endian = pixel_rows.dtype.newbyteorder("<")
    offsets, sizes = [], []
    for block in pixel_rows.rows(rows):
        differences = np.diff(block, axis=1, prepend=pixel_rows.dtype.type(0))
        differences = differences.astype(little_endian, copy=False)
        compressor = _compressor(differences)
        data = compressor.compress(differences.data) + compressor.flush()
        offsets.append(file.tell())
        sizes.append(len(data))
        file.write(data)
    file.write(bytes(file.tell() % 2))
    position = file.tell()
    if not is_big and position + _TIFF_DIRECTORY_BYTES > 1 << 32:
        raise ValueError(f"picture: expected pages of less than 4 GiB in all, got {position} bytes; write one per file")
    place = struct.pack("<Q" if is_big else "<I", position)
    header = b"II" + (struct.pack("<3H", 43, 8, 0) if is_big else struct.pack("<H", 42)) + place
    directory, num_entries = _tiff_directory(header, position, pixel_rows, rows, offsets, sizes)
    file.write(directory)
    file.write(bytes(file.tell() % 2))
    file.seek(link)
    file.write(place)
    file.seek(0, os.SEEK_END)
    return position + (8 + 20 * num_entries if is_big else 2 + 12 * num_entries)


def _tiff_directory(
    header: bytes, position: int, pixel_rows: PixelRows, rows: int, offsets: list[int], sizes: list[int]
) -> tuple[bytes, int]:
    """The bytes of the directory that is to lie at a position, and the number of its entries."""
    (height, width), channels = pixel_rows.size, pixel_rows.channels
    is_big = len(header) == 16
    directory = Tiff.ImageFileDirectory_v2(header)
    directory[Tiff.IMAGEWIDTH], directory[Tiff.IMAGELENGTH] = width, height
    directory[Tiff.BITSPERSAMPLE] = (8 * pixel_rows.dtype.itemsize,) * channels
    directory[Tiff.COMPRESSION], directory[Tiff.PREDICTOR] = 8, 2  # deflate, differences to the pixel on the left
    directory[Tiff.PHOTOMETRIC_INTERPRETATION] = 1 if channels < 3 else 2  # 0 = black, or RGB
    directory[Tiff.SAMPLESPERPIXEL], directory[Tiff.ROWSPERSTRIP] = channels, rows
    directory[Tiff.PLANAR_CONFIGURATION] = 1  # samples of a pixel together
    if channels in (2, 4):
        directory[Tiff.EXTRASAMPLES] = 2  # alpha, not premultiplied
    directory.tagtype[Tiff.STRIPOFFSETS] = TiffTags.LONG8 if is_big else TiffTags.LONG
    directory.tagtype[Tiff.STRIPBYTECOUNTS] = TiffTags.LONG
    directory[Tiff.STRIPOFFSETS] = (0,) * len(offsets)
    directory[Tiff.STRIPBYTECOUNTS] = tuple(sizes)
    if pixel_rows.dpi:
        directory[Tiff.X_RESOLUTION], directory[Tiff.Y_RESOLUTION] = pixel_rows.dpi
        directory[Tiff.RESOLUTION_UNIT] = 2  # inch
    if pixel_rows.icc_profile:
        directory[Tiff.ICCPROFILE] = pixel_rows.icc_profile
    named = {XMP_TAG: pixel_rows.xmp, IPTC_TAG: pixel_rows.iptc}
    for tag, value in (pixel_rows.tags | {tag: value for tag, value in named.items() if value}).items():
        directory[tag] = value
    written = bytearray(directory.tobytes(position))
    count_bytes, entry_bytes, letter = (8, 20, "Q") if is_big else (2, 12, "I")
    values = struct.pack(f"<{len(offsets)}{letter}", *offsets)
    entries = sorted(directory).index(Tiff.STRIPOFFSETS) + 1
    place = count_bytes + entry_bytes * entries - struct.calcsize(letter)
    if len(offsets) > 1:
        place = struct.unpack_from(f"<{letter}", written, place)[0] - position
    written[place : place + len(values)] = values  # Pillow takes them for offsets behind the directory
    return bytes(written), len(directory)
