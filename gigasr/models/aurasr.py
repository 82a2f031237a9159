"""The network of the public AuraSR weights (v1, v2), folded for one z.

The code is written from the network's maths.
The network is a U-Net without text: three levels down to 1/8, five levels up to 4x. The body holds the layers at the
low-res resolution and below, with all attention. The tail holds the two levels above, convolutions only. For one z
every adaptive convolution amounts to a plain one.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from gigasr.errors import join_lines
from gigasr.inference.devices import ExecutionPlan, copy_to_devices
from gigasr.inference.engine import BodyTailEngine
from gigasr.inference.folding import MAX_MAPS, NO_MARGIN, crop_margin, double_margin, shrink_margin
from gigasr.inference.noise import seeded
from gigasr.inference.tiling import Margin, TilingRules
from gigasr.models.aurasr_layers import Block, Layers, TransformerLayer
from gigasr.models.checkpoint import CheckpointError
from gigasr.networks.ops import MIN_MAP_SIDE

SIGNATURE = ("final_res_block.block1.proj.weights", "mid_attn.layers.0.0.to_qkv.weight")  # keys that only AuraSR has
MAX_BODY_TILE_BYTES = 256 << 20  # most memory of a tile of the body; overlaps are computed twice
BODY_MAPS = 5  # most maps of the low-res resolution in memory beside the skips


class StyleConfig(BaseModel):
    dim_in: int = Field(128, gt=0)


class AuraConfig(BaseModel):
    """The settings in AuraSR's config.json that the shapes of the weights do not tell.

    The defaults are the values of the public models.
    """

    model_config = ConfigDict(frozen=True)

    dim: int = Field(64, gt=0)
    input_image_size: int = Field(64, gt=0)  # px; low-res side in training
    style_network: StyleConfig = StyleConfig()
    skip_connect_scale: float | None = 0.4  # None = 1
    self_attn_heads: int = Field(8, gt=0)
    input_noise: float = Field(0.002, ge=0)  # standard deviation, [-1, 1] units; gigasr's own setting


class DownLevel(nn.Module):
    """One resolution on the way down: blocks with skips, then a halving convolution."""

    def __init__(self, blocks: list[Block], resample: nn.Conv2d, skip_gain: float) -> None:
        super().__init__()
        self.blocks, self.resample, self.skip_gain = nn.ModuleList(blocks), resample, skip_gain

    def forward(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        """x: [B, I, H, W] -> [B, O, H/2, W/2]; each block appends its result to the skips"""
        for block in self.blocks:
            x = block(x)
            skips.append(x * self.skip_gain)
        return self.resample(x)


class UpLevel(nn.Module):
    """One resolution on the way up: a doubling convolution, blocks, attention."""

    def __init__(self, resample: nn.Module, blocks: list[Block], attention: list[TransformerLayer]) -> None:
        super().__init__()
        self.resample, self.blocks, self.attention = resample, nn.ModuleList(blocks), nn.Sequential(*attention)

    def forward(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        """x: [B, I, H, W] -> [B, O, 2H, 2W]; each block takes the last skip, until none is left"""
        x = self.resample(x)
        for block in self.blocks:
            x = block(torch.cat([x, skips.pop()], dim=1) if skips else x)
        return self.attention(x)


class AuraNetwork(nn.Module):
    """AuraSR for one z, in two parts for engines: body and tail."""

    def __init__(self, layers: Layers, config: AuraConfig) -> None:
        """Make the layers in the order of the forward pass.

        The file stores the styles of the adaptive convolutions in this order.
        """
        super().__init__()
        skip_gain = 1.0 if config.skip_connect_scale is None else config.skip_connect_scale
        self.stem = layers.conv("init_conv")
        downs = [
            DownLevel(layers.blocks(f"{name}.0"), layers.conv(f"{name}.1.1", stride=2), skip_gain)
            for name in layers.numbered("downs", ".1.1.weight")
        ]
        self.mid1, self.mid2 = layers.block("mid_block1"), layers.block("mid_block2")
        window = config.input_image_size >> len(downs)  # attention sees at most as many tokens as in training
        self.mid_attention = nn.Sequential(*layers.attention("mid_attn", window))
        ups = [
            UpLevel(
                layers.doubling(f"{name}.1.0.conv"),
                layers.blocks(f"{name}.0"),
                layers.attention(f"{name}.1.1", window << i),
            )
            for i, name in enumerate(layers.numbered("ups", ".1.0.conv.weight"), start=1)
        ]
        self.final, self.to_rgb = layers.block("final_res_block"), layers.conv("final_to_rgb")
        tops, ups = ups[len(downs) :], ups[: len(downs)]
        self.downs, self.ups, self.tops = nn.ModuleList(downs), nn.ModuleList(ups), nn.ModuleList(tops)
        self.scale, self.multiple = 2 ** len(self.tops), 2 ** len(downs)  # multiple: of body heights and widths, px
        self.dtype, self.input_noise = layers.dtype, config.input_noise
        self.halos = [2]  # halo on each map of the tail, px of the map: at 1x, 2x, ...
        for level in reversed(tops):
            self.halos.insert(0, math.ceil((1 + 2 * len(level.blocks) + self.halos[0]) / 2))
        self.halo = self.halos[0]
        self.root_residual = None
        self.receptive_radius = 0  # windows of attention overlap: every pixel depends on the whole image
        self.tail_bytes = MAX_MAPS * self.dtype.itemsize * self.to_rgb.in_channels * self.scale**2  # per low-res px
        kept = sum(len(level.blocks) * level.resample.in_channels // 4**i for i, level in enumerate(downs))
        pixel_bytes = self.dtype.itemsize * (kept + BODY_MAPS * self.stem.out_channels)
        trained, side = config.input_image_size, math.isqrt(MAX_BODY_TILE_BYTES // pixel_bytes)
        min_side = max(trained, MIN_MAP_SIDE * self.multiple)
        self.tiling = TilingRules(
            min(trained // 4, 16), self.multiple, self.multiple, min_side, max(side, min_side), pixel_bytes
        )

    def fix_steps(self) -> None:
        """Make attention global, on tiles as in training.

        A graph needs the same steps for every size.
        """
        for module in self.modules():
            if isinstance(module, TransformerLayer):
                module.window = 0
        self.tiling = replace(self.tiling, side=self.tiling.minimum)

    def body(self, lr: Tensor, margin: Margin = NO_MARGIN) -> Tensor:
        """lr: [B, 3, H, W] in [-1, 1], sides multiples of `multiple` -> features [B, C, H', W'], without the margin"""
        skips: list[Tensor] = []
        unit = (lr / 2 + 0.5).clamp(0, 1)  # the weights expect [0, 1]; noise may leave the range
        x = self.stem(unit.to(self.dtype, memory_format=torch.channels_last))
        for level in self.downs:
            x = level(x, skips)
        x = self.mid2(self.mid_attention(self.mid1(x)))
        for level in self.ups:
            x = level(x, skips)
        return crop_margin(x, margin)

    def tail(self, features: Tensor, lr: Tensor, margin: Margin = NO_MARGIN) -> Tensor:
        """features: [B, C, H, W], lr: ignored -> [B, 3, H' scale, W' scale], without the margin

        Each level crops the pixels that no later level reads.
        """
        x = features.to(self.dtype)
        for level, halo in zip(self.tops, self.halos[1:], strict=True):
            x, margin = shrink_margin(level(x, []), double_margin(margin), halo)
        return crop_margin(self.to_rgb(self.final(x)), margin).float() * 2 - 1

    def forward(self, lr: Tensor) -> Tensor:
        """lr: [B, 3, H, W] in [-1, 1] -> [B, 3, scale H, scale W]"""
        return self.tail(self.body(lr), lr)


class AuraWeights:
    """The weights of a file, read at each folding for one z."""

    def __init__(self, tensors: Mapping[str, Tensor], config: AuraConfig, source: str) -> None:
        """Check the weights; raises CheckpointError if they do not fit the config.

        tensors: by the public names, lazily read or not; source: name of the file in errors
        """
        self.tensors, self.config = tensors, config
        try:
            self.plan = self.check()
        except (KeyError, RuntimeError, ValueError) as error:
            reason = join_lines(str(error))
            raise CheckpointError(
                f"{source}: expected the weights of AuraSR that fit its config.json, got: {reason}; fetch both again"
            ) from None

    def check(self) -> AuraNetwork:
        """Build and run the network on the meta device: all keys and shapes must fit."""
        shapes = {name: tensor.to("meta") for name, tensor in self.tensors.items()}
        z = torch.empty(1, self.config.style_network.dim_in, device="meta")
        layers = Layers(shapes, self.config.self_attn_heads, z, torch.float32)
        network = AuraNetwork(layers, self.config)
        network(torch.empty(1, 3, network.multiple, network.multiple, device="meta"))
        if layers.unused or layers.taken != layers.styles.shape[1]:
            raise ValueError(f"{layers.styles.shape[1] - layers.taken} styles and {sorted(layers.unused)[:3]} unused")
        return network

    @torch.no_grad()
    def fold(self, z: Tensor, dtype: torch.dtype = torch.float32) -> AuraNetwork:
        """Fold the network for one z into plain convolutions, on the device of z.

        z: [1, z_dim]
        """
        return AuraNetwork(Layers(self.tensors, self.config.self_attn_heads, z, dtype), self.config).eval()


class AuraModel:
    """AuraSR with one z for the whole image."""

    takes_text = False

    def __init__(self, weights: AuraWeights) -> None:
        self.weights, self.scale = weights, weights.plan.scale
        self.scales = [self.scale]

    def engine(self, prompt: str, seed: int, execution: ExecutionPlan, scale: int | None = None) -> BodyTailEngine:
        """Fold the network for the z of one seed; ignore the prompt."""
        z = torch.randn(1, self.weights.config.style_network.dim_in, generator=seeded(seed))
        return BodyTailEngine(
            copy_to_devices(self.weights.fold(z.to(execution.main_device), execution.dtype), execution.devices),
            execution,
        )
