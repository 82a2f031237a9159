"""Pictures as arrays of integers, for the encoders of files."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
from PIL import Image

from gigasr.files.picture import Picture, to_gray

_SampleType = type[np.uint8] | type[np.uint16]
_BLOCK_PIXELS = 1 << 20  # converted at a time


def sample_blocks(strips: Iterable[Picture], dtype: _SampleType) -> Iterator[np.ndarray]:
    """Convert strips to integers [rows, W, C], some rows at a time."""
    for strip in strips:
        rows = max(_BLOCK_PIXELS // strip.size[1], 1)
        for top in range(0, strip.size[0], rows):
            block = slice(top, top + rows)
            alpha = None if strip.alpha is None else strip.alpha[:, block]
            yield to_samples(replace(strip, rgb=strip.rgb[:, block], alpha=alpha), dtype)
        del strip, alpha  # or both strips are in memory while the next is made


def to_samples(picture: Picture, dtype: _SampleType) -> np.ndarray:
    """Round to integers [H, W, C]; C = gray or RGB, and alpha if there is alpha.

    A gray picture with different colours becomes luma. Raises ValueError for NaN and infinity.
    """
    rgb = picture.rgb.detach()
    if not picture.is_gray:
        planes = [*rgb]
    elif rgb.stride(0) == 0:
        planes = [rgb[0]]
    else:
        planes = [*to_gray(rgb)]
    if picture.alpha is not None:
        planes.append(picture.alpha[0])
    limit = int(np.iinfo(dtype).max)
    samples = np.empty((*picture.size, len(planes)), dtype)
    for i, plane in enumerate(planes):
        scaled = plane * limit
        if not scaled.sum().isfinite():
            raise ValueError("picture: expected finite values, got NaN or infinity; compute in float32")
        samples[:, :, i] = scaled.round_().clamp_(0, limit).numpy()
    return samples


def samples_to_pil(samples: np.ndarray) -> Image.Image:
    """Make a PIL image; samples: [H, W, C]."""
    is_plane = samples.shape[2] == 1
    return Image.fromarray(samples[:, :, 0] if is_plane else samples)
