"""Fold a network for one prompt and one z (also: fuse, re-parameterise).

Folding replaces the leaves of a network by plain, constant layers. For one prompt and one z, w is constant over the
image. Kernel selection, modulation and demodulation then amount to an ordinary convolution. The keys and values of
cross-attention and the style's token are constants.
"""

import copy
import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gigasr.config.networks import LevelConfig, UpsamplerConfig
from gigasr.inference.tiling import Margin, TilingRules
from gigasr.networks.attention import AttentionUnit
from gigasr.networks.blocks import SLOPE, AdaptiveConv2d, EqualizedConv2d, EqualizedLinear, UpBlock
from gigasr.networks.ops import depth_to_space, upsample_bicubic
from gigasr.networks.text import TextFeatures
from gigasr.networks.upsampler import Level, Upsampler, remove_low_frequencies

M = TypeVar("M", bound=nn.Module)
NO_MARGIN = Margin()
MAX_MAPS = 6  # most maps of a level in memory at a time


class FoldedConv2d(nn.Conv2d):
    """A plain convolution that replaces an adaptive or equalised convolution.

    `forward` accepts w and ignores it.
    """

    def __init__(self, kernel: Tensor, bias: Tensor, stride: int, activate: bool) -> None:
        out_channels, in_channels, size, _ = kernel.shape
        super().__init__(in_channels, out_channels, size, stride=stride, padding=size // 2, device="meta")
        self.weight = nn.Parameter(kernel, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)
        self.activate = activate

    def forward(self, x: Tensor, w: Tensor | None = None) -> Tensor:
        """x: [B, I, H, W] -> [B, O, H/stride, W/stride]"""
        y = super().forward(x)
        return F.leaky_relu(y, SLOPE, inplace=True) if self.activate else y


class FoldedUpBlock(nn.Module):
    """An upsampling block with one map fewer in memory."""

    def __init__(self, block: UpBlock, w: Tensor, text: TextFeatures) -> None:
        super().__init__()
        self.conv0, self.conv1, self.skip = fold_leaves(block, w, text).children()

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """x: [B, I, H, W] -> [B, O, 2H, 2W]; w is accepted and ignored"""
        y: Tensor = self.conv1(depth_to_space(self.conv0(x)))
        return y.add_(depth_to_space(self.skip(x)))  # the skip comes last and is added in place: one map fewer


class FoldedAttentionUnit(nn.Module):
    """An attention unit with constant style token, text keys and text values."""

    mask: Tensor

    def __init__(self, unit: AttentionUnit, w: Tensor, text: TextFeatures) -> None:
        super().__init__()
        token = unit.self_attention.style_token(w)
        k, v = unit.cross_attention.keys_values(text.t_local)
        self.unit = fold_leaves(unit, w, text)
        self.constants = nn.ParameterList(nn.Parameter(x, requires_grad=False) for x in (token, k, v))
        self.register_buffer("mask", text.mask)

    def lay_out(self) -> None:
        """Make the constants contiguous for fused attention; channels_last is for maps."""
        for constant in self.constants:
            constant.data = constant.data.contiguous()

    def forward(self, x: Tensor, w: Tensor, t_local: Tensor, mask: Tensor) -> Tensor:
        """x: [B, C, H, W] -> [B, C, H, W]; the conditions are accepted and ignored"""
        batch = x.shape[0]  # not len(x), which would be fixed in an exported graph
        token, k, v = (constant.expand(batch, *constant.shape[1:]) for constant in self.constants)
        return self.unit.attend(x, token, k, v, self.mask.expand(batch, -1))


def fold_linear(layer: EqualizedLinear) -> nn.Linear:
    """Return a plain linear layer with the scaled weight and bias of an equalised one."""
    folded = nn.Linear(layer.weight.shape[1], layer.weight.shape[0], layer.bias is not None, device="meta")
    folded.weight = nn.Parameter(layer.weight * layer.weight_gain, requires_grad=False)
    if layer.bias is not None:
        folded.bias = nn.Parameter(layer.bias * layer.learning_rate_multiplier, requires_grad=False)
    return folded


def fold_leaf(module: nn.Module, w: Tensor, text: TextFeatures) -> nn.Module | None:
    """Return the constant replacement of a module, or None to fold its children.

    w: [1, w_dim]; text: features of one prompt
    """
    if isinstance(module, AdaptiveConv2d):
        return FoldedConv2d(module.kernel(w)[0], module.scaled_bias(), 1, module.activate)
    if isinstance(module, EqualizedConv2d):
        return FoldedConv2d(module.kernel(), module.scaled_bias(), module.stride, module.activate)
    if isinstance(module, EqualizedLinear):
        return fold_linear(module)
    if isinstance(module, AttentionUnit):
        return FoldedAttentionUnit(module, w, text)
    if isinstance(module, UpBlock) and module.upsample == "shuffle":
        return FoldedUpBlock(module, w, text)
    return None


def fold_leaves(module: M, w: Tensor, text: TextFeatures) -> M:
    """Copy a module with folded leaves; leave the original unchanged."""
    folded = copy.copy(module)
    folded._parameters = {
        name: None if p is None else nn.Parameter(p.clone(), False) for name, p in module._parameters.items()
    }
    folded._buffers = {name: None if b is None else b.clone() for name, b in module._buffers.items()}
    folded._modules = {
        name: None if child is None else fold_leaf(child, w, text) or fold_leaves(child, w, text)
        for name, child in module._modules.items()
    }
    return folded


class FoldedUpsampler(nn.Module):
    """An upsampler for one prompt and one z: body and tail as plain networks."""

    def __init__(self, network: Upsampler, w: Tensor, text: TextFeatures, dtype: torch.dtype) -> None:
        super().__init__()
        config, self.scale = network.config, network.scale
        self.dtype, self.input_noise = dtype, config.input_noise
        self.tiling = plan_tiling(network, dtype)
        self.body_halos, self.receptive_radius = body_halos(config)
        self.halos = tail_halos(config)
        self.halo = self.halos[0]
        top = config.num_down + 1
        self.tail_bytes = (
            MAX_MAPS
            * dtype.itemsize
            * max(level.channels * 4**i for i, level in enumerate(config.levels[top:], start=1))
        )
        self.network = fold_leaves(network, w, text)
        self.root_residual = self._root_residual if config.restores else None
        del self.network.mapping, self.network.text_transformer
        self.to(dtype).to(memory_format=torch.channels_last)
        for unit in self.network.modules():
            if isinstance(unit, FoldedAttentionUnit):
                unit.lay_out()

    def body(self, lr: Tensor, margin: Margin = NO_MARGIN) -> Tensor:
        """lr: [B, 3, H, W] in [-1, 1], H, W and margin multiples of `tiling.multiple` -> features [B, C, H', W']

        H' and W' exclude the margin. Each level crops the pixels that no later level reads.
        """
        x, skips = self.network.encode(lr.to(self.dtype, memory_format=torch.channels_last))
        rate, outer = self.tiling.multiple, margin
        margin = Margin(*(side // rate for side in outer))
        for level, (halo, next_halo) in zip(self.network.levels, self.body_halos, strict=False):
            assert isinstance(level, Level)
            if level.up is not None:
                rate, margin = rate // 2, double_margin(margin)
                let_go = Margin(*(a // rate - b for a, b in zip(outer, margin, strict=True)))
                x = level.up(x, NO_W).add_(crop_margin(skips.pop(), let_go))
            x, margin = shrink_margin(level.convolve(x, NO_W), margin, halo)
            x, margin = shrink_margin(level.attend(x, NO_W, NO_TEXT), margin, next_halo)
        return x

    def _root_residual(self, features: Tensor) -> Tensor:
        assert self.network.to_root is not None
        residual: Tensor = self.network.to_root(features, NO_W)
        return residual.float()

    def tail(self, features: Tensor, root: Tensor, margin: Margin = NO_MARGIN) -> Tensor:
        """features: [B, C, H, W], root: [B, 3, H, W] in [-1, 1] -> [B, 3, H' scale, W' scale], without the margin

        Each level crops the pixels that no later level reads.
        """
        x, rgb = features, root
        levels = self.network.levels[-len(self.network.to_rgb) :]
        for level, to_rgb, halo in zip(levels, self.network.to_rgb, self.halos[1:], strict=True):
            margin = double_margin(margin)
            rgb, _ = shrink_margin(upsample_bicubic(rgb, 2), margin, halo)
            x, margin = shrink_margin(level(x, None, NO_W, NO_TEXT), margin, halo)
            rgb = rgb + to_rgb(x, NO_W).to(rgb.dtype)
        return rgb

    def forward(self, lr: Tensor) -> Tensor:
        """lr: [B, 3, H, W] in [-1, 1] -> [B, 3, scale H, scale W]"""
        features = self.body(lr)
        root = lr if self.root_residual is None else lr + remove_low_frequencies(self.root_residual(features))
        return self.tail(features, root)


def crop_margin(x: Tensor, margin: Margin) -> Tensor:
    """Crop the margin away. x: [B, C, H, W] -> [B, C, H - top - bottom, W - left - right]"""
    top, bottom, left, right = margin
    return x[:, :, top : x.shape[2] - bottom, left : x.shape[3] - right]


def shrink_margin(x: Tensor, margin: Margin, halo: int) -> tuple[Tensor, Margin]:
    """Crop the margin to at most the halo; return the smaller map and its margin.

    x: [B, C, H, W]; halo: px
    """
    kept = Margin(*(min(side, halo) for side in margin))
    return crop_margin(x, Margin(*(a - b for a, b in zip(margin, kept, strict=True)))), kept


def double_margin(margin: Margin) -> Margin:
    """Return the margin on a map of twice the size."""
    return Margin(*(2 * side for side in margin))


def halo_below(config: UpsamplerConfig, level: LevelConfig, halo: int) -> int:
    """Return the halo on the map below a level, for a given halo on the level's map.

    halo:    px of the level's map
    returns: px of the map below, at half the size
    """
    convolutions = 2 * level.blocks - (config.upsample == "shuffle")  # the first one is at the rate below
    return 1 + math.ceil((convolutions + halo) / 2)


def body_halos(config: UpsamplerConfig) -> tuple[list[tuple[int, int]], int]:
    """Compute the halos of the body's levels, and the body's receptive field.

    returns: the halos of each level, px of its map, coarsest level first: (before its attention, rounded up to whole
             windows; after its attention); and the receptive field, low-res px, 0 for global attention
    """
    halos: list[tuple[int, int]] = []
    halo = 0
    for level in reversed(config.levels[: config.num_down + 1]):
        grid = max(config.window, 1) if level.attention else 1
        whole = math.ceil(halo / grid) * grid
        halos.insert(0, (whole, halo))
        halo = halo_below(config, level, whole)
    halo = halos[0][0] + 2 * config.levels[0].blocks  # the coarsest level upsamples nothing
    for _ in range(config.num_down):
        halo = 2 * halo + 2  # a convolution with a stride of 2, and one before it
    multiple = 2**config.num_down
    return halos, math.ceil((halo + 1) / multiple) * multiple if config.window else 0


def tail_halos(config: UpsamplerConfig) -> list[int]:
    """Compute the halo on each map of the tail, px of the map.

    returns: at 1x, 2x, ...; the last element is the result's, 0
    """
    halos = [0]
    for level in reversed(config.levels[config.num_down + 1 :]):
        bicubic = 2 + math.ceil(halos[0] / 2)
        halos.insert(0, max(halo_below(config, level, halos[0]), bicubic))
    return halos


def plan_tiling(network: Upsampler, dtype: torch.dtype) -> TilingRules:
    """Choose the tiling rules of the body.

    Global attention needs tiles as large as in training. Windowed attention takes all tiles of whole windows.
    """
    config, multiple = network.config, network.multiple
    max_values = max(
        level.channels // 4 ** (config.num_down - i) for i, level in enumerate(config.levels[: config.num_down + 1])
    )
    pixel_bytes = MAX_MAPS * dtype.itemsize * max_values
    if config.window:
        window = config.window * multiple
        result_bytes = dtype.itemsize * config.levels[config.num_down].channels
        return TilingRules(window, window, multiple, network.min_side, 0, pixel_bytes, result_bytes)
    side = config.lr_size
    return TilingRules(min(side // 4, 16), multiple, multiple, network.min_side, side, pixel_bytes)


NO_W = torch.empty(0)  # folded layers accept and ignore w
NO_TEXT = TextFeatures(*(torch.empty(0) for _ in range(3)))


@torch.no_grad()
def fold(network: Upsampler, w: Tensor, text: TextFeatures, dtype: torch.dtype = torch.float32) -> FoldedUpsampler:
    """Fold an upsampler in fp32, then cast.

    w:       [1, w_dim]
    text:    features of one prompt
    returns: a network equal to network(lr, z, tokens)[-1] without input noise, channels_last, in dtype
    """
    return FoldedUpsampler(network, w, text, dtype).eval()
