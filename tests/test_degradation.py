"""Low-res images come from high-res ones: exactly as PIL reduces, and reproducibly degraded."""

import io
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from gigasr.config.training import DegradationConfig
from gigasr.data import real_esrgan as so
from gigasr.data.degradation import bicubic_low_res, degrade, degrade_mild
from gigasr.pixels import quantize_8bit

WAYS = {
    "mild": DegradationConfig(mild=1.0),
    "real_esrgan": DegradationConfig(real_esrgan=1.0),
    "mixed": DegradationConfig(mild=0.3, real_esrgan=0.4, noise=0.1),
}
each_way = pytest.mark.parametrize("config", WAYS.values(), ids=WAYS)


def smooth_images(count: int, side: int) -> Tensor:
    small = torch.rand(count, 3, side // 8, side // 8, generator=seeded(0)) * 2 - 1
    return F.interpolate(small, (side, side), mode="bicubic").clamp(-1, 1)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rngs(count: int, first: int = 0) -> list[torch.Generator]:
    return [seeded(first + i) for i in range(count)]


def moments(kernel: Tensor) -> tuple[float, float, float]:
    """returns: variances along y and x and the covariance, px^2"""
    y, x = so.grid(len(kernel))
    kernel = kernel / kernel.sum()
    return tuple((kernel * product).sum().item() for product in (y * y, x * x, x * y))


def test_bicubic_equals_pil_to_one_level() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize((12, 8), Image.Resampling.BICUBIC))
    hr = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1
    levels = ((bicubic_low_res(hr, 8)[0].permute(1, 2, 0) + 1) * 127.5).round()
    assert (levels - torch.from_numpy(expected.astype(np.float32))).abs().max() <= 1


def test_no_shares_and_no_noise_are_plain_bicubic() -> None:
    hr = smooth_images(3, 64)
    assert torch.equal(degrade(hr, 8, DegradationConfig(), rngs(3)), bicubic_low_res(hr, 8))


@pytest.mark.parametrize("way", ["mild", "real_esrgan"])
def test_low_res_images_hold_levels_of_8_bit(way: str) -> None:
    levels = (degrade(smooth_images(4, 64), 8, WAYS[way], rngs(4)) + 1) * 127.5
    assert (levels - levels.round()).abs().max() < 1e-3
    assert levels.min() >= 0
    assert levels.max() <= 255


