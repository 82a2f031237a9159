"""Settings of the networks."""

from collections.abc import Iterable
from typing import Literal

from pydantic import Field, model_validator

from gigasr.config.strict import FrozenModel, OptionalStr


class TextConfig(FrozenModel):
    """The frozen text tower and the learned text transformer T after it."""

    tower: str = Field("ViT-L-14", description='frozen text tower: "text_lite" (bundled) or an open_clip model name')
    pretrained: OptionalStr = Field("openai", description='tag of open_clip or a local file; "" for text_lite')
    tower_width: int = Field(768, gt=0, description="features per token of the tower")
    dim: int = Field(768, gt=0, description="width of T")
    depth: int = Field(2, ge=0, description="layers of T")
    num_heads: int = Field(8, gt=0, description="attention heads of T's layers")
    learning_rate_multiplier: float = Field(0.01, gt=0, description="factor on the learning rate of T's layers")


class LevelConfig(FrozenModel):
    """One resolution of a generator."""

    channels: int = Field(gt=0, description="feature channels")
    blocks: int = Field(ge=1, description="residual blocks of two adaptive convolutions each")
    num_kernels: int = Field(1, ge=1, description="N, the number of kernels in each bank")
    attention: int = Field(0, ge=0, description="units of self-attention, cross-attention and feed-forward")


class StageConfig(FrozenModel):
    """One resolution of the discriminator, with a prediction at its end."""

    channels: int = Field(gt=0, description="feature channels")
    blocks: int = Field(
        1, ge=1, description="pairs of convolutions; the last one halves the size (a stage that flattens has one more)"
    )
    attention: int = Field(0, ge=0, description="units of self-attention and feed-forward")


def check_heads(key: str, parts: Iterable[LevelConfig | StageConfig], head_dim: int) -> None:
    """Raise ValueError unless head_dim divides the channels of all attention parts.

    key: dotted name in the error
    """
    for part in parts:
        if part.attention and part.channels % head_dim:
            raise ValueError(f"{key}: expected channels divisible by head_dim {head_dim}, got {part.channels}")


class SynthesisConfig(FrozenModel):
    """The settings that both generators, the upsampler and the base model, have."""

    z_dim: int = Field(128, gt=0, description="width of the latent z")
    w_dim: int = Field(512, gt=0, description="width of the mapped latent w")
    mapping_layers: int = Field(4, ge=1, description="layers of the mapping network from z and text to w")
    mapping_learning_rate_multiplier: float = Field(
        0.01,
        gt=0,
        description="factor on the learning rate of the mapping network; StyleGAN's 0.01 suits adversarial training, "
        "regression needs more",
    )
    style_std: float = Field(
        0.1,
        ge=0,
        description="standard deviation at the start of the weights from w to styles and kernel logits; StyleGAN: 1",
    )
    levels: tuple[LevelConfig, ...] = Field(description="the resolutions, smallest first, each twice the one before")
    upsample: Literal["filter", "shuffle"] = Field(
        "filter",
        description="doubling of the size: by a [1, 3, 3, 1] filter, or by convolution and pixel shuffle",
    )
    head_dim: int = Field(64, gt=0, description="features per attention head")
    window: int = Field(0, ge=0, description="side of the self-attention windows, tokens; 0 = global attention")
    residual_gain: float = Field(0.4, description="factor on the output of a residual block")
    attention_gain: float = Field(0.3, description="factor on the output of an attention unit")
    text: TextConfig = Field(TextConfig(), description="text tower and text transformer")

    @model_validator(mode="after")
    def check_heads(self) -> "SynthesisConfig":
        check_heads("levels", self.levels, self.head_dim)
        return self


class UpsamplerConfig(SynthesisConfig):
    """The upsampler. Its last log2(scale) levels form the tail."""

    scale: int = Field(8, ge=2, description="HR size / LR size, a power of two")
    lr_size: int = Field(
        64, gt=0, description="low-res side in px: in training, and of body tiles where attention is global"
    )
    input_noise: float = Field(
        0.0,
        ge=0,
        description="standard deviation of the noise that the network adds to its low-res input, [-1, 1] units",
    )
    restores: bool = Field(
        False, description="remove damage; the pyramid begins with the restored low-res image, its root"
    )
    early_scales: tuple[int, ...] = Field(
        (), description="smaller scales at which the pyramid may end, as the network was trained for them"
    )

    @property
    def num_up(self) -> int:
        """Number of levels above the low-res resolution."""
        return self.scale.bit_length() - 1

    @property
    def num_down(self) -> int:
        """Number of levels below the low-res resolution."""
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


class DiscriminatorConfig(FrozenModel):
    """The discriminator, which predicts at several resolutions whether an image is real."""

    stages: tuple[StageConfig, ...] = Field(description="the resolutions, largest first; each stage halves the size")
    out_channels: int = Field(gt=0, description="feature channels of the last prediction")
    num_levels: int = Field(ge=1, description="pyramid levels that enter, the largest at the first stage")
    head_weight: float = Field(0.1, ge=0, description="weight of the early predictions; the last one has 1")
    predictor_layers: int = Field(4, ge=1, description="modulated 1x1 convolutions of each prediction")
    flatten: int = Field(
        0, ge=0, description="side of the last stage's input, px, that becomes 1x1; 0 = halved like the others"
    )
    condition_on_lr: bool = Field(
        False, description="show the upsampled low-res image beside each level; differs from the paper"
    )
    minibatch_std: int = Field(4, ge=0, description="images per group of the minibatch statistics; 0 = off")
    head_dim: int = Field(64, gt=0, description="features per attention head")
    attention_gain: float = Field(0.3, description="factor on the output of an attention unit")
    style_std: float = Field(
        0.1,
        ge=0,
        description="standard deviation at the start of the weights from the text to styles; StyleGAN: 1",
    )
    text: TextConfig = Field(TextConfig(), description="text tower and text transformer")

    @model_validator(mode="after")
    def check(self) -> "DiscriminatorConfig":
        if not self.stages:
            raise ValueError("discriminator.stages: expected at least one, got none")
        check_heads("discriminator.stages", self.stages, self.head_dim)
        return self
