"""Pixel values: the 256 levels of 8-bit files, and the weights of luma."""

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue in BT.601


def to_uint8(image: Tensor) -> Tensor:
    """Round values in [0, 1], clamped, to the nearest uint8 on the same device."""
    scaled = image.clamp(0, 1) * 255
    return scaled.round().to(torch.uint8)


def signed_to_uint8(image: Tensor) -> Tensor:
    """Round values in [-1, 1], clamped, to the nearest uint8 on the same device."""
    scaled = (image.clamp(-1, 1) + 1) * 127.5
    return scaled.round().to(torch.uint8)


def uint8_to_signed(image: Tensor) -> Tensor:
    """Convert uint8 to float32 in [-1, 1]."""
    return image.float() / 127.5 - 1


def quantize_8bit(image: Tensor) -> Tensor:
    """Round values in [-1, 1], clamped, to the 256 levels of an 8-bit file.

    returns: float32 in [-1, 1]
    """
    return uint8_to_signed(signed_to_uint8(image))
