"""NIQE, a metric without a reference image."""

import math
import warnings

import numpy as np
from torch import Tensor

from gigasr.metrics.external import import_basicsr
from gigasr.metrics.inputs import check_image, to_8bit

NIQE_BLOCK = 96  # px; NIQE compares statistics of whole blocks


def niqe(image: Tensor) -> float:
    """Compute NIQE, which needs no reference, on the luma without a border.

    image: [3, H, W]  in [0, 1]; only whole blocks of 96x96 px count, and two are needed
    returns: lower is more natural; not a number if fewer than two blocks hold texture

    Source: Making a "Completely Blind" Image Quality Analyzer (IEEE SPL 2013), as in basicsr.
    """
    check_image("metrics.niqe", image)
    height, width = image.shape[1:]
    if (height // NIQE_BLOCK) * (width // NIQE_BLOCK) < 2:
        raise ValueError(
            f"metrics.niqe: expected at least two blocks of {NIQE_BLOCK}x{NIQE_BLOCK} px, got {height}x{width} px; "
            "use a larger image or leave NIQE out"
        )
    calculate = import_basicsr().calculate_niqe
    bgr = to_8bit(image).flip(0).permute(1, 2, 0).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return float(calculate(bgr, crop_border=0))
        except np.linalg.LinAlgError:
            return math.nan
