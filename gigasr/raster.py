"""PNG and TIFF files row by row: 8 and 16 bit, gray or colour, alpha, profile, EXIF, texts; nothing is held whole."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from PIL import PngImagePlugin, TiffImagePlugin, TiffTags

from gigasr.exif import exif_bytes

_DEFLATE_LEVEL = 2  # a third of the time of level 6 for a sixth more bytes
_TIFF_STRIP_BYTES = 1 << 18
_PNG_BLOCK_BYTES = 1 << 22
_CLASSIC_TIFF_BYTES = (1 << 32) - (1 << 26)  # of samples; with more the offsets need the 64 bits of BigTIFF
_STRIP_OFFSETS, _STRIP_SIZES = 273, 279


@dataclass
class Raster:
    """Samples that come in blocks of rows, and what a file says about them."""

    size: tuple[int, int]  # (H, W), px
    channels: int  # 1 gray, 2 gray + alpha, 3 RGB, 4 RGB + alpha
    dtype: np.dtype  # uint8 or uint16
    blocks: Iterator[np.ndarray]  # [rows, W, C] of any number of rows, from top to bottom
    icc_profile: bytes | None
    dpi: tuple[float, float] | None
    tags: dict[int, Any]  # of EXIF

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


def write_png(file: BinaryIO, raster: Raster, texts: dict[str, str]) -> None:
    """Write a PNG: Pillow has no 16-bit colour and no strips; pyvips writes texts in the wrong encoding, EXIF its own.

    texts: as tEXt chunks, or as iTXt for what Latin-1 doesn't have
    """
    height, width = raster.size
    depth, colour_type = 8 * raster.dtype.itemsize, {1: 0, 2: 4, 3: 2, 4: 6}[raster.channels]
    file.write(b"\x89PNG\r\n\x1a\n")
    PngImagePlugin.putchunk(file, b"IHDR", struct.pack(">2I5B", width, height, depth, colour_type, 0, 0, 0))
    if raster.icc_profile:
        PngImagePlugin.putchunk(file, b"iCCP", b"ICC Profile\0\0", zlib.compress(raster.icc_profile))
    if raster.dpi:
        per_metre = [round(dpi / 0.0254) for dpi in raster.dpi]
        PngImagePlugin.putchunk(file, b"pHYs", struct.pack(">2IB", *per_metre, 1))
    if exif := exif_bytes(raster.tags):
        PngImagePlugin.putchunk(file, b"eXIf", exif.removeprefix(b"Exif\0\0"))
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    for name, data, *_ in info.chunks:
        PngImagePlugin.putchunk(file, name, data)
    compressor = zlib.compressobj(_DEFLATE_LEVEL)
    pixel_bytes = raster.channels * raster.dtype.itemsize
    for block in raster.rows(max(_PNG_BLOCK_BYTES // (width * pixel_bytes), 1)):
        samples = block.astype(raster.dtype.newbyteorder(">"), copy=False).view(np.uint8).reshape(len(block), -1)
        filtered = np.empty((len(block), 1 + samples.shape[1]), np.uint8)
        filtered[:, 0] = 1  # the Sub filter: differences to the pixel on the left
        filtered[:, 1:] = samples
        filtered[:, 1 + pixel_bytes :] -= samples[:, :-pixel_bytes]
        PngImagePlugin.putchunk(file, b"IDAT", compressor.compress(filtered.data))
    PngImagePlugin.putchunk(file, b"IDAT", compressor.flush())
    PngImagePlugin.putchunk(file, b"IEND")


def write_tiff(file: BinaryIO, raster: Raster) -> None:
    """Write a deflated TIFF, BigTIFF where it may need more than 4 GiB; the directory follows the samples.

    Pillow has no 16-bit colour, loses EXIF when it compresses and has no strips; pyvips has no EXIF.
    """
    (height, width), channels, depth = raster.size, raster.channels, raster.dtype.itemsize
    is_big = height * width * channels * depth > _CLASSIC_TIFF_BYTES
    file.write(bytes(16 if is_big else 8))
    rows = max(_TIFF_STRIP_BYTES // (width * channels * depth), 1)
    little_endian = raster.dtype.newbyteorder("<")
    offsets, sizes = [], []
    for block in raster.rows(rows):
        differences = np.diff(block, axis=1, prepend=raster.dtype.type(0))
        data = zlib.compress(differences.astype(little_endian, copy=False).data, _DEFLATE_LEVEL)
        offsets.append(file.tell())
        sizes.append(len(data))
        file.write(data)
    file.write(bytes(file.tell() % 2))
    position = file.tell()
    header = b"II" + (struct.pack("<3HQ", 43, 8, 0, position) if is_big else struct.pack("<HI", 42, position))
    file.write(_tiff_directory(header, position, raster, rows, offsets, sizes))
    file.seek(0)
    file.write(header)


def _tiff_directory(
    header: bytes, position: int, raster: Raster, rows: int, offsets: list[int], sizes: list[int]
) -> bytes:
    """The bytes of the directory that is to lie at a position."""
    (height, width), channels = raster.size, raster.channels
    is_big = len(header) == 16
    directory = TiffImagePlugin.ImageFileDirectory_v2(header)
    directory[256], directory[257] = width, height
    directory[258] = (8 * raster.dtype.itemsize,) * channels
    directory[259], directory[317] = 8, 2  # deflate, differences to the pixel on the left
    directory[262] = 1 if channels < 3 else 2  # 0 = black, or RGB
    directory[277], directory[278], directory[284] = channels, rows, 1
    if channels in (2, 4):
        directory[338] = 2  # alpha, not premultiplied
    directory.tagtype[_STRIP_OFFSETS] = TiffTags.LONG8 if is_big else TiffTags.LONG
    directory.tagtype[_STRIP_SIZES] = TiffTags.LONG
    directory[_STRIP_OFFSETS] = (0,) * len(offsets)
    directory[_STRIP_SIZES] = tuple(sizes)
    if raster.dpi:
        directory[282], directory[283], directory[296] = (*raster.dpi, 2)
    if raster.icc_profile:
        directory[34675] = raster.icc_profile
    for tag, value in raster.tags.items():
        directory[tag] = value
    written = bytearray(directory.tobytes(position))
    count_bytes, entry_bytes, letter = (8, 20, "Q") if is_big else (2, 12, "I")
    values = struct.pack(f"<{len(offsets)}{letter}", *offsets)
    place = count_bytes + entry_bytes * sorted(directory).index(_STRIP_OFFSETS) + entry_bytes - struct.calcsize(letter)
    if len(offsets) > 1:
        place = struct.unpack_from(f"<{letter}", written, place)[0] - position
    written[place : place + len(values)] = values  # Pillow takes them for offsets behind the directory
    return bytes(written)
