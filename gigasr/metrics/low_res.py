"""Low-res inputs of the benchmarks, and fidelity of results to them."""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gigasr.metrics.inputs import check_image, to_8bit
from gigasr.metrics.psnr_ssim import psnr

Downsample = Callable[[Tensor, int], Tensor]  # [3, H, W], scale -> [3, H / scale, W / scale], both in [0, 1]


def lr_psnr(result: Tensor, low_res: Tensor, scale: int, downsample: Downsample | None = None) -> float:
    """Compute the fidelity of a result to its input, after reduction.

    result:  [3, H * scale, W * scale]  in [0, 1]
    low_res: [3, H, W]  in [0, 1]
    downsample: makes the input; None = low_res_from
    returns: PSNR over RGB in dB, infinite if the reduced result equals the input
    """
    check_image("metrics.lr_psnr", result)
    check_image("metrics.lr_psnr", low_res)
    height, width = low_res.shape[1:]
    if result.shape[1:] != (height * scale, width * scale):
        raise ValueError(
            f"metrics.lr_psnr: expected a result of {height * scale}x{width * scale} px ({scale} times its input), "
            f"got {result.shape[1]}x{result.shape[2]} px; resize or crop the result to that size"
        )
    return psnr(to_8bit((downsample or low_res_from)(result, scale)).double(), to_8bit(low_res).double())


def low_res_from(hr: Tensor, scale: int) -> Tensor:
    """Make the benchmark's input: cropped, reduced, in 8 bit.

    The crop makes both sides multiples of `scale`; the reduction is PIL's antialiased bicubic.

    hr:      [3, H, W]  in [0, 1]
    returns: [3, H // scale, W // scale]  in [0, 1], multiples of 1/255, on the CPU
    """
    picture = Image.fromarray(to_8bit(crop_to_multiple(hr, scale)).permute(1, 2, 0).numpy())
    reduced = picture.resize((picture.width // scale, picture.height // scale), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(reduced)).permute(2, 0, 1) / 255


def crop_to_multiple(hr: Tensor, scale: int) -> Tensor:
    """Crop at the bottom and the right to sides that are multiples of `scale`.

    hr:      [3, H, W]  in [0, 1]
    returns: [3, H - H % scale, W - W % scale]  the truth for `low_res_from(hr, scale)`

    Raises ValueError for an image smaller than scale, and a scale below 1.
    """
    check_image("metrics.crop_to_multiple", hr)
    height, width = hr.shape[1:]
    if scale < 1 or min(height, width) < scale:
        raise ValueError(
            f"metrics.crop_to_multiple: expected an image of at least scale x scale px and a scale of at least 1, "
            f"got {height}x{width} px and a scale of {scale}; use a larger image or another scale"
        )
    return hr[:, : height - height % scale, : width - width % scale]
