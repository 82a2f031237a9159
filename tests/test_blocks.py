import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gigasr.networks.blocks import (
    AdaptiveConv2d,
    DownBlock,
    EqualizedConv2d,
    EqualizedLinear,
    MappingNetwork,
    ResidualBlock,
    ToRGB,
    UpBlock,
    scale_styles,
)
from gigasr.networks.ops import conv2d_per_sample

SQRT2 = math.sqrt(2)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def shaken(module: nn.Module) -> nn.Module:
    """The module with every parameter moved, so that no bias is 0 and no gain 1."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return module.requires_grad_(False)


# equalised layers


@pytest.mark.parametrize("learning_rate_multiplier", [1.0, 0.01])
def test_an_equalized_linear_layer_has_unit_gain_and_its_bias_whatever_its_rate(
    learning_rate_multiplier: float,
) -> None:
    y = (
        EqualizedLinear(256, 64, bias_init=3.0, learning_rate_multiplier=learning_rate_multiplier)(
            torch.randn(512, 256)
        )
        - 3
    )
    assert y.mean().item() == pytest.approx(0, abs=0.02)
    assert y.std().item() == pytest.approx(1, abs=0.05)


def test_the_learning_rate_multiplier_scales_weight_and_bias_gradients() -> None:
    x = torch.randn(5, 8)
    one, tenth = EqualizedLinear(8, 4), EqualizedLinear(8, 4, learning_rate_multiplier=0.1)
    for layer in (one, tenth):
        layer(x).sum().backward()
    torch.testing.assert_close(tenth.weight.grad, 0.1 * one.weight.grad)
    torch.testing.assert_close(tenth.bias.grad, 0.1 * one.bias.grad)


@pytest.mark.parametrize(("kernel_size", "stride", "activate"), [(1, 1, False), (3, 1, True), (3, 2, True)])
def test_an_equalized_convolution_scales_by_fan_in_and_gain(kernel_size: int, stride: int, activate: bool) -> None:
    layer = shaken(EqualizedConv2d(5, 4, kernel_size, stride, activate, gain=0.4))
    x = torch.randn(2, 5, 8, 6)
    weight = layer.weight / math.sqrt(5 * kernel_size**2)
    y = F.conv2d(x, weight, layer.bias, stride=stride, padding=kernel_size // 2)
    expected = 0.4 * (SQRT2 * F.leaky_relu(y, 0.2) if activate else y)
    torch.testing.assert_close(layer(x), expected)
    assert layer(x).shape == (2, 4, 8 // stride, 6 // stride)


@pytest.mark.parametrize("activate", [True, False])
def test_an_equalized_convolution_keeps_the_mean_square(activate: bool) -> None:
    y = EqualizedConv2d(32, 32, 3, activate=activate)(torch.randn(2, 32, 34, 34))[:, :, 1:-1, 1:-1]
    assert y.square().mean().item() == pytest.approx(1.04 if activate else 1, abs=0.08)  # (1 + 0.2^2) / 2 * 2


# the adaptive convolution


def scores_of(layer: AdaptiveConv2d, w: Tensor) -> Tensor:
    return torch.ones(1) if layer.to_logits is None else layer.to_logits(w).softmax(dim=0)


def unit(kernel: Tensor) -> Tensor:
    return kernel / kernel.flatten(-3).norm(dim=-1)[..., None, None, None]


def select_modulate_demodulate(layer: AdaptiveConv2d, w: Tensor) -> Tensor:
    kernel = sum(score * member for score, member in zip(scores_of(layer, w), layer.bank, strict=True))
    return unit(kernel * layer.to_styles(w)[:, None, None])


def select_demodulate_modulate(layer: AdaptiveConv2d, w: Tensor) -> Tensor:
    kernel = sum(score * member for score, member in zip(scores_of(layer, w), layer.bank, strict=True))
    return unit(kernel) * layer.to_styles(w)[:, None, None]


def modulate_demodulate_select(layer: AdaptiveConv2d, w: Tensor) -> Tensor:
    members = unit(layer.bank * layer.to_styles(w)[:, None, None])
    return sum(score * member for score, member in zip(scores_of(layer, w), members, strict=True))


def naive(
    layer: AdaptiveConv2d, x: Tensor, w: Tensor, kernel: Callable[[AdaptiveConv2d, Tensor], Tensor], gain: float
) -> Tensor:
    """One sample at a time, with plain convolutions."""
    samples = []
    for i in range(len(x)):
        k = kernel(layer, w[i])
        y = F.conv2d(x[i : i + 1], k, layer.bias, padding=k.shape[-1] // 2)
        samples.append(gain * SQRT2 * F.leaky_relu(y, 0.2))
    return torch.cat(samples)


@pytest.mark.parametrize("num_kernels", [1, 3])
def test_an_adaptive_convolution_selects_then_modulates_then_demodulates(num_kernels: int) -> None:
    layer = shaken(AdaptiveConv2d(4, 5, 3, 6, num_kernels, gain=0.4))
    x, w = torch.randn(2, 4, 7, 6), torch.randn(2, 6)
    y = layer(x, w)
    torch.testing.assert_close(y, naive(layer, x, w, select_modulate_demodulate, 0.4), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("order", [select_demodulate_modulate, modulate_demodulate_select])
def test_another_order_gives_another_result(order: Callable[[AdaptiveConv2d, Tensor], Tensor]) -> None:
    layer = shaken(AdaptiveConv2d(4, 5, 3, 6, num_kernels=3))
    x, w = torch.randn(2, 4, 7, 6), torch.randn(2, 6)
    assert (layer(x, w) - naive(layer, x, w, order, 1.0)).abs().max() > 0.1


def test_styles_and_kernel_logits_start_as_large_as_a_network_asks_for() -> None:
    block = ResidualBlock(64, 64, num_kernels=8)
    before = block.conv0.bank.clone()
    scale_styles(block, 0.1)
    for linear in (block.conv0.to_styles, block.conv1.to_styles, block.conv0.to_logits, block.conv1.to_logits):
        assert linear.weight.std().item() == pytest.approx(0.1, rel=0.1)
    assert torch.equal(block.conv0.bank, before)


def test_to_rgb_is_modulated_but_neither_demodulated_nor_activated() -> None:
    layer = shaken(ToRGB(4, 6, gain=0.1))
    x, w = torch.randn(2, 4, 5, 5), torch.randn(2, 6)
    colour = layer.bank[0, :, :, 0, 0] / 2  # fan-in of 4
    expected = torch.stack([torch.einsum("oi,i,ihw->ohw", colour, layer.to_styles(w[b]), x[b]) for b in range(2)])
    torch.testing.assert_close(layer(x, w), 0.1 * (expected + layer.bias[:, None, None]), atol=1e-6, rtol=1e-4)


# mapping


def test_w_depends_on_z_and_on_the_text_but_not_on_their_lengths() -> None:
    layer = MappingNetwork(8, 12, 16, num_layers=3).requires_grad_(False)
    z, t_global = torch.randn(2, 8), torch.randn(2, 12)
    w = layer(z, t_global)
    assert w.shape == (2, 16)
    torch.testing.assert_close(layer(3 * z, 5 * t_global), w)
    assert (layer(z.flip(0), t_global) - w).abs().max() > 0.1
    assert (layer(z, t_global.flip(0)) - w).abs().max() > 0.1


# residual, up and down blocks


@pytest.mark.parametrize("upsample", ["filter", "shuffle"])
@pytest.mark.parametrize(("height", "width"), [(4, 4), (3, 5)])
def test_an_up_block_doubles_the_size(upsample: str, height: int, width: int) -> None:
    block = shaken(UpBlock(6, 4, w_dim=5, num_kernels=2, upsample=upsample))
    x, w = torch.randn(2, 6, height, width), torch.randn(2, 5)
    y = block(x, w)
    assert y.shape == (2, 4, 2 * height, 2 * width)
    assert (block(x, w.flip(0)) - y).abs().max() > 0.01


@pytest.mark.parametrize("upsample", ["filter", "shuffle"])
def test_every_pixel_an_up_block_makes_follows_its_input(upsample: str) -> None:
    block, w = shaken(UpBlock(6, 4, w_dim=5, num_kernels=1, upsample=upsample)), torch.randn(1, 5)
    x = torch.randn(1, 6, 9, 9)
    moved = x.clone()
    moved[:, :, 4, 4] += 1
    change = (block(moved, w) - block(x, w)).abs().amax(dim=(0, 1)) > 0
    rows, columns = torch.nonzero(change).unbind(1)
    assert change[8:10, 8:10].all()
    assert (rows.min() + rows.max(), columns.min() + columns.max()) == (17, 17)  # centred on the pixel's four


def test_a_down_block_halves_the_size() -> None:
    assert DownBlock(4, 6)(torch.randn(2, 4, 8, 6)).shape == (2, 6, 4, 3)


def test_a_residual_block_with_gain_0_changes_nothing() -> None:
    x, w = torch.randn(2, 4, 5, 6), torch.randn(2, 6)
    assert torch.equal(shaken(ResidualBlock(4, 6, num_kernels=2, gain=0.0))(x, w), x)
    assert (shaken(ResidualBlock(4, 6, num_kernels=2))(x, w) - x).abs().mean() > 0.1


@pytest.mark.parametrize("num_kernels", [1, 3])
@pytest.mark.parametrize("demodulated", [True, False])
@pytest.mark.parametrize("kernel_size", [1, 3])
def test_small_maps_are_convolved_without_kernels_per_sample_to_the_same_result(
    num_kernels: int, demodulated: bool, kernel_size: int
) -> None:
    layer = shaken(AdaptiveConv2d(24, 8, kernel_size, 6, num_kernels, demodulated)).double()
    x, w = torch.randn(3, 24, 2, 4, dtype=torch.float64), torch.randn(3, 6, dtype=torch.float64)
    assert layer.is_small(x) == (num_kernels * 8 <= 24 * kernel_size**2) and not layer.is_small(x[:1])
    torch.testing.assert_close(layer.convolve_shared(x, w), conv2d_per_sample(x, layer.kernel(w)))


def test_the_size_at_which_a_map_stops_being_small_changes_nothing() -> None:
    layer = shaken(AdaptiveConv2d(8, 8, 3, 6, 2))
    large, w = torch.randn(2, 8, 12, 12), torch.randn(2, 6)
    small = large[:, :, :6, :6].contiguous()
    assert layer.is_small(small) and not layer.is_small(large)
    torch.testing.assert_close(layer(small, w)[:, :, :5, :5], layer(large, w)[:, :, :5, :5], atol=1e-5, rtol=1e-4)
