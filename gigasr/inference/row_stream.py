"""Streams of image rows: read ranges of rows, and resize."""

import copy
import weakref
from collections import deque
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from gigasr.networks.ops import resize

MAX_BLOCK_ROWS, MIN_BLOCK_ROWS = 16, 4  # rows to work on at a time
MAX_BLOCK_PIXELS = 1 << 16  # low-res px to work on at a time, unless `MIN_BLOCK_ROWS` have more
CUBIC = -0.5  # the cubic's parameter, as in PIL and in torch's antialiased bicubic


class RowStream:
    """An image that arrives as strips from top to bottom.

    A reader asks for ranges of rows and never goes back, or iterates over the strips. Readers at different rows each
    take a `tee`. A strip leaves memory after the last reader has passed it.
    """

    def __init__(self, size: tuple[int, int], strips: Iterable[Tensor]) -> None:
        """Keep the size (height, width), px, and the strips [B, C, rows, width]."""
        self.size = size
        self._strips, self._readers = iter(strips), weakref.WeakSet([self])  # both shared by all tees
        self._held: deque[Tensor] = deque()
        self._top = self._bottom = 0  # rows [top, bottom) of the strips in memory

    @classmethod
    def from_tensor(cls, image: Tensor) -> "RowStream":
        """Wrap a whole image [B, C, H, W]."""
        return cls((image.shape[2], image.shape[3]), [image])

    def tee(self) -> "RowStream":
        """Make another reader of the same rows, from the present row on."""
        tee = copy.copy(self)
        tee._held = self._held.copy()
        self._readers.add(tee)
        return tee

    def __iter__(self) -> Iterator[Tensor]:
        """Yield the strips from the present row on."""
        while self._held or self._fetch():
            strip = self._held.popleft()
            self._top += strip.shape[2]
            yield strip
            del strip

    def read(self, top: int, bottom: int) -> Tensor:
        """Return rows [top, bottom) as [B, C, bottom - top, W].

        Raises ValueError for rows outside the image or above the top of an earlier call, and if the strips end early.
        """
        if not self._top <= top < bottom <= self.size[0]:
            raise ValueError(
                f"rows: expected a range in {self._top}..{self.size[0]}, got {top}..{bottom}; never go back"
            )
        while self._bottom < bottom:
            self._evict(top)
            if not self._fetch():
                raise ValueError(f"strips: expected {self.size[0]} rows, got {self._bottom}; give the whole image")
        self._evict(top)
        parts, first = [], self._top
        for strip in self._held:
            start, stop = max(top - first, 0), min(bottom - first, strip.shape[2])
            if start < stop:
                parts.append(strip[:, :, start:stop])
            first += strip.shape[2]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)

    def _fetch(self) -> bool:
        strip = next(self._strips, None)
        if strip is None:
            return False
        for reader in self._readers:
            reader._held.append(strip)
            reader._bottom += strip.shape[2]
        return True

    def _evict(self, top: int) -> None:
        """Remove the rows above a row from memory.

        The small rest of a strip is copied, because a view would keep the whole strip in memory.
        """
        while self._held and self._top + self._held[0].shape[2] <= top:
            self._top += self._held.popleft().shape[2]
        if self._held and top - self._top > self._held[0].shape[2] // 2:
            self._held[0] = self._held[0][:, :, top - self._top :].clone()
            self._top = top


def resize_rows(source: RowStream, size: tuple[int, int]) -> RowStream:
    """Resize an image strip by strip by antialiased bicubic interpolation.

    The result equals `F.interpolate` of the whole image up to rounding.

    source:  [B, C, H, W]
    size:    (height, width) of the result, px
    returns: the resized rows; source itself if it has the size already
    """
    if source.size == size:
        return source
    if source.size[1] != size[1]:
        source = RowStream((source.size[0], size[1]), (_resize_width(strip, size[1]) for strip in source))
    return source if source.size == size else RowStream(size, _resize_height(source, size[0]))


def _resize_width(strip: Tensor, width: int) -> Tensor:
    return resize(strip, (strip.shape[2], width))


def block_rows(width: int) -> int:
    """Return the rows to work on at a time: fewer in a wide image.

    width: px
    """
    return max(MIN_BLOCK_ROWS, min(MAX_BLOCK_ROWS, MAX_BLOCK_PIXELS // width))


def _resize_height(source: RowStream, height: int) -> Iterator[Tensor]:
    rows_at_a_time = block_rows(source.size[1])
    for top in range(0, height, rows_at_a_time):
        first, weights = cubic_weights(source.size[0], height, top, min(top + rows_at_a_time, height))
        rows = source.read(first, first + weights.shape[1])
        yield weights.to(rows) @ rows


def cubic_weights(length: int, new_length: int, start: int, stop: int) -> tuple[int, Tensor]:
    """Compute the weights of an antialiased bicubic resize along one axis.

    length, new_length: length of the axis before and after, px
    start, stop:        part [start, stop) of the result
    returns:            the first source position with a weight, and the weights [stop - start, n] float32 of the n
                        positions from the first on; each row sums to 1
    """
    scale = length / new_length
    stretch = max(scale, 1.0)
    centres = scale * (torch.arange(start, stop, dtype=torch.float64) + 0.5)
    lower = (centres - 2 * stretch + 0.5).long().clamp(min=0)
    upper = (centres + 2 * stretch + 0.5).long().clamp(max=length)
    first, last = int(lower[0]), int(upper[-1])
    positions = torch.arange(first, last)
    x = ((positions + 0.5 - centres[:, None]) / stretch).abs()
    near = ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1
    far = CUBIC * (((x - 5) * x + 8) * x - 4)
    weights = torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
    weights *= (positions >= lower[:, None]) & (positions < upper[:, None])
    return first, (weights / weights.sum(dim=1, keepdim=True)).float()
