"""Attention of a feature map's pixels: to one another, the style and the text."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gigasr.networks.blocks import SLOPE, SQRT2, EqualizedLinear
from gigasr.networks.ops import l2_attention


class ChannelNorm(nn.Module):
    """RMS normalisation over the channels of each pixel.

    Statistics are local to a pixel, so tiles are independent.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., C] -> [..., C]"""
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), eps=1e-6)


def split_heads(x: Tensor, head_dim: int) -> Tensor:
    """[B, T, heads * D] -> [B, heads, T, D]"""
    return x.unflatten(-1, (-1, head_dim)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """[B, heads, T, D] -> [B, T, heads * D]"""
    return x.transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """L2 self-attention with tied query and key, and a token made from the style w.

    window > 0 restricts attention to fixed windows of that many tokens a side, aligned to the origin of the map. The
    result in a window does not depend on the rest of the image.
    """

    def __init__(self, channels: int, w_dim: int | None, head_dim: int, window: int = 0) -> None:
        super().__init__()
        self.to_qk = EqualizedLinear(channels, channels, bias=False)
        self.to_v = EqualizedLinear(channels, channels, bias=False)
        self.w_to_token = None if w_dim is None else EqualizedLinear(w_dim, channels)
        self.to_out = EqualizedLinear(channels, channels)
        self.head_dim, self.window = head_dim, window

    def style_token(self, w: Tensor) -> Tensor:
        """w: [B, w_dim] -> [B, 1, C]; only where w_dim was given"""
        assert self.w_to_token is not None
        return self.w_to_token(w)[:, None]

    def forward(self, x: Tensor, token: Tensor | None) -> Tensor:
        """x: [B, H, W, C], token: [B, 1, C] or None -> [B, H, W, C]"""
        if not self.window:
            return self.attend(x.flatten(1, 2), None, token).view_as(x)
        side, (batch, height, width, channels) = self.window, x.shape
        rows, columns = (height + side - 1) // side, (width + side - 1) // side  # ONNX rounds negative quotients up
        padding = (0, 0, 0, columns * side - width, 0, rows * side - height)
        mask = to_windows(F.pad(x.new_ones(1, height, width, 1), padding), side)[..., 0].bool().repeat(batch, 1)
        token = None if token is None else token[:, None].expand(-1, rows * columns, -1, -1).flatten(0, 1)
        y = self.attend(to_windows(F.pad(x, padding), side), mask, token)
        y = y.view(batch, rows, columns, side, side, channels).transpose(2, 3)
        return y.reshape(batch, rows * side, columns * side, channels)[:, :height, :width]

    def attend(self, x: Tensor, mask: Tensor | None, token: Tensor | None) -> Tensor:
        """x: [B, T, C], mask: [B, T] or None, token: [B, 1, C] or None -> [B, T, C]"""
        q, v = self.to_qk(x), self.to_v(x)
        k = q
        if token is not None:
            k, v = torch.cat([k, self.to_qk(token)], dim=1), torch.cat([v, self.to_v(token)], dim=1)
            mask = None if mask is None else F.pad(mask, (0, 1), value=True)
        q, k, v = (split_heads(y, self.head_dim) for y in (q, k, v))
        return self.to_out(merge_heads(l2_attention(q, k, v, mask)))


def to_windows(x: Tensor, side: int) -> Tensor:
    """[B, H, W, C] with H, W multiples of side -> [B * windows, side * side, C], raster order"""
    batch, height, width, channels = x.shape
    x = x.view(batch, height // side, side, width // side, side, channels).transpose(2, 3)
    return x.reshape(-1, side * side, channels)


class CrossAttention(nn.Module):
    """Dot-product attention from pixels to text tokens (paper, Eq. 5: g_xa)."""

    def __init__(self, channels: int, text_dim: int, head_dim: int) -> None:
        super().__init__()
        self.to_q = EqualizedLinear(channels, channels, bias=False)
        self.to_k = EqualizedLinear(text_dim, channels, bias=False)
        self.to_v = EqualizedLinear(text_dim, channels, bias=False)
        self.to_out = EqualizedLinear(channels, channels)
        self.head_dim = head_dim

    def keys_values(self, t_local: Tensor) -> tuple[Tensor, Tensor]:
        """t_local: [B, T, D] -> k, v: [B, heads, T, head_dim]"""
        return split_heads(self.to_k(t_local), self.head_dim), split_heads(self.to_v(t_local), self.head_dim)

    def forward(self, x: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """x: [B, H, W, C], k, v: [B, heads, T, head_dim], mask: [B, T] True = real token -> [B, H, W, C]"""
        q = split_heads(self.to_q(x.flatten(1, 2)), self.head_dim)
        y = F.scaled_dot_product_attention(q, k.to(q.dtype), v.to(q.dtype), attn_mask=mask[:, None, None, :])
        return self.to_out(merge_heads(y)).view_as(x)


class FeedForward(nn.Module):
    """Two linear layers with a leaky ReLU between; the inner width is four times C."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand = EqualizedLinear(channels, 4 * channels)
        self.contract = EqualizedLinear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., C] -> [..., C]"""
        return self.contract(F.leaky_relu(self.expand(x), SLOPE) * SQRT2)


class AttentionUnit(nn.Module):
    """Self-attention, cross-attention and feed-forward, as residual branches.

    Each branch is added with a reduced gain (0.3).
    """

    def __init__(
        self, channels: int, w_dim: int, text_dim: int, head_dim: int, window: int = 0, gain: float = 0.3
    ) -> None:
        super().__init__()
        self.self_norm, self.self_attention = ChannelNorm(channels), SelfAttention(channels, w_dim, head_dim, window)
        self.cross_norm, self.cross_attention = ChannelNorm(channels), CrossAttention(channels, text_dim, head_dim)
        self.feed_norm, self.feed_forward = ChannelNorm(channels), FeedForward(channels)
        self.gain = gain

    def forward(self, x: Tensor, w: Tensor, t_local: Tensor, mask: Tensor) -> Tensor:
        """x: [B, C, H, W], w: [B, w_dim], t_local: [B, T, D], mask: [B, T] -> [B, C, H, W]"""
        token = self.self_attention.style_token(w)
        return self.attend(x, token, *self.cross_attention.keys_values(t_local), mask)

    def attend(self, x: Tensor, token: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        """Apply the unit, given the parts that depend on w and text alone.

        x: [B, C, H, W], token: [B, 1, C], k, v: [B, heads, T, head_dim], mask: [B, T] -> [B, C, H, W]
        """
        y = x.permute(0, 2, 3, 1)
        y = y + self.gain * self.self_attention(self.self_norm(y), token.to(y.dtype))
        y = y + self.gain * self.cross_attention(self.cross_norm(y), k, v, mask)
        y = y + self.gain * self.feed_forward(self.feed_norm(y))
        return y.permute(0, 3, 1, 2)
