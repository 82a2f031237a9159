"""The text-conditioned upsampler: an asymmetric U-Net of adaptive blocks (GigaGAN, section 3.4).

Body: everything at the low-res resolution and below, attention included. Tail: everything above it, convolution only.
"""

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
from gigasr.networks.ops import enlarge
from gigasr.networks.text import TextFeatures, TextTransformer, TokenFeatures

RGB_GAIN = 0.1  # a shallow pyramid starts near the enlarged low-res image; the paper's deep one adds a std of about 1


class Level(nn.Module):
    """One resolution: an upsampling block (except at the bottom), residual blocks, attention units."""

    def __init__(self, level: LevelConfig, in_channels: int | None, config: SynthesisConfig) -> None:
        super().__init__()
        channels, gain = level.channels, config.residual_gain
        num_blocks = level.blocks
        self.checkpointing = False  # recompute in the backward pass instead of keeping
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
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(self.run, x, skip, w, text, use_reentrant=False)
        return self.run(x, skip, w, text)

    def run(self, x: Tensor, skip: Tensor | None, w: Tensor, text: TextFeatures) -> Tensor:
        """What `forward` does, with or without keeping its intermediate results."""
        x = x if self.up is None else self.up(x, w)
        x = x if skip is None else x + skip
        return self.attend(self.convolve(x, w), w, text)

    def convolve(self, x: Tensor, w: Tensor) -> Tensor:
        """The residual blocks. x: [B, C, H, W] -> [B, C, H, W]"""
        for block in self.blocks:
            x = block(x, w)
        return x

    def attend(self, x: Tensor, w: Tensor, text: TextFeatures) -> Tensor:
        """The attention units. x: [B, C, H, W] -> [B, C, H, W]"""
        for unit in self.attention:
            x = unit(x, w, text.t_local, text.mask)
        return x


class Upsampler(nn.Module):
    """Low-res image, z and text -> high-res image and its pyramid.

    `forward` is the body, then the tail. Inference runs the two apart: the body on regions, the tail on strips.
    """

    def __init__(self, config: UpsamplerConfig) -> None:
        super().__init__()
        self.config = config
        text, levels = config.text, config.levels
        below = [level.channels for level in levels[config.num_down :: -1]]  # channels at 1x, 1/2, 1/4, ...
        self.text_transformer = TextTransformer(text.tower_width, text.dim, text.depth, text.num_heads, text.lr_mul)
        self.mapping = MappingNetwork(
            config.z_dim, text.dim, config.w_dim, config.mapping_layers, config.mapping_lr_mul
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
        scale_styles(self, config.style_std)

    @property
    def scale(self) -> int:
        """HR / LR."""
        return self.config.scale

    @property
    def multiple(self) -> int:
        """The body takes heights and widths that are multiples of this many px."""
        return 2**self.config.num_down

    @property
    def smallest(self) -> int:
        """The least height and width the body takes, px."""
        return self.config.lr_size if not self.config.window else self.multiple

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
        """lr: [B, 3, H, W] -> the map of the coarsest level, and those that the others skip to, finest first"""
        x, skips = self.stem(lr), []
        for block in self.encoder:
            skips.append(x)
            x = block(x)
        return x, skips

    def tail(self, features: Tensor, lr: Tensor, w: Tensor, text: TextFeatures) -> list[Tensor]:
        """features: [B, C, H, W], lr: [B, 3, H, W] in [-1, 1] -> pyramid [B, 3, 2H, 2W], ..., [B, 3, scale H, ...]

        StyleGAN2's skip generator, rooted in the low-res image itself; the paper does not give the root.
        """
        pyramid, x, rgb = [], features, lr
        for level, to_rgb in zip(self.levels[self.config.num_down + 1 :], self.to_rgb, strict=True):
            x = level(x, None, w, text)
            rgb = enlarge(rgb, 2) + to_rgb(x, w).to(rgb.dtype)
            pyramid.append(rgb)
        return pyramid

    def forward(self, lr: Tensor, z: Tensor, tokens: TokenFeatures, noise: Tensor | None = None) -> list[Tensor]:
        """lr, noise: [B, 3, H, W], lr in [-1, 1], noise N(0, 1), z: [B, z_dim] -> pyramid, smallest first

        The noise, scaled to the config's input_noise, is what the body sees added to lr; None leaves it out.
        """
        w, text = self.condition(z, tokens)
        noisy = lr if noise is None else lr + self.config.input_noise * noise
        return self.tail(self.body(noisy, w, text), lr, w, text)
