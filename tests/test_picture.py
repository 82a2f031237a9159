"""A picture refuses wrong parts, and its hidden colours stay hidden."""

import pytest
import torch
from torch import Tensor

from gigasr.files.picture import Picture, fill_transparent


def test_a_picture_gives_its_size_as_height_and_width() -> None:
    assert Picture(torch.zeros(3, 4, 5)).size == (4, 5)


@pytest.mark.parametrize(
    ("rgb", "alpha", "bit_depth", "message"),
    [
        (torch.zeros(1, 4, 5), None, 8, r"picture.rgb: expected \[3, H, W\] float32, got \[1, 4, 5\]"),
        (torch.zeros(3, 4, 5).half(), None, 8, "got .* torch.float16"),
        (torch.zeros(3, 4, 5), torch.zeros(1, 4, 4), 8, r"picture.alpha: expected \[1, 4, 5\] float32"),
        (torch.zeros(3, 4, 5), None, 12, "picture.bit_depth: expected 8 or 16, got 12"),
    ],
)
def test_a_picture_refuses_wrong_parts(rgb: Tensor, alpha: Tensor | None, bit_depth: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Picture(rgb, alpha, bit_depth=bit_depth)


def test_visible_colours_and_opaque_pictures_are_left_alone() -> None:
    rgb, alpha = torch.rand(3, 9, 6), torch.rand(1, 9, 6).clamp_min(1 / 65535)
    assert fill_transparent(rgb, alpha) is rgb
    alpha[:, 2:5] = 0
    visible = (alpha > 0).expand(3, -1, -1)
    assert torch.equal(fill_transparent(rgb, alpha)[visible], rgb[visible])


@pytest.mark.parametrize(("height", "width"), [(8, 8), (1, 7), (33, 5)])
def test_hidden_colours_do_not_leak_into_visible_ones(height: int, width: int) -> None:
    """A red shape on transparent green, upscaled: no pixel may turn greenish."""
    rgb, alpha = torch.zeros(3, height, width), torch.zeros(1, height, width)
    rgb[1] = 1
    rgb[:, : height // 2 + 1, 2:4] = torch.tensor([1.0, 0, 0]).view(3, 1, 1)
    alpha[:, : height // 2 + 1, 2:4] = 1
    filled = fill_transparent(rgb, alpha)
    upscaled = torch.nn.functional.interpolate(filled[None], scale_factor=4, mode="bilinear")
    assert upscaled[:, 1].max() == 0
    assert upscaled[:, 0].min() > 0.999


def test_a_wholly_transparent_picture_becomes_finite() -> None:
    assert fill_transparent(torch.rand(3, 5, 4), torch.zeros(1, 5, 4)).isfinite().all()
