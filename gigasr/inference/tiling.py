"""Cut large images into tiles and strips, and blend the results."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Tile(NamedTuple):
    """A rectangle of the low-res image, in px."""

    top: int
    left: int
    height: int
    width: int


class Margin(NamedTuple):
    """The halo on each side of a tile, px."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0


@dataclass(frozen=True)
class TilingRules:
    """The rules by which the input of a network is cut into tiles."""

    overlap: int  # px; least overlap of neighbours, for the cross-fade
    align: int = 1  # px; the origins of tiles are multiples of it
    multiple: int = 1  # px; the network takes sides that are multiples of it
    minimum: int = 1  # px; least side that the network takes
    side: int = 0  # px; longest side of a tile, 0 = as memory allows
    pixel_bytes: int = 1 << 12  # memory per input px while the network runs
    result_bytes: int = 0  # memory of the result per input px

    @property
    def min_side(self) -> int:
        """Shortest side of a tile, px."""
        return math.ceil(max(self.minimum, 2 * self.overlap, self.overlap + self.align) / self.align) * self.align

    def padded_pixels(self, height: int, width: int) -> int:
        """Return the number of pixels after padding to a size that the network takes."""
        return math.prod(padded_side(side, self.multiple, self.minimum) for side in (height, width))


class HaloInterval(NamedTuple):
    """Pixels of one axis to compute, [start, stop), and to read, with the halo."""

    start: int
    stop: int
    read_start: int
    read_stop: int


def plan_tiles(
    height: int,
    width: int,
    max_side: int,
    overlap: int,
    multiple: int,
    max_height: int | None = None,
    min_side: int = 1,
) -> list[Tile]:
    """Cover an image with as few overlapping tiles as possible, in raster order.

    height, width: size of the image, px
    max_side:      longest side of a tile, px; rounded down to `multiple` if the image needs several tiles
    overlap:       least overlap of neighbours, px
    multiple:      px; origins are multiples of it, and sizes too, except the last of a row or column
    max_height:    greatest height of a tile, px, if less than max_side
    min_side:      shortest side of a tile of a longer image, px: tiles read real pixels instead of padding
    returns:       a full grid of tiles; on each axis all tiles have one size, and the last tile ends at the border
    """
    rows = _plan_axis(
        height, max_side if max_height is None else min(max_side, max_height), overlap, multiple, min_side
    )
    columns = _plan_axis(width, max_side, overlap, multiple, min_side)
    return [Tile(top, left, bottom - top, right - left) for top, bottom in rows for left, right in columns]


