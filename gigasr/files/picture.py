"""Pictures in memory: pixels with the properties of a file, whole or as strips."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gigasr.pixels import LUMA


@dataclass(frozen=True, eq=False)
class Picture:
    """Upright image with the properties of a file; see read_image and write_image."""

    rgb: Tensor  # [3, H, W] float32 in [0, 1]; the three are equal, and may share memory, in a gray picture
    alpha: Tensor | None = None  # [1, H, W] float32 in [0, 1], 1 = opaque; rgb is not premultiplied
    is_gray: bool = False  # written with one colour channel
    bit_depth: int = 8  # 8 or 16; of the input, and of the output if the format allows
    icc_profile: bytes | None = None  # of rgb or, in a gray picture, of gray; None = sRGB
    exif: bytes | None = None  # without orientation, thumbnail and resolution
    dpi: tuple[float, float] | None = None  # x, y
    xmp: bytes | None = None  # unchanged since reading; updated to the size when written
    iptc: bytes | None = None
    texts: Mapping[str, str] = field(default_factory=dict)  # PNG text chunks, written to PNG only: Title, Author, …

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
        """Return (H, W) in px."""
        return self.rgb.shape[1], self.rgb.shape[2]


class PictureStrips(NamedTuple):
    """Picture in strips of rows; see write_frames."""

    size: tuple[int, int]  # (H, W) of the whole, px
    strips: Iterator[Picture]  # from top to bottom, of full width; properties are equal

    def join(self, progress: "RowProgress | None" = None) -> Picture:
        """Join the strips to the whole picture; progress is called after every strip."""
        rgb = torch.empty(3, *self.size, dtype=torch.float32)
        alpha = None
        top = 0
        like = None
        for strip in self.strips:
            bottom = top + strip.size[0]
            rgb[:, top:bottom] = strip.rgb
            if strip.alpha is not None:
                if alpha is None:
                    alpha = torch.empty(1, *self.size)
                alpha[:, top:bottom] = strip.alpha
            no_rows = strip.rgb[:, :0].clone()  # a view would keep the strip alive
            like = replace(strip, rgb=no_rows, alpha=None)
            top = bottom
            del strip  # or both strips are in memory while the next is made
            if progress is not None:
                progress(top, self.size[0])
        if like is None:
            raise ValueError("strips: expected some, got none; they can be taken once")
        return replace(like, rgb=rgb, alpha=alpha)


RowProgress = Callable[[int, int], None]  # rows of the result done, rows in all


class AnimationTiming(NamedTuple):
    """Durations of an animation's frames, and the number of plays."""

    durations: tuple[float, ...]  # ms
    loop_count: int = 1  # 0 = for ever


def to_gray(rgb: Tensor) -> Tensor:
    """Return the luma in full range; rgb: [3, H, W] in [0, 1] -> [1, H, W] in [0, 1]."""
    red, green, blue = (weight * plane for weight, plane in zip(LUMA, rgb, strict=True))
    luma = red + green + blue
    return luma[None]


def on_white(picture: Picture) -> Picture:
    """Lay a picture on white, so that no alpha remains."""
    if picture.alpha is None:
        return picture
    planes = picture.rgb[:1] if picture.is_gray else picture.rgb
    white = torch.ones(())
    opaque = torch.lerp(white, planes, picture.alpha)
    return replace(picture, rgb=opaque.expand(3, -1, -1), alpha=None)


def fill_transparent(rgb: Tensor, alpha: Tensor) -> Tensor:
    """Fill fully transparent pixels with the colour of visible pixels around.

    Otherwise hidden colours would leak into edges.

    rgb:     [3, H, W] in [0, 1]
    alpha:   [1, H, W] in [0, 1]
    returns: [3, H, W] in [0, 1]; unchanged wherever alpha is above 0
    """
    is_visible = alpha > 0
    if bool(is_visible.all()):
        return rgb
    weighted = rgb * alpha
    filling = _surroundings(weighted[None], alpha[None])[0]
    return torch.where(is_visible, rgb, filling)


def _surroundings(weighted: Tensor, alpha: Tensor) -> Tensor:
    """Return the mean colour of the nearest visible pixels at every pixel.

    weighted: [1, 3, H, W] colour times alpha
    alpha:    [1, 1, H, W]
    returns:  [1, 3, H, W]

    Invisible pixels take their colour from the half-size image, by recursion.
    """
    colour = weighted / alpha.clamp(min=1e-6)
    height, width = alpha.shape[2:]
    if height == width == 1:
        return colour
    half_weighted = F.avg_pool2d(weighted, 2, ceil_mode=True, count_include_pad=False)
    half_alpha = F.avg_pool2d(alpha, 2, ceil_mode=True, count_include_pad=False)
    half_colour = _surroundings(half_weighted, half_alpha)
    farther = F.interpolate(half_colour, (height, width), mode="bilinear", align_corners=False)
    return torch.where(alpha > 0, colour, farther)
