"""Low-res inputs of the benchmarks, and how faithful a result is to its own."""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from gigasr.metrics.inputs import check_image, to_8bit
from gigasr.metrics.psnr_ssim import psnr

Downsample = Callable[[Tensor, int], Tensor]  # [3, H, W], scale -> [3, H / scale, W / scale], both in [0, 1]


def lr_psnr(result: Tensor, low_res: Tensor, scale: int, downsample: Downsample | None = None) -> float:
    """Compute how faithful a result is to its input: reduced again, it should be the input.

    result:  [3, H * scale, W * scale]  in [0, 1]
    low_res: [3, H, W]  in [0, 1]
    reduce:  how the input was made; None = low_res_from
    returns: PSNR over RGB in dB, infinite for a perfect round trip
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
    """Make the benchmark's input: cropped to a multiple of `scale`, reduced by PIL's antialiased bicubic, in 8 bit.

    hr:      [3, H, W]  in [0, 1]
    returns: [3, H // scale, W // scale]  in [0, 1], multiples of 1/255, on the CPU
    """
    picture = Image.fromarray(to_8bit(crop_to_multiple(hr, scale)).permute(1, 2, 0).numpy())
    reduced = picture.resize((picture.width // scale, picture.height // scale), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(reduced)).permute(2, 0, 1) / 255


def crop_to_multiple(hr: Tensor, scale: int) -> Tensor:
    """Cut rows and columns from the bottom and the right until both sides are multiples of `scale`.

    hr:      [3, H, W]  in [0, 1]
    returns: [3, H - H % scale, W - W % scale]  the truth that belongs to `low_res_from(hr, scale)`
    """
    check_image("metrics.crop_to_multiple", hr)
    height, width = hr.shape[1:]
    if scale < 1 or min(height, width) < scale:
        raise ValueError(
            f"metrics.crop_to_multiple: expected an image of at least scale x scale px and a scale of at least 1, "
            f"got {height}x{width} px and a scale of {scale}; use a larger image or another scale"
        )
    return hr[:, : height - height % scale, : width - width % scale]