def _plan_axis(length: int, max_side: int, overlap: int, multiple: int, min_side: int) -> list[tuple[int, int]]:
    """Return the intervals [start, stop) of one axis, by the rules of plan_tiles."""
    _check_positive("image side", length)
    _check_positive("multiple", multiple)
    if overlap < 0:
        raise ValueError(f"overlap: expected at least 0 px, got {overlap}; use 0 for no overlap")
    if length <= max_side:
        return [(0, length)]
    max_aligned = max_side // multiple * multiple
    max_step = (max_aligned - overlap) // multiple
    if max_step < 1:
        raise ValueError(
            f"max_side: expected a multiple of {multiple} px of at least {multiple} px more than the overlap "
            f"of {overlap} px, got {max_side}; make the tile larger or the overlap smaller"
        )
    num_steps = math.ceil(math.ceil((length - max_aligned) / multiple) / max_step)

    def last_start(size: int) -> int:  # in units of `multiple`
        return math.ceil((length - size) / multiple)

    sizes = range(min(math.ceil(min_side / multiple) * multiple, max_aligned), max_aligned + 1, multiple)
    size = next(s for s in sizes if math.ceil(last_start(s) / num_steps) * multiple <= s - overlap)
    starts = [i * last_start(size) // num_steps * multiple for i in range(num_steps + 1)]
    return [(start, min(start + size, length)) for start in starts]


def axis_ramps(intervals: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Weigh the intervals of one axis; the weights sum to 1 at every position.

    intervals: [start, stop) in ascending order, neighbours overlapping or touching
    returns:   the weights of each interval, [stop - start] float32 in [0, 1]

    Neighbours cross-fade linearly in the middle half of their overlap. An overlap ends at the start of the next
    interval but one, hence at most two weights are above 0 at a position. The image borders have no fade.
    """
    ramps = [torch.ones(stop - start) for start, stop in intervals]
    for i in range(len(intervals) - 1):
        (start, stop), (next_start, _) = intervals[i : i + 2]
        fade_stop = min(stop, intervals[i + 2][0]) if i + 2 < len(intervals) else stop
        fade = (torch.arange(fade_stop - next_start) + 0.5) / max(fade_stop - next_start, 1)
        fade = (2 * fade - 0.5).clamp(0, 1)  # not at the ends: there a network sees least of the surroundings
        ramps[i][next_start - start : fade_stop - start] -= fade
        ramps[i][fade_stop - start :] = 0
        ramps[i + 1][: fade_stop - next_start] = fade
    return ramps


def tile_weights(tiles: Sequence[Tile], scale: int = 1) -> dict[Tile, tuple[Tensor, Tensor]]:
    """Compute the weights of each tile along y and x.

    A tile's weight at a pixel is the product of both. The weights of all tiles sum to 1 at every pixel.

    tiles:   a full grid, from plan_tiles
    returns: for each tile, [h*scale, 1] along y and [w*scale] along x
    """
    rows = sorted({(r.top, r.top + r.height) for r in tiles})
    columns = sorted({(r.left, r.left + r.width) for r in tiles})
    if len(rows) * len(columns) != len(tiles):
        raise ValueError(
            f"tiles: expected a full grid of {len(rows)}x{len(columns)}, got {len(tiles)} tiles; use plan_tiles"
        )
    down = dict(zip(rows, axis_ramps([(a * scale, b * scale) for a, b in rows]), strict=True))
    across = dict(zip(columns, axis_ramps([(a * scale, b * scale) for a, b in columns]), strict=True))
    return {r: (down[r.top, r.top + r.height][:, None], across[r.left, r.left + r.width]) for r in tiles}


def blend_strips(
    process: Callable[[list[Tile]], Iterable[Tensor]], tiles: Sequence[Tile], scale: int = 1
) -> Iterator[Tensor]:
    """Process an image tile by tile and cross-fade the overlaps.

    Memory holds at most one row of tiles.

    process: the tiles of one row, from left to right -> [B, C, h*scale, w*scale] of each, in the same order; called
             once per row, from top to bottom
    tiles:   a full grid over the image, from plan_tiles
    returns: strips [B, C, rows*scale, width*scale] from top to bottom, in the dtype and on the device of process
    """
    weights = tile_weights(tiles, scale)
    bands = [list(row) for _, row in itertools.groupby(tiles, key=lambda tile: tile.top)]
    held: Tensor | None = None  # sum of the earlier bands over the rows of the next band
    for i, band in enumerate(bands):
        blended = _blend_band(process(band), band, weights, scale, held)
        if i + 1 == len(bands):
            yield blended
            return
        ready = (bands[i + 1][0].top - band[0].top) * scale
        held, ready_part = blended[:, :, ready:].clone(), blended[:, :, :ready].clone()
        del blended  # the strip is a copy, because a view would keep the whole band in memory
        yield ready_part
        del ready_part


def _blend_band(
    pieces: Iterable[Tensor],
    band: list[Tile],
    weights: dict[Tile, tuple[Tensor, Tensor]],
    scale: int,
    held: Tensor | None,
) -> Tensor:
    """Blend the results of a row of tiles with the sum left by the row above.

    pieces:  [B, C, h*scale, w*scale] of each tile of the band
    held:    [B, C, rows*scale, width*scale] sum of the rows above, None for the first row
    returns: [B, C, h*scale, width*scale]
    """
    blended: Tensor | None = None
    for tile, piece in zip(band, pieces, strict=True):
        height, width = tile.height * scale, tile.width * scale
        if piece.shape[2:] != (height, width):
            raise ValueError(
                f"process: expected [B, C, {height}, {width}] for {tile}, got {tuple(piece.shape)}; crop its padding"
            )
        if len(weights) == 1:
            return piece
        if blended is None:
            blended = blank(piece, (band[-1].left + band[-1].width) * scale).zero_()
            if held is not None:
                blended[:, :, : held.shape[2]] = held
        down, across = weights[tile]
        left = tile.left * scale
        weight = (down * across).to(piece.device)
        blended[:, :, :, left : left + width] += (piece * weight).to(piece.dtype)  # the product is in float32
    if blended is None:
        raise ValueError("tiles: expected at least one tile, got none; use plan_tiles")
    return blended


def blank(piece: Tensor, width: int) -> Tensor:
    """Allocate a strip like a piece, without values: same dtype, device and layout.

    piece: [B, C, H, W] -> [B, C, H, width]
    """
    layout = torch.channels_last if piece.stride(1) == 1 else torch.contiguous_format  # holds for views too
    shape = *piece.shape[:3], width
    return torch.empty(shape, dtype=piece.dtype, device=piece.device, memory_format=layout)


def plan_intervals(length: int, max_length: int, halo: int, align: int = 1) -> list[HaloInterval]:
    """Cut one axis of an image into intervals of nearly equal length, with halos.

    length:     length of the axis, px
    max_length: greatest length of an interval, px; less than align counts as align
    halo:       px to read before and after an interval, less at the image border
    align:      px; intervals begin at multiples of it
    """
    _check_positive("length", length)
    _check_positive("max_length", max_length)
    units = math.ceil(length / align)
    count = math.ceil(units / max(max_length // align, 1))
    bounds = [min(i * units // count * align, length) for i in range(count + 1)]
    return [
        HaloInterval(start, stop, max(start - halo, 0), min(stop + halo, length))
        for start, stop in zip(bounds[:-1], bounds[1:], strict=True)
    ]


def pad_to_multiple(x: Tensor, multiple: int, minimum: int = 1) -> Tensor:
    """Pad an image at the bottom and right by repeated reflection (1x1 works).

    x:        [B, C, H, W]
    multiple: px; the new sides are multiples of it
    minimum:  least new side, px
    returns:  [B, C, H', W'] with the smallest such sides; x itself if it fits already
    """
    _check_positive("multiple", multiple)
    for dim in (2, 3):
        length = x.shape[dim]
        _check_positive("x.shape", length)
        if (padded := padded_side(length, multiple, minimum)) > length:
            x = x.index_select(dim, _reflect(torch.arange(padded, device=x.device), length))
    return x


def padded_side(side: int, multiple: int, minimum: int) -> int:
    """Return the smallest multiple of at least a side and a minimum, px."""
    return math.ceil(max(side, minimum) / multiple) * multiple


def _reflect(index: Tensor, length: int) -> Tensor:
    """Map indices into [0, length) by reflection without repeating the border."""
    period = max(2 * (length - 1), 1)
    index = index % period
    return torch.minimum(index, period - index)


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name}: expected at least 1, got {value}; use a positive number")
