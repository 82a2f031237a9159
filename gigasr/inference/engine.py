"""Engines: networks that upscale strips, with tile sizes chosen by free memory."""

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from gigasr.inference.devices import ExecutionPlan, free_memory, map_on_devices, run_or_none_if_oom
from gigasr.inference.exact_tiles import ExactTileEngine, ReceptiveField
from gigasr.inference.noise import noise_field
from gigasr.inference.restoration import restore_rows
from gigasr.inference.row_stream import RowStream
from gigasr.inference.tiling import (
    Margin,
    Tile,
    TilingRules,
    blend_strips,
    pad_to_multiple,
    padded_side,
    plan_tiles,
)

logger = logging.getLogger(__name__)

MAX_TILE_BYTES = 80 << 20  # of a tile of the body on a CPU; larger tiles save little
MAX_TAIL_TILE_BYTES = 70 << 20  # of a tile of the tail on a CPU: malloc keeps its maps for reuse
MAX_BATCH = 16  # blended tiles, where memory decides; 16 tiles of 64x64 px, the size of training, are 256x256 px
MAX_BAND_BYTES = 64 << 20  # read and made by a row of tiles, unless their minimal height needs more
INPUT_BYTES = 24  # per low-res px: three channels in float32, with noise and without
MAX_STRIP_BYTES = 16 << 20  # of a strip of the result, in float32; several strips are in memory at a time
STRIP_ROWS, MIN_STRIP_ROWS = 64, 4  # low-res rows of a strip: if memory allows, and at least; halos are computed twice
MEMORY_SHARE = 4  # tiles take at most 1 / MEMORY_SHARE of the free memory


class Engine(Protocol):
    """A folded network that upscales strip by strip, by its own integer scale."""

    scale: int

    def strips(self, lr: RowStream, seed: int) -> Iterator[Tensor]:
        """lr: [1, 3, H, W] in [-1, 1] -> [1, 3, rows * scale, W * scale] from top to bottom, float32, on lr's device"""
        ...


class Model(Protocol):
    """A maker of engines: one per prompt and seed, or always the same without text."""

    scale: int
    scales: list[int]  # at which engines may end, smallest first; the last element is `scale`
    takes_text: bool

    def engine(self, prompt: str, seed: int, execution: ExecutionPlan, scale: int | None = None) -> Engine:
        """Make an engine for one of `scales`; None = the largest scale."""
        ...


