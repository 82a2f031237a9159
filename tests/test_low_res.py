"""Low-res inputs of an evaluation are those of the field, in 8 bit."""

import importlib
from types import ModuleType

import pytest
import torch
from torch import Tensor

from gigasr.evaluation.low_res import DEGRADATIONS, LowResKind, downsample_matlab, make_low_res
from gigasr.metrics import low_res_from, lr_psnr


def photo(height: int = 48, width: int = 64) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(0)).mul(255).round() / 255


@pytest.mark.parametrize("scale", [2, 3, 8])
def test_matlabs_bicubic_is_basicsrs_imresize_in_8_bit(basicsr: ModuleType, scale: int) -> None:
    imresize = importlib.import_module("basicsr.utils.matlab_functions").imresize
    hr = photo(48, 96)
    expected = imresize(hr.permute(1, 2, 0).numpy(), 1 / scale).clip(0, 1)
    reduced = downsample_matlab(hr, scale)
    assert reduced.shape == (3, 48 // scale, 96 // scale)
    torch.testing.assert_close(
        reduced * 255, torch.from_numpy(expected * 255).round().permute(2, 0, 1), atol=1e-3, rtol=0
    )


def test_a_round_trip_is_measured_by_the_reduction_that_made_the_input(basicsr: ModuleType) -> None:
    hr = photo()
    assert lr_psnr(hr, make_low_res(hr, 4, "matlab", 0, "a"), 4, downsample_matlab) == float("inf")
    assert lr_psnr(hr, make_low_res(hr, 4, "matlab", 0, "a"), 4) < 60


def test_bicubic_is_the_benchmarks() -> None:
    assert torch.equal(make_low_res(photo(), 4, "bicubic", 0, "a"), low_res_from(photo(), 4))


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_degraded_inputs_depend_on_the_seed_and_the_name_alone(kind: LowResKind) -> None:
    hr = photo()
    low_res = make_low_res(hr, 4, kind, 1, "a.png")
    assert low_res.shape == (3, 12, 16)
    torch.testing.assert_close(low_res * 255, (low_res * 255).round(), atol=1e-3, rtol=0)
    assert torch.equal(low_res, make_low_res(hr, 4, kind, 1, "a.png"))
    assert not torch.equal(low_res, make_low_res(hr, 4, kind, 2, "a.png"))
    assert not torch.equal(low_res, make_low_res(hr, 4, kind, 1, "b.png"))


def test_each_group_does_what_it_says() -> None:
    flat, edge = torch.full((3, 64, 64), 0.5), torch.zeros(3, 64, 64)
    edge[:, :, 33:] = 1  # not on the grid of the low-res pixels
    for seed in range(8):
        kept = [make_low_res(flat, 4, kind, seed, "a").sub(0.5).abs().max() for kind in ("blur", "resize", "jpeg")]
        assert max(kept) <= 2 / 255 < make_low_res(flat, 4, "noise", seed, "a").std() * 3
    steps = {kind: make_low_res(edge, 4, kind, 0, "a").diff(dim=2).max() for kind in ("bicubic", "blur", "resize")}
    assert steps["blur"] < steps["bicubic"] and steps["resize"] < steps["bicubic"]
