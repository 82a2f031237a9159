import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.attention import SDPBackend, sdpa_kernel

from gigasr.networks.ops import (
    add_upsampled_,
    blur_kernel,
    by_position,
    conv2d_per_sample,
    demodulate,
    depth_to_space,
    filter_axes,
    gaussian_taps,
    l2_attention,
    modulate,
    select_kernel,
    upsample2d,
    upsample_bicubic,
)

pytestmark = pytest.mark.numerics


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def doubles(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def has_first_and_second_derivatives(function: Callable[..., Tensor], *inputs: Tensor) -> bool:
    inputs = tuple(x.requires_grad_() for x in inputs)
    return gradcheck(function, inputs, fast_mode=True) and gradgradcheck(function, inputs, fast_mode=True)


# the adaptive kernel


def test_the_selected_kernel_is_the_softmax_weighted_sum_of_the_bank() -> None:
    bank, logits = doubles(3, 4, 5, 3, 3), doubles(2, 3)
    kernel = select_kernel(bank, logits)
    for b in range(2):
        scores = [math.exp(x) for x in logits[b].tolist()]
        expected = sum(score / sum(scores) * member for score, member in zip(scores, bank, strict=True))
        torch.testing.assert_close(kernel[b], expected)


def test_one_hot_logits_pick_that_kernel_exactly() -> None:
    bank, x = torch.randn(3, 4, 5, 3, 3), torch.randn(2, 5, 6, 7)
    kernel = select_kernel(bank, 1e4 * torch.eye(3)[[2, 0]])
    assert torch.equal(kernel, bank[[2, 0]])
    torch.testing.assert_close(conv2d_per_sample(x, kernel)[:1], F.conv2d(x[:1], bank[2], padding=1))


@pytest.mark.parametrize("batch", [1, 2])
def test_modulation_scales_each_input_channel_of_each_sample(batch: int) -> None:
    kernel, styles = torch.randn(batch, 4, 5, 3, 3), torch.randn(2, 5)
    modulated = modulate(kernel, styles)
    for b in range(2):
        for i in range(5):
            assert torch.equal(modulated[b, :, i], kernel[b % batch, :, i] * styles[b, i])


def test_demodulation_gives_unit_norm_and_keeps_the_direction() -> None:
    kernel = 7 * torch.randn(2, 4, 5, 3, 3)
    demodulated = demodulate(kernel)
    for b in range(2):
        for o in range(4):
            torch.testing.assert_close(demodulated[b, o], kernel[b, o] / kernel[b, o].norm())
            torch.testing.assert_close(demodulated[b, o].norm(), torch.tensor(1.0))


def test_a_demodulated_convolution_keeps_unit_variance() -> None:
    kernel = demodulate(modulate(torch.randn(2, 8, 16, 3, 3), 5 * torch.randn(2, 16)))
    y = conv2d_per_sample(torch.randn(2, 16, 66, 66), kernel)[:, :, 1:-1, 1:-1]
    torch.testing.assert_close(y.var(dim=(2, 3)).mean(), torch.tensor(1.0), atol=0.05, rtol=0)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_conv2d_per_sample_equals_a_loop_over_the_samples(size: int) -> None:
    x, kernel = torch.randn(3, 4, 6, 7), torch.randn(3, 2, 4, size, size)
    expected = [F.conv2d(x[b : b + 1], kernel[b], padding=size // 2) for b in range(3)]
    torch.testing.assert_close(conv2d_per_sample(x, kernel), torch.cat(expected), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [1, 3])
def test_conv2d_per_sample_equals_a_grouped_convolution_and_so_do_its_gradients(
    size: int, memory_format: torch.memory_format
) -> None:
    x = doubles(3, 4, 6, 7).contiguous(memory_format=memory_format).requires_grad_()
    kernel, bias = doubles(3, 2, 4, size, size).requires_grad_(), doubles(2).requires_grad_()
    y = conv2d_per_sample(x, kernel, bias)
    grouped = F.conv2d(
        x.reshape(1, 12, 6, 7), kernel.flatten(0, 1), bias.repeat(3), padding=size // 2, groups=3
    ).view_as(y)
    torch.testing.assert_close(y, grouped)
    grad = doubles(*y.shape)
    ours, theirs = (torch.autograd.grad(output, (x, kernel, bias), grad) for output in (y, grouped))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_depth_to_space_is_the_pixel_shuffle_of_channels_ordered_by_position(
    memory_format: torch.memory_format,
) -> None:
    x = doubles(2, 12, 3, 5).contiguous(memory_format=memory_format)
    y = depth_to_space(by_position(x, 4, dim=1).contiguous(memory_format=memory_format))
    assert torch.equal(y, F.pixel_shuffle(x, 2)) and y.is_contiguous(memory_format=memory_format)


def test_the_adaptive_convolution_is_twice_differentiable() -> None:
    def convolve(x: Tensor, bank: Tensor, logits: Tensor, styles: Tensor) -> Tensor:
        return conv2d_per_sample(x, demodulate(modulate(select_kernel(bank, logits), styles)))

    assert has_first_and_second_derivatives(
        convolve, doubles(2, 2, 4, 3), doubles(3, 2, 2, 3, 3), doubles(2, 3), doubles(2, 2)
    )


# resampling


def naive_upfirdn(x: Tensor, kernel: Tensor, up: int, down: int, padding: tuple[int, int]) -> Tensor:
    """Insert zeros, pad, filter, keep every down-th pixel: one output pixel at a time."""
    batch, channels, height, width = x.shape
    spread = x.new_zeros(batch, channels, height * up, width * up)
    spread[:, :, ::up, ::up] = x
    spread = F.pad(spread, padding + padding)
    size = len(kernel)
    rows, columns = (range(0, spread.shape[dim] - size + 1, down) for dim in (2, 3))
    y = x.new_zeros(batch, channels, len(rows), len(columns))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            patch = spread[:, :, row : row + size, column : column + size]
            y[:, :, i, j] = (patch * kernel.flip(0, 1)).sum(dim=(2, 3))
    return y


def test_the_blur_kernel_is_the_outer_product_of_1_3_3_1() -> None:
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    assert torch.equal(blur_kernel(), taps[:, None] * taps)


def test_upsampling_equals_a_naive_upfirdn() -> None:
    x = doubles(2, 3, 4, 5)
    expected = naive_upfirdn(x, 4 * blur_kernel(dtype=x.dtype), up=2, down=1, padding=(2, 1))
    assert expected.shape == (2, 3, 8, 10)
    torch.testing.assert_close(upsample2d(x), expected)


def test_upsampling_keeps_a_constant_inside_the_border() -> None:
    interior = upsample2d(torch.full((1, 2, 8, 10), 0.7))[:, :, 1:-1, 1:-1]
    torch.testing.assert_close(interior, torch.full_like(interior, 0.7))


def test_upsampling_is_twice_differentiable() -> None:
    assert has_first_and_second_derivatives(upsample2d, doubles(1, 2, 4, 6))


# attention


def naive_l2_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    distances = (q[:, :, :, None] - k[:, :, None]).square().sum(dim=-1)
    logits = -distances / math.sqrt(8 * q.shape[-1])
    if mask is not None:
        logits = logits.masked_fill(~mask[:, None, None], -torch.inf)
    return logits.softmax(dim=-1) @ v


MASKS = {
    "no mask": None,
    "one mask for all": torch.tensor([[True, False, True, True, False, True, True]]),
    "a mask per sample": torch.tensor([[True] * 7, [False] * 3 + [True] * 4]),
}


@pytest.mark.parametrize("dim", [3, 8])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
def test_l2_attention_is_the_softmax_of_negative_squared_distances(mask: Tensor | None, dim: int) -> None:
    q, k, v = torch.randn(2, 2, 5, dim), torch.randn(2, 2, 7, dim), torch.randn(2, 2, 7, dim)
    torch.testing.assert_close(l2_attention(q, k, v, mask), naive_l2_attention(q, k, v, mask), atol=1e-5, rtol=1e-4)


def test_masked_keys_change_nothing() -> None:
    q, k, v = torch.randn(2, 2, 5, 4), torch.randn(2, 2, 7, 4), torch.randn(2, 2, 7, 4)
    mask = MASKS["one mask for all"]
    y = l2_attention(q, k, v, mask)
    k[:, :, ~mask[0]], v[:, :, ~mask[0]] = 9.0, -9.0
    assert torch.equal(l2_attention(q, k, v, mask), y)


def test_l2_attention_sees_only_distances() -> None:
    q, k, v = doubles(1, 2, 5, 4), doubles(1, 2, 7, 4), doubles(1, 2, 7, 4)
    torch.testing.assert_close(l2_attention(q + 3, k + 3, v), l2_attention(q, k, v))


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
def test_l2_attention_is_twice_differentiable(mask: Tensor | None) -> None:
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no second derivative
        assert has_first_and_second_derivatives(
            lambda q, k, v: l2_attention(q, k, v, mask), doubles(2, 1, 3, 2), doubles(2, 1, 7, 2), doubles(2, 1, 7, 2)
        )


# resampling


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (7, 3), (40, 33)])
@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_upscale_equals_torch_with_and_without_gradients(scale: int, height: int, width: int) -> None:
    x = 2 * torch.rand(1, 3, height, width) - 1
    expected = F.interpolate(x, scale_factor=scale, mode="bicubic", align_corners=False)
    torch.testing.assert_close(upsample_bicubic(x, scale), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(upsample_bicubic(x.requires_grad_(), scale), expected, atol=0, rtol=0)


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_add_upscaled_adds_the_inner_rows_of_what_upscale_gives(scale: int) -> None:
    x, y = torch.rand(2, 3, 9, 7), torch.rand(2, 3, 5 * scale, 7 * scale)
    expected = y + 0.3 * upsample_bicubic(x, scale)[:, :, 2 * scale : 7 * scale]
    add_upsampled_(y, x, scale, 0.3)
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_filtering_does_not_depend_on_the_memory_format(dtype: torch.dtype) -> None:
    x, taps = torch.randn(2, 3, 32, 32).to(dtype), gaussian_taps(4.0, 12)
    assert torch.equal(filter_axes(x.contiguous(memory_format=torch.channels_last), taps), filter_axes(x, taps))
