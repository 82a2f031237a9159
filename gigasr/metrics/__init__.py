"""Metrics of a super-resolved image, one module per metric.

Images are float tensors [3, H, W] in [0, 1] on any device. Every metric first rounds to 8 bit, like an image file.
"""

from gigasr.metrics.clip_score import ClipScore
from gigasr.metrics.external import import_basicsr
from gigasr.metrics.fid import FeatureSet, FrozenFeatures, frechet_distance, inception_score, patches
from gigasr.metrics.low_res import crop_to_multiple, low_res_from, lr_psnr
from gigasr.metrics.lpips import LPIPS_SIDE, Lpips, lpips_distance
from gigasr.metrics.niqe import NIQE_BLOCK, niqe
from gigasr.metrics.psnr_ssim import pooled_psnr, psnr_y, ssim_y
from gigasr.metrics.spectrum import spectrum_error

__all__ = [
    "LPIPS_SIDE",
    "NIQE_BLOCK",
    "ClipScore",
    "FeatureSet",
    "FrozenFeatures",
    "Lpips",
    "crop_to_multiple",
    "frechet_distance",
    "import_basicsr",
    "inception_score",
    "low_res_from",
    "lpips_distance",
    "lr_psnr",
    "niqe",
    "patches",
    "pooled_psnr",
    "psnr_y",
    "spectrum_error",
    "ssim_y",
]