class BlendedTileEngine:
    """A network run on overlapping tiles, with cross-faded results."""

    def __init__(
        self,
        networks: Mapping[torch.device, Callable[[Tensor], Tensor]],
        scale: int,
        tiling: TilingRules,
        execution: ExecutionPlan,
    ) -> None:
        """networks: on each of the plan's devices, [B, C, H, W] float32 -> [B, C', H * scale, W * scale]"""
        self.networks, self.scale, self.tiling, self.execution = networks, scale, tiling, execution
        self.max_side: float = math.inf  # px; longest side of a tile; halved each time memory runs out
        self.batch = execution.batch or (
            1 if execution.main_device.type == "cpu" else MAX_BATCH
        )  # tiles at a time; halved each time memory runs out

    def strips(self, lr: RowStream, seed: int = 0) -> Iterator[Tensor]:
        """lr: [1, C, H, W] -> [1, C', rows * scale, W * scale] from top to bottom; the seed is ignored"""
        tiles = self.plan(*lr.size)
        at_once = self.count(tiles[0])

        def process(row: list[Tile]) -> Iterator[Tensor]:
            top, _, height, _ = row[0]
            band = lr.read(top, top + height)
            pieces = [band[:, :, :, tile.left : tile.left + tile.width] for tile in row]
            share = math.ceil(len(row) / len(self.execution.devices))  # a larger batch would leave devices idle
            results = map_on_devices(self.run, self.batches(pieces, min(at_once, share)), self.execution.devices)
            return itertools.chain.from_iterable(results)

        yield from blend_strips(process, tiles, self.scale)

    def plan(self, height: int, width: int) -> list[Tile]:
        """Cut an image into tiles of the user's, the network's, or the largest size."""
        rule, side, max_height = self.tiling, self.execution.tile or self.tiling.side, None
        if not side:
            side = math.isqrt(memory_limit(self.execution, MAX_TILE_BYTES) // rule.pixel_bytes)
            if rule.padded_pixels(height, width) <= side * side:
                side = max(height, width)
            elif rule.result_bytes:
                max_height = max(band_rows(rule, width), rule.min_side)
        return plan_tiles(height, width, max(side, rule.min_side), rule.overlap, rule.align, max_height, rule.minimum)

    def count(self, tile: Tile) -> int:
        """Return the tiles per batch: the user's number, else as memory allows."""
        tile_bytes = self.tiling.padded_pixels(tile.height, tile.width) * self.tiling.pixel_bytes
        return self.execution.batch or max(memory_limit(self.execution, MAX_TILE_BYTES) // tile_bytes, 1)

    def batches(self, row: list[Tensor], max_count: int) -> Iterator[list[Tensor]]:
        """Group neighbours of one padded size into batches of at most `max_count`."""
        rule = self.tiling
        for _, equals in itertools.groupby(row, key=lambda x: padded_side(x.shape[3], rule.multiple, rule.minimum)):
            while batch := list(itertools.islice(equals, min(max_count, self.batch))):
                yield batch

    def run(self, tiles: list[Tensor], device: torch.device) -> list[Tensor]:
        """Run a batch; if memory runs out, halve first the batch, then the tiles.

        tiles:   [1, C, H, W] each, of one padded size
        returns: [1, C', H * scale, W * scale] for each tile
        """
        if len(tiles) > self.batch:
            return [y for batch in self.batches(tiles, self.batch) for y in self.run(batch, device)]
        side = max(tiles[0].shape[2:])
        if side <= self.max_side:
            results = run_or_none_if_oom(partial(self.run_whole, tiles, device))
            if results is not None:
                return results
            if len(tiles) > 1:
                self.halve_batch(len(tiles))
                return self.run(tiles, device)
            self.halve(side)
        return [self.run_parts(x, device) for x in tiles]

    def run_whole(self, tiles: list[Tensor], device: torch.device) -> list[Tensor]:
        """Run the network once on a batch, padded to a size that the network takes."""
        rule = self.tiling
        padded = torch.cat([pad_to_multiple(x.to(device), rule.multiple, rule.minimum) for x in tiles])
        results = self.networks[device](padded).split(1)
        sizes = [(x.shape[2] * self.scale, x.shape[3] * self.scale) for x in tiles]
        return [
            y[:, :, :rows, :columns].to(self.execution.main_device)
            for y, (rows, columns) in zip(results, sizes, strict=True)
        ]

    def run_parts(self, x: Tensor, device: torch.device) -> Tensor:
        """Cut a tile into smaller tiles. x: [1, C, H, W] -> [1, C', H * scale, W * scale]"""

        def process(tiles: list[Tile]) -> Iterator[Tensor]:
            for top, left, rows, columns in tiles:
                yield from self.run([x[:, :, top : top + rows, left : left + columns]], device)

        height, width = x.shape[2:]
        rule = self.tiling
        parts = plan_tiles(height, width, int(self.max_side), rule.overlap, rule.align, min_side=rule.minimum)
        return torch.cat(list(blend_strips(process, parts, self.scale)), dim=2)

    def halve_batch(self, count: int) -> None:
        """Limit batches to half of a count that exceeded the memory."""
        if count // 2 < self.batch:
            self.batch = count // 2
            logger.warning("memory is short: going on with batches of %d", self.batch)

    def halve(self, side: int) -> None:
        """Limit tiles to half of a side, px, that exceeded the memory."""
        align = self.tiling.align
        half = max(side // 2 // align * align, self.tiling.min_side)
        if half >= side:
            raise RuntimeError(f"memory: expected room for a tile of {side}x{side} px, got none; free some")
        if half < self.max_side:
            logger.warning("memory is short: going on with tiles of %d px", half)
            self.max_side = half


class BodyTail(Protocol):
    """A network in two parts, body and tail.

    The body runs at the low-res resolution and below. The tail runs above it and is local.
    """

    scale: int
    tiling: TilingRules  # of the body
    receptive_radius: int  # low-res px; receptive field of the body, 0 = the whole image
    halo: int  # low-res px around a tile on which the tail's result depends
    tail_bytes: int  # that the tail takes per low-res px
    input_noise: float  # standard deviation of the noise field that the engine adds to the body's lr

    @property
    def root_residual(self) -> Callable[[Tensor], Tensor] | None:
        """The root layer, features [1, C, H, W] -> residual [1, 3, H, W]; None without a root."""
        ...

    def body(self, lr: Tensor, margin: Margin = ...) -> Tensor:
        """lr: [1, 3, H, W] float32 in [-1, 1], sides by the tiling rules -> features [1, C, H', W'], any dtype"""
        ...

    def tail(self, features: Tensor, root: Tensor, margin: Margin) -> Tensor:
        """features: [1, C, H, W], root: [1, 3, H, W] -> [1, 3, H' scale, W' scale], without the margin"""
        ...


class BodyTailEngine:
    """A body and a tail, each run on tiles.

    The tail runs on exact tiles: its result does not depend on the tile size. The body runs on exact tiles too if its
    attention is windowed, and on blended tiles if its attention is global.
    """

    def __init__(self, networks: Mapping[torch.device, BodyTail], execution: ExecutionPlan) -> None:
        """Keep the networks, one for each of the plan's devices."""
        self.networks, self.execution = networks, execution
        network = networks[execution.main_device]
        self.scale, self.input_noise = network.scale, network.input_noise
        self.body = body_engine(networks, execution)
        tails = {device: network.tail for device, network in networks.items()}
        pixels = max(memory_limit(execution, MAX_TAIL_TILE_BYTES) // network.tail_bytes, 64)
        self.tail = ExactTileEngine(tails, self.scale, ReceptiveField(network.halo), pixels, self.cut_tail, execution)

    def strips(self, lr: RowStream, seed: int) -> Iterator[Tensor]:
        """lr: [1, 3, H, W] in [-1, 1] -> [1, 3, rows * scale, W * scale] from top to bottom"""
        return self.restored(lr, seed)[1]

    def restored(self, lr: RowStream, seed: int, restore: float = 1.0) -> tuple[RowStream, Iterator[Tensor]]:
        """Upscale a low-res image; return the root and the result.

        lr:      [1, 3, H, W] in [-1, 1]
        restore: 0..1, the share of the root's residual; at 0 the root is lr itself
        returns: the root [1, 3, H, W]; strips [1, 3, rows * scale, W * scale] from top to bottom
        """
        find_residual = self.networks[self.execution.main_device].root_residual
        features = RowStream(lr.size, self.body.strips(RowStream(lr.size, self.noisy(lr.tee(), seed))))
        root = lr
        if find_residual and restore:
            residual = map(find_residual, features.tee())
            root = restore_rows(lr, RowStream(lr.size, residual), restore)
        return root, self.tail.strips(features, root.tee())

    def noisy(self, lr: RowStream, seed: int) -> Iterator[Tensor]:
        """Add the seed's noise field. lr: [1, 3, H, W] -> strips [1, 3, rows, W]"""
        top = 0
        for strip in lr:
            rows, columns = strip.shape[2:]
            if self.input_noise:
                strip = strip + self.input_noise * noise_field(seed, Tile(top, 0, rows, columns), 3).to(strip)
            yield strip
            top += rows

    def cut_tail(self, size: tuple[int, int], pixels: int) -> tuple[int, int]:
        """Choose (rows, columns) of a tile: whole rows if a strip stays small."""
        width, rows = size[1], self.execution.strip
        if not rows:
            min_rows = min(STRIP_ROWS, math.isqrt(pixels))
            max_rows = max(MAX_STRIP_BYTES // (12 * self.scale**2 * width), min(MIN_STRIP_ROWS, pixels))
            rows = max(1, min(max(pixels // width, min_rows), max_rows))
        return rows, max(pixels // rows, 1)


def body_engine(
    networks: Mapping[torch.device, BodyTail], execution: ExecutionPlan
) -> ExactTileEngine | BlendedTileEngine:
    """Choose exact tiles for a local body, blended tiles for global attention."""
    network = networks[execution.main_device]
    rule, bodies = network.tiling, {device: network.body for device, network in networks.items()}
    if not network.receptive_radius:
        return BlendedTileEngine(bodies, 1, rule, execution)

    def cut(size: tuple[int, int], pixels: int) -> tuple[int, int]:
        """Choose (rows, columns) of a tile: the image, or about a square.

        The strips have nearly equal height.
        """
        if not execution.tile and rule.padded_pixels(*size) <= pixels:
            return size
        side = execution.tile or math.isqrt(pixels)
        max_height = max(min(side, band_rows(rule, size[1])) // rule.align, 1)
        units = math.ceil(size[0] / rule.align)
        return math.ceil(units / math.ceil(units / max_height)) * rule.align, side

    pixels = memory_limit(execution, MAX_TILE_BYTES) // rule.pixel_bytes
    return ExactTileEngine(
        bodies,
        1,
        ReceptiveField(network.receptive_radius, rule.align, rule.multiple, rule.minimum),
        pixels,
        cut,
        execution,
    )


def band_rows(rule: TilingRules, width: int) -> int:
    """Return the most rows of a row of tiles for `MAX_BAND_BYTES` of memory."""
    return MAX_BAND_BYTES // ((rule.result_bytes + INPUT_BYTES) * width)


def memory_limit(execution: ExecutionPlan, max_bytes: int) -> int:
    """Return the most bytes of a tile on each device; at most `max_bytes` on a CPU."""
    limit = min(free_memory(device) for device in execution.devices) // (MEMORY_SHARE * len(execution.devices))
    return min(limit, max_bytes) if execution.main_device.type == "cpu" else limit
