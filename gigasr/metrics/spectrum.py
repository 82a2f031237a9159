"""Difference of the radial power spectra of two images."""

from torch import Tensor

from gigasr.metrics.inputs import luma_pair
from gigasr.metrics.ops import NUM_RINGS, radial_spectrum


def spectrum_error(result: Tensor, truth: Tensor) -> float:
    """Compare the radial power spectra of two images; shows blur and checkerboards.

    result, truth: [3, H, W]  in [0, 1]; their central squares are compared, at least 64x64 px
    returns: RMS over the rings of the difference of the two radial power spectra, in dB; 0 for equal images
    """
    x, y = luma_pair("metrics.spectrum_error", result, truth, border=0, min_side=2 * NUM_RINGS)
    return float((radial_spectrum(x) - radial_spectrum(y)).square().mean().sqrt())
