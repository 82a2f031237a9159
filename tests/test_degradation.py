"""Low-res images come from high-res ones: exactly as PIL reduces, and reproducibly degraded."""

import numpy as np
import torch
from PIL import Image

from gigasr.degradation import bicubic, camera, degrade


def smooth_images(count: int, side: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    small = torch.rand(count, 3, side // 8, side // 8, generator=generator) * 2 - 1
    return torch.nn.functional.interpolate(small, (side, side), mode="bicubic").clamp(-1, 1)


def test_bicubic_equals_pil_to_one_level() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize((12, 8), Image.Resampling.BICUBIC))
    hr = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1
    levels = ((bicubic(hr, 8)[0].permute(1, 2, 0) + 1) * 127.5).round()
    assert (levels - torch.from_numpy(expected.astype(np.float32))).abs().max() <= 1


def test_low_res_images_hold_levels_of_8_bit() -> None:
    levels = (degrade(smooth_images(4, 64), 8, 0.5, torch.Generator().manual_seed(1)) + 1) * 127.5
    assert (levels - levels.round()).abs().max() < 1e-3
    assert levels.min() >= 0
    assert levels.max() <= 255


def test_the_same_rng_gives_the_same_image() -> None:
    lr = smooth_images(3, 32)
    a, b = (camera(lr, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(a, b)


def test_every_sample_is_degraded_by_its_own_draw() -> None:
    lr = smooth_images(1, 32).repeat(4, 1, 1, 1)
    degraded = camera(lr, torch.Generator().manual_seed(0))
    assert len({tuple(image.flatten().tolist()) for image in degraded}) == 4


def test_degradation_changes_details_and_keeps_the_picture() -> None:
    lr = smooth_images(2, 64)
    degraded = camera(lr, torch.Generator().manual_seed(0))
    assert degraded.shape == lr.shape
    assert 0 < (degraded - lr).abs().mean() < 0.15


def test_probability_0_is_plain_bicubic() -> None:
    hr = smooth_images(3, 64)
    assert torch.equal(degrade(hr, 8, 0.0, torch.Generator().manual_seed(0)), bicubic(hr, 8))
