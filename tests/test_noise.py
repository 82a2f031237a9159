"""The noise field is white, and the same however it is cut."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gigasr.inference.noise import noise_field, seeded
from gigasr.inference.tiling import Tile
from gigasr.options import check_seed


@settings(deadline=None)
@given(st.integers(0, 90), st.integers(0, 90), st.integers(1, 38), st.integers(1, 38))
def test_a_crop_of_the_field_is_the_field_of_the_crop(top: int, left: int, height: int, width: int) -> None:
    whole = noise_field(7, Tile(3, 5, 128, 128), 2)
    part = noise_field(7, Tile(3 + top, 5 + left, height, width), 2)
    assert torch.equal(part, whole[:, :, top : top + height, left : left + width])


def test_a_wide_field_equals_its_columns() -> None:
    whole = noise_field(7, Tile(0, 0, 3, 70_001), 1)
    assert torch.equal(noise_field(7, Tile(0, 69_990, 3, 11), 1), whole[:, :, :, 69_990:])


def test_the_field_is_standard_normal() -> None:
    x = noise_field(0, Tile(0, 0, 700, 1000), 2).double().flatten()
    assert x.dtype == torch.float64
    assert abs(x.mean()) < 0.004
    assert abs(x.var() - 1) < 0.006
    assert abs((x**3).mean()) < 0.015
    assert abs((x**4).mean() - 3) < 0.04
    for threshold, share in [(1.0, 0.158655), (2.0, 0.022750), (3.0, 0.001350)]:
        assert abs((x > threshold).double().mean() - share) < 0.0015


def test_neighbours_channels_and_seeds_are_uncorrelated() -> None:
    tile = Tile(0, 0, 500, 500)
    x, y = noise_field(0, tile, 3)[0].double(), noise_field(1, tile, 3)[0].double()
    pairs = [(x[:, 1:], x[:, :-1]), (x[:, :, 1:], x[:, :, :-1]), (x[:, 1:, 1:], x[:, :-1, :-1])]
    pairs += [(x[0], x[1]), (x[1], x[2]), (x, y), (x[0], y[1]), (x[0], x[0].T), (x**2 - 1, y**2 - 1)]
    pairs += [(x[:, :, 16:], x[:, :, :-16]), (x[:, 64:], x[:, :-64])]
    assert all(abs((a * b).mean()) < 0.011 for a, b in pairs)


def test_the_field_has_no_visible_structure() -> None:
    x = noise_field(3, Tile(1000, 2000, 512, 512), 1)[0, 0].double()
    power = torch.fft.fft2(x).abs().square() / x.numel()  # exponential with mean 1 for white noise
    assert power.max() < 25
    blocks = power.reshape(32, 16, 32, 16).mean(dim=(1, 3))
    assert (blocks - 1).abs().max() < 0.4


def test_the_origin_of_the_first_seed_is_as_random_as_any_place() -> None:
    corners = torch.stack([noise_field(seed, Tile(0, 0, 1, 1), 3).flatten() for seed in range(2)])
    assert corners.abs().max() < 4 and len(corners.unique()) == 6


def test_the_field_does_not_change_between_releases() -> None:
    x = noise_field(-1, Tile(2**31, 5, 1, 3), 1).flatten()
    assert torch.allclose(x, torch.tensor([-0.2233307, 1.2714919, -0.5961581]), atol=1e-5)


def test_a_seed_is_any_integer_that_torch_takes() -> None:
    assert [check_seed(seed) for seed in (0, 2**63 - 1, np.int64(3), np.uint8(4), torch.tensor(5))] == [
        0,
        2**63 - 1,
        3,
        4,
        5,
    ]
    for seed in (-1, 2**63):
        with pytest.raises(ValueError, match=rf"seed: expected 0..2\*\*63 - 1, got {seed}"):
            check_seed(seed)
    for wrong in (1.0, None, "1"):
        with pytest.raises(ValueError, match="seed: expected an integer, got"):
            check_seed(wrong)  # type: ignore[arg-type]


def test_large_seeds_have_numbers_of_their_own() -> None:
    seeds = (0, 1, 2**32 - 1, 2**32, 2**32 + 1, 2**40, 2**63 - 1)
    drawn = {float(torch.randn((), generator=seeded(seed))) for seed in seeds}
    assert len(drawn) == len(seeds)
    small = torch.randn(3, generator=torch.Generator().manual_seed(7))
    assert torch.equal(torch.randn(3, generator=seeded(7)), small)


def test_threads_draw_the_same_field() -> None:
    with ThreadPoolExecutor(4) as pool:
        fields = list(pool.map(lambda _: noise_field(5, Tile(9, 9, 100, 100), 2), range(8)))
    assert all(torch.equal(field, fields[0]) for field in fields)
