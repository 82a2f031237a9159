"""A picture that comes from left to right is given from top to bottom, exactly."""

import pytest
import torch
from picture_files import random_picture, samples_of
from torch import Tensor

import gigasr.files.transpose
from gigasr.files.picture import Picture, PictureStrips
from gigasr.files.transpose import transpose, transpose_strips


def strips(picture: Picture, rows: int) -> PictureStrips:
    tops = range(0, picture.size[0], rows)

    def part(x: Tensor | None, top: int) -> Tensor | None:
        return None if x is None else x[:, top : top + rows]

    parts = (Picture(part(picture.rgb, t), part(picture.alpha, t), picture.is_gray, picture.bit_depth) for t in tops)
    return PictureStrips(picture.size, parts)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("has_alpha", [False, True])
@pytest.mark.parametrize("rows", [1, 4, 99])
def test_strips_of_columns_become_strips_of_rows(
    monkeypatch: pytest.MonkeyPatch, bits: int, has_alpha: bool, rows: int
) -> None:
    monkeypatch.setattr(gigasr.files.transpose, "TRANSPOSED_STRIP_BYTES", 2 * 4 * 4 * 11)
    picture = random_picture(bits, is_gray=False, has_alpha=has_alpha)
    result = list(transpose_strips(strips(transpose(picture), rows)))
    assert all(strip.size[1] == 11 and strip.size[0] <= 2 for strip in result)
    planes = [torch.cat([strip.rgb for strip in result], dim=1)]
    alpha = torch.cat([strip.alpha for strip in result], dim=1) if has_alpha else None
    whole = Picture(planes[0], alpha, bit_depth=bits)
    assert (samples_of(whole) == samples_of(picture)).all()


def test_a_mirrored_picture_keeps_what_its_file_said() -> None:
    picture = Picture(torch.rand(3, 4, 6), is_gray=True, dpi=(300.0, 150.0), icc_profile=b"profile", exif=b"exif")
    transposed = transpose(picture)
    assert torch.equal(transposed.rgb[:, 5, 1], picture.rgb[:, 1, 5])
    assert (transposed.size, transposed.dpi) == ((6, 4), (150.0, 300.0))
    assert (transposed.is_gray, transposed.icc_profile, transposed.exif) == (True, b"profile", b"exif")
    assert transpose(transposed).dpi == picture.dpi