@each_way
@pytest.mark.parametrize("scale", [2, 4, 8])
def test_sizes_are_those_of_the_truth_over_the_scale(config: DegradationConfig, scale: int) -> None:
    hr = F.interpolate(smooth_images(3, 64), (40, 88))
    assert degrade(hr, scale, config, rngs(3)).shape == (3, 3, 40 // scale, 88 // scale)


@each_way
def test_the_same_generator_state_gives_the_same_image_and_another_does_not(config: DegradationConfig) -> None:
    hr = smooth_images(3, 64)
    a, b, c = (degrade(hr, 4, config, rngs(3, first)) for first in (0, 0, 3))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


@each_way
def test_batch_mates_change_nothing(config: DegradationConfig) -> None:
    hr = smooth_images(4, 64)
    together = degrade(hr, 4, config, rngs(4))
    alone = [degrade(hr[i : i + 1], 4, config, [seeded(i)]) for i in range(4)]
    assert (together - torch.cat(alone)).abs().max() < 1e-5


def test_the_callers_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    degrade(smooth_images(6, 16), 4, WAYS["mixed"], rngs(6))
    assert torch.equal(before, torch.get_rng_state())


@each_way
def test_every_image_is_degraded_by_its_own_draw(config: DegradationConfig) -> None:
    lr = degrade(smooth_images(1, 64).repeat(4, 1, 1, 1), 4, config, rngs(4))
    assert len({tuple(image.flatten().tolist()) for image in lr}) == 4


@each_way
def test_degradation_changes_details_and_keeps_the_picture(config: DegradationConfig) -> None:
    hr = F.interpolate(smooth_images(6, 32), (128, 128), mode="bicubic").clamp(-1, 1)
    lr, clean = degrade(hr, 4, config, rngs(6)), bicubic_low_res(hr, 4)
    assert (lr - clean).abs().mean() > 0.001
    assert torch.corrcoef(torch.stack([F.avg_pool2d(x, 4).flatten() for x in (lr, clean)]))[0, 1] > 0.95


def test_shares_are_those_of_the_config() -> None:
    hr = smooth_images(1, 16).expand(120, -1, -1, -1)
    lr, plain = degrade(hr, 8, DegradationConfig(mild=0.3, real_esrgan=0.2), rngs(120)), bicubic_low_res(hr, 8)
    used = rngs(120)
    draws = torch.stack([torch.rand((), generator=rng) for rng in used])
    is_plain = (lr == plain).flatten(1).all(dim=1)
    assert is_plain.float().mean() == pytest.approx(0.5, abs=0.1)
    assert torch.equal(is_plain, draws >= 0.5)
    mild = [i for i, draw in enumerate(draws) if draw < 0.3]
    assert len(mild) / 120 == pytest.approx(0.3, abs=0.1)
    assert torch.equal(lr[mild], degrade_mild(plain[mild], [used[i] for i in mild]))


def test_noise_is_added_after_rounding_with_a_std_up_to_the_config() -> None:
    hr = torch.zeros(200, 3, 32, 32)
    noise = degrade(hr, 1, DegradationConfig(noise=0.2), rngs(200)) - quantize_8bit(torch.zeros(()))
    stds = noise.flatten(1).std(dim=1)
    assert stds.max() < 0.21
    assert abs(stds.mean() - 0.1) < 0.012
    assert abs(stds.std() - 0.2 / math.sqrt(12)) < 0.01
    assert noise.mean().abs() < 1e-3


def test_one_generator_too_few_is_an_error() -> None:
    with pytest.raises(ValueError, match="rngs: expected 2 generators, got 1"):
        degrade(smooth_images(2, 16), 4, DegradationConfig(), rngs(1))


def test_drawn_kernels_are_21_px_wide_and_sum_to_1() -> None:
    kernels = torch.stack([so.draw_blur_kernel((0.2, 3.0), seeded(i)) for i in range(300)])
    assert kernels.shape == (300, 21, 21)
    assert (kernels.sum(dim=(1, 2)) - 1).abs().max() < 1e-5
    assert (kernels - kernels.flip(1, 2)).abs().max() < 1e-6
    sides = (kernels != 0).sum(dim=(1, 2)).float().sqrt()
    assert sides.max() == 21


def test_a_tenth_of_the_kernels_ring() -> None:
    ringing = [bool((so.draw_blur_kernel((0.2, 3.0), seeded(i)) < 0).any()) for i in range(1000)]
    assert abs(sum(ringing) / 1000 - 0.1) < 0.03


def test_sizes_of_kernels_are_all_odd_numbers_from_7_to_21() -> None:
    assert {so.draw_size(seeded(i)) for i in range(200)} == set(range(7, 22, 2))


def test_the_variance_of_a_gaussian_kernel_is_its_sigma_squared() -> None:
    kernel = so.generalised_gaussian(so.squared_distance(21, 1.7, 1.7, 0.3), 1.0)
    assert moments(kernel) == pytest.approx((1.7**2, 1.7**2, 0), abs=1e-3)
    assert torch.allclose(kernel, kernel.T)


def test_the_ellipse_of_a_kernel_turns_with_the_angle() -> None:
    def turned(angle: float) -> tuple[float, float, float]:
        return moments(so.generalised_gaussian(so.squared_distance(21, 2.0, 1.0, angle), 1.0))

    assert turned(0) == pytest.approx((1, 4, 0), abs=1e-2)
    assert turned(math.pi / 2) == pytest.approx((4, 1, 0), abs=1e-2)
    assert turned(math.pi / 4) == pytest.approx((2.5, 2.5, 1.5), abs=1e-2)


def test_a_larger_beta_flattens_the_top_and_steepens_the_side() -> None:
    inside, outside = torch.tensor(0.5), torch.tensor(2.0)
    for profile in (so.generalised_gaussian, so.plateau):
        assert profile(inside, 4.0) > profile(inside, 1.0)
        assert profile(outside, 4.0) < profile(outside, 1.0)


def test_the_sinc_kernel_has_the_values_of_the_bessel_function() -> None:
    kernel = so.sinc_kernel(9, 1.0)
    assert kernel[4, 5] / kernel[4, 4] == pytest.approx(2 * 0.4400505857, rel=1e-5)  # J1(1)
    assert kernel[4, 8] / kernel[4, 4] == pytest.approx(2 * -0.0660433280 / 4, rel=1e-5)  # J1(4)
    assert so.sinc_kernel(9, 3.8317059702 / 3)[1, 4].abs() < 1e-7  # the first zero of J1


def test_a_sinc_keeps_waves_below_its_cutoff_and_stops_those_above() -> None:
    y, x = so.grid(201)
    kernel = so.sinc_kernel(201, math.pi / 2)
    response = [(kernel * torch.cos(frequency * x)).sum().item() for frequency in (1.2, 1.9)]
    assert response == pytest.approx([1, 0], abs=0.1)


def test_blur_filters_each_image_with_its_own_kernel() -> None:
    x, kernels = torch.rand(2, 3, 9, 8, generator=seeded(0)), torch.rand(2, 5, 5, generator=seeded(1))
    padded = F.pad(x, (2, 2, 2, 2), mode="replicate")
    expected = torch.zeros_like(x)
    for b in range(2):
        for i in range(9):
            for j in range(8):
                expected[b, :, i, j] = (padded[b, :, i : i + 5, j : j + 5] * kernels[b]).sum(dim=(1, 2))
    assert torch.allclose(so.blur(x, kernels), expected, atol=1e-5)


def test_shrinking_leaves_no_trace_of_waves_too_fine_for_the_new_size() -> None:
    stripes = torch.arange(64).remainder(2).float().expand(1, 3, 64, 64)
    for seed in range(12):
        inner = so.random_resize(stripes, (16, 13), seeded(seed))[..., 2:-2, 2:-2]
        assert (inner - 0.5).abs().max() < 0.11


def test_the_variance_of_poisson_noise_grows_with_the_intensity() -> None:
    for level in (25, 100, 200):
        noise = so.poisson_noise(torch.full((1, 3, 128, 128), level / 255), 2.0, False, seeded(level))
        assert noise.mean().abs() < 0.01
        assert noise.var() == pytest.approx(2.0**2 * level / 255**2, rel=0.05)


def test_gaussian_noise_has_its_std() -> None:
    noise = so.gaussian_noise(torch.zeros(1, 3, 128, 128), 0.07, False, seeded(0))
    assert noise.std() == pytest.approx(0.07, rel=0.02)
    assert torch.corrcoef(noise[0].flatten(1)).fill_diagonal_(0).abs().max() < 0.05


def test_four_tenths_of_the_noise_is_grey_and_equal_over_channels() -> None:
    x = torch.full((1, 3, 8, 8), 0.5)
    noise = torch.cat([so.add_drawn_noise(x, so.FIRST, seeded(i)) - x for i in range(500)])
    is_grey = (noise == noise[:, :1]).all(dim=(1, 2, 3))
    assert abs(is_grey.float().mean() - 0.4) < 0.07


def test_jpeg_is_close_to_that_of_a_file() -> None:
    x = (smooth_images(1, 64) + 1) / 2
    pixels = (x[0].permute(1, 2, 0) * 255).round().byte().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=40, subsampling="4:2:0")
    expected = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1) / 255
    error, difference = (expected - x[0]).abs().mean(), (so.jpeg(x, [40.0])[0] - expected).abs().mean()
    assert difference < 0.6 * error


