from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from gigasr.inference.consistency import correct_strips, invert, scale_detail
from gigasr.inference.row_stream import RowStream
from gigasr.networks.ops import downsample_bicubic, upsample_bicubic

pytestmark = pytest.mark.numerics

SCALES = [2, 4, 8]


def correct(y: Tensor, lr: Tensor, scale: int, fidelity: float = 1.0) -> Tensor:
    """The correction of a whole image by its formula."""
    return y + fidelity * upsample_bicubic(invert(lr - downsample_bicubic(y, scale), scale), scale)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def random(height: int, width: int) -> Tensor:
    return 2 * torch.rand(1, 3, height, width) - 1


def smooth(height: int, width: int) -> Tensor:
    """A wave whose length does not depend on the size of the picture, in its share of it."""
    y, x = torch.linspace(0, 9, height)[:, None], torch.linspace(0, 5, width)
    return 0.8 * torch.stack([torch.sin(y + x + phase) for phase in range(3)])[None]


PICTURES = {"smooth": smooth, "random": random}
HEIGHTS = {  # of strips of 70 low-res rows
    "one strip": [70],
    "single rows": [1] * 70,
    "equal strips": [7] * 10,
    "one row between": [33, 1, 36],
    "one row first": [1, 69],
    "one row last": [69, 1],
    "a halo at each end": [14, 42, 14],
}


def psnr(a: Tensor, b: Tensor) -> float:
    """a, b: in [-1, 1] -> dB"""
    return -10 * torch.log10((a - b).square().mean() / 4).item()


def cut(x: Tensor, heights: list[int], scale: int) -> Iterator[Tensor]:
    yield from x.clone().split([height * scale for height in heights], dim=2)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("picture", PICTURES)
def test_a_corrected_result_reduces_to_its_input(picture: str, scale: int) -> None:
    lr, y = smooth(28, 24), PICTURES[picture](28 * scale, 24 * scale).flip(3)
    assert psnr(downsample_bicubic(y, scale), lr) < 20
    assert psnr(downsample_bicubic(correct(y, lr, scale), scale), lr) > 55


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("picture", PICTURES)
def test_inside_the_border_even_a_random_input_is_given_back(picture: str, scale: int) -> None:
    lr, y = random(28, 24), PICTURES[picture](28 * scale, 24 * scale)
    error = (downsample_bicubic(correct(y, lr, scale), scale) - lr)[:, :, 4:-4, 4:-4].abs().max().item()
    assert error < 1 / 255  # half a step of 8 bits in [-1, 1]


@pytest.mark.parametrize("scale", SCALES)
def test_a_colour_shift_is_removed_everywhere(scale: int) -> None:
    y = random(16 * scale, 12 * scale)
    shifted = y + torch.tensor([0.3, -0.2, 0.1]).view(3, 1, 1)
    torch.testing.assert_close(correct(shifted, downsample_bicubic(y, scale), scale), y, atol=1e-5, rtol=0)


def test_a_result_that_agrees_already_is_not_changed() -> None:
    y = random(64, 48)
    torch.testing.assert_close(correct(y, downsample_bicubic(y, 4), 4), y, atol=1e-6, rtol=0)


@pytest.mark.parametrize("scale", SCALES)
def test_reducing_and_upscaling_keep_constants_and_change_the_size_by_the_scale(scale: int) -> None:
    constant = torch.full((2, 3, 9, 5), 0.4)
    large = upsample_bicubic(constant, scale)
    torch.testing.assert_close(large, torch.full((2, 3, 9 * scale, 5 * scale), 0.4))
    torch.testing.assert_close(downsample_bicubic(large, scale), constant)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("heights", HEIGHTS)
def test_strips_of_any_heights_are_corrected_like_the_whole(heights: str, scale: int) -> None:
    lr, y = random(70, 6), random(70 * scale, 6 * scale)
    strips = list(correct_strips(cut(y, HEIGHTS[heights], scale), RowStream.from_tensor(lr), scale))
    torch.testing.assert_close(torch.cat(strips, dim=2), correct(y, lr, scale), atol=1e-5, rtol=0)


def test_an_image_lower_than_the_halo_is_corrected_like_the_whole() -> None:
    lr, y = random(5, 6), random(20, 24)
    strips = list(correct_strips(cut(y, [2, 2, 1], 4), RowStream.from_tensor(lr), 4, fidelity=0.5))
    torch.testing.assert_close(torch.cat(strips, dim=2), correct(y, lr, 4, 0.5), atol=1e-5, rtol=0)


@pytest.mark.parametrize("scale", [1, *SCALES])
@pytest.mark.parametrize("heights", HEIGHTS)
@pytest.mark.parametrize("detail", [0.0, 0.5, 2.0])
def test_detail_is_what_strips_add_to_the_upscaling(heights: str, scale: int, detail: float) -> None:
    lr, y = random(70, 6), random(70 * scale, 6 * scale)
    strips = list(scale_detail(cut(y, HEIGHTS[heights], scale), RowStream.from_tensor(lr), scale, detail))
    base = upsample_bicubic(lr, scale)
    torch.testing.assert_close(torch.cat(strips, dim=2), base + detail * (y - base), atol=1e-5, rtol=0)


def test_strips_are_given_out_before_all_have_come() -> None:
    lr, y = random(170, 6), random(340, 12)
    read = 0

    def strips() -> Iterator[Tensor]:
        nonlocal read
        for strip in cut(y, [10] * 17, 2):
            read += 1
            yield strip

    next(correct_strips(strips(), RowStream.from_tensor(lr), 2))
    assert read <= 5
