"""Images that come as strips of rows: reading them by ranges, resizing them on the way."""

import copy
import weakref
from collections import deque
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from gigasr.networks.ops import resize

MAX_BLOCK_ROWS, MIN_BLOCK_ROWS = 16, 4  # worked on at a time: as a rule, and at least
MAX_BLOCK_PIXELS = 1 << 16  # of a low-res image in such a strip, at most where it has more than the least rows
CUBIC = -0.5  # the cubic's parameter, as in PIL and in torch's antialiased bicubic


class RowStream:
    """An image that comes as strips from top to bottom, held no longer than it is needed.

    It is read by ranges of rows that never go back, or iterated over. Readers that stand at different rows each take a
    `tee`: a strip is let go when the last of them is past it.
    """

    def __init__(self, size: tuple[int, int], strips: Iterable[Tensor]) -> None:
        """size: (height, width), px; strips: [B, C, rows, width] from top to bottom"""
        self.size = size
        self._strips, self._readers = iter(strips), weakref.WeakSet([self])  # both shared by all forks
        self._held: deque[Tensor] = deque()
        self._top = self._bottom = 0  # of what is held

    @classmethod
    def from_tensor(cls, image: Tensor) -> "RowStream":
        """The rows of an image [B, C, H, W] that is there as a whole."""
        return cls((image.shape[2], image.shape[3]), [image])

    def tee(self) -> "RowStream":
        """One more reader of the same rows, from the same row on."""
        tee = copy.copy(self)
        tee._held = self._held.copy()
        self._readers.add(tee)
        return tee

    def __iter__(self) -> Iterator[Tensor]:
        """Strips of all that hasn't been let go, as they come."""
        while self._held or self._fetch():
            strip = self._held.popleft()
            self._top += strip.shape[2]
            yield strip
            del strip

    def read(self, top: int, bottom: int) -> Tensor:
        """Rows [top, bottom) as [B, C, bottom - top, W]; a later call may not ask for rows above this top."""
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
        """Forget what lies above a row; a small rest of a strip is copied, as a view would hold all of it."""
        while self._held and self._top + self._held[0].shape[2] <= top:
            self._top += self._held.popleft().shape[2]
        if self._held and top - self._top > self._held[0].shape[2] // 2:
            self._held[0] = self._held[0][:, :, top - self._top :].clone()
            self._top = top


def resize_rows(source: RowStream, size: tuple[int, int]) -> RowStream:
    """Resize an image strip by strip, antialiased bicubic: equal to `F.interpolate` of the whole, to rounding.

    source:  [B, C, H, W]
    size:    (height, width) of the result, px
    returns: its rows; source itself where the size is already right
    """
    if source.size == size:
        return source
    if source.size[1] != size[1]:
        source = RowStream((source.size[0], size[1]), (_resize_width(strip, size[1]) for strip in source))
    return source if source.size == size else RowStream(size, _resize_height(source, size[0]))


def _resize_width(strip: Tensor, width: int) -> Tensor:
    return resize(strip, (strip.shape[2], width))


def block_rows(width: int) -> int:
    """Rows to work on at a time in an image of this width, px: fewer in a wide one."""
    return max(MIN_BLOCK_ROWS, min(MAX_BLOCK_ROWS, MAX_BLOCK_PIXELS // width))


def _resize_height(source: RowStream, height: int) -> Iterator[Tensor]:
    rows_at_a_time = block_rows(source.size[1])
    for top in range(0, height, rows_at_a_time):
        first, weights = cubic_weights(source.size[0], height, top, min(top + rows_at_a_time, height))
        rows = source.read(first, first + weights.shape[1])
        yield weights.to(rows) @ rows


def cubic_weights(length: int, new_length: int, start: int, stop: int) -> tuple[int, Tensor]:
    """Weights of an antialiased bicubic resize along one axis, for a part of the result.

    length, new_length: of the axis before and after, px
    start, stop:        the part [start, stop) of the result
    returns:            first source position that has a weight, and [stop - start, n] float32, the weights of the n
                        positions from there on; each row sums to 1
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
