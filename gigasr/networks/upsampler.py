"""The text-conditioned upsampler: an asymmetric U-Net of adaptive blocks.

Body and tail, as in EDSR. The body works at the low-res resolution and below, with attention; the tail works above it,
with convolution only.

Source: GigaGAN (arXiv:2303.05511), section 3.4.
"""

import copy

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gigasr.config.networks import LevelConfig, SynthesisConfig, UpsamplerConfig
from gigasr.networks.attention import AttentionUnit
from gigasr.networks.blocks import (
    DownBlock,
    EqualizedConv2d,
    MappingNetwork,
    ResidualBlock,
    ToRGB,
    UpBlock,
    scale_styles,
)
from gigasr.networks.ops import MIN_MAP_SIDE, filter_axes, gaussian_taps, upsample_bicubic
from gigasr.networks.text import TextFeatures, TextTransformer, TokenFeatures

RGB_GAIN = 0.1  # a shallow pyramid starts near the upsampled low-res image; the paper's deep one adds a std of about 1
ROOT_SIGMA, ROOT_RADIUS = 4.0, 12  # low-res px; Gaussian: its frequencies come to the root from the low-res image


class Level(nn.Module):
    """One resolution: residual blocks, then attention units.

    The first block upsamples, except at the bottom.
    """

    def __init__(self, level: LevelConfig, in_channels: int | None, config: SynthesisConfig) -> None:
        super().__init__()
        channels, gain = level.channels, config.residual_gain
        num_blocks = level.blocks
        self.gradient_checkpointing = False  # recompute in the backward pass instead of keeping
        self.up = None
        if in_channels is not None:
            self.up = UpBlock(in_channels, channels, config.w_dim, level.num_kernels, config.upsample, gain)
            num_blocks -= 1
        self.blocks = nn.ModuleList(
            ResidualBlock(channels, config.w_dim, level.num_kernels, gain) for _ in range(num_blocks)
        )
        self.attention = nn.ModuleList(
            AttentionUnit(
                channels, config.w_dim, config.text.dim, config.head_dim, config.window, config.attention_gain
            )
            for _ in range(level.attention)
        )

    def forward(self, x: Tensor, skip: Tensor | None, w: Tensor, text: TextFeatures) -> Tensor:
        """x: [B, I, H, W], skip: [B, C, H', W'] or None -> [B, C, H', W'], H' = 2H unless at the bottom"""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(self.run, x, skip, w, text, use_reentrant=False)
        return self.run(x, skip, w, text)

    def run(self, x: Tensor, skip: Tensor | None, w: Tensor, text: TextFeatures) -> Tensor:
        """Run `forward` without checkpointing."""
        x = x if self.up is None else self.up(x, w)
        x = x if skip is None else x + skip
        return self.attend(self.convolve(x, w), w, text)

    def convolve(self, x: Tensor, w: Tensor) -> Tensor:
        """Apply the residual blocks. x: [B, C, H, W] -> [B, C, H, W]."""
        for block in self.blocks:
            x = block(x, w)
        return x

    def attend(self, x: Tensor, w: Tensor, text: TextFeatures) -> Tensor:
        """Apply the attention units. x: [B, C, H, W] -> [B, C, H, W]."""
        for unit in self.attention:
            x = unit(x, w, text.t_local, text.mask)
        return x


