"""Settings of the networks."""

from collections.abc import Iterable
from typing import Literal

from pydantic import Field, model_validator

from gigasr.config.strict import Name, Strict


class TextConfig(Strict):
    tower: str = "ViT-L-14"  # frozen text tower: "text_lite" (bundled) or an open_clip model name
    pretrained: Name = "openai"  # open_clip tag or a local file; "" for text_lite
    tower_width: int = Field(768, gt=0)  # features per token that the tower gives
    dim: int = Field(768, gt=0)  # width of the learned text transformer T
    depth: int = Field(2, ge=0)  # layers of T
    num_heads: int = Field(8, gt=0)
    lr_mul: float = Field(0.01, gt=0)  # of T's layers


class LevelConfig(Strict):
    channels: int = Field(gt=0)
    blocks: int = Field(ge=1)  # residual blocks of two adaptive convolutions each
    num_kernels: int = Field(1, ge=1)  # N, the size of each kernel bank
    attention: int = Field(0, ge=0)  # units of self-attention, cross-attention, feed-forward


class StageConfig(Strict):
    channels: int = Field(gt=0)
    blocks: int = Field(1, ge=1)  # of two convolutions each, the last one halves the size (or flattens, one more)
    attention: int = Field(0, ge=0)  # units of self-attention and feed-forward


def check_heads(key: str, parts: Iterable[LevelConfig | StageConfig], head_dim: int) -> None:
    """Raise ValueError unless the heads of attention divide the channels of each part that has it."""
    for part in parts:
        if part.attention and part.channels % head_dim:
            raise ValueError(f"{key}: expected channels divisible by head_dim {head_dim}, got {part.channels}")


class SynthesisConfig(Strict):
    """What both generators, the upsampler and the base model, have."""

    z_dim: int = Field(128, gt=0)
    w_dim: int = Field(512, gt=0)
    mapping_layers: int = Field(4, ge=1)
    mapping_lr_mul: float = Field(0.01, gt=0)  # StyleGAN's, for long games; regression needs more
    style_std: float = Field(0.1, ge=0)  # of the weights from w to styles and logits at the start; StyleGAN: 1
    levels: tuple[LevelConfig, ...]  # smallest resolution first
    upsample: Literal["filter", "shuffle"] = "filter"  # [1,3,3,1] filter, or convolution + pixel shuffle
    head_dim: int = Field(64, gt=0)  # features per attention head
    window: int = Field(0, ge=0)  # tokens; side of the self-attention windows, 0 = global
    residual_gain: float = 0.4
    attention_gain: float = 0.3
    text: TextConfig = TextConfig()

    @model_validator(mode="after")
    def check_heads(self) -> "SynthesisConfig":
        check_heads("levels", self.levels, self.head_dim)
        return self


class UpsamplerConfig(SynthesisConfig):
    """Its last log2(scale) levels form the tail."""

    scale: int = Field(8, ge=2)  # HR / LR, a power of two
    lr_size: int = Field(64, gt=0)  # px; low-res side in training, and of body regions where attention is global
    input_noise: float = Field(0.0, ge=0)  # std of the noise added to the low-res input, [-1, 1] units
    restores: bool = False  # the pyramid has a root: a low-res image from which the network removed damage
    early_scales: tuple[int, ...] = ()  # smaller factors at which the pyramid may end: the network was trained for them

    @property
    def num_up(self) -> int:
        """Levels above the low-res resolution."""
        return self.scale.bit_length() - 1

    @property
    def num_down(self) -> int:
        """Levels below the low-res resolution."""
        return len(self.levels) - 1 - self.num_up

    @model_validator(mode="after")
    def check(self) -> "UpsamplerConfig":
        if self.scale & (self.scale - 1):
            raise ValueError(f"scale: expected a power of two, got {self.scale}")
        if self.num_down < 1:
            raise ValueError(
                f"levels: expected at least {self.num_up + 2} for scale {self.scale}, got {len(self.levels)}"
            )
        if any(level.attention for level in self.levels[self.num_down + 1 :]):
            raise ValueError("levels: expected attention = 0 above the low-res resolution")
        smaller = [2**i for i in range(1, self.num_up)]
        for scale in self.early_scales:
            if scale not in smaller:
                raise ValueError(f"early_scales: expected values of {smaller}, got {scale}")
        return self


class DiscriminatorConfig(Strict):
    stages: tuple[StageConfig, ...]  # largest resolution first; each halves it
    out_channels: int = Field(gt=0)  # of the last exit
    num_levels: int = Field(ge=1)  # pyramid levels that enter, the largest at the first stage
    exit_weight: float = Field(0.1, ge=0)  # of the early exits beside the last
    predictor_layers: int = Field(4, ge=1)  # 1x1 modulated convolutions of each psi
    flatten: int = Field(0, ge=0)  # px; the last stage's input of this side becomes 1x1; 0 = it is halved like others
    sees_lr: bool = False  # differs from the paper: the enlarged low-res image stands beside each level
    minibatch_std: int = Field(4, ge=0)  # group size; 0 = off
    head_dim: int = Field(64, gt=0)
    attention_gain: float = 0.3
    style_std: float = Field(0.1, ge=0)  # of the weights from t_D to styles at the start; StyleGAN: 1
    text: TextConfig = TextConfig()

    @model_validator(mode="after")
    def check(self) -> "DiscriminatorConfig":
        if not self.stages:
            raise ValueError("discriminator.stages: expected at least one, got none")
        check_heads("discriminator.stages", self.stages, self.head_dim)
        return self
