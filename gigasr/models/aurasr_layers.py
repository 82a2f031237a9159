"""The layers of AuraSR's network, built from the tensors of a file for one z."""

import math
from collections.abc import Iterable, Mapping
from itertools import count, takewhile

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gigasr.inference.tiling import Tile, blend_strips
from gigasr.networks.ops import modulate, select_kernel

UNUSED = ".attend.scale"  # ending of the names of constants in the files that the network does not use
AURA_RATE_MULTIPLIER = 0.1  # of the style network
AURA_SLOPE = 0.2  # of the style network's leaky ReLU
AURA_EPS = 1e-8  # least squared norm of a kernel


def normalize(kernel: Tensor) -> Tensor:
    """Scale the kernel of each output channel to norm 1. kernel: [B, O, I, K, K] -> [B, O, I, K, K]"""
    return kernel * kernel.square().sum(dim=(2, 3, 4), keepdim=True).clamp(min=AURA_EPS).rsqrt()


class FoldedDoubling(nn.Module):
    """Convolution on the map doubled by nearest neighbours, without the doubled map.

    The kernel comes from `doubling_kernel`.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, I, H, W] -> [B, O, 2H, 2W]"""
        height, width = x.shape[2:]
        y = self.conv(x).permute(0, 2, 3, 1).unflatten(3, (2, 2, -1))  # [B, H + 1, W + 1, row, column, O]
        rows = [
            torch.stack([y[:, row : row + height, column : column + width, row, column] for column in (0, 1)], dim=3)
            for row in (0, 1)
        ]
        return torch.stack(rows, dim=2).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