def test_jpeg_compresses_each_image_at_its_own_quality() -> None:
    x = torch.rand(1, 3, 21, 30, generator=seeded(0)).repeat(3, 1, 1, 1)
    errors = (so.jpeg(x, [20.0, 60.0, 95.0]) - x).abs().mean(dim=(1, 2, 3))
    assert errors[0] > errors[1] > errors[2]


def test_resize_factors_follow_their_shares_and_range() -> None:
    factors = torch.tensor([so.draw_factor(so.FIRST, seeded(i)) for i in range(1000)])
    assert factors.min() >= 0.15
    assert factors.max() <= 1.5
    shares = [(factors > 1).float().mean(), (factors < 1).float().mean(), (factors == 1).float().mean()]
    assert shares == pytest.approx([0.2, 0.7, 0.1], abs=0.04)


def test_at_larger_scales_the_ranges_act_at_four_times_the_low_res_size() -> None:
    hr = smooth_images(3, 64).repeat_interleave(2, 2).repeat_interleave(2, 3)
    at_8 = so.degrade_real_esrgan(hr, 8, rngs(3))
    reduced = F.interpolate(hr, (64, 64), mode="bicubic", antialias=True)
    assert (at_8 - so.degrade_real_esrgan(reduced, 4, rngs(3))).abs().max() < 0.02
