"""Low-res inputs of an evaluation: by PIL's bicubic, by MATLAB's, or by unknown degradations with a seed."""

import hashlib
import importlib
from typing import Literal

import torch
from torch import Tensor

from gigasr.degradation import round_to_8_bit
from gigasr.metrics import import_basicsr, reduce_bicubic
from gigasr.second_order import second_order

Kind = Literal["bicubic", "matlab", "blind"]


def reduce_matlab(hr: Tensor, scale: int) -> Tensor:
    """Reduce as MATLAB's imresize does, in 8 bit: the inputs of the classical super-resolution tables.

    hr:      [3, H, W]  in [0, 1], multiples of scale
    returns: [3, H / scale, W / scale]  in [0, 1], multiples of 1/255

    Source: basicsr's imresize, rounded.
    """
    import_basicsr()
    imresize = importlib.import_module("basicsr.utils.matlab_functions").imresize
    reduced: Tensor = imresize((hr.clamp(0, 1) * 255).round() / 255, 1 / scale)
    return (reduced.clamp(0, 1) * 255).round() / 255


def degrade_blindly(hr: Tensor, scale: int, seed: int, name: str) -> Tensor:
    """Reduce with two rounds of blur, noise and JPEG, drawn from the seed and the image's name alone.

    hr:      [3, H, W]  in [0, 1], multiples of scale
    returns: [3, H / scale, W / scale]  in [0, 1], multiples of 1/255
    """
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    rng = torch.Generator().manual_seed(int.from_bytes(digest, "little"))
    return round_to_8_bit(second_order(hr[None] * 2 - 1, scale, [rng]))[0] / 2 + 0.5


def make_low_res(hr: Tensor, scale: int, kind: Kind, seed: int, name: str) -> Tensor:
    """Make the input of one image; `seed` and `name` matter to "blind" alone.

    hr:      [3, H, W]  in [0, 1], multiples of scale
    returns: [3, H / scale, W / scale]  in [0, 1], multiples of 1/255
    """
    if kind == "blind":
        return degrade_blindly(hr, scale, seed, name)
    return {"bicubic": reduce_bicubic, "matlab": reduce_matlab}[kind](hr, scale)
