"""Pixel values: the 256 levels of 8-bit files, and the weights of luma."""

import torch
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue in BT.601


def to_uint8(image: Tensor) -> Tensor:
    """image: [0, 1], clamped -> uint8, rounded to nearest, on the image's device"""
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)


def signed_to_uint8(image: Tensor) -> Tensor:
    """image: [-1, 1], clamped -> uint8, rounded to nearest, on the image's device"""
    return ((image.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def uint8_to_signed(image: Tensor) -> Tensor:
    """image: uint8 -> float32 in [-1, 1]"""
    return image.float() / 127.5 - 1


def quantize_8bit(image: Tensor) -> Tensor:
    """image: [-1, 1], clamped -> the nearest of the 256 levels of an 8-bit file, in [-1, 1]"""
    return uint8_to_signed(signed_to_uint8(image))
