"""Structural similarity and the radial power spectrum."""

import math

import pytest
import torch

from gigasr.metrics.ops import NUM_RINGS, SSIM_SIGMA, SSIM_WINDOW, radial_spectrum, structural_similarity


def test_similarity_is_that_of_the_windows_moments() -> None:
    torch.manual_seed(0)
    x, y = (255 * torch.rand(2, 3, 13, 12, dtype=torch.float64) for _ in range(2))
    offsets = torch.arange(SSIM_WINDOW, dtype=torch.float64) - SSIM_WINDOW // 2
    line = torch.exp(-(offsets**2) / (2 * SSIM_SIGMA**2))
    weights = line * line[:, None] / line.sum() ** 2
    similarity = structural_similarity(x, y)
    assert similarity.shape == (2, 3, 3, 2)
    a, b = x[1, 2, 2:, 1:], y[1, 2, 2:, 1:]  # the window of the last place
    mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
    var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
    covariance = (weights * (a - mean_a) * (b - mean_b)).sum()
    c1, c2 = 2.55**2, 7.65**2
    expected = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1) * (2 * covariance + c2) / (var_a + var_b + c2)
    torch.testing.assert_close(similarity[1, 2, 2, 1], expected)


def test_a_wave_is_found_in_the_ring_of_its_frequency() -> None:
    size, cycles = 128, 40  # two cycles per ring
    x = torch.arange(size, dtype=torch.float64)
    wave = torch.cos(2 * math.pi * cycles * x / size).expand(size, size)
    for image in (wave, wave.T):
        assert radial_spectrum(image).argmax() + 1 == cycles // 2


def test_white_noise_has_its_variance_times_the_energy_of_the_window_in_every_ring() -> None:
    torch.manual_seed(0)
    noise = 3 * torch.randn(8, 256, 256, dtype=torch.float64)
    line = 0.5 - 0.5 * torch.cos(2 * math.pi * torch.arange(256) / 255)
    expected = 10 * math.log10(9 * line.square().sum().item() ** 2)
    assert radial_spectrum(noise).mean(0) == pytest.approx(torch.full((NUM_RINGS - 1,), expected).numpy(), abs=0.5)
    flat = torch.zeros(256, 256, dtype=torch.float64)
    assert radial_spectrum(flat, noise=9.0).numpy() == pytest.approx(expected)


def test_the_central_square_of_each_image_counts() -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 3, 70, 100)
    spectra = radial_spectrum(images)
    assert spectra.shape == (2, 3, NUM_RINGS - 1)
    torch.testing.assert_close(spectra[1, 2], radial_spectrum(images[1, 2, :, 15:85]))
