"""Images that come as strips are read and resized as if they were whole."""

import weakref
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gigasr.inference.row_stream import RowStream, resize_rows


def image(height: int, width: int) -> Tensor:
    return torch.rand(1, 2, height, width, generator=torch.Generator().manual_seed(height))


def strips(x: Tensor, height: int) -> RowStream:
    return RowStream((x.shape[2], x.shape[3]), x.split(height, dim=2))


@pytest.mark.parametrize("height", [1, 3, 7, 50])
def test_any_range_that_goes_onwards_is_read(height: int) -> None:
    x = image(50, 4)
    rows = strips(x, height)
    for top, bottom in [(0, 1), (0, 10), (3, 12), (3, 12), (11, 40), (39, 50), (49, 50)]:
        assert torch.equal(rows.read(top, bottom), x[:, :, top:bottom])


def test_going_back_and_beyond_the_end_are_errors() -> None:
    rows = strips(image(50, 4), 5)
    rows.read(20, 22)
    with pytest.raises(ValueError, match=r"rows: expected a range in 20\.\.50, got 3\.\.22"):
        rows.read(3, 22)
    with pytest.raises(ValueError, match=r"rows: expected a range in 20\.\.50, got 20\.\.51"):
        rows.read(20, 51)
    with pytest.raises(ValueError, match="strips: expected 9 rows, got 8"):
        RowStream((9, 4), [image(8, 4)]).read(0, 9)


def test_strips_are_taken_when_needed_and_let_go_when_all_readers_are_past_them() -> None:
    taken: list[weakref.ref[Tensor]] = []

    def source() -> Iterator[Tensor]:
        for _ in range(10):
            strip = torch.zeros(1, 1, 4, 3)
            taken.append(weakref.ref(strip))
            yield strip
            del strip

    first = RowStream((40, 3), source())
    second = first.tee()
    first.read(18, 20)
    assert len(taken) == 5
    assert all(strip() is not None for strip in taken[:4])
    second.read(17, 18)
    assert [strip() is None for strip in taken] == [True] * 4 + [False]


def test_a_small_rest_does_not_hold_its_strip() -> None:
    rows = strips(image(64, 4), 32)
    rows.read(30, 32)
    assert rows.read(30, 32).untyped_storage().nbytes() == 2 * 2 * 4 * 4


@pytest.mark.parametrize("size", [(50, 30), (25, 30), (50, 77), (6, 4), (13, 41), (120, 33), (400, 240), (51, 31)])
@pytest.mark.parametrize("height", [1, 13, 50])
def test_resizing_strips_equals_resizing_the_whole(size: tuple[int, int], height: int) -> None:
    x = image(50, 30)
    whole = F.interpolate(x, size, mode="bicubic", antialias=True, align_corners=False)
    result = torch.cat(list(resize_rows(strips(x, height), size)), dim=2)
    torch.testing.assert_close(result, whole, atol=1e-5, rtol=0)