class Upsampler(nn.Module):
    """Low-res image, z and text -> high-res image and its pyramid.

    `forward` is the body, then the tail. Inference runs the two apart: the body on tiles, the tail on strips.
    """

    def __init__(self, config: UpsamplerConfig) -> None:
        super().__init__()
        self.config = config
        text, levels = config.text, config.levels
        below = [level.channels for level in levels[config.num_down :: -1]]  # channels at 1x, 1/2, 1/4, ...
        self.text_transformer = TextTransformer(
            text.tower_width, text.dim, text.depth, text.num_heads, text.learning_rate_multiplier
        )
        self.mapping = MappingNetwork(
            config.z_dim, text.dim, config.w_dim, config.mapping_layers, config.mapping_learning_rate_multiplier
        )
        self.stem = EqualizedConv2d(3, below[0], 3, activate=True)
        self.encoder = nn.ModuleList(
            DownBlock(a, b, config.residual_gain) for a, b in zip(below[:-1], below[1:], strict=True)
        )
        inputs = [None] + [level.channels for level in levels[:-1]]
        self.levels = nn.ModuleList(Level(level, n, config) for level, n in zip(levels, inputs, strict=True))
        self.to_rgb = nn.ModuleList(
            ToRGB(level.channels, config.w_dim, RGB_GAIN) for level in levels[config.num_down + 1 :]
        )
        self.to_root = ToRGB(levels[config.num_down].channels, config.w_dim) if config.restores else None
        if self.to_root is not None:
            nn.init.zeros_(self.to_root.bank)  # the root starts as the low-res image
        scale_styles(self, config.style_std)

    @property
    def scale(self) -> int:
        """HR / LR."""
        return self.config.scale

    @property
    def scales(self) -> list[int]:
        """The possible scales of the pyramid's last image, smallest first."""
        return sorted({*self.config.early_scales, self.config.scale})

    def ending_at(self, scale: int) -> "Upsampler":
        """Return a network with the levels up to one of the `scales`.

        The two networks share their parameters. Raises ValueError for other scales.
        """
        config = self.config
        if scale not in self.scales:
            raise ValueError(f"scale: expected one of {self.scales}, got {scale}; choose a scale it was trained for")
        if scale == config.scale:
            return self
        count = config.num_down + scale.bit_length()
        ending = copy.copy(self)
        ending._modules = dict(self._modules)
        ending.levels, ending.to_rgb = self.levels[:count], self.to_rgb[: scale.bit_length() - 1]
        early = tuple(s for s in config.early_scales if s < scale)
        smaller = {"levels": config.levels[:count], "scale": scale, "early_scales": early}
        ending.config = config.model_copy(update=smaller)
        return ending

    @property
    def multiple(self) -> int:
        """The body's heights and widths must be multiples of this many px."""
        return 2**self.config.num_down

    @property
    def min_side(self) -> int:
        """The body's least height and width, px; lr_size with global attention.

        Global attention then sees at least as many tokens as in training.
        """
        return max(MIN_MAP_SIDE * self.multiple, 0 if self.config.window else self.config.lr_size)

    def condition(self, z: Tensor, tokens: TokenFeatures) -> tuple[Tensor, TextFeatures]:
        """z: [B, z_dim], tokens of the frozen tower -> w: [B, w_dim] and the learned text features"""
        text = self.text_transformer(tokens)
        return self.mapping(z, text.t_global), text

    def body(self, lr: Tensor, w: Tensor, text: TextFeatures) -> Tensor:
        """lr: [B, 3, H, W] in [-1, 1], multiples of `multiple` -> features [B, C, H, W]"""
        x, skips = self.encode(lr)
        x = self.levels[0](x, None, w, text)
        for level in self.levels[1 : self.config.num_down + 1]:
            x = level(x, skips.pop(), w, text)
        return x

    def encode(self, lr: Tensor) -> tuple[Tensor, list[Tensor]]:
        """lr: [B, 3, H, W] -> the map of the coarsest level, and the maps for the skips, finest first"""
        if lr.is_cpu:  # every map inherits the layout; GPUs' grouped convolutions would copy theirs back and forth
            lr = lr.contiguous(memory_format=torch.channels_last)
        x, skips = self.stem(lr), []
        for block in self.encoder:
            skips.append(x)
            x = block(x)
        return x, skips

    def root(self, features: Tensor, lr: Tensor, w: Tensor) -> Tensor:
        """features: [B, C, H, W], lr: [B, 3, H, W] in [-1, 1] -> root [B, 3, H, W]; lr itself without a root layer"""
        return lr if self.to_root is None else lr + remove_low_frequencies(self.to_root(features, w).to(lr.dtype))

    def tail(
        self, features: Tensor, root: Tensor, w: Tensor, text: TextFeatures, scale: int | None = None
    ) -> list[Tensor]:
        """features: [B, C, H, W], root: [B, 3, H, W] in [-1, 1] -> pyramid [B, 3, 2H, 2W], ..., [B, 3, scale H, ...]

        StyleGAN2's skip generator. The paper does not give its root. Ours is the low-res image, restored if the network
        restores. A smaller scale ends the pyramid at its level.
        """
        pyramid, x, rgb = [], features, root
        top = self.config.num_down + 1
        num_up = self.config.num_up if scale is None else scale.bit_length() - 1
        for level, to_rgb in zip(self.levels[top : top + num_up], self.to_rgb[:num_up], strict=True):
            x = level(x, None, w, text)
            rgb = upsample_bicubic(rgb, 2) + to_rgb(x, w).to(rgb.dtype)
            pyramid.append(rgb)
        return pyramid

    def forward(
        self, lr: Tensor, z: Tensor, tokens: TokenFeatures, noise: Tensor | None = None, scale: int | None = None
    ) -> list[Tensor]:
        """lr, noise: [B, 3, H, W], lr in [-1, 1], noise N(0, 1), z: [B, z_dim] -> pyramid, smallest first

        The body sees lr plus the noise, scaled by the config's input_noise; None adds no noise. The pyramid of a
        network that restores begins with its root. A smaller scale ends the pyramid at its level.
        """
        w, text = self.condition(z, tokens)
        noisy = lr if noise is None else lr + self.config.input_noise * noise
        features = self.body(noisy, w, text)
        root = self.root(features, lr, w)
        pyramid = self.tail(features, root, w, text, scale)
        return pyramid if self.to_root is None else [root, *pyramid]


def remove_low_frequencies(residual: Tensor) -> Tensor:
    """Subtract a Gaussian average from a residual of an image.

    Adding the rest to the image keeps the image's colours.

    residual: [B, 3, H, W]
    returns:  [B, 3, H, W]; a constant becomes 0, a wave of 64 px keeps 7 % of itself, one of 8 px 99 %
    """
    return residual - filter_axes(residual, gaussian_taps(ROOT_SIGMA, ROOT_RADIUS))
