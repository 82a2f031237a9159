from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gigasr.inference.tiling import (
    Tile,
    axis_ramps,
    blend_strips,
    pad_to_multiple,
    padded_side,
    plan_intervals,
    plan_tiles,
    tile_weights,
)

pytestmark = pytest.mark.numerics


def crop(x: Tensor, tile: Tile, scale: int = 1) -> Tensor:
    top, left, height, width = (scale * side for side in tile)
    return x[:, :, top : top + height, left : left + width]


def blend(process: Callable[[Tile], Tensor], tiles: list[Tile], scale: int = 1) -> Tensor:
    """The whole of what blend_strips gives."""
    return torch.cat(list(blend_strips(lambda row: map(process, row), tiles, scale)), dim=2)


def axis_plan(length: int, tile: int, overlap: int, multiple: int) -> list[tuple[int, int]]:
    return [(r.left, r.left + r.width) for r in plan_tiles(1, length, tile, overlap, multiple)]


def _axis(length: int, multiple: int, overlap: int, steps: int, rest: int) -> tuple[int, int, int, int]:
    tile = (-(-overlap // multiple) + steps) * multiple + rest % multiple
    return length, tile, overlap, multiple


axis_arguments = st.builds(
    _axis, st.integers(1, 400), st.integers(1, 12), st.integers(0, 40), st.integers(1, 7), st.integers(0, 11)
)


# plan_tiles


def test_an_image_that_fits_is_one_tile() -> None:
    assert plan_tiles(61, 64, max_side=64, overlap=16, multiple=8) == [Tile(0, 0, 61, 64)]


def test_tiles_come_in_row_major_order() -> None:
    tiles = plan_tiles(100, 150, max_side=64, overlap=8, multiple=8)
    assert tiles == sorted(tiles)
    assert len(tiles) == 2 * 3


@settings(deadline=None)
@given(axis_arguments)
def test_tiles_cover_the_axis_within_their_limits(arguments: tuple[int, int, int, int]) -> None:
    length, tile, overlap, multiple = arguments
    intervals = axis_plan(*arguments)
    assert intervals[0][0] == 0
    assert intervals[-1][1] == length
    assert all(0 < stop - start <= tile and start % multiple == 0 for start, stop in intervals)
    for (_, stop), (start, _) in zip(intervals, intervals[1:], strict=False):
        assert stop - start >= overlap


@settings(deadline=None)
@given(axis_arguments)
def test_tiles_have_one_size_but_the_last_which_is_less_than_a_multiple_smaller(
    arguments: tuple[int, int, int, int],
) -> None:
    multiple = arguments[3]
    *sizes, last = [stop - start for start, stop in axis_plan(*arguments)]
    assert len(set(sizes)) <= 1
    assert not sizes or (sizes[0] % multiple == 0 and sizes[0] - multiple < last <= sizes[0])


@settings(deadline=None)
@given(axis_arguments)
def test_no_smaller_number_of_tiles_would_do(arguments: tuple[int, int, int, int]) -> None:
    length, tile, overlap, multiple = arguments
    size = tile // multiple * multiple
    step = (size - overlap) // multiple * multiple
    count = len(axis_plan(*arguments))
    assert count == 1 or (count - 2) * step + size < length <= (count - 1) * step + size


@settings(deadline=None)
@given(axis_arguments, st.integers(1, 60))
def test_of_a_longer_image_no_tile_is_extended_beyond_what_the_whole_is(
    arguments: tuple[int, int, int, int], min_side: int
) -> None:
    length, tile, overlap, multiple = arguments
    tile = max(tile, -(-min_side // multiple) * multiple)
    tiles = plan_tiles(1, length, tile, overlap, multiple, min_side=min_side)
    ends = [each.left + padded_side(each.width, multiple, min_side) for each in tiles]
    assert max(ends) == padded_side(length, multiple, min_side)


def test_an_overlap_as_large_as_the_tile_is_an_error() -> None:
    with pytest.raises(
        ValueError, match="max_side: expected a multiple of 8 px of at least 8 px more than the overlap"
    ):
        plan_tiles(100, 100, max_side=32, overlap=32, multiple=8)


# axis_ramps, region_weights, blend_strips


@settings(deadline=None)
@given(axis_arguments)
def test_ramps_sum_to_one_and_no_more_than_two_meet(arguments: tuple[int, int, int, int]) -> None:
    length = arguments[0]
    intervals = axis_plan(*arguments)
    weights = torch.zeros(len(intervals), length)
    for row, (start, stop), ramp in zip(weights, intervals, axis_ramps(intervals), strict=True):
        row[start:stop] = ramp
    assert torch.allclose(weights.sum(dim=0), torch.ones(length), atol=1e-6, rtol=0)
    assert weights.min() >= 0
    assert (weights > 0).sum(dim=0).max() <= 2


def test_a_ramp_is_linear_over_the_middle_half_of_the_overlap() -> None:
    first, second = axis_ramps([(0, 12), (4, 16)])
    ramp = torch.tensor([1, 1, 0.875, 0.625, 0.375, 0.125, 0, 0])
    assert torch.equal(first, torch.cat([torch.ones(4), ramp]))
    assert torch.equal(second, torch.cat([ramp.flip(0), torch.ones(4)]))


def test_weights_need_a_full_grid() -> None:
    tiles = plan_tiles(100, 100, max_side=64, overlap=8, multiple=8)
    with pytest.raises(ValueError, match="expected a full grid of 2x2, got 3 tiles"):
        tile_weights(tiles[:3])


@pytest.mark.parametrize(("tile", "overlap", "multiple"), [(16, 0, 1), (16, 4, 8), (24, 15, 4), (32, 8, 8)])
def test_identity_in_is_identity_out_for_every_size(tile: int, overlap: int, multiple: int) -> None:
    for side in range(1, 98):
        height, width = side, (side * 37) % 97 + 1
        x = torch.rand(1, 2, height, width)
        tiles = plan_tiles(height, width, tile, overlap, multiple)
        y = blend(lambda r, x=x: crop(x, r), tiles)
        assert torch.allclose(y, x, atol=1e-6, rtol=0), (height, width)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 3), st.integers(0, 20), st.integers(1, 4))
def test_identity_in_is_identity_out_at_any_scale(
    height: int, width: int, scale: int, overlap: int, multiple: int
) -> None:
    x = torch.rand(2, 1, height * scale, width * scale)
    tiles = plan_tiles(height, width, overlap + 2 * multiple, overlap, multiple)
    y = blend(lambda r: crop(x, r, scale), tiles, scale)
    assert torch.allclose(y, x, atol=1e-6, rtol=0)


def test_a_local_function_gives_the_same_by_tiles_as_at_once() -> None:
    x, kernel = torch.rand(1, 1, 70, 90), torch.rand(1, 1, 5, 5) / 12.5
    whole = F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel)

    def with_halo(tile: Tile) -> Tensor:
        top, left, height, width = tile
        padded = F.pad(x, (2, 2, 2, 2), mode="reflect")
        return F.conv2d(padded[:, :, top : top + height + 4, left : left + width + 4], kernel)

    y = blend(with_halo, plan_tiles(70, 90, 32, 8, 4))
    assert torch.allclose(y, whole, atol=1e-6, rtol=0)


def test_tiles_that_disagree_are_cross_faded_without_a_step() -> None:
    tiles = plan_tiles(8, 64, max_side=32, overlap=16, multiple=8)
    levels = {tile: float(i % 2) for i, tile in enumerate(tiles)}
    y = blend(lambda r: torch.full((1, 1, r.height, r.width), levels[r]), tiles)
    assert y.min() == 0
    assert y.max() > 0.9
    assert y.diff(dim=3).abs().max() <= 2 / 16 + 1e-6


def test_blending_keeps_the_dtype_and_channels_last() -> None:
    tiles = plan_tiles(40, 40, max_side=24, overlap=8, multiple=8)
    ones = torch.ones(1, 2, 24, 24, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    for strip in blend_strips(lambda row: [ones] * len(row), tiles):
        assert strip.dtype == torch.bfloat16
        assert strip.is_contiguous(memory_format=torch.channels_last)
        assert (strip.float() - 1).abs().max() <= 2**-7


def test_a_strip_is_given_out_as_soon_as_its_row_of_tiles_is_done() -> None:
    tiles = plan_tiles(100, 20, max_side=24, overlap=8, multiple=8)
    rows: list[list[Tile]] = []

    def process(row: list[Tile]) -> list[Tensor]:
        rows.append(row)
        return [torch.ones(1, 1, r.height, r.width) for r in row]

    strips = blend_strips(process, tiles)
    assert next(strips).shape[2] == 16
    assert rows == [tiles[:1]]


def test_a_result_of_the_wrong_size_is_an_error_that_names_the_tile() -> None:
    with pytest.raises(ValueError, match=r"expected \[B, C, 5, 6\] for Tile\(top=0, left=0, height=5, width=6\)"):
        blend(lambda r: torch.ones(1, 1, 8, 8), plan_tiles(5, 6, 8, 0, 8))


# plan_intervals


@settings(deadline=None)
@given(st.integers(1, 500), st.integers(1, 100), st.integers(0, 40))
def test_intervals_cover_every_px_once_and_read_their_halo(length: int, max_length: int, halo: int) -> None:
    intervals = plan_intervals(length, max_length, halo)
    assert [px for s in intervals for px in range(s.start, s.stop)] == list(range(length))
    lengths = [s.stop - s.start for s in intervals]
    assert max(lengths) <= max_length
    assert max(lengths) - min(lengths) <= 1
    assert all(s.read_start == max(s.start - halo, 0) for s in intervals)
    assert all(s.read_stop == min(s.stop + halo, length) for s in intervals)


@settings(deadline=None)
@given(st.integers(1, 500), st.integers(1, 100), st.integers(1, 40))
def test_intervals_begin_at_multiples_and_are_as_long_as_asked_or_one(length: int, max_length: int, align: int) -> None:
    intervals = plan_intervals(length, max_length, 3, align)
    assert [px for s in intervals for px in range(s.start, s.stop)] == list(range(length))
    assert all(s.start % align == 0 and 0 < s.stop - s.start <= max(max_length, align) for s in intervals)


def test_an_empty_interval_is_an_error() -> None:
    with pytest.raises(ValueError, match="max_length: expected at least 1, got 0"):
        plan_intervals(10, 0, 2)


# pad_to_multiple


def test_padding_reflects_like_torch_where_torch_can() -> None:
    x = torch.rand(2, 3, 13, 10)
    assert torch.equal(pad_to_multiple(x, 8), F.pad(x, (0, 6, 0, 3), mode="reflect"))


def test_padding_mirrors_as_often_as_needed() -> None:
    x = torch.tensor([[[[1.0, 2, 3]]]])
    assert pad_to_multiple(x, 4, minimum=9)[0, 0, 5].tolist() == [1, 2, 3, 2, 1, 2, 3, 2, 1, 2, 3, 2]


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 16), st.integers(0, 40))
def test_padding_gives_the_smallest_size_for_every_image(height: int, width: int, multiple: int, minimum: int) -> None:
    x = torch.rand(1, 1, height, width)
    y = pad_to_multiple(x, multiple, minimum)
    assert torch.equal(y[:, :, :height, :width], x)
    for padded, side in zip(y.shape[2:], (height, width), strict=True):
        assert padded % multiple == 0
        assert max(side, minimum) <= padded < max(side, minimum) + multiple


def test_an_image_that_fits_is_not_copied() -> None:
    x = torch.rand(1, 3, 16, 8)
    assert pad_to_multiple(x, 8) is x