def doubling_kernel(kernel: Tensor) -> Tensor:
    """Turn a kernel for a doubled map into a kernel for the map itself.

    The output channels of the new kernel are the four positions of a doubled pixel. Taps on the same source pixel are
    summed.

    kernel:  [O, I, 3, 3]
    returns: [4 O, I, 2, 2]  positions (row, column) first
    """
    taps = torch.tensor([[[1.0, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]]).to(kernel)  # [position, 2, 3]
    return torch.einsum("arh,bsw,oihw->aboirs", taps, taps, kernel).flatten(0, 2)


class Block(nn.Module):
    """Two adaptive convolutions and a shortcut."""

    def __init__(self, conv1: nn.Module, conv2: nn.Module, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.conv1, self.conv2, self.shortcut = conv1, conv2, shortcut

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, I, H, W] -> [B, O, H, W]"""
        y = F.silu(self.conv1(x), inplace=True)
        y = F.silu(self.conv2(y), inplace=True)
        y += x if self.shortcut is None else self.shortcut(x)
        return y


class AuraChannelNorm(nn.Module):
    """RMS normalisation over the channels of each pixel."""

    def __init__(self, gain: Tensor) -> None:
        super().__init__()
        self.gain = nn.Parameter(gain, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] -> [B, C, H, W]"""
        return F.normalize(x, dim=1) * self.gain * x.shape[1] ** 0.5


class TransformerLayer(nn.Module):
    """Dot-product self-attention over windows, then a feed-forward, both residual."""

    def __init__(
        self, norm: AuraChannelNorm, to_qkv: nn.Module, to_out: nn.Module, feed: nn.Module, heads: int, window: int
    ) -> None:
        """Keep the layers.

        window: side of the maps in training, px; larger maps are cross-faded from windows of this side; 0 = global
        """
        super().__init__()
        self.norm, self.to_qkv, self.to_out, self.feed = norm, to_qkv, to_out, feed
        self.heads, self.window = heads, window

    def forward(self, x: Tensor) -> Tensor:
        """x: [B, C, H, W] -> [B, C, H, W]"""
        x = self.to_out(self.attend(self.to_qkv(self.norm(x)))) + x
        return self.feed(x) + x

    def attend(self, qkv: Tensor) -> Tensor:
        """qkv: [B, 3 heads D, H, W] -> [B, heads D, H, W]"""
        height, width = qkv.shape[2:]
        if not self.window or max(height, width) <= self.window:
            return self.attend_globally(qkv)

        def process(row: list[Tile]) -> Iterable[Tensor]:
            windows = [qkv[:, :, top : top + rows, left : left + columns] for top, left, rows, columns in row]
            return self.attend_globally(torch.cat(windows)).split(len(qkv))

        windows = plan_windows(height, width, self.window, self.window // 4)
        return torch.cat(list(blend_strips(process, windows)), dim=2)

    def attend_globally(self, qkv: Tensor) -> Tensor:
        """Attend from every pixel to all pixels. qkv: [B, 3 heads D, H, W] -> [B, heads D, H, W]"""
        parts = qkv.flatten(2).chunk(3, dim=1)
        q, k, v = (y.unflatten(1, (self.heads, -1)).transpose(2, 3).contiguous() for y in parts)  # [B, heads, H W, D]
        y = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).flatten(1, 2)
        return y.unflatten(2, qkv.shape[2:])


def plan_windows(height: int, width: int, side: int, overlap: int) -> list[Tile]:
    """Cover a map with overlapping windows of one size, in raster order.

    Windows keep the full side even if smaller ones would overlap less.

    height, width: size of the map, px
    side:          side of the windows, px; less on a shorter axis of the map
    overlap:       least overlap of neighbours, px
    """

    def starts(length: int) -> list[int]:
        num_steps = math.ceil((length - side) / (side - overlap))
        return [i * (length - side) // num_steps for i in range(num_steps + 1)] if num_steps > 0 else [0]

    rows, columns = min(side, height), min(side, width)
    return [Tile(top, left, rows, columns) for top in starts(height) for left in starts(width)]


class Layers:
    """A builder of layers from the tensors of a file, for one z."""

    def __init__(self, tensors: Mapping[str, Tensor], heads: int, z: Tensor, dtype: torch.dtype) -> None:
        """Compute all styles.

        heads: number of attention heads; z: [1, z_dim]; dtype: of the layers, on the device of z
        """
        self.tensors, self.heads, self.z, self.dtype = tensors, heads, z, dtype
        self.unused = {name for name in tensors if not name.endswith(UNUSED)}
        self.styles, self.taken = self.all_styles(), 0

    def read(self, name: str) -> Tensor:
        """Return a tensor of the file in fp32, and count it as used."""
        self.unused.discard(name)
        return self.tensors[name].to(self.z.device, torch.float32)

    def numbered(self, name: str, ending: str) -> list[str]:
        """List name.0, name.1, ... while the file has the key name.i + ending."""
        return list(takewhile(lambda each: each + ending in self.tensors, (f"{name}.{i}" for i in count())))

    def all_styles(self) -> Tensor:
        """Compute styles and kernel logits of all adaptive convolutions, in order: [1, S]."""
        x = F.normalize(self.z, dim=1)
        for i in takewhile(lambda i: f"style_network.net.{i}.weight" in self.tensors, count(step=2)):
            weight, bias = (
                self.read(f"style_network.net.{i}.{part}") * AURA_RATE_MULTIPLIER for part in ("weight", "bias")
            )
            x = F.leaky_relu(F.linear(x, weight, bias), AURA_SLOPE)
        weight, bias = (self.read(f"style_to_conv_modulations.{part}") for part in ("weight", "bias"))
        return F.linear(x, weight, bias)

    def take(self, length: int) -> Tensor:
        """Take the next styles or logits: [1, length]."""
        self.taken += length
        return self.styles[:, self.taken - length : self.taken]

    def conv(self, name: str, stride: int = 1) -> nn.Conv2d:
        """Build a plain convolution."""
        weight = self.read(f"{name}.weight")
        bias = self.read(f"{name}.bias") if f"{name}.bias" in self.tensors else None
        return self.plain_conv(weight, bias, stride)

    def doubling(self, name: str) -> FoldedDoubling:
        """Build a convolution on the doubled map."""
        weight, bias = doubling_kernel(self.read(f"{name}.weight")), self.read(f"{name}.bias").repeat(4)
        return FoldedDoubling(self.plain_conv(weight, bias))

    def plain_conv(self, weight: Tensor, bias: Tensor | None, stride: int = 1) -> nn.Conv2d:
        """Build a convolution from a weight [O, I, K, K] and a bias [O]."""
        out_channels, in_channels, size, _ = weight.shape
        conv = nn.Conv2d(in_channels, out_channels, size, stride, size // 2, bias=bias is not None, device="meta")
        conv.weight = nn.Parameter(weight.to(self.dtype, memory_format=torch.channels_last), requires_grad=False)
        if bias is not None:
            conv.bias = nn.Parameter(bias.to(self.dtype), requires_grad=False)
        return conv

    def adaptive_conv(self, name: str) -> nn.Conv2d:
        """Fold an adaptive convolution into a plain one."""
        bank = self.read(f"{name}.proj.weights")
        styles, logits = self.take(bank.shape[2]), self.take(bank.shape[0])
        return self.plain_conv(normalize(modulate(select_kernel(bank, logits), styles + 1))[0], None)

    def block(self, name: str) -> Block:
        """Build two adaptive convolutions, and a shortcut if the channels change."""
        conv1, conv2 = (self.adaptive_conv(f"{name}.{part}") for part in ("block1", "block2"))
        has_shortcut = f"{name}.res_conv.weight" in self.tensors
        return Block(conv1, conv2, self.conv(f"{name}.res_conv") if has_shortcut else None)

    def blocks(self, name: str) -> list[Block]:
        """Build all blocks of a level."""
        return [self.block(each) for each in self.numbered(name, ".block1.proj.weights")]

    def attention(self, name: str, window: int) -> list[TransformerLayer]:
        """Build all attention layers of a level."""
        return [self.transformer_layer(each, window) for each in self.numbered(f"{name}.layers", ".0.to_qkv.weight")]

    def transformer_layer(self, name: str, window: int) -> TransformerLayer:
        """Build one attention layer and its feed-forward."""
        norm, to_qkv, to_out = self.norm(f"{name}.0.norm"), self.conv(f"{name}.0.to_qkv"), self.conv(f"{name}.0.to_out")
        feed = nn.Sequential(self.norm(f"{name}.1.0"), self.conv(f"{name}.1.1"), nn.GELU(), self.conv(f"{name}.1.3"))
        return TransformerLayer(norm, to_qkv, to_out, feed, self.heads, window)

    def norm(self, name: str) -> AuraChannelNorm:
        """Build an RMS normalisation."""
        return AuraChannelNorm(self.read(f"{name}.g").to(self.dtype))
