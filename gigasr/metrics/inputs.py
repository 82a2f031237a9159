"""Checked inputs of the metrics: 8-bit images and their luma."""

from torch import Tensor

from gigasr.metrics.ops import luma
from gigasr.pixels import to_uint8


def check_image(name: str, image: Tensor) -> None:
    """Raise ValueError unless the image is finite and float, [3, H, W]."""
    if image.ndim != 3 or image.shape[0] != 3 or not image.is_floating_point():
        raise ValueError(
            f"{name}: expected a float image [3, H, W] in [0, 1], got {image.dtype} of shape {tuple(image.shape)}; "
            "pass one RGB image, without a batch dimension"
        )
    if not image.isfinite().all():
        raise ValueError(f"{name}: expected finite values, got NaN or infinity; look for an overflow in the network")


def check_pair(name: str, result: Tensor, truth: Tensor, min_side: int, border: int = 0) -> None:
    """Raise ValueError unless both images are valid and of one sufficient size.

    min_side: px inside the border
    border:   px at each side
    """
    check_image(name, result)
    check_image(name, truth)
    if result.shape != truth.shape:
        raise ValueError(
            f"{name}: expected two images of one size, got {result.shape[1]}x{result.shape[2]} px and "
            f"{truth.shape[1]}x{truth.shape[2]} px; crop the truth with crop_to_multiple"
        )
    height, width = result.shape[1:]
    if border < 0 or min(height, width) - 2 * border < min_side:
        raise ValueError(
            f"{name}: expected at least {min_side}x{min_side} px inside a border of {border} px, "
            f"got {height}x{width} px; use larger images or another border"
        )


def luma_pair(name: str, result: Tensor, truth: Tensor, border: int, min_side: int) -> tuple[Tensor, Tensor]:
    """Check both images and return their luma without the border.

    returns: twice [H - 2 border, W - 2 border] in 16..235, float64, from the images in 8 bit
    """
    check_pair(name, result, truth, min_side, border)
    inside = [slice(border, length - border) for length in result.shape[1:]]
    x, y = (luma(to_8bit(image).double() / 255)[*inside] for image in (result, truth))
    return x, y


def to_8bit(image: Tensor) -> Tensor:
    """[3, H, W] in [0, 1] -> uint8 on the CPU, rounded to nearest."""
    return to_uint8(image.detach().cpu().float())
