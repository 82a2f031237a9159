"""Seeded noise: tiles of one endless field, the same for all cuts of an image."""

import math

import numpy as np
import torch
from torch import Tensor

from gigasr.inference.tiling import Tile
from gigasr.options import check_seed

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # splitmix64's increment
_NOISE_BLOCK = 1 << 16  # values hashed at a time; keeps the temporaries in the cache


def seeded(seed: int) -> torch.Generator:
    """Make a generator on the CPU for a seed.

    torch's CPU generator uses only the low 32 bits of a seed, hence larger seeds are hashed first.
    """
    number = check_seed(seed)
    if number >= 2**32:
        number = int(_splitmix64(np.array([number], np.uint64))[0])
    return torch.Generator().manual_seed(number)


def noise_field(seed: int, tile: Tile, channels: int) -> Tensor:
    """Draw one tile of an endless field of normal noise.

    seed:    any integer, taken modulo 2**64
    tile:    absolute position in the field, px
    returns: [1, channels, h, w] float32, standard normal; each value is a function of seed, channel, y and x alone

    Source: splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014) as a counter-based
    hash; Box-Muller transform.
    """
    top, left, height, width = tile
    ys = np.arange(top, top + height, dtype=np.uint64)
    columns = np.arange(left, left + width, dtype=np.uint64) * _GOLDEN
    field = np.empty((1, channels, height, width), np.float32)
    block = max(_NOISE_BLOCK // max(width, 1), 1)
    seed_key = _splitmix64(np.array([seed % 2**64], np.uint64))
    for channel in range(channels):
        channel_key = _splitmix64(seed_key + np.array([channel], np.uint64) * _GOLDEN)
        row_keys = _splitmix64(channel_key + ys * _GOLDEN)
        for y in range(0, height, block):
            bits = _splitmix64(row_keys[y : y + block, None] + columns)
            field[0, channel, y : y + block] = _box_muller(bits)
    return torch.from_numpy(field)


def _splitmix64(bits: np.ndarray) -> np.ndarray:
    """Hash 64-bit integers in place by splitmix64.

    Every input bit changes every output bit with probability 1/2. The increment comes first: without it 0 remains 0.
    """
    bits += _GOLDEN
    bits ^= bits >> np.uint64(30)
    bits *= np.uint64(0xBF58476D1CE4E5B9)
    bits ^= bits >> np.uint64(27)
    bits *= np.uint64(0x94D049BB133111EB)
    bits ^= bits >> np.uint64(31)
    return bits


def _box_muller(bits: np.ndarray) -> np.ndarray:
    """Turn 64 random bits into one normal value by the Box-Muller transform.

    The high 32 bits give the radius, the low 32 bits the angle.
    """
    radius = (bits >> np.uint64(32)).astype(np.uint32).astype(np.float32)
    radius += np.float32(0.5)
    radius *= np.float32(2**-32)  # in (0, 1]
    angle = bits.astype(np.uint32).astype(np.float32)
    angle *= np.float32(2 * math.pi * 2**-32)
    np.log(radius, out=radius)
    radius *= np.float32(-2)
    np.sqrt(radius, out=radius)
    return radius * np.cos(angle, out=angle)
