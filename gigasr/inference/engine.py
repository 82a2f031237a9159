"""Engines: networks that enlarge by their own scale, in pieces whose size follows from the memory there is."""

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from gigasr.inference.devices import Place, attempt, free_memory, spread
from gigasr.inference.noise import noise_field
from gigasr.inference.patches import PatchEngine, Reach
from gigasr.inference.restoration import restore_rows
from gigasr.inference.rows import Rows
from gigasr.inference.tiling import (
    Margin,
    Region,
    Tiling,
    blend_strips,
    pad_to_multiple,
    padded_side,
    plan_regions,
)

logger = logging.getLogger(__name__)

REGION_BYTES = 80 << 20  # most that a region takes on a CPU; larger ones save little
PATCH_BYTES = 70 << 20  # the same of a patch of the tail: malloc keeps its maps for reuse
MOST_REGIONS = 16  # in a batch, where memory decides; 16 of 64x64 px, the size of training, are 256x256 px
BAND_BYTES = 64 << 20  # most that a row of regions or patches reads and makes, unless their least height needs more
INPUT_BYTES = 24  # per low-res px: three channels in float32, with noise and without
STRIP_BYTES = 16 << 20  # most that a strip of the result takes, in float32; some are on their way at a time
STRIP_ROWS, LEAST_STRIP_ROWS = 64, 4  # low-res, of a strip: where they fit, and in any case; its halo is computed twice
SHARE = 4  # regions and patches take at most this part of the free memory


class Engine(Protocol):
    """What enlarges by its own integer scale, strip by strip; the pipeline does the rest."""

    scale: int

    def strips(self, lr: Rows, seed: int) -> Iterator[Tensor]:
        """lr: [1, 3, H, W] in [-1, 1] -> [1, 3, rows * scale, W * scale] from top to bottom, float32, on lr's device"""
        ...


class Model(Protocol):
    """What makes engines: one per prompt and seed, or always the same where it takes no text."""

    scale: int
    scales: list[int]  # at which its engines may end, smallest first; the last one is `scale`
    takes_text: bool

    def engine(self, prompt: str, seed: int, place: Place, scale: int | None = None) -> Engine:
        """An engine on the devices and in the precision of a place, for one of `scales`; None = the largest."""
        ...


