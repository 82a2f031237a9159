"""Engines: networks that enlarge by their own scale, in pieces whose size follows from the memory there is."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from gigasr.inference.devices import Place, attempt, free_memory, replicate, spread
from gigasr.inference.folding import fold
from gigasr.inference.rows import Rows
from gigasr.inference.tiling import (
    Margin,
    Region,
    Tiling,
    blend_strips,
    noise_field,
    pad_to_multiple,
    plan_regions,
    plan_strips,
)
from gigasr.networks.text import load_tower
from gigasr.networks.upsampler import Upsampler

logger = logging.getLogger(__name__)

REGION_BYTES = 60 << 20  # most that a region takes on a CPU; larger ones save little
PATCH_BYTES = 100 << 20  # the same of a patch of the tail: malloc keeps its maps for reuse
BAND_BYTES = 256 << 20  # most that what a row of regions makes takes, where that leaves room for their overlap
STRIP_BYTES = 16 << 20  # most that a strip of the result takes, in float32; some are on their way at a time
LEAST_ROWS = 64, 4  # of a strip, low-res, where that many fit, and in any case: its halo is computed twice
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
    takes_text: bool

    def engine(self, prompt: str, seed: int, place: Place) -> Engine:
        """An engine on the devices and in the precision of a place."""
        ...


class RegionEngine:
    """A network as it comes, run on overlapping regions whose results are cross-faded."""

    def __init__(
        self, networks: Mapping[torch.device, Callable[[Tensor], Tensor]], scale: int, tiling: Tiling, place: Place
    ) -> None:
        """networks: on each of the place's devices, [1, C, H, W] float32 -> [1, C', H * scale, W * scale]"""
        self.networks, self.scale, self.tiling, self.place = networks, scale, tiling, place
        self.longest: float = math.inf  # side of a region that memory has been found to suffice for, px

    def strips(self, lr: Rows, seed: int = 0) -> Iterator[Tensor]:
        """lr: [1, C, H, W] -> [1, C', rows * scale, W * scale] from top to bottom; the seed has no say"""

        def process(regions: list[Region]) -> Iterator[Tensor]:
            top, _, height, _ = regions[0]
            band = lr.read(top, top + height)
            pieces = (band[:, :, :, region.left : region.left + region.width] for region in regions)
            return spread(self.run, pieces, self.place.devices)

        yield from blend_strips(process, self.plan(*lr.size), self.scale)

    def plan(self, height: int, width: int) -> list[Region]:
        """Cut an image into regions: as the user or the network wants them, else as large as memory allows."""
        rule, side, tallest = self.tiling, self.place.tile or self.tiling.side, None
        if not side:
            side = math.isqrt(memory_limit(self.place, REGION_BYTES) // rule.pixel_bytes)
            if height * width <= side * side:
                side = max(height, width)
            elif rule.result_bytes:
                tallest = max(BAND_BYTES // (rule.result_bytes * width), rule.least)
        return plan_regions(height, width, max(side, rule.least), rule.overlap, rule.align, tallest)

    def run(self, x: Tensor, device: torch.device) -> Tensor:
        """One region, in smaller ones where memory doesn't suffice. x: [1, C, H, W] -> [1, C', H scale, W scale]"""
        height, width = x.shape[2:]
        rule = self.tiling
        if max(height, width) <= self.longest:
            y = attempt(partial(self.run_whole, x, device))
            if y is not None:
                return y
            self.halve(max(height, width))

        def process(regions: list[Region]) -> Iterator[Tensor]:
            for top, left, rows, columns in regions:
                yield self.run(x[:, :, top : top + rows, left : left + columns], device)

        parts = plan_regions(height, width, int(self.longest), rule.overlap, rule.align)
        return torch.cat(list(blend_strips(process, parts, self.scale)), dim=2)

    def run_whole(self, x: Tensor, device: torch.device) -> Tensor:
        """One region at once, padded to what the network takes."""
        height, width = (side * self.scale for side in x.shape[2:])
        padded = pad_to_multiple(x.to(device), self.tiling.multiple, self.tiling.minimum)
        return self.networks[device](padded)[:, :, :height, :width].to(self.place.home)

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
    halo: int  # low-res px around a patch on which its part of the tail's result depends
    tail_bytes: int  # that the tail takes per low-res px
    input_noise: float  # standard deviation of the noise field that the body sees added to lr

    def body(self, lr: Tensor) -> Tensor:
        """lr: [1, 3, H, W] float32 in [-1, 1], sides as the tiling says -> features [1, C, H, W], any dtype"""
        ...

    def tail(self, features: Tensor, lr: Tensor, margin: Margin) -> Tensor:
        """features: [1, C, H, W], lr: [1, 3, H, W] -> [1, 3, H' scale, W' scale]; H', W' are without the margin"""
        ...


class Patch(NamedTuple):
    """A part of the features and of the low-res image, margin included."""

    features: Tensor  # [1, C, H, W]
    lr: Tensor  # [1, 3, H, W]
    margin: Margin  # 0 at the border of the image, the halo elsewhere, less where the border is nearer
    is_last: bool = True  # of its strip

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) without the margin, px."""
        top, bottom, left, right = self.margin
        return self.lr.shape[2] - top - bottom, self.lr.shape[3] - left - right

    def halves(self, halo: int) -> tuple["Patch", "Patch", int]:
        """Cut the longer side in two; the third is the dimension that was cut."""
        dim = 2 if self.size[0] >= self.size[1] else 3
        before, after = self.margin[2 * dim - 4 : 2 * dim - 2]
        length, cut = self.lr.shape[dim], before + self.size[dim - 2] // 2
        stop, start = min(cut + halo, length), max(cut - halo, 0)
        first, second = list(self.margin), list(self.margin)
        first[2 * dim - 3], second[2 * dim - 4] = stop - cut, cut - start
        return self.narrow(dim, 0, stop, Margin(*first)), self.narrow(dim, start, length, Margin(*second)), dim

    def narrow(self, dim: int, start: int, stop: int, margin: Margin) -> "Patch":
        """The part [start, stop) of one dimension, px from the patch's edge."""
        features, lr = (x.narrow(dim, start, stop - start) for x in (self.features, self.lr))
        return Patch(features, lr, margin)


class BodyTailEngine:
    """The body on regions, the tail on patches of strips: its result is the same for every way of cutting."""

    def __init__(self, networks: Mapping[torch.device, BodyTail], place: Place) -> None:
        """networks: on each of the place's devices"""
        self.networks, self.place = networks, place
        network = networks[place.home]
        self.scale, self.halo, self.input_noise = network.scale, network.halo, network.input_noise
        bodies = {device: network.body for device, network in networks.items()}
        self.body = RegionEngine(bodies, 1, network.tiling, place)
        self.patch_pixels = max(memory_limit(place, PATCH_BYTES) // network.tail_bytes, 64)

    def strips(self, lr: Rows, seed: int) -> Iterator[Tensor]:
        """lr: [1, 3, H, W] in [-1, 1] -> [1, 3, rows * scale, W * scale] from top to bottom"""
        features = Rows(lr.size, self.body.strips(Rows(lr.size, self.noisy(lr.fork(), seed))))
        pieces: list[Tensor] = []
        patches = self.patches(features, lr)
        for y, is_last in spread(
            lambda patch, device: (self.run(patch, device), patch.is_last), patches, self.place.devices
        ):
            pieces.append(y)
            if is_last:
                yield pieces.pop() if len(pieces) == 1 else torch.cat(pieces, dim=3)
                pieces.clear()
            del y

    def noisy(self, lr: Rows, seed: int) -> Iterator[Tensor]:
        """lr: [1, 3, H, W] -> strips of it with the seed's noise field added"""
        top = 0
        for strip in lr:
            rows, columns = strip.shape[2:]
            if self.input_noise:
                strip = strip + self.input_noise * noise_field(seed, Region(top, 0, rows, columns), 3).to(strip)
            yield strip
            top += rows

    def patches(self, features: Rows, lr: Rows) -> Iterator[Patch]:
        """Cut the image into strips, and these into patches from left to right."""
        height, width = lr.size
        top = 0
        while top < height:
            rows = self.rows(width)
            bottom = min(top + rows, height)
            first, last = max(top - self.halo, 0), min(bottom + self.halo, height)
            band = features.read(first, last), lr.read(first, last)
            for left, right, start, stop in plan_strips(width, max(self.patch_pixels // rows, 1), self.halo):
                margin = Margin(top - first, last - bottom, left - start, stop - right)
                yield Patch(*band, margin).narrow(3, start, stop, margin)._replace(is_last=right == width)
            del band  # or it lives while the features of the next strips are made
            top = bottom

    def rows(self, width: int) -> int:
        """Low-res rows of a strip of an image of this width."""
        if self.place.strip:
            return self.place.strip
        least = min(LEAST_ROWS[0], math.isqrt(self.patch_pixels))
        most = max(STRIP_BYTES // (12 * self.scale**2 * width), min(LEAST_ROWS[1], self.patch_pixels))
        return max(1, min(max(self.patch_pixels // width, least), most))

    def run(self, patch: Patch, device: torch.device) -> Tensor:
        """One patch, in halves where memory doesn't suffice -> [1, 3, height * scale, width * scale]"""
        pixels = math.prod(patch.size)
        if pixels <= self.patch_pixels:
            y = attempt(partial(self.run_whole, patch, device))
            if y is not None:
                return y
            if pixels == 1:
                raise RuntimeError("memory: expected room for one px and its halo, got none; free some")
            if pixels // 2 < self.patch_pixels:
                self.patch_pixels = pixels // 2
                logger.warning("memory is short: going on with patches of %d px", self.patch_pixels)
        first, second, dim = patch.halves(self.halo)
        return torch.cat([self.run(first, device), self.run(second, device)], dim=dim)

    def run_whole(self, patch: Patch, device: torch.device) -> Tensor:
        """One patch at once."""
        features, lr = patch.features.to(device), patch.lr.to(device)
        return self.networks[device].tail(features, lr, patch.margin).float().to(self.place.home)


class PromptedUpsampler:
    """An upsampler and its text tower; they make an engine by folding."""

    takes_text = True

    def __init__(self, network: Upsampler) -> None:
        self.network, self.scale = network, network.scale
        text = network.config.text
        self.tower = load_tower(text.tower, text.pretrained or None)

    def engine(self, prompt: str, seed: int, place: Place) -> BodyTailEngine:
        """Fold the network for one prompt and the z of one seed."""
        self.network, self.tower = self.network.to(place.home), self.tower.to(place.home)
        z = torch.randn(1, self.network.config.z_dim, generator=torch.Generator().manual_seed(seed))
        w, text = self.network.condition(z.to(place.home), self.tower.encode([prompt]))
        return BodyTailEngine(replicate(fold(self.network, w, text, place.dtype), place.devices), place)


def folded_network(model: Model, prompt: str, seed: int) -> BodyTail | None:
    """A model's network for one prompt and the z of one seed, on the CPU in fp32; None where it is in one part."""
    place = Place()
    engine = model.engine(prompt, seed, place)
    return engine.networks[place.home] if isinstance(engine, BodyTailEngine) else None


def memory_limit(place: Place, most: int) -> int:
    """Bytes that a piece may take on each device of a place; no more than `most` on a CPU."""
    limit = min(free_memory(device) for device in place.devices) // (SHARE * len(place.devices))
    return min(limit, most) if place.home.type == "cpu" else limit
