"""Samples of a picture in blocks of rows, and the compression of blocks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from zlib_ng import zlib_ng

_BLOCK_BYTES = 1 << 18  # of samples deflated at a time
_FLAT = 0.6  # share of repeated bytes; searching for runs pays above


@dataclass
class PixelRows:
    """Samples in blocks of rows, with the properties for a file."""

    size: tuple[int, int]  # (H, W), px
    channels: int  # 1 gray, 2 gray + alpha, 3 RGB, 4 RGB + alpha
    dtype: np.dtype  # uint8 or uint16
    blocks: Iterator[np.ndarray]  # [rows, W, C] of any number of rows, from top to bottom
    icc_profile: bytes | None
    dpi: tuple[float, float] | None
    tags: dict[int, Any]  # of EXIF
    xmp: bytes | None = None
    iptc: bytes | None = None  # not for PNG
    texts: Mapping[str, str] = field(default_factory=dict)  # for PNG only

    @property
    def num_bytes(self) -> int:
        """Return the size of all samples, bytes."""
        return self.size[0] * self.size[1] * self.channels * self.dtype.itemsize

    @property
    def rows_per_block(self) -> int:
        """Return the number of rows to deflate at a time."""
        row_bytes = self.size[1] * self.channels * self.dtype.itemsize
        return max(_BLOCK_BYTES // row_bytes, 1)

    def rows(self, count: int) -> Iterator[np.ndarray]:
        """Yield the samples in blocks of `count` rows; the last may have fewer."""
        held: list[np.ndarray] = []
        num_held = 0
        for block in self.blocks:
            while num_held + len(block) >= count:
                cut = count - num_held
                held.append(block[:cut])
                yield held[0] if len(held) == 1 else np.concatenate(held)
                block = block[cut:]
                held = []
                num_held = 0
            if len(block):
                held.append(block)
                num_held += len(block)
        if held:
            yield np.concatenate(held)

    def whole(self) -> np.ndarray:
        """Return all samples at once, [H, W, C]."""
        samples = np.empty((*self.size, self.channels), self.dtype)
        top = 0
        for block in self.blocks:
            bottom = top + len(block)
            samples[top:bottom] = block
            top = bottom
        return samples


def make_compressor(data: np.ndarray, window_bits: int = zlib_ng.MAX_WBITS) -> "zlib_ng._Compress":
    """Make a deflate compressor for data: Huffman codes only, or runs in flat areas.

    Network output rarely repeats exactly: a search for runs would double the time and save less than 1 % on photos.
    Runs are searched where most bytes equal the byte before, in flat areas.

    data: any samples of the block to compress
    """
    flat = data.reshape(-1).view(np.uint8)
    num_repeated = np.count_nonzero(flat[1:] == flat[:-1])
    is_flat = num_repeated > _FLAT * flat.size
    strategy = zlib_ng.Z_RLE if is_flat else zlib_ng.Z_HUFFMAN_ONLY
    return zlib_ng.compressobj(1, wbits=window_bits, strategy=strategy)
