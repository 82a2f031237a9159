"""Transposition of very wide pictures through a temporary file.

The file holds the whole picture: the first row needs all columns.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from typing import IO

import numpy as np
import torch

from gigasr.files.picture import Picture, PictureStrips

TRANSPOSED_STRIP_BYTES = 1 << 26  # of a strip of rows in float32


def transpose(picture: Picture) -> Picture:
    """Swap rows and columns of a picture."""
    alpha = None if picture.alpha is None else picture.alpha.transpose(1, 2)
    dpi = None if picture.dpi is None else picture.dpi[::-1]
    return replace(picture, rgb=picture.rgb.transpose(1, 2), alpha=alpha, dpi=dpi)


def transpose_strips(transposed: PictureStrips) -> Iterator[Picture]:
    """Yield strips of rows of a picture whose transpose comes as strips.

    The samples are stored in a temporary file, in the picture's bit depth, until the last strip is taken.
    """
    with tempfile.TemporaryFile(prefix="gigasr-") as file:
        widths: list[int] = []
        for strip in transposed.strips:
            widths.append(strip.size[0])
            _append_columns(file, transpose(strip))
            channels = 3 if strip.alpha is None else 4
            no_rows = strip.rgb[:, :0].clone()  # a view would keep the strip alive
            like = replace(strip, rgb=no_rows, alpha=None)
            del strip  # or both strips are in memory while the next is made
        yield from _read_rows(file, widths, transposed.size[1], transpose(like), channels)


def _append_columns(file: IO[bytes], columns: Picture) -> None:
    """Append some columns as integers [C, H, columns]."""
    planes = columns.rgb
    if columns.alpha is not None:
        planes = torch.cat([planes, columns.alpha])
    largest = 2**columns.bit_depth - 1
    scaled = (planes * largest).round_().numpy()
    samples = np.ascontiguousarray(scaled, _sample_type(columns))
    file.write(samples.data)


def _sample_type(picture: Picture) -> np.dtype:
    return np.dtype(f"u{picture.bit_depth // 8}")


def _read_rows(file: IO[bytes], widths: list[int], height: int, like: Picture, channels: int) -> Iterator[Picture]:
    """Yield strips of rows from stored columns.

    widths:   of the stored pictures, px, from left to right
    height:   of the whole picture, px
    like:     properties of the strips
    channels: 3, or 4 with alpha
    """
    dtype = _sample_type(like)
    width = sum(widths)
    float_bytes = 4
    row_bytes = float_bytes * channels * width
    rows = max(TRANSPOSED_STRIP_BYTES // row_bytes, 1)
    for top in range(0, height, rows):
        count = min(rows, height - top)
        planes = np.empty((channels, count, width), np.float32)
        left = 0
        for columns in widths:
            right = left + columns
            for channel in range(channels):
                start = channels * height * left + (channel * height + top) * columns
                file.seek(start * dtype.itemsize)
                stored = file.read(count * columns * dtype.itemsize)
                samples = np.frombuffer(stored, dtype)
                planes[channel, :, left:right] = samples.reshape(count, columns)
            left = right
        planes /= 2**like.bit_depth - 1
        tensor = torch.from_numpy(planes)
        alpha = tensor[3:] if channels > 3 else None
        yield replace(like, rgb=tensor[:3], alpha=alpha)
        del planes, tensor, alpha  # or both strips are in memory while the next is made
