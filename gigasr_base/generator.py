"""The base generator: z and text -> pyramid up to 64 px (GigaGAN, section 3.1).

The blocks are the upsampler's. Every level takes a condition (w and text) of its own: coarse levels can follow one
prompt and fine levels another.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gigasr.networks.blocks import MappingNetwork, ToRGB, scale_styles
from gigasr.networks.ops import upsample2d
from gigasr.networks.text import TextFeatures, TextTransformer, TokenFeatures
from gigasr.networks.upsampler import Level
from gigasr_base.config import CONST_SIZE, GeneratorConfig

W_AVERAGE = 0.995  # decay of the running mean of w, per training step


class Condition(NamedTuple):
    """The condition of a level: w and the text features."""

    w: Tensor  # [B, w_dim]
    text: TextFeatures


class Generator(nn.Module):
    """z and text -> pyramid of images.

    `forward` gives all levels the same condition; it calls `condition`, then `synthesize`.
    """

    w_mean: Tensor

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        text, channels = config.text, [level.channels for level in config.levels]
        self.text_transformer = TextTransformer(
            text.tower_width, text.dim, text.depth, text.num_heads, text.learning_rate_multiplier
        )
        self.mapping = MappingNetwork(
            config.z_dim, text.dim, config.w_dim, config.mapping_layers, config.mapping_learning_rate_multiplier
        )
        self.constant = nn.Parameter(torch.randn(1, channels[0], CONST_SIZE, CONST_SIZE))
        inputs = [None, *channels[:-1]]
        self.levels = nn.ModuleList(Level(level, n, config) for level, n in zip(config.levels, inputs, strict=True))
        self.to_rgb = nn.ModuleList(ToRGB(c, config.w_dim) for c in channels)
        scale_styles(self, config.style_std)
        self.register_buffer("w_mean", torch.zeros(config.w_dim))
        self.recent_w: list[Tensor] = []  # the mean w of each training pass since the last `take_w`

    def condition(self, z: Tensor, tokens: TokenFeatures) -> Condition:
        """z: [B, z_dim], tokens of the frozen tower -> w: [B, w_dim] and T's features"""
        text = self.text_transformer(tokens)
        return Condition(self.mapping(z, text.t_global), text)

    def synthesize(self, conditions: Sequence[Condition]) -> list[Tensor]:
        """conditions: one per level -> pyramid [B, 3, 4, 4], [B, 3, 8, 8], ...

        Conditions start with the smallest level; each has B samples.
        With fewer conditions than levels, the pyramid has only the smaller images.
        """
        x = self.constant.expand(len(conditions[0].w), -1, -1, -1)
        pyramid: list[Tensor] = []
        for level, to_rgb, (w, text) in zip(self.levels, self.to_rgb, conditions, strict=False):
            x = level(x, None, w, text)
            rgb = to_rgb(x, w).to(self.constant.dtype)
            with torch.autocast(x.device.type, enabled=False):  # the sum keeps its precision where the trunk is in bf16
                pyramid.append(rgb if not pyramid else upsample2d(pyramid[-1]) + rgb)
        return pyramid

    def forward(self, z: Tensor, tokens: TokenFeatures, size: int | None = None) -> list[Tensor]:
        """z: [B, z_dim] -> pyramid [B, 3, 4, 4], [B, 3, 8, 8], ..., in about [-1, 1]

        Training keeps the mean w of each pass for `take_w`.

        size: px, of the pyramid's last image; None = the last level's
        """
        condition = self.condition(z, tokens)
        if self.training and torch.is_grad_enabled():
            self.recent_w.append(condition.w.detach().mean(dim=0))
        num_levels = len(self.levels) if size is None else self.config.sizes.index(size) + 1
        return self.synthesize([condition] * num_levels)

    def take_w(self) -> Tensor:
        """Take the mean w of all training passes since the last call -> [w_dim].

        The call clears the passes.
        """
        w = torch.stack(self.recent_w).mean(dim=0).to(self.w_mean.dtype)
        self.recent_w.clear()
        return w

    def move_w_mean(self, w: Tensor) -> None:
        """Update the running mean of w, the target of truncation.

        w: [w_dim]  mean of one training step
        """
        self.w_mean.lerp_(w, 1.0 - W_AVERAGE)
