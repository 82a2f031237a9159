"""The multi-scale, text-conditioned discriminator of GigaGAN (section 3.2).

Each level of the pyramid enters the shared trunk by its own from_rgb, independently of the others. A prediction head
follows every stage: L levels and L stages give L (L + 1) / 2 predictions (15 for the paper's five). gigasr_base trains
with it too.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gigasr.config.networks import DiscriminatorConfig, StageConfig
from gigasr.networks.attention import ChannelNorm, FeedForward, SelfAttention
from gigasr.networks.blocks import AdaptiveConv2d, EqualizedConv2d, scale_styles
from gigasr.networks.text import TextTransformer, TokenFeatures

SQRT_HALF = 0.5**0.5  # keeps the variance of a residual sum


class ImageAttention(nn.Module):
    """L2 self-attention and feed-forward over an image's pixels, without a style."""

    def __init__(self, channels: int, head_dim: int, gain: float) -> None:
        super().__init__()
        self.self_norm, self.self_attention = ChannelNorm(channels), SelfAttention(channels, None, head_dim)
        self.feed_norm, self.feed_forward = ChannelNorm(channels), FeedForward(channels)
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] -> [B, C, H, W]"""
        y = x.permute(0, 2, 3, 1)
        y = y + self.gain * self.self_attention(self.self_norm(y), None)
        y = y + self.gain * self.feed_forward(self.feed_norm(y))
        return y.permute(0, 3, 1, 2)


class Stage(nn.Module):
    """Self-attention and residual convolutions, then half the size.

    The last stage may flatten its map to 1x1 instead.
    """

    def __init__(
        self, stage: StageConfig, out_channels: int, head_dim: int, attention_gain: float, flatten: int = 0
    ) -> None:
        super().__init__()
        channels = stage.channels
        self.attention = nn.ModuleList(
            ImageAttention(channels, head_dim, attention_gain) for _ in range(stage.attention)
        )
        num_convs = 2 * stage.blocks - (0 if flatten else 1)  # besides the reducing convolution
        self.blocks = nn.ModuleList(EqualizedConv2d(channels, channels, 3, activate=True) for _ in range(num_convs))
        self.factor = flatten or 2
        self.down = (
            EqualizedConv2d(channels, out_channels, flatten, padding=0, activate=True)
            if flatten
            else EqualizedConv2d(channels, out_channels, 3, stride=2, activate=True)
        )
        self.skip = EqualizedConv2d(channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] -> [B, O, H/2, W/2], or [B, O, 1, 1] if the stage flattens"""
        for unit in self.attention:
            x = unit(x)
        y = x
        for conv in self.blocks:
            y = conv(y)
        return SQRT_HALF * (self.down(y) + self.skip(F.avg_pool2d(x, self.factor)))


class Predictor(nn.Module):
    """Logits of one head: a text-conditioned part plus an unconditional part.

    The first is psi (paper, Eq. 7), 1x1 convolutions modulated by t_D; the second is a plain 1x1 convolution.
    """

    def __init__(self, channels: int, text_dim: int, num_layers: int) -> None:
        super().__init__()
        self.psi = nn.ModuleList(AdaptiveConv2d(channels, channels, 1, text_dim) for _ in range(num_layers - 1))
        self.to_logit = AdaptiveConv2d(channels, 1, 1, text_dim, demodulated=False, activate=False)
        self.unconditional = EqualizedConv2d(channels, 1, 1)

    def forward(self, x: Tensor, t_global: Tensor) -> Tensor:
        """x: [B, C, H, W], t_global: [B, D] -> logits [B, 1, H, W]"""
        y = x
        for layer in self.psi:
            y = layer(y, t_global)
        return self.to_logit(y, t_global) + self.unconditional(x)


def minibatch_std(x: Tensor, group_size: int) -> Tensor:
    """Append a map of the standard deviation within groups of samples.

    x:          [B, C, H, W]
    group_size: upper limit; the group is the largest divisor of B from 2 to this, or all B if there is none, as for
                B = 5 and 7 with a limit of 4
    returns:    [B, C + 1, H, W]

    Source: StyleGAN2 (arXiv:1912.04958).
    """
    group = next((g for g in range(min(group_size, len(x)), 1, -1) if len(x) % g == 0), len(x))
    grouped = x.view(group, -1, *x.shape[1:])
    std = (grouped.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3), keepdim=True)
    return torch.cat([x, std.repeat(group, 1, 1, 1).expand(-1, 1, *x.shape[2:])], dim=1)


