"""Run local networks on exact tiles: the result does not depend on the tiles."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from gigasr.inference.devices import ExecutionPlan, map_on_devices, run_or_none_if_oom
from gigasr.inference.row_stream import RowStream
from gigasr.inference.tiling import Margin, blank, pad_to_multiple, plan_intervals

logger = logging.getLogger(__name__)


class ExactTile(NamedTuple):
    """A tile of a network's input images, with its margin."""

    inputs: tuple[Tensor, ...]  # [1, C, H, W] each, with equal H and equal W
    margin: Margin  # 0 at the border of the image, elsewhere the halo, or less if the border is nearer

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) without the margin, px."""
        top, bottom, left, right = self.margin
        height, width = self.inputs[0].shape[2:]
        return height - top - bottom, width - left - right

    def halves(self, halo: int, align: int) -> tuple["ExactTile", "ExactTile", int]:
        """Cut the longer side in two, at a multiple of align.

        halo:    px to read beyond the cut
        align:   px; the longer side must exceed it
        returns: the first half, the second half, and the dimension of the cut (2 or 3)
        """
        dim = 2 if self.size[0] >= self.size[1] else 3
        before, after = self.margin[2 * dim - 4 : 2 * dim - 2]
        length = before + self.size[dim - 2] + after
        cut = before + max(self.size[dim - 2] // 2 // align, 1) * align
        stop, start = min(cut + halo, length), max(cut - halo, 0)
        first, second = list(self.margin), list(self.margin)
        first[2 * dim - 3], second[2 * dim - 4] = stop - cut, cut - start
        return self.narrow(dim, 0, stop, Margin(*first)), self.narrow(dim, start, length, Margin(*second)), dim

    def narrow(self, dim: int, start: int, stop: int, margin: Margin) -> "ExactTile":
        """Return the part [start, stop) of one dimension, px from the tile's edge."""
        return ExactTile(tuple(x.narrow(dim, start, stop - start) for x in self.inputs), margin)


class ReceptiveField(NamedTuple):
    """Receptive field of a local network, and the places for cuts."""

    halo: int  # px around a tile on which its result depends
    align: int = 1  # px; tiles begin at multiples of it
    multiple: int = 1  # px; the network takes sides that are multiples of it
    minimum: int = 1  # px; least side; at most halo + 1, hence only tiles as long as the image are shorter


class ExactTileEngine:
    """A local network, run on exact tiles from left to right and from top to bottom."""

    def __init__(
        self,
        networks: Mapping[torch.device, Callable[..., Tensor]],
        scale: int,
        receptive_field: ReceptiveField,
        pixels: int,
        cut: Callable[[tuple[int, int], int], tuple[int, int]],
        execution: ExecutionPlan,
    ) -> None:
        """Keep the networks and the tile size.

        networks: one for each of the plan's devices: images [1, C, H, W] and a Margin -> [1, C', H' * scale,
                  W' * scale]; H' and W' exclude the margin
        pixels:   most px of a tile without its margin; halved each time memory runs out
        cut:      (height, width) of the image and the present `pixels` -> greatest (height, width) of a tile
        """
        self.networks, self.scale, self.receptive_field, self.execution = networks, scale, receptive_field, execution
        self.pixels, self.cut = pixels, cut

    def strips(self, *images: RowStream) -> Iterator[Tensor]:
        """Run the network on all tiles and join them to strips.

        images: [1, C, H, W] -> [1, C', rows * scale, W * scale] from top to bottom
        """
        width, left = images[0].size[1] * self.scale, 0
        strip: Tensor | None = None
        for y in map_on_devices(self.run, self.tiles(*images), self.execution.devices):
            right = left + y.shape[3]
            if y.shape[3] == width:
                strip = y
            else:
                strip = blank(y, width) if strip is None else strip
                strip[:, :, :, left:right] = y
            del y  # frees the memory before the next tile is made
            left = right % width
            if not left:
                yield strip
                strip = None

    def tiles(self, *images: RowStream) -> Iterator[ExactTile]:
        """Cut the images into strips, and each strip into tiles from left to right."""
        height, width = images[0].size
        halo, align = self.receptive_field.halo, self.receptive_field.align
        top = 0
        while top < height:
            rows, columns = self.cut((height, width), self.pixels)
            bottom = min(top + rows, height)
            first, last = max(top - halo, 0), min(bottom + halo, height)
            band = tuple(image.read(first, last) for image in images)
            for left, right, start, stop in plan_intervals(width, columns, halo, align):
                margin = Margin(top - first, last - bottom, left - start, stop - right)
                yield ExactTile(band, margin).narrow(3, start, stop, margin)
            del band  # frees the memory before the next rows are read
            top = bottom

    def run(self, tile: ExactTile, device: torch.device) -> Tensor:
        """Run the network on a tile, in halves if memory runs out.

        returns: [1, C', height * scale, width * scale]
        """
        pixels, halo, align = math.prod(tile.size), self.receptive_field.halo, self.receptive_field.align
        is_minimal = max(tile.size) <= align
        if is_minimal or pixels <= self.pixels:
            y = run_or_none_if_oom(partial(self.run_whole, tile, device))
            if y is not None:
                return y
            if is_minimal:
                raise RuntimeError(f"memory: expected room for {align} px and a halo of {halo}, got none; free some")
            if pixels // 2 < self.pixels:
                self.pixels = pixels // 2
                logger.warning("memory is short: going on with tiles of %d px", self.pixels)
        first, second, dim = tile.halves(halo, align)
        return torch.cat([self.run(first, device), self.run(second, device)], dim=dim)

    def run_whole(self, tile: ExactTile, device: torch.device) -> Tensor:
        """Run the network once on a tile, padded to a size that the network takes."""
        height, width = (side * self.scale for side in tile.size)
        images = [
            pad_to_multiple(x.to(device), self.receptive_field.multiple, self.receptive_field.minimum)
            for x in tile.inputs
        ]
        below, beside = (a - b for a, b in zip(images[0].shape[2:], tile.inputs[0].shape[2:], strict=True))
        top, bottom, left, right = tile.margin
        margin = Margin(top, bottom + below if bottom else 0, left, right + beside if right else 0)
        return self.networks[device](*images, margin)[:, :, :height, :width].to(self.execution.main_device)
