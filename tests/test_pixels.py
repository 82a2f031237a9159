"""Pixels: 8-bit levels."""

import torch

from gigasr.pixels import quantize_8bit, signed_to_uint8, to_uint8, uint8_to_signed

LEVELS = torch.arange(256, dtype=torch.uint8)


def test_every_level_survives_the_way_to_floats_and_back() -> None:
    assert torch.equal(to_uint8(LEVELS / 255), LEVELS)
    assert torch.equal(signed_to_uint8(uint8_to_signed(LEVELS)), LEVELS)


def test_values_go_to_the_nearest_level_and_those_outside_to_the_ends() -> None:
    assert to_uint8(torch.tensor([-1.0, 0.4 / 255, 0.6 / 255, 2.0])).tolist() == [0, 0, 1, 255]
    assert signed_to_uint8(torch.tensor([-2.0, -1 + 0.4 / 127.5, -1 + 0.6 / 127.5, 2.0])).tolist() == [0, 0, 1, 255]


def test_quantizing_moves_no_value_by_more_than_half_a_level() -> None:
    x = torch.linspace(-1, 1, 10_001)
    quantized = quantize_8bit(x)
    assert (quantized - x).abs().max() <= 0.5 / 127.5 + 1e-6 and len(quantized.unique()) == 256
    assert torch.equal(quantize_8bit(quantized), quantized)