class Discriminator(nn.Module):
    """Pyramid and text -> logits of every pair of level and head."""

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        text = config.text
        channels = [stage.channels for stage in config.stages] + [config.out_channels]
        rgb_channels = 6 if config.condition_on_lr else 3
        self.text_transformer = TextTransformer(
            text.tower_width, text.dim, text.depth, text.num_heads, text.learning_rate_multiplier
        )
        self.from_rgb = nn.ModuleList(
            EqualizedConv2d(rgb_channels, c, 1, activate=True) for c in channels[: config.num_levels]
        )
        flatten = [0] * (len(config.stages) - 1) + [config.flatten]
        self.stages = nn.ModuleList(
            Stage(stage, out, config.head_dim, config.attention_gain, side)
            for stage, out, side in zip(config.stages, channels[1:], flatten, strict=True)
        )
        extra = 1 if config.minibatch_std else 0
        self.epilogue = EqualizedConv2d(channels[-1] + extra, channels[-1], 1 if config.flatten else 3, activate=True)
        self.predictors = nn.ModuleList(Predictor(c, text.dim, config.predictor_layers) for c in channels[1:])
        scale_styles(self, config.style_std)

    def head_weights(self) -> list[float]:
        """Return the weight of each head's map; the rows of a map are averaged.

        At the last head each level weighs 1 / num_levels; at an early head each level present weighs head_weight times
        that.
        """
        levels = self.config.num_levels
        early = [self.config.head_weight * min(j, levels) / levels for j in range(1, len(self.stages))]
        return [*early, 1.0]

    def features(self, pyramid: Sequence[Tensor], lr: Tensor | None = None) -> list[Tensor]:
        """Run the trunk once, without the text.

        pyramid: num_levels images [B, 3, H_i, W_i] in [-1, 1], smallest first; each is half the next
        lr:      [B, 3, h, w] in [-1, 1]; upsampled beside each image with condition_on_lr
        returns: per head, features [levels so far * B, C, H_j, W_j], the largest level first
        """
        features: list[Tensor] = []
        x: Tensor | None = None
        for i, stage in enumerate(self.stages):
            if i < self.config.num_levels:
                entry = self.from_rgb[i](self.with_lr(pyramid[-1 - i], lr))
                x = entry if x is None else torch.cat([x, entry])
            x = stage(x)
            features.append(x)
        features[-1] = self.epilogue(self.with_std(features[-1], len(pyramid[-1])))
        return features

    def with_std(self, x: Tensor, batch: int) -> Tensor:
        """x: [levels * B, C, H, W] -> [levels * B, C + 1, H, W] with minibatch_std, else x; levels stay apart"""
        if not self.config.minibatch_std:
            return x
        return torch.cat([minibatch_std(level, self.config.minibatch_std) for level in x.split(batch)])

    def with_lr(self, image: Tensor, lr: Tensor | None) -> Tensor:
        """image: [B, 3, H, W] -> itself, or [B, 6, H, W] with the upsampled low-res image"""
        if not self.config.condition_on_lr:
            return image
        if lr is None:
            raise ValueError("lr: expected the low-res image, got None; this discriminator sees it (sees_lr)")
        return torch.cat([image, F.interpolate(lr, image.shape[2:], mode="bilinear", align_corners=False)], dim=1)

    def predict(self, features: Sequence[Tensor], tokens: TokenFeatures) -> list[Tensor]:
        """features: of `features`, tokens: of B prompts -> one logit map [levels * B, 1, H_j, W_j] per head

        Autocast is off: logits in bf16 would round away small differences between real and fake.
        """
        with torch.autocast(features[0].device.type, enabled=False):
            t_global = self.text_transformer(tokens).t_global
            return [
                predictor(x.to(t_global.dtype), t_global.repeat(len(x) // len(t_global), 1))
                for predictor, x in zip(self.predictors, features, strict=True)
            ]

    def forward(
        self, pyramid: Sequence[Tensor], texts: Sequence[TokenFeatures], lr: Tensor | None = None
    ) -> list[list[Tensor]]:
        """pyramid: num_levels of [B, 3, H_i, W_i], smallest first; texts: each of B prompts -> per text, logit maps

        The trunk runs once, whatever the number of texts: the matching loss needs logits of the same images twice.
        """
        features = self.features(pyramid, lr)
        return [self.predict(features, tokens) for tokens in texts]
