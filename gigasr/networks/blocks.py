"""Convolutional blocks of both networks, and the mapping network.

Every layer owns its affine map from w to styles and its kernel logits. Weights are stored as N(0, 1) and scaled at run
time (equalised learning rate, StyleGAN).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gigasr.networks.ops import (
    by_position,
    conv2d_per_sample,
    conv2d_shared,
    demodulate,
    depth_to_space,
    mixed_norm,
    modulate,
    select_kernel,
    upsample2d,
)

SLOPE = 0.2  # of every leaky ReLU
SQRT2 = math.sqrt(2.0)


class EqualizedLinear(nn.Module):
    """Linear layer with equalised learning rate.

    The stored weight is N(0, 1) / learning_rate_multiplier and is scaled at run time.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        bias_init: float = 0.0,
        learning_rate_multiplier: float = 1.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / learning_rate_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), bias_init / learning_rate_multiplier)) if bias else None
        self.weight_gain = learning_rate_multiplier / math.sqrt(in_features)
        self.learning_rate_multiplier = learning_rate_multiplier

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., in_features] -> [..., out_features]"""
        bias = None if self.bias is None else self.bias * self.learning_rate_multiplier
        return F.linear(x, self.weight * self.weight_gain, bias)


class EqualizedConv2d(nn.Module):
    """Plain convolution with equalised learning rate.

    A leaky ReLU of unit gain is optional.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        activate: bool = False,
        gain: float = 1.0,
        padding: int | None = None,
        positions: int = 1,
    ) -> None:
        """Make the layer.

        positions: number of pixels made from one pixel's output channels (depth_to_space); channels are ordered by
                   (position, channel)
        """
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.stride, self.padding = stride, kernel_size // 2 if padding is None else padding
        self.activate = activate
        self.gain, self.positions = gain * (SQRT2 if activate else 1.0), positions

    def kernel(self) -> Tensor:
        """Return the kernel with its scale and gain applied, [O, I, K, K]."""
        return by_position(self.weight, self.positions) * (self.gain / math.sqrt(self.weight[0].numel()))

    def scaled_bias(self) -> Tensor:
        """Return the bias with the output gain applied, [O]."""
        return by_position(self.bias, self.positions) * self.gain

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, I, H, W] -> [B, O, H/stride, W/stride] (less the border where padding = 0)"""
        y = F.conv2d(x, self.kernel(), self.scaled_bias(), stride=self.stride, padding=self.padding)
        return F.leaky_relu(y, SLOPE, inplace=True) if self.activate else y


class AdaptiveConv2d(nn.Module):
    """Convolution with a kernel mixed from a bank and modulated by w.

    The bank is mixed first, then modulated, then demodulated. Activation, a leaky ReLU, and output gain belong to the
    layer: both are positively homogeneous, so folding can move the gain into the kernel.

    Source: GigaGAN (arXiv:2303.05511), section 3.1.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        w_dim: int,
        num_kernels: int = 1,
        demodulated: bool = True,
        activate: bool = True,
        gain: float = 1.0,
        positions: int = 1,
    ) -> None:
        """Make the layer.

        positions: see EqualizedConv2d
        """
        super().__init__()
        self.bank = nn.Parameter(torch.randn(num_kernels, out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.to_styles = EqualizedLinear(w_dim, in_channels, bias_init=1.0)
        self.to_logits = EqualizedLinear(w_dim, num_kernels) if num_kernels > 1 else None
        self.demodulated, self.activate = demodulated, activate
        self.gain, self.positions = gain * (SQRT2 if activate else 1.0), positions

    def scaled_bank(self) -> Tensor:
        """Return the bank at unit gain, for equalised learning rates, [N, O, I, K, K]."""
        return by_position(self.bank, self.positions, dim=1) / math.sqrt(self.bank[0, 0].numel())

    def scaled_bias(self) -> Tensor:
        """Return the bias with the output gain applied, [O]."""
        return by_position(self.bias, self.positions) * self.gain

    def kernel(self, w: Tensor) -> Tensor:
        """w: [B, w_dim] -> [B, O, I, K, K]  the kernels with output gain applied"""
        bank = self.scaled_bank()
        kernel = bank if self.to_logits is None else select_kernel(bank, self.to_logits(w))
        if self.demodulated:
            return demodulate(modulate(kernel, self.to_styles(w)), self.gain)
        return modulate(kernel, self.to_styles(w) * self.gain)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x: [B, I, H, W], w: [B, w_dim] -> [B, O, H, W]"""
        bias = self.scaled_bias().to(x.dtype)
        if self.is_small(x):
            y = self.convolve_shared(x, w) + bias[:, None, None]
        else:
            y = conv2d_per_sample(x, self.kernel(w).to(x.dtype), bias)
        return F.leaky_relu(y, SLOPE, inplace=True) if self.activate else y

    def is_small(self, x: Tensor) -> bool:
        """Tell whether `convolve_shared` is cheaper than a kernel per sample.

        Batches of small maps are cheaper: N H W at most K K max(I, O).
        """
        num_kernels, out_channels, in_channels, size, _ = self.bank.shape
        pixels = x.shape[2] * x.shape[3] * num_kernels
        return len(x) > 1 and pixels <= size * size * max(in_channels, out_channels)

    def convolve_shared(self, x: Tensor, w: Tensor) -> Tensor:
        """Convolve as with `kernel`, without making kernels per sample.

        x: [B, I, H, W], w: [B, w_dim] -> [B, O, H, W]
        """
        bank = self.scaled_bank()
        styles = self.to_styles(w)
        shares = styles.new_ones(len(w), 1) if self.to_logits is None else self.to_logits(w).softmax(dim=1)
        y = conv2d_shared(x, bank.to(x.dtype), shares.to(x.dtype), styles.to(x.dtype))
        if not self.demodulated:
            return y * self.gain
        return y * (self.gain / mixed_norm(bank, shares, styles)).to(x.dtype)[:, :, None, None]


@torch.no_grad()
def scale_styles(network: nn.Module, std: float) -> None:
    """Scale a new network's weights from w to styles and kernel logits to std.

    StyleGAN's std is 1. With 1, a network that starts from a picture spends its first epochs on coping with random
    styles.
    """
    for layer in network.modules():
        if isinstance(layer, AdaptiveConv2d):
            layer.to_styles.weight.mul_(std)
            if layer.to_logits is not None:
                layer.to_logits.weight.mul_(std)


class ToRGB(AdaptiveConv2d):
    """1x1 modulated convolution to RGB (StyleGAN2).

    No demodulation, no bank, no activation.
    """

    def __init__(self, in_channels: int, w_dim: int, gain: float = 1.0) -> None:
        super().__init__(in_channels, 3, 1, w_dim, demodulated=False, activate=False, gain=gain)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x: [B, I, H, W], w: [B, w_dim] -> [B, 3, H, W], contiguous: filters and resampling read planes"""
        return super().forward(x, w).contiguous()


class MappingNetwork(nn.Module):
    """MLP from the noise z and the prompt's t_global to w.

    Both inputs are normalised, then concatenated.
    """

    def __init__(
        self, z_dim: int, text_dim: int, w_dim: int, num_layers: int, learning_rate_multiplier: float = 0.01
    ) -> None:
        super().__init__()
        widths = [z_dim + text_dim] + [w_dim] * num_layers
        self.layers = nn.ModuleList(
            EqualizedLinear(a, b, learning_rate_multiplier=learning_rate_multiplier)
            for a, b in zip(widths[:-1], widths[1:], strict=True)
        )

    def forward(self, z: Tensor, t_global: Tensor) -> Tensor:
        """z: [B, z_dim], t_global: [B, D] -> w: [B, w_dim]"""
        x = torch.cat([F.rms_norm(z, z.shape[1:], eps=1e-8), F.rms_norm(t_global, t_global.shape[1:], eps=1e-8)], dim=1)
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE) * SQRT2
        return x


class UpBlock(nn.Module):
    """Residual block at twice the size; its first convolution upsamples.

    "filter" upsamples with the [1, 3, 3, 1] filter before convolving (StyleGAN2). "shuffle" convolves to four times the
    channels and shuffles them into pixels: the filter is learned, and less memory is moved at the high resolution.
    """

    def __init__(
        self, in_channels: int, out_channels: int, w_dim: int, num_kernels: int, upsample: str, gain: float = 0.4
    ) -> None:
        super().__init__()
        positions = 4 if upsample == "shuffle" else 1
        expanded = out_channels * positions
        self.conv0 = AdaptiveConv2d(in_channels, expanded, 3, w_dim, num_kernels, positions=positions)
        self.conv1 = AdaptiveConv2d(out_channels, out_channels, 3, w_dim, num_kernels, gain=gain)
        self.skip = EqualizedConv2d(in_channels, expanded, 1, positions=positions)
        self.upsample = upsample

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x: [B, I, H, W], w: [B, w_dim] -> [B, O, 2H, 2W]"""
        if self.upsample == "shuffle":
            return depth_to_space(self.skip(x)) + self.conv1(depth_to_space(self.conv0(x, w)), w)
        return upsample2d(self.skip(x)) + self.conv1(self.conv0(upsample2d(x), w), w)


class ResidualBlock(nn.Module):
    """Two 3x3 adaptive convolutions, added with a reduced gain (0.4)."""

    def __init__(self, channels: int, w_dim: int, num_kernels: int, gain: float = 0.4) -> None:
        super().__init__()
        self.conv0 = AdaptiveConv2d(channels, channels, 3, w_dim, num_kernels)
        self.conv1 = AdaptiveConv2d(channels, channels, 3, w_dim, num_kernels, gain=gain)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x: [B, C, H, W], w: [B, w_dim] -> [B, C, H, W]"""
        return x + self.conv1(self.conv0(x, w), w)


class DownBlock(nn.Module):
    """Residual block at half the size: strided, plain convolutions.

    The upsampler's encoder consists of these blocks.
    """

    def __init__(self, in_channels: int, out_channels: int, gain: float = 0.4) -> None:
        super().__init__()
        self.conv0 = EqualizedConv2d(in_channels, in_channels, 3, activate=True)
        self.conv1 = EqualizedConv2d(in_channels, out_channels, 3, stride=2, activate=True, gain=gain)
        self.skip = EqualizedConv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, I, H, W] with H, W even -> [B, O, H/2, W/2]"""
        return self.skip(F.avg_pool2d(x, 2)) + self.conv1(self.conv0(x))
