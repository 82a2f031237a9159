"""PSNR and SSIM of the luma, as papers compute them."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from gigasr.metrics.inputs import luma_pair
from gigasr.metrics.ops import SSIM_WINDOW, structural_similarity


def psnr_y(result: Tensor, truth: Tensor, border: int) -> float:
    """Compute the peak signal-to-noise ratio of the luma, with a peak of 255.

    Studio luma spans only 16..235, but papers use 255.

    result, truth: [3, H, W]  in [0, 1]; `border` px are cut from each side
    returns: dB, infinite for equal images

    Source: equals basicsr's calculate_psnr(test_y_channel=True).
    """
    x, y = luma_pair("metrics.psnr_y", result, truth, border, min_side=1)
    return psnr(x, y)


def ssim_y(result: Tensor, truth: Tensor, border: int) -> float:
    """Compute the mean structural similarity of the luma.

    Only pixels whose window fits into the image count.

    result, truth: [3, H, W]  in [0, 1]; `border` px are cut from each side
    returns: at most 1, for equal images

    Source: Image Quality Assessment: From Error Visibility to Structural Similarity (IEEE TIP 2004);
    equals basicsr's calculate_ssim(test_y_channel=True).
    """
    x, y = luma_pair("metrics.ssim_y", result, truth, border, min_side=SSIM_WINDOW)
    return float(structural_similarity(x, y).mean())


def pooled_psnr(images: Iterable[tuple[float, int]]) -> float:
    """Compute the PSNR of several images as of one large image.

    images:  dB and pixels of each
    returns: dB; infinite only if all images are equal to their truths
    """
    pairs = list(images)
    error = sum(10 ** (-decibels / 10) * pixels for decibels, pixels in pairs) / sum(pixels for _, pixels in pairs)
    return -10 * math.log10(error) if error else math.inf


def psnr(x: Tensor, y: Tensor) -> float:
    """Compute the PSNR of two images in dB, with a peak of 255."""
    return float(10 * torch.log10(255**2 / (x - y).square().mean()))
