"""Sizes in words and factors to (height, width), and the passes of the network that lead there."""

import math
import re

MAX_SCALE = 64

SIZES = {"1k": 1024, "2k": 2048, "4k": 4096, "8k": 8192, "16k": 16384}  # px; longest side


def parse_box(text: str) -> tuple[int, int]:
    """A size in words to (height, width): a side in px, 4k, or 3840x2160."""
    match = re.fullmatch(r"([1-9]\d{0,5})(?:x([1-9]\d{0,5}))?", str(SIZES.get(text.lower(), text)).lower(), re.ASCII)
    if match is None:
        raise ValueError(f"size: expected a side in px, {', '.join(SIZES)} or WIDTHxHEIGHT, got '{text}'")
    return int(match[2] or match[1]), int(match[1])


def fit_size(text: str, picture_size: tuple[int, int]) -> tuple[int, int]:
    """The (height, width) of a picture fitted into the box that a size in words stands for."""
    (height, width), box = picture_size, parse_box(text)
    factor = min(box[0] / height, box[1] / width)
    return min(box[0], round(height * factor)), min(box[1], round(width * factor))


def target_size(
    picture_size: tuple[int, int], scale: float | None, size: tuple[int, int] | None, default: int
) -> tuple[int, int]:
    """The result's (height, width) from a scale or a size; both given or a size below the picture's is an error."""
    if scale is not None and size is not None:
        raise ValueError("size: expected a scale or a size, got both; give one of them")
    height, width = picture_size
    if size is None:
        scale = default if scale is None else float(scale)
        if not 1 <= scale <= MAX_SCALE:
            raise ValueError(f"scale: expected 1..{MAX_SCALE}, got {scale:g}; upscale twice for more")
        return round(height * scale), round(width * scale)
    if not (isinstance(size, tuple) and len(size) == 2 and all(isinstance(side, int) for side in size)):
        raise ValueError(f"size: expected (height, width) in whole px, got {size!r}; scale takes a factor")
    if size[0] < height or size[1] < width:
        raise ValueError(f"size: expected at least {width}x{height} px, got {size[1]}x{size[0]}; gigasr only upscales")
    if max(size[0] / height, size[1] / width) > MAX_SCALE:
        raise ValueError(f"size: expected at most {MAX_SCALE} times {width}x{height} px, got {size[1]}x{size[0]}")
    return size


def plan_passes(size: tuple[int, int], target: tuple[int, int], scale: int) -> list[tuple[int, int]]:
    """Input sizes of the passes that lead to at least the target; each pass upscales by `scale`, one of 1 only cleans.

    The first pass takes the picture itself. A later one takes what an exact last pass would need, so that no pass works
    on pixels that are thrown away, but at least twice the picture: closer to its own size, detail would be lost between
    the two, and the result would no longer be the picture when reduced.
    """
    factor = max(target[0] / size[0], target[1] / size[1])
    count = 1
    while 1 < scale**count < factor:
        count += 1
    later = [scale ** (count - i) for i in range(1, count)]
    return [size] + [
        (max(math.ceil(target[0] / rest), 2 * size[0]), max(math.ceil(target[1] / rest), 2 * size[1])) for rest in later
    ]
