"""Pictures: what is left of an image file in memory, and their transparent pixels."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gigasr.pixels import LUMA


@dataclass(frozen=True, eq=False)
class Picture:
    """An upright image with what a file says about it; read it with read_image, write it with write_image."""

    rgb: Tensor  # [3, H, W] float32 in [0, 1]; the three are equal, and may share memory, in a gray picture
    alpha: Tensor | None = None  # [1, H, W] float32 in [0, 1], 1 = opaque; rgb is not premultiplied
    is_gray: bool = False  # written with one colour channel
    bit_depth: int = 8  # 8 or 16; of the file it came from, and to write where the format can
    icc_profile: bytes | None = None  # of rgb or, in a gray picture, of gray; None = sRGB
    exif: bytes | None = None  # without orientation, thumbnail and resolution
    dpi: tuple[float, float] | None = None  # x, y
    xmp: bytes | None = None  # as it was read; made true for the size when it is written
    iptc: bytes | None = None
    texts: Mapping[str, str] = field(default_factory=dict)  # of a PNG: Title, Author, …; for another PNG

    def __post_init__(self) -> None:
        for name, values in {"rgb": self.rgb, "alpha": self.alpha}.items():
            if values is not None and not isinstance(values, Tensor):
                raise ValueError(f"picture.{name}: expected a tensor, got {type(values).__name__}; torch.from_numpy it")
        if self.rgb.dim() != 3 or self.rgb.shape[0] != 3 or self.rgb.dtype != torch.float32:
            raise ValueError(
                f"picture.rgb: expected [3, H, W] float32, got {list(self.rgb.shape)} {self.rgb.dtype}; convert it"
            )
        if self.alpha is not None and (self.alpha.shape != (1, *self.size) or self.alpha.dtype != torch.float32):
            raise ValueError(
                f"picture.alpha: expected [1, {self.size[0]}, {self.size[1]}] float32, "
                f"got {list(self.alpha.shape)} {self.alpha.dtype}; resize it with rgb"
            )
        if self.bit_depth not in (8, 16):
            raise ValueError(f"picture.bit_depth: expected 8 or 16, got {self.bit_depth}; choose one")

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in px."""
        return self.rgb.shape[1], self.rgb.shape[2]


class PictureStrips(NamedTuple):
    """A picture that comes as strips of rows; write it with write_frames."""

    size: tuple[int, int]  # (H, W) of the whole, px
    strips: Iterator[Picture]  # from top to bottom, of full width, alike in all but their rows

    def join(self, progress: "RowProgress | None" = None) -> Picture:
        """The picture as a whole; progress is called after every strip."""
        rgb, alpha, top, like = torch.empty(3, *self.size, dtype=torch.float32), None, 0, None
        for strip in self.strips:
            bottom = top + strip.size[0]
            rgb[:, top:bottom] = strip.rgb
            if strip.alpha is not None:
                alpha = torch.empty(1, *self.size) if alpha is None else alpha
                alpha[:, top:bottom] = strip.alpha
            like, top = replace(strip, rgb=strip.rgb[:, :0].clone(), alpha=None), bottom  # a view would hold the strip
            del strip  # or it lives while the next one is made
            if progress is not None:
                progress(top, self.size[0])
        if like is None:
            raise ValueError("strips: expected some, got none; they can be taken once")
        return replace(like, rgb=rgb, alpha=alpha)


RowProgress = Callable[[int, int], None]  # rows of the result done, rows in all


class AnimationTiming(NamedTuple):
    """When an animation's frames are shown."""

    durations: tuple[float, ...]  # ms of each
    loop_count: int = 1  # 0 = for ever


def to_gray(rgb: Tensor) -> Tensor:
    """rgb: [3, H, W] in [0, 1] -> its luma [1, H, W] in [0, 1], in full range"""
    red, green, blue = (weight * plane for weight, plane in zip(LUMA, rgb, strict=True))
    return (red + green + blue)[None]


def on_white(picture: Picture) -> Picture:
    """A picture laid on white, opaque."""
    if picture.alpha is None:
        return picture
    rgb = picture.rgb[:1] if picture.is_gray else picture.rgb
    return replace(picture, rgb=torch.lerp(torch.ones(()), rgb, picture.alpha).expand(3, -1, -1), alpha=None)


def fill_transparent(rgb: Tensor, alpha: Tensor) -> Tensor:
    """Give fully transparent pixels the colour of what lies around, so that no hidden colour leaks into an edge.

    rgb:     [3, H, W] in [0, 1]
    alpha:   [1, H, W] in [0, 1]
    returns: [3, H, W] in [0, 1]; unchanged wherever alpha is above 0
    """
    if bool((alpha > 0).all()):
        return rgb
    return torch.where(alpha > 0, rgb, _surroundings((rgb * alpha)[None], alpha[None])[0])


def _surroundings(weighted: Tensor, alpha: Tensor) -> Tensor:
    """weighted: [1, 3, H, W] colour times alpha, alpha: [1, 1, H, W] -> mean colour of the nearest visible pixels."""
    if max(alpha.shape[2:]) == 1:
        return weighted / alpha.clamp(min=1e-6)
    half = [F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False) for x in (weighted, alpha)]
    farther = F.interpolate(_surroundings(half[0], half[1]), alpha.shape[2:], mode="bilinear", align_corners=False)
    return torch.where(alpha > 0, weighted / alpha.clamp(min=1e-6), farther)
