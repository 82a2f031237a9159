"""How much detail of each fineness an image holds: a figure's and a loss's measure."""

import torch
from torch import Tensor

NUM_RINGS = 32  # radial rings of the power spectrum, from zero to the Nyquist frequency


def radial_spectrum(luma: Tensor, noise: float = 0.0) -> Tensor:
    """Compute how much detail of each fineness the central square of an image holds.

    luma:    [..., H, W]  at least 2 * NUM_RINGS px a side
    noise:   variance of white noise that is added to all rings
    returns: [..., NUM_RINGS - 1]  mean power per ring in dB; the ring around zero frequency is left out
    """
    size = min(luma.shape[-2:])
    top, left = ((length - size) // 2 for length in luma.shape[-2:])
    line = torch.hann_window(size, periodic=False, dtype=luma.dtype, device=luma.device)
    window = line * line[:, None]
    power = torch.fft.fft2(luma[..., top : top + size, left : left + size] * window).abs().square().flatten(-2)
    squared = (torch.fft.fftfreq(size, dtype=torch.float64) * size).round().square()  # in cycles per image
    ring = ((squared + squared[:, None]).sqrt() * 2 * NUM_RINGS / size).long()  # size / 2 is Nyquist
    ring = ring.clamp_max(NUM_RINGS).flatten().to(luma.device)
    total = power.new_zeros(*power.shape[:-1], NUM_RINGS + 1).index_add(-1, ring, power)
    mean = total / torch.bincount(ring, minlength=NUM_RINGS + 1)
    return 10 * (mean[..., 1:NUM_RINGS] + noise * window.square().sum()).clamp_min(1e-12).log10()
