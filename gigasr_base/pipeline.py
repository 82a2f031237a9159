"""Prompts in, pictures of any size out: the base generator, then the upsampler."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from gigasr.files.picture import Picture, PictureStrips, RowProgress
from gigasr.inference.devices import choose_device, choose_dtype
from gigasr.networks.ops import resize
from gigasr.networks.text import TextFeatures, load_tower, warn_of_cut
from gigasr.options import UpscaleOptions
from gigasr.pipeline import SuperResolver
from gigasr.sizes import target_size
from gigasr_base.generator import Condition, Generator
from gigasr_base.latents import draw_z, even_shares, interpolate_text, mix, prompt_mean, slerp, truncate
from gigasr_base.metrics import frame_steps
from gigasr_base.zoo import DEFAULT_BASE_MODEL, load_base


class TextToImage:
    """One base generator, ready to generate square images of `size` px.

    >>> base_model = TextToImage.from_pretrained()
    >>> images = base_model.generate(["a red apple", "a green apple"], seeds=[0, 0], truncation=0.7)

    `generate`, `mix` and `interpolate` return images [B, 3, S, S] in [0, 1], float32, on the CPU. Images are
    computed one by one: the rest of the batch changes nothing.

    truncation: 0..1; 1 is off, 0 gives a prompt's mean image for every seed
    """

    def __init__(self, network: Generator, device: str = "auto", precision: str = "auto") -> None:
        self.device = choose_device(device)
        self.dtype = choose_dtype(precision, self.device)
        self.network = network.to(self.device)
        text = network.config.text
        self.tower = load_tower(text.tower, text.pretrained).to(self.device)

    @classmethod
    def from_pretrained(
        cls, name: str = DEFAULT_BASE_MODEL, device: str = "auto", precision: str = "auto"
    ) -> "TextToImage":
        """Load a model by name or path."""
        return cls(load_base(name), device, precision)

    @property
    def size(self) -> int:
        """Side of the images, px."""
        return self.network.config.size

    @torch.no_grad()
    def generate(self, prompts: Sequence[str], seeds: Sequence[int], truncation: float = 1.0) -> Tensor:
        """Generate one image per pair of prompt and seed.

        Raises ValueError for empty lists or lists of different lengths.
        """
        rows = paired(prompts=prompts, seeds=seeds)
        conditions = (self.condition(prompt, seed, truncation) for prompt, seed in rows)
        return torch.cat([self.synthesize(self.everywhere(condition)) for condition in conditions])

    @torch.no_grad()
    def mix(
        self,
        prompt: str,
        style_prompt: str,
        seeds: Sequence[int],
        mix_at: int = 16,
        truncation: float = 1.0,
        style_seeds: Sequence[int] | None = None,
    ) -> Tensor:
        """Generate images whose levels from mix_at px on follow a style prompt or seed.

        style_seeds: one per seed; None = the same seeds
        """
        self.check_mix(mix_at)
        images = []
        for seed, style_seed in paired(seeds=seeds, style_seeds=seeds if style_seeds is None else style_seeds):
            coarse, fine = (self.condition(*each, truncation) for each in ((prompt, seed), (style_prompt, style_seed)))
            images.append(self.synthesize(mix(coarse, fine, len(self.network.levels), mix_at)))
        return torch.cat(images)

    @torch.no_grad()
    def interpolate(
        self,
        prompt: str,
        to_prompt: str,
        num_frames: int,
        seed: int = 0,
        to_seed: int | None = None,
        truncation: float = 1.0,
        progress: RowProgress | None = None,
    ) -> Tensor:
        """Generate frames from one prompt to another, and from one seed's z to another's.

        z moves along the arc. w is interpolated linearly between the prompts: with interpolated text the mapping
        network would make w leap. Frames lie closer where the image changes fast; all are therefore generated twice,
        the first time to measure the changes.

        to_seed:  None = the same seed; with equal prompts and two seeds only z changes
        progress: called after each image with (images done, twice the number of frames)
        """
        if num_frames < 2:
            raise ValueError(f"num_frames: expected at least 2, got {num_frames}; the prompts themselves are two")
        a, b = self.text(prompt), self.text(to_prompt)
        z, to_z = self.z(seed), self.z(seed if to_seed is None else to_seed)

        def generate_frames(shares: Sequence[float], num_done: int) -> Tensor:
            frames = []
            for i, share in enumerate(shares, start=num_done + 1):
                between = slerp(z, to_z, share)
                w = torch.lerp(self.w(between, a, truncation), self.w(between, b, truncation), share)
                frames.append(self.synthesize(self.everywhere(Condition(w, interpolate_text(a, b, share)))))
                if progress is not None:
                    progress(i, 2 * num_frames)
            return torch.cat(frames)

        steps = frame_steps(generate_frames([i / (num_frames - 1) for i in range(num_frames)], num_done=0))
        return generate_frames(even_shares(steps, num_frames), num_done=num_frames)

    def check_mix(self, mix_at: int) -> None:
        """Raise ValueError for a mix_at beyond 1..size px: no level would reach it."""
        if not 1 <= mix_at <= self.size:
            raise ValueError(f"mix_at: expected 1..{self.size} px, got {mix_at}; the finest level has {self.size}")

    def z(self, seed: int) -> Tensor:
        """Draw the z of a seed -> [1, z_dim], on the model's device."""
        return draw_z([seed], self.network.config.z_dim).to(self.device)

    def text(self, prompt: str) -> TextFeatures:
        """Encode a prompt by the text tower and T, for one sample.

        Warns if the prompt is too long for the tower. Raises ValueError for anything but a text.
        """
        if not isinstance(prompt, str):
            raise ValueError(f"prompt: expected a text, got {type(prompt).__name__}; '' says nothing")
        warn_of_cut(prompt)
        return self.network.text_transformer(self.tower.encode([prompt]))

    def w(self, z: Tensor, text: TextFeatures, truncation: float) -> Tensor:
        """z: [1, z_dim] -> w: [1, w_dim], truncated"""
        if not 0 <= truncation <= 1:
            raise ValueError(f"truncation: expected 0..1, got {truncation}; 1 leaves the variety as it is")
        mapping, w_mean = self.network.mapping, self.network.w_mean
        w = mapping(z, text.t_global)
        return truncate(w, w_mean, prompt_mean(mapping, text.t_global, z.shape[1]), truncation)

    def condition(self, prompt: str, seed: int, truncation: float) -> Condition:
        """Make the condition of one image, the same for all levels."""
        text = self.text(prompt)
        return Condition(self.w(self.z(seed), text, truncation), text)

    def everywhere(self, condition: Condition) -> list[Condition]:
        """Repeat a condition for every level."""
        return [condition] * len(self.network.levels)

    def synthesize(self, conditions: Sequence[Condition]) -> Tensor:
        """conditions: one per level -> [1, 3, S, S] in [0, 1], on the CPU"""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            rgb = self.network.synthesize(conditions)[-1]
        return rgb.float().cpu().add(1).div(2).clamp(0, 1)


