"""Prompts in, pictures out: the base generator, and the chain through the upsampler to any size."""

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
    """One base generator, ready to generate images; images are square, of `size` px.

    >>> base_model = TextToImage.from_pretrained()
    >>> images = base_model.generate(["a red apple", "a green apple"], seeds=[0, 0], truncation=0.7)

    Every method takes truncation (0..1: 1 is off; 0 gives a prompt's mean image, whatever the seed) and returns images
    [B, 3, S, S] in [0, 1], float32, on the CPU. Each image is computed alone: what is in the batch changes nothing.
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
        """Generate one image per pair of prompt and seed."""
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
        """Generate images whose levels at and above mix_at px follow another prompt, or another seed, or both.

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
        """Generate frames that lead from one prompt to another, and on the arc from one seed's z to another's.

        From prompt to prompt w goes straight: on the way of the text through the mapping network it would leap. Where
        the picture changes fast the frames lie closer: the way is generated twice, the first time to measure it.

        to_seed:  None = the same seed. With the same prompt twice and two seeds, only z changes.
        progress: called with (images done, images in all: twice the frames) after each
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
        """Raise ValueError for a size in px that no level has or exceeds."""
        if not 1 <= mix_at <= self.size:
            raise ValueError(f"mix_at: expected 1..{self.size} px, got {mix_at}; the finest level has {self.size}")

    def z(self, seed: int) -> Tensor:
        """The z of a seed: [1, z_dim]"""
        return draw_z([seed], self.network.config.z_dim).to(self.device)

    def text(self, prompt: str) -> TextFeatures:
        """What T says of a prompt, for one sample."""
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
        """What all levels are told for one image."""
        text = self.text(prompt)
        return Condition(self.w(self.z(seed), text, truncation), text)

    def everywhere(self, condition: Condition) -> list[Condition]:
        """One condition for every level."""
        return [condition] * len(self.network.levels)

    def synthesize(self, conditions: Sequence[Condition]) -> Tensor:
        """conditions: one per level -> [1, 3, S, S] in [0, 1], on the CPU"""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16):
            rgb = self.network.synthesize(conditions)[-1]
        return rgb.float().cpu().add(1).div(2).clamp(0, 1)


def paired(**columns: Sequence[Any]) -> Iterator[Any]:
    """Rows of lists of one length; ValueError for others, for empty ones and for a text in the place of several."""
    for name, column in columns.items():
        if isinstance(column, str) or not hasattr(column, "__len__") or not len(column):
            raise ValueError(f"{name}: expected a list of one or more, got {column!r}; put a single one in brackets")
    lengths = [str(len(column)) for column in columns.values()]
    if len(set(lengths)) > 1:
        raise ValueError(f"{' and '.join(columns)}: expected as many of each, got {' and '.join(lengths)}; repeat some")
    return zip(*columns.values(), strict=True)


def check_reachable_size(size: tuple[int, int], base_size: int) -> None:
    """Raise ValueError for a (height, width) that `upscale_image` cannot reach from images of base_size px."""
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
    """Bring a square image to a size, as a whole; the arguments are those of `upscale_strips`."""
    return upscale_strips(image, size, resolver, prompt, seed).join(progress)


def upscale_strips(
    image: Tensor, size: tuple[int, int], resolver: SuperResolver | None, prompt: str = "", seed: int = 0
) -> PictureStrips:
    """Bring a square image to a size: it is upscaled until it covers the size, and the middle is cut out.

    image:    [3, S, S] in [0, 1]
    size:     (height, width), px; the longer side up to 64 S
    resolver: may be None for sizes up to S
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
    """Cut the middle out of a square that comes as strips; those below it are not made."""
    (height, width), (first, left) = size, ((side - length) // 2 for length in size)
    top = 0
    for strip in strips:
        start, stop = max(first - top, 0), min(first + height - top, strip.size[0])
        if start < stop:
            yield replace(strip, rgb=strip.rgb[:, start:stop, left : left + width])
        top += strip.size[0]
        del strip  # or it lives while the next one is made
        if top >= first + height:
            return
