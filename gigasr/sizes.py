"""Sizes of results in words, by factor or in px, and the passes that lead there."""

import math
import re

MAX_SCALE = 64

SIZES = {"1k": 1024, "2k": 2048, "4k": 4096, "8k": 8192, "16k": 16384}  # px; longest side


def parse_box(text: str) -> tuple[int, int]:
    """Parse a size in words to (height, width): a side in px, 4k, or 3840x2160.

    A single side stands for a square. Raises ValueError for other words.
    """
    words = str(SIZES.get(text.lower(), text)).lower()
    side = r"[1-9]\d{0,5}"
    match = re.fullmatch(rf"({side})(?:x({side}))?", words, re.ASCII)
    if match is None:
        raise ValueError(f"size: expected a side in px, {', '.join(SIZES)} or WIDTHxHEIGHT, got '{text}'")
    width, height = match.groups()
    return int(height or width), int(width)


def fit_size(text: str, picture_size: tuple[int, int]) -> tuple[int, int]:
    """Fit a picture into a box given in words; the aspect ratio stays.

    picture_size: (height, width), px
    returns:      (height, width), px
    """
    height, width = picture_size
    max_height, max_width = parse_box(text)
    factor = min(max_height / height, max_width / width)
    fitted_height = min(max_height, round(height * factor))
    fitted_width = min(max_width, round(width * factor))
    return fitted_height, fitted_width


def checked_size(size: tuple[int, int] | str) -> tuple[int, int] | str:
    """Return a (height, width) in px or a size in words; ValueError for what is neither."""
    if isinstance(size, str):
        parse_box(size)
    elif not (isinstance(size, tuple) and len(size) == 2 and all(isinstance(side, int) for side in size)):
        raise ValueError(f"size: expected (height, width) in whole px, got {size!r}; scale takes a factor")
    return size


def target_size(
    picture_size: tuple[int, int], scale: float | None, size: tuple[int, int] | str | None, default: int
) -> tuple[int, int]:
    """Return the result's (height, width) in px from a scale or a size.

    default: the scale if neither is given

    Raises ValueError if both are given, or if a side is below the picture's or above MAX_SCALE times the picture's.
    """
    if scale is not None and size is not None:
        raise ValueError("size: expected a scale or a size, got both; give one of them")
    if size is not None:
        return _check_size(size, picture_size)
    scale = default if scale is None else float(scale)
    if not 1 <= scale <= MAX_SCALE:
        raise ValueError(f"scale: expected 1..{MAX_SCALE}, got {scale:g}; upscale twice for more")
    height, width = picture_size
    return round(height * scale), round(width * scale)


def _check_size(size: tuple[int, int] | str, picture_size: tuple[int, int]) -> tuple[int, int]:
    """Return the size in px, or raise ValueError if a picture cannot be upscaled to it."""
    if isinstance(size, str):
        size = fit_size(size, picture_size)
    checked_size(size)
    height, width = picture_size
    if size[0] < height or size[1] < width:
        raise ValueError(f"size: expected at least {width}x{height} px, got {size[1]}x{size[0]}; gigasr only upscales")
    if max(size[0] / height, size[1] / width) > MAX_SCALE:
        raise ValueError(f"size: expected at most {MAX_SCALE} times {width}x{height} px, got {size[1]}x{size[0]}")
    return size


def plan_passes(size: tuple[int, int], target: tuple[int, int], scale: int) -> list[tuple[int, int]]:
    """Return the input sizes of the passes that lead to at least the target.

    Each pass upscales by `scale`; a pass of scale 1 only cleans. The first pass takes the picture itself. A later pass
    takes the input of an exact last pass: larger inputs would make pixels only to discard them. Its sides are at least
    twice the picture's. Nearer to the picture's own size, resampling would lose detail, and the downscaled result would
    no longer reproduce the picture.
    """
    height, width = size
    target_height, target_width = target
    factor = max(target_height / height, target_width / width)
    count = 1
    while 1 < scale**count < factor:
        count += 1
    inputs = [size]
    for remaining in range(count - 1, 0, -1):
        rest = scale**remaining
        pass_height = max(math.ceil(target_height / rest), 2 * height)
        pass_width = max(math.ceil(target_width / rest), 2 * width)
        inputs.append((pass_height, pass_width))
    return inputs
