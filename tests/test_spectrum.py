"""The radial power spectrum."""

import math

import pytest
import torch

from gigasr.spectrum import NUM_RINGS, radial_spectrum


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