def paired(**columns: Sequence[Any]) -> Iterator[Any]:
    """Iterate over the rows of lists of equal length.

    Raises ValueError for lists of different lengths, for an empty list and for a text instead of a list.
    """
    for name, column in columns.items():
        if isinstance(column, str) or not hasattr(column, "__len__") or not len(column):
            raise ValueError(f"{name}: expected a list of one or more, got {column!r}; put a single one in brackets")
    lengths = [str(len(column)) for column in columns.values()]
    if len(set(lengths)) > 1:
        raise ValueError(f"{' and '.join(columns)}: expected as many of each, got {' and '.join(lengths)}; repeat some")
    return zip(*columns.values(), strict=True)


def check_reachable_size(size: tuple[int, int], base_size: int) -> None:
    """Raise ValueError for a size beyond the reach of `upscale_image`.

    size:      (height, width), px
    base_size: px, side of the base model's images
    """
    side = max(size)
    if side > base_size:
        target_size((base_size, base_size), None, (side, side), 1)


def upscale_image(
    image: Tensor,
    size: tuple[int, int],
    resolver: SuperResolver | None,
    prompt: str = "",
    seed: int = 0,
    progress: RowProgress | None = None,
) -> Picture:
    """Bring a square image to a size and return the whole picture.

    Arguments as for `upscale_strips`.
    """
    return upscale_strips(image, size, resolver, prompt, seed).join(progress)


def upscale_strips(
    image: Tensor, size: tuple[int, int], resolver: SuperResolver | None, prompt: str = "", seed: int = 0
) -> PictureStrips:
    """Upscale a square image until it covers a size, and cut out the middle.

    An image above the size is downsampled. Raises ValueError for an image that is not square, and for a missing
    resolver.

    image:    [3, S, S] in [0, 1]
    size:     (height, width), px; the longer side up to 64 S
    resolver: upsampler; None only for sizes up to S
    prompt, seed: for the resolver
    """
    if min(size) < 1:
        raise ValueError(f"size: expected at least 1x1 px, got {size[1]}x{size[0]}; choose a larger one")
    if image.dim() != 3 or image.shape[1] != image.shape[2]:
        raise ValueError(f"image: expected a square one, [3, S, S], got {list(image.shape)}; cut it first")
    side = max(size)
    if side <= image.shape[1]:
        square = iter([Picture(resize(image[None], (side, side))[0].clamp(0, 1))])
    elif resolver is not None:
        square = resolver.strips(Picture(image), UpscaleOptions(prompt=prompt, size=(side, side), seed=seed)).strips
    else:
        raise ValueError(f"resolver: expected an upsampler for {side} px, got None; give one")
    return PictureStrips(size, cut_middle(square, side, size))


def cut_middle(strips: Iterator[Picture], side: int, size: tuple[int, int]) -> Iterator[Picture]:
    """Cut the middle out of a square that arrives as strips.

    Strips below the middle are never computed.

    side: px, of the square
    size: (height, width) of the middle, px
    """
    (height, width), (first, left) = size, ((side - length) // 2 for length in size)
    top = 0
    for strip in strips:
        start, stop = max(first - top, 0), min(first + height - top, strip.size[0])
        if start < stop:
            yield replace(strip, rgb=strip.rgb[:, start:stop, left : left + width])
        top += strip.size[0]
        del strip  # else both strips would be in memory
        if top >= first + height:
            return
