"""Tiles, ramps, blending, strips and padding: how a large image is cut and put together again."""

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
    """What is read beyond a part of an image on each side, px."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0


@dataclass(frozen=True)
class TilingRules:
    """How the input of a network may be cut into tiles."""

    overlap: int  # px; least overlap of neighbours, over which they are cross-faded
    align: int = 1  # px; the origins of tiles are multiples of it
    multiple: int = 1  # px; the network takes sides that are multiples of it
    minimum: int = 1  # px; and at least this
    side: int = 0  # px; longest side of a tile, 0 = as memory allows
    pixel_bytes: int = 1 << 12  # of memory that a px takes while the network runs
    result_bytes: int = 0  # that what the network makes of a px takes

    @property
    def min_side(self) -> int:
        """The shortest side that tiles can have, px."""
        return math.ceil(max(self.minimum, 2 * self.overlap, self.overlap + self.align) / self.align) * self.align

    def padded_pixels(self, height: int, width: int) -> int:
        """The pixels of an image or tile when extended to what the network takes."""
        return math.prod(padded_side(side, self.multiple, self.minimum) for side in (height, width))


class HaloInterval(NamedTuple):
    """Pixels [start, stop) of one axis to compute, and those [read_start, read_stop) to read for them."""

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

    height, width: the image, px
    max_side: longest side of a tile, px; rounded down to `multiple` where one tile doesn't do
    overlap:  least overlap of neighbours, px
    multiple: every origin, and every size but the last of a row or column, is a multiple of it
    max_height: greatest height of a tile, px, where it is to be less than the longest side
    min_side: shortest side of a tile of an image that is longer, px: what a network would have extended is read
    returns:  a full grid of tiles; on each axis all have one size, and the last one ends at the image border
    """
    rows = _plan_axis(
        height, max_side if max_height is None else min(max_side, max_height), overlap, multiple, min_side
    )
    columns = _plan_axis(width, max_side, overlap, multiple, min_side)
    return [Tile(top, left, bottom - top, right - left) for top, bottom in rows for left, right in columns]


def _plan_axis(length: int, max_side: int, overlap: int, multiple: int, min_side: int) -> list[tuple[int, int]]:
    """Return the intervals [start, stop) of one axis, the same rules as plan_tiles."""
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
    """Weigh the intervals of one axis so that their weights sum to 1 at every position.

    intervals: [start, stop) in ascending order, neighbours overlapping or touching
    returns:   one [stop - start] float32 weight per interval, in [0, 1]

    Neighbours cross-fade linearly in the middle half of what they overlap. An overlap ends where the next interval but
    one begins, so that no more than two weights are above 0 anywhere. There is no fade at the image borders.
    """
    ramps = [torch.ones(stop - start) for start, stop in intervals]
    for i in range(len(intervals) - 1):
        (start, stop), (next_start, _) = intervals[i : i + 2]
        fade_stop = min(stop, intervals[i + 2][0]) if i + 2 < len(intervals) else stop
        fade = (torch.arange(fade_stop - next_start) + 0.5) / max(fade_stop - next_start, 1)
        fade = (2 * fade - 0.5).clamp(0, 1)  # not at the ends, where a network sees least of what lies around
        ramps[i][next_start - start : fade_stop - start] -= fade
        ramps[i][fade_stop - start :] = 0
        ramps[i + 1][: fade_stop - next_start] = fade
    return ramps


def tile_weights(tiles: Sequence[Tile], scale: int = 1) -> dict[Tile, tuple[Tensor, Tensor]]:
    """Return each tile's weights along y [h*scale, 1] and x [w*scale]; their product is its weight at a pixel.

    tiles: a full grid, as plan_tiles returns it; the weights of all tiles sum to 1 at every pixel
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
    """Process an image tile by tile and cross-fade the results where tiles overlap.

    process: the tiles of one row, from left to right -> their [B, C, h*scale, w*scale] in the same order; called once
             per row, from top to bottom
    tiles: a full grid over the image, as plan_tiles returns it
    returns: strips [B, C, rows*scale, width*scale] from top to bottom in process's dtype and on its device; no more
             than a row of tiles is held
    """
    weights = tile_weights(tiles, scale)
    bands = [list(row) for _, row in itertools.groupby(tiles, key=lambda tile: tile.top)]
    held: Tensor | None = None  # what the bands so far have put below the row that is next
    for i, band in enumerate(bands):
        blended = _blend_band(process(band), band, weights, scale, held)
        if i + 1 == len(bands):
            yield blended
            return
        ready = (bands[i + 1][0].top - band[0].top) * scale
        held, ready_part = blended[:, :, ready:].clone(), blended[:, :, :ready].clone()
        del blended  # as a part of it would hold all of it
        yield ready_part
        del ready_part


def _blend_band(
    pieces: Iterable[Tensor],
    band: list[Tile],
    weights: dict[Tile, tuple[Tensor, Tensor]],
    scale: int,
    held: Tensor | None,
) -> Tensor:
    """Weigh the results of a row of tiles and add them where they belong, to what the row above has left there."""
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
        blended[:, :, :, left : left + width] += (piece * weight).to(piece.dtype)  # weighed in float32
    if blended is None:
        raise ValueError("tiles: expected at least one tile, got none; use plan_tiles")
    return blended


def blank(piece: Tensor, width: int) -> Tensor:
    """piece: [B, C, H, W] -> [B, C, H, width], not filled yet; type, device and layout are the piece's"""
    layout = torch.channels_last if piece.stride(1) == 1 else torch.contiguous_format  # of a part of a map too
    shape = *piece.shape[:3], width
    return torch.empty(shape, dtype=piece.dtype, device=piece.device, memory_format=layout)


def plan_intervals(length: int, max_length: int, halo: int, align: int = 1) -> list[HaloInterval]:
    """Cut one axis of an image into intervals of nearly equal length, each read with a halo.

    length:     of the axis, px
    max_length: of an interval, px; less than align counts as align
    halo:       read before and after an interval, as far as the image has it, px
    align:      intervals begin at multiples of it, px
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
    """Extend an image at the bottom and right by reflection, as often mirrored as needed (1x1 works).

    x:        [B, C, H, W]
    multiple: the new sides are the smallest multiples of it, px
    minimum:  that are at least this, px
    returns:  [B, C, H', W'], x itself where it already fits
    """
    _check_positive("multiple", multiple)
    for dim in (2, 3):
        length = x.shape[dim]
        _check_positive("x.shape", length)
        if (padded := padded_side(length, multiple, minimum)) > length:
            x = x.index_select(dim, _reflect(torch.arange(padded, device=x.device), length))
    return x


def padded_side(side: int, multiple: int, minimum: int) -> int:
    """The smallest multiple that is at least a side and at least the minimum, px."""
    return math.ceil(max(side, minimum) / multiple) * multiple


def _reflect(index: Tensor, length: int) -> Tensor:
    """Fold indices into [0, length) as a reflection that does not repeat the border does."""
    period = max(2 * (length - 1), 1)
    index = index % period
    return torch.minimum(index, period - index)


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name}: expected at least 1, got {value}; use a positive number")
