"""Transposition of very wide pictures, which pass through a temporary file."""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from typing import IO

import numpy as np
import torch

from gigasr.files.picture import Picture, PictureStrips

TRANSPOSED_STRIP_BYTES = 1 << 26  # of a strip of rows, in float32


def transpose(picture: Picture) -> Picture:
    """Swap rows and columns of a picture."""
    alpha = None if picture.alpha is None else picture.alpha.transpose(1, 2)
    dpi = picture.dpi and (picture.dpi[1], picture.dpi[0])
    return replace(picture, rgb=picture.rgb.transpose(1, 2), alpha=alpha, dpi=dpi)


def transpose_strips(transposed: PictureStrips) -> Iterator[Picture]:
    """Yield strips of rows of a picture whose transpose comes as strips.

    All samples lie in a file in the system's folder for temporary ones, in the picture's own depth, as long.
    """
    with tempfile.TemporaryFile(prefix="gigasr-") as file:
        widths: list[int] = []
        for strip in transposed.strips:
            widths.append(strip.size[0])
            _append_columns(file, transpose(strip))
            channels = 3 + (strip.alpha is not None)
            like = replace(strip, rgb=strip.rgb[:, :0].clone(), alpha=None)  # a view would hold the strip
            del strip  # or it lives while the next one is made
        yield from _read_rows(file, widths, transposed.size[1], transpose(like), channels)


def _append_columns(file: IO[bytes], columns: Picture) -> None:
    """Append some columns as integers [C, H, columns]."""
    planes = columns.rgb if columns.alpha is None else torch.cat([columns.rgb, columns.alpha])
    scaled = (planes * (2**columns.bit_depth - 1)).round_().numpy()
    file.write(np.ascontiguousarray(scaled, f"u{columns.bit_depth // 8}").data)


def _read_rows(file: IO[bytes], widths: list[int], height: int, like: Picture, channels: int) -> Iterator[Picture]:
    """Gather strips of rows from columns of these widths."""
    dtype, width = np.dtype(f"u{like.bit_depth // 8}"), sum(widths)
    rows = max(TRANSPOSED_STRIP_BYTES // (4 * channels * width), 1)
    for top in range(0, height, rows):
        count = min(rows, height - top)
        planes = np.empty((channels, count, width), np.float32)
        left = 0
        for columns in widths:
            for channel in range(channels):
                start = channels * height * left + (channel * height + top) * columns
                file.seek(start * dtype.itemsize)
                samples = np.frombuffer(file.read(count * columns * dtype.itemsize), dtype)
                planes[channel, :, left : left + columns] = samples.reshape(count, columns)
            left += columns
        planes /= 2**like.bit_depth - 1
        tensor = torch.from_numpy(planes)
        yield replace(like, rgb=tensor[:3], alpha=tensor[3:] if channels > 3 else None)
        del planes, tensor