class RegionEngine:
    """A network as it comes, run on overlapping regions whose results are cross-faded."""

    def __init__(
        self, networks: Mapping[torch.device, Callable[[Tensor], Tensor]], scale: int, tiling: Tiling, place: Place
    ) -> None:
        """networks: on each of the place's devices, [B, C, H, W] float32 -> [B, C', H * scale, W * scale]"""
        self.networks, self.scale, self.tiling, self.place = networks, scale, tiling, place
        self.longest: float = math.inf  # side of a region that memory has been found to suffice for, px
        self.batch = place.batch or (1 if place.home.type == "cpu" else MOST_REGIONS)  # the same of regions at a time

    def strips(self, lr: Rows, seed: int = 0) -> Iterator[Tensor]:
        """lr: [1, C, H, W] -> [1, C', rows * scale, W * scale] from top to bottom; the seed is ignored"""
        regions = self.plan(*lr.size)
        at_once = self.count(regions[0])

        def process(row: list[Region]) -> Iterator[Tensor]:
            top, _, height, _ = row[0]
            band = lr.read(top, top + height)
            pieces = [band[:, :, :, region.left : region.left + region.width] for region in row]
            share = math.ceil(len(row) / len(self.place.devices))  # or some would wait for others
            results = spread(self.run, self.batches(pieces, min(at_once, share)), self.place.devices)
            return itertools.chain.from_iterable(results)

        yield from blend_strips(process, regions, self.scale)

    def plan(self, height: int, width: int) -> list[Region]:
        """Cut an image into regions: as the user or the network wants them, else as large as memory allows."""
        rule, side, tallest = self.tiling, self.place.tile or self.tiling.side, None
        if not side:
            side = math.isqrt(memory_limit(self.place, REGION_BYTES) // rule.pixel_bytes)
            if height * width <= side * side:
                side = max(height, width)
            elif rule.result_bytes:
                tallest = max(band_rows(rule, width), rule.least)
        return plan_regions(height, width, max(side, rule.least), rule.overlap, rule.align, tallest)

    def count(self, region: Region) -> int:
        """Regions of a size that may run at a time: as many as the user wants, else as memory allows."""
        region_bytes = region.height * region.width * self.tiling.pixel_bytes
        return self.place.batch or max(memory_limit(self.place, REGION_BYTES) // region_bytes, 1)

    def batches(self, row: list[Tensor], most: int) -> Iterator[list[Tensor]]:
        """Neighbours that are of one size when padded, no more than `most` at a time and than memory suffices for."""
        rule = self.tiling
        for _, equals in itertools.groupby(row, key=lambda x: padded_side(x.shape[3], rule.multiple, rule.minimum)):
            while batch := list(itertools.islice(equals, min(most, self.batch))):
                yield batch

    def run(self, regions: list[Tensor], device: torch.device) -> list[Tensor]:
        """Regions at once, fewer at a time and then smaller ones where memory doesn't suffice.

        regions: [1, C, H, W], of one size when padded
        returns: [1, C', H * scale, W * scale] of each
        """
        if len(regions) > self.batch:
            return [y for batch in self.batches(regions, self.batch) for y in self.run(batch, device)]
        side = max(regions[0].shape[2:])
        if side <= self.longest:
            results = attempt(partial(self.run_whole, regions, device))
            if results is not None:
                return results
            if len(regions) > 1:
                self.halve_batch(len(regions))
                return self.run(regions, device)
            self.halve(side)
        return [self.run_parts(x, device) for x in regions]

    def run_whole(self, regions: list[Tensor], device: torch.device) -> list[Tensor]:
        """Regions at once, padded to what the network takes."""
        rule = self.tiling
        padded = torch.cat([pad_to_multiple(x.to(device), rule.multiple, rule.minimum) for x in regions])
        results = self.networks[device](padded).split(1)
        sizes = [(x.shape[2] * self.scale, x.shape[3] * self.scale) for x in regions]
        return [y[:, :, :rows, :columns].to(self.place.home) for y, (rows, columns) in zip(results, sizes, strict=True)]

    def run_parts(self, x: Tensor, device: torch.device) -> Tensor:
        """A region in smaller ones. x: [1, C, H, W] -> [1, C', H * scale, W * scale]"""

        def process(regions: list[Region]) -> Iterator[Tensor]:
            for top, left, rows, columns in regions:
                yield from self.run([x[:, :, top : top + rows, left : left + columns]], device)

        height, width = x.shape[2:]
        parts = plan_regions(height, width, int(self.longest), self.tiling.overlap, self.tiling.align)
        return torch.cat(list(blend_strips(process, parts, self.scale)), dim=2)

    def halve_batch(self, count: int) -> None:
        """Limit the regions at a time to half of as many as memory didn't suffice for."""
        if count // 2 < self.batch:
            self.batch = count // 2
            logger.warning("memory is short: going on with batches of %d", self.batch)

    def halve(self, side: int) -> None:
        """Limit the regions to half of a side for which memory didn't suffice."""
        align = self.tiling.align
        half = max(side // 2 // align * align, self.tiling.least)
        if half >= side:
            raise RuntimeError(f"memory: expected room for a region of {side}x{side} px, got none; free some")
        if half < self.longest:
            logger.warning("memory is short: going on with regions of %d px", half)
            self.longest = half


class BodyTail(Protocol):
    """A network in two parts: the body, all that runs at the low-res resolution and below; the tail, local, above."""

    scale: int
    tiling: Tiling  # of the body
    reach: int  # low-res px around a part of the image on which the body's result depends, 0 = on all of it
    halo: int  # low-res px around a patch on which its part of the tail's result depends
    tail_bytes: int  # that the tail takes per low-res px
    input_noise: float  # standard deviation of the noise field that the body sees added to lr

    @property
    def root_residual(self) -> Callable[[Tensor], Tensor] | None:
        """features [1, C, H, W] -> what the root adds to lr, [1, 3, H, W]; None where the network has no root layer"""
        ...

    def body(self, lr: Tensor, margin: Margin = ...) -> Tensor:
        """lr: [1, 3, H, W] float32 in [-1, 1], sides as the tiling says -> features [1, C, H', W'], any dtype"""
        ...

    def tail(self, features: Tensor, root: Tensor, margin: Margin) -> Tensor:
        """features: [1, C, H, W], root: [1, 3, H, W] -> [1, 3, H' scale, W' scale], without the margin"""
        ...


class BodyTailEngine:
    """The tail on patches of strips, so the body where it is local: the result is the same for every way of cutting."""

    def __init__(self, networks: Mapping[torch.device, BodyTail], place: Place) -> None:
        """networks: on each of the place's devices"""
        self.networks, self.place = networks, place
        network = networks[place.home]
        self.scale, self.input_noise = network.scale, network.input_noise
        self.body = body_engine(networks, place)
        tails = {device: network.tail for device, network in networks.items()}
        pixels = max(memory_limit(place, PATCH_BYTES) // network.tail_bytes, 64)
        self.tail = PatchEngine(tails, self.scale, Reach(network.halo), pixels, self.cut_tail, place)

    def strips(self, lr: Rows, seed: int) -> Iterator[Tensor]:
        """lr: [1, 3, H, W] in [-1, 1] -> [1, 3, rows * scale, W * scale] from top to bottom"""
        return self.restored(lr, seed)[1]

    def restored(self, lr: Rows, seed: int, restore: float = 1.0) -> tuple[Rows, Iterator[Tensor]]:
        """Give the root beside the result.

        lr:      [1, 3, H, W] in [-1, 1]
        restore: 0..1, the share of the root's residual; at 0 the root is lr itself
        returns: the root [1, 3, H, W]; strips [1, 3, rows * scale, W * scale] from top to bottom
        """
        find_residual = self.networks[self.place.home].root_residual
        features = Rows(lr.size, self.body.strips(Rows(lr.size, self.noisy(lr.fork(), seed))))
        root = lr
        if find_residual and restore:
            residual = map(find_residual, features.fork())
            root = restore_rows(lr, Rows(lr.size, residual), restore)
        return root, self.tail.strips(features, root.fork())

    def noisy(self, lr: Rows, seed: int) -> Iterator[Tensor]:
        """lr: [1, 3, H, W] -> strips of it with the seed's noise field added"""
        top = 0
        for strip in lr:
            rows, columns = strip.shape[2:]
            if self.input_noise:
                strip = strip + self.input_noise * noise_field(seed, Region(top, 0, rows, columns), 3).to(strip)
            yield strip
            top += rows

    def cut_tail(self, size: tuple[int, int], pixels: int) -> tuple[int, int]:
        """(rows, columns) of a patch: whole rows as far as a strip of the result stays small."""
        width, rows = size[1], self.place.strip
        if not rows:
            least = min(STRIP_ROWS, math.isqrt(pixels))
            most = max(STRIP_BYTES // (12 * self.scale**2 * width), min(LEAST_STRIP_ROWS, pixels))
            rows = max(1, min(max(pixels // width, least), most))
        return rows, max(pixels // rows, 1)


def body_engine(networks: Mapping[torch.device, BodyTail], place: Place) -> PatchEngine | RegionEngine:
    """What runs the body: on patches where it is local, on regions that are cross-faded where it sees all of them."""
    network = networks[place.home]
    rule, bodies = network.tiling, {device: network.body for device, network in networks.items()}
    if not network.reach:
        return RegionEngine(bodies, 1, rule, place)

    def cut(size: tuple[int, int], pixels: int) -> tuple[int, int]:
        """(rows, columns) of a patch: the whole image, or about a square, in strips of nearly equal height."""
        if not place.tile and math.prod(size) <= pixels:
            return size
        side = place.tile or math.isqrt(pixels)
        tallest = max(min(side, band_rows(rule, size[1])) // rule.align, 1)
        units = math.ceil(size[0] / rule.align)
        return math.ceil(units / math.ceil(units / tallest)) * rule.align, side

    pixels = memory_limit(place, REGION_BYTES) // rule.pixel_bytes
    return PatchEngine(bodies, 1, Reach(network.reach, rule.align, rule.multiple), pixels, cut, place)


def band_rows(rule: Tiling, width: int) -> int:
    """Rows that regions or patches side by side may have, if memory is to bound them."""
    return BAND_BYTES // ((rule.result_bytes + INPUT_BYTES) * width)


def memory_limit(place: Place, most: int) -> int:
    """Bytes that a piece may take on each device of a place; no more than `most` on a CPU."""
    limit = min(free_memory(device) for device in place.devices) // (SHARE * len(place.devices))
    return min(limit, most) if place.home.type == "cpu" else limit
