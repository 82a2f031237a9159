"""Low-res inputs of an evaluation are those of the field, in 8 bit."""

import importlib
from types import ModuleType

import pytest
import torch
from torch import Tensor

from gigasr.low_res import make_low_res, reduce_matlab
from gigasr.metrics import low_res_from, lr_psnr


def photo(height: int = 48, width: int = 64) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(0)).mul(255).round() / 255


@pytest.mark.parametrize("scale", [2, 3, 8])
def test_matlabs_bicubic_is_basicsrs_imresize_in_8_bit(basicsr: ModuleType, scale: int) -> None:
    imresize = importlib.import_module("basicsr.utils.matlab_functions").imresize
    hr = photo(48, 96)
    expected = imresize(hr.permute(1, 2, 0).numpy(), 1 / scale).clip(0, 1)
    reduced = reduce_matlab(hr, scale)
    assert reduced.shape == (3, 48 // scale, 96 // scale)
    torch.testing.assert_close(
        reduced * 255, torch.from_numpy(expected * 255).round().permute(2, 0, 1), atol=1e-3, rtol=0
    )


def test_a_round_trip_is_measured_by_the_reduction_that_made_the_input(basicsr: ModuleType) -> None:
    hr = photo()
    assert lr_psnr(hr, make_low_res(hr, 4, "matlab", 0, "a"), 4, reduce_matlab) == float("inf")
    assert lr_psnr(hr, make_low_res(hr, 4, "matlab", 0, "a"), 4) < 60


def test_bicubic_is_the_benchmarks() -> None:
    assert torch.equal(make_low_res(photo(), 4, "bicubic", 0, "a"), low_res_from(photo(), 4))


def test_blind_inputs_depend_on_the_seed_and_the_name_alone() -> None:
    hr = photo()
    low_res = make_low_res(hr, 4, "blind", 1, "a.png")
    assert low_res.shape == (3, 12, 16)
    torch.testing.assert_close(low_res * 255, (low_res * 255).round(), atol=1e-3, rtol=0)
    assert torch.equal(low_res, make_low_res(hr, 4, "blind", 1, "a.png"))
    assert not torch.equal(low_res, make_low_res(hr, 4, "blind", 2, "a.png"))
    assert not torch.equal(low_res, make_low_res(hr, 4, "blind", 1, "b.png"))
