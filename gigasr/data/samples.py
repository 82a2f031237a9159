"""Samples of folders and shards: filters, random crops, random numbers."""

import hashlib
import logging
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from gigasr.config.training import DataConfig, RestorationConfig
from gigasr.data.damage import Damage, draw_damage
from gigasr.data.restoration import Pixels, spoil
from gigasr.data.words import compose
from gigasr.files.images import shorter_side
from gigasr.networks.ops import upsample_bicubic
from gigasr.pixels import uint8_to_signed

BICUBIC = Image.Resampling.BICUBIC
NOTHING = torch.empty(0)

logger = logging.getLogger(__name__)


class Example(NamedTuple):
    """One training example."""

    number: int  # of the crop in the whole run
    hr: Tensor  # [3, crop, crop] in [-1, 1]
    caption: str
    lr: Tensor  # [3, crop / scale, crop / scale] in [-1, 1]; empty if the training step makes it
    root: Tensor  # lr without the damage that is to be removed


@dataclass(frozen=True)
class CropSchedule:
    """The side and the scale of every crop of a phase.

    The full scale and the early scales take turns.
    """

    crop: int  # px
    scale: int = 1  # HR / LR
    early: tuple[tuple[int, int], ...] = ()  # (crop, scale)
    start: int = 0  # number of the phase's first crop
    batch_size: int = 1  # crops of a step, of all processes together
    restoration: RestorationConfig | None = None  # damage of low-res images made by the workers

    def at(self, number: int) -> tuple[int, int]:
        """Return (crop, scale) of a crop, by its number in the whole run."""
        turns = ((self.crop, self.scale), *self.early)
        return turns[(number - self.start) // self.batch_size % len(turns)]


@dataclass
class UnreadableFiles:
    """The names of unreadable files; each causes one warning."""

    names: set[str] = field(default_factory=set)

    def add(self, name: str, reason: object) -> None:
        if name not in self.names:
            self.names.add(name)
            logger.warning("%s: skipped, %s (%d so far)", name, reason, len(self.names))


def sample_rng(seed: int, index: int | str) -> torch.Generator:
    """Make a CPU generator for one image's draws.

    Seed and index are hashed, so neighbouring values give unrelated draws.
    """
    digest = hashlib.blake2b(f"{seed}/{index}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little"))


def rejecting_filter(fields: Mapping[str, Any], file: Path | BinaryIO, config: DataConfig) -> str | None:
    """Return the name of the filter for which a sample is left out, or None.

    fields: known facts of the sample: scores, and width and height in px; the file's header gives missing sizes
    """
    for name, min_score in config.min_scores.items():
        score = fields.get(name)
        if not isinstance(score, int | float) or not score >= min_score:
            return f"min_scores.{name}"
    if config.min_size:
        sides = [fields.get("width"), fields.get("height")]
        numbers = [side for side in sides if isinstance(side, int | float)]
        if (min(numbers) if len(numbers) == 2 else shorter_side(file)) < config.min_size:
            return "min_size"
    return None


def describe_left_out(left_out: Counter[str]) -> str:
    """List the number of samples that each filter removed."""
    return ", ".join(f"{count} by {name}" for name, count in sorted(left_out.items())) or "none by a filter"


@dataclass(frozen=True)
class CropSampler:
    """Random square crops of images, each as an example.

    Each crop has a caption of the image, or an empty caption. With `horizontal_flip`, half the crops are mirrored. Half
    the images are first reduced by up to `max_downscale`: their finest detail is then sharper than a camera's. With
    `full_image`, the middle square of the image, reduced to the crop's size, is the only crop.
    """

    schedule: CropSchedule
    config: DataConfig

    def example(self, number: int, image: Image.Image, captions: tuple[str, ...], rng: random.Random) -> Example:
        """image: RGB -> the example of that number, drawn from rng"""
        crop, scale = self.schedule.at(number)
        pixels = self.random_crop(image, crop, rng)
        caption = "" if rng.random() < self.config.caption_dropout else self.sample_caption(captions, rng)
        if self.schedule.restoration is None:
            return Example(number, to_signed(pixels), caption, NOTHING, NOTHING)
        return damaged_item(number, pixels, scale, caption, self.schedule.restoration, rng)

    def sample_caption(self, captions: tuple[str, ...], rng: random.Random) -> str:
        """Pick a caption and drop words at random (`word_dropout`).

        With few images, whole captions would identify the images.
        """
        caption = rng.choice(captions)
        if not self.config.word_dropout:
            return caption
        return " ".join(word for word in caption.split() if rng.random() >= self.config.word_dropout)

    def random_crop(self, image: Image.Image, crop: int, rng: random.Random) -> Pixels:
        """image: RGB -> [crop, crop, 3]"""
        if self.config.full_image:
            return self.random_flip(self.prepare(image), rng)
        factor = rng.uniform(1.0, self.config.max_downscale) if rng.random() < 0.5 else 1.0
        factor = max(1.0 / 64, min(factor, min(image.size) / crop))
        if factor != 1.0:
            width, height = (max(crop, round(n / factor)) for n in image.size)
            image = image.resize((width, height), BICUBIC)
        left, top = rng.randint(0, image.width - crop), rng.randint(0, image.height - crop)
        return self.random_flip(image.crop((left, top, left + crop, top + crop)), rng)

    def prepare(self, image: Image.Image) -> Image.Image:
        """Return the image from which all crops are cut.

        With `full_image`, the middle square at the crop's size; else the image itself.
        """
        side = self.schedule.crop
        return ImageOps.fit(image, (side, side), BICUBIC) if self.config.full_image else image

    def random_flip(self, image: Image.Image, rng: random.Random) -> Pixels:
        """image: RGB, of the crop's size -> [crop, crop, 3]"""
        if rng.random() < 0.5 and self.config.horizontal_flip:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return np.asarray(image).copy()


def damaged_item(
    number: int, pixels: Pixels, scale: int, caption: str, config: RestorationConfig, rng: random.Random
) -> Example:
    """Make an example with a damaged low-res image and a matching caption.

    The caption may state the damage. If the caption asks to keep noise or damage, the high-res image gets it too,
    upscaled, because the result has to show it.
    """
    damage = draw_damage(config, rng)
    spoilt = spoil(pixels, scale, damage, rng)
    hr, lr, root = (to_signed(each) for each in (pixels, spoilt.lr, spoilt.target))
    if not spoilt.has_truth:
        clean = to_signed(spoil(pixels, scale, Damage(), rng).lr)
        hr = (hr + upsample_bicubic((root - clean)[None], scale)[0]).clamp(-1, 1)
    return Example(number, hr, compose(caption, damage, rng, content=config.content), lr, root)


def to_signed(pixels: Pixels) -> Tensor:
    """pixels: [H, W, 3] 8 bit -> [3, H, W] in [-1, 1]"""
    return uint8_to_signed(torch.tensor(pixels).permute(2, 0, 1))


def own_parts(start: int, end: int, batch_size: int, rank: int, world: int) -> Iterator[list[int]]:
    """Yield a process's part of each run of world * batch_size numbers.

    The last part may be short, or missing.
    """
    for first in range(start + rank * batch_size, end, world * batch_size):
        yield list(range(first, min(first + batch_size, end)))
