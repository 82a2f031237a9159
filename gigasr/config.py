"""Configuration: frozen models, read from TOML, strict about every key."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from gigasr.config_errors import explain
from gigasr.config_file import read_tables

T = TypeVar("T", bound=BaseModel)
Name = Annotated[str | None, AfterValidator(lambda name: name or None)]  # "" = None, for which TOML has no word
Beta = Annotated[float, Field(ge=0, lt=1)]


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


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


class LossConfig(Strict):
    """The weight of each term; 0 leaves it out."""

    l1: float = Field(0.0, ge=0)  # not in the paper; steadies the start
    charbonnier: float = Field(0.0, ge=0)  # not in the paper; a smooth L1
    ssim: float = Field(0.0, ge=0)  # not in the paper
    spectrum: float = Field(0.0, ge=0)  # not in the paper; as much detail of each fineness
    lpips: float = Field(10.0, ge=0)
    adversarial: float = Field(1.0, ge=0)
    matching: float = Field(1.0, ge=0)  # the discriminator's: real and fake images with another image's caption
    generator_matching: float = Field(0.0, ge=0)  # the generator's side of it, whose meaning the paper leaves open
    clip: float = Field(0.0, ge=0)  # contrastive, image to text
    vision: float = Field(0.0, ge=0)  # vision-aided adversarial
    r1: float = Field(0.2048, ge=0)


LEAST_CROPS = {"ssim": 11, "lpips": 8, "spectrum": 64}  # px; of the window, the shifts, the squares


class PhaseConfig(Strict):
    images: int = Field(gt=0)  # how many this phase shows
    crop: int = Field(gt=0)  # px; high-res side
    batch_size: int = Field(gt=0)  # of all processes and accumulation steps together
    generator_lr: float = Field(0.0025, gt=0)
    discriminator_lr: float = Field(0.0025, gt=0)
    betas: tuple[Beta, Beta] = (0.0, 0.99)  # of AdamW, all players
    decay: bool = False  # learning rates fall with the root of what is left of the phase, to a tenth
    loss: LossConfig = LossConfig()

    @model_validator(mode="after")
    def check_loss(self) -> "PhaseConfig":
        for name, least in LEAST_CROPS.items():
            if getattr(self.loss, name) and self.crop < least:
                raise ValueError(f"train.phases.crop: expected at least {least} px for loss.{name}, got {self.crop}")
        if not any(weight for name, weight in self.loss if name not in ("matching", "r1")):
            raise ValueError("train.phases.loss: expected a term for the generator, got none; give l1 a weight")
        return self

    def micro_batch_size(self, parts: int) -> int:
        """Images of one micro-batch; parts: processes times accumulation steps, ValueError where they don't divide."""
        if self.batch_size % parts:
            raise ValueError(
                f"train.phases.batch_size: expected a multiple of {parts} (processes times accumulation), "
                f"got {self.batch_size}"
            )
        return self.batch_size // parts


class DataConfig(Strict):
    split: Name = "train"  # rows of captions.jsonl to train on; "" = all
    validation_split: Name = "val"  # "" = none
    min_size: int = Field(0, ge=0)  # px; shorter side
    min_scores: dict[str, float] = {}  # e.g. sharpness, similarity, aesthetic; a sample without the score is left out
    max_reduction: float = Field(1.0, ge=1)  # half the images are reduced by up to this before cropping
    whole: bool = False  # images are reduced whole to the crop, and a folder's are kept in memory
    mirror: bool = True  # half the crops are mirrored
    empty_caption: float = Field(0.1, ge=0, le=1)  # share of crops shown without a caption
    word_dropout: float = Field(0.0, ge=0, lt=1)  # probability with which each word of a caption is left out
    workers: int = Field(1, ge=0)  # processes that read, per process that trains


class DegradationConfig(Strict):
    """How low-res inputs are made; what neither share takes is reduced by bicubic alone."""

    camera: float = Field(0.0, ge=0, le=1)  # share with mild blur, noise and JPEG
    second_order: float = Field(0.0, ge=0, le=1)  # share of Real-ESRGAN's two rounds of blur, resize, noise, JPEG
    noise: float = Field(0.0, ge=0)  # largest std of the noise added to every input, [-1, 1] units

    @model_validator(mode="after")
    def check_shares(self) -> "DegradationConfig":
        if self.camera + self.second_order > 1:
            raise ValueError(
                f"camera, second_order: expected at most 1 together, got {self.camera} and {self.second_order}"
            )
        return self


class ClipConfig(Strict):
    """The frozen open_clip model of the contrastive loss."""

    tower: str = "ViT-B-32"
    pretrained: Name = "openai"


class VisionConfig(Strict):
    """The vision-aided discriminator: a frozen open_clip image tower and trained heads."""

    tower: str = "ViT-B-32"
    pretrained: Name = "openai"
    layers: tuple[int, ...] = (3, 6, 9, 12)  # after which blocks of the tower features are taken, counted from 1
    channels: int = Field(64, gt=0)  # of the fixed random projections
    text: TextConfig = TextConfig()


class TrainConfig(Strict):
    phases: tuple[PhaseConfig, ...]
    seed: int = 0
    data: DataConfig = DataConfig()
    degradation: DegradationConfig = DegradationConfig()
    clip: ClipConfig = ClipConfig()
    vision: VisionConfig = VisionConfig()
    keep_texts: bool = False  # keep in memory what the frozen tower says of each caption: for small data
    r1_every: int = Field(16, ge=1)  # steps; lazy regularisation
    ema_half_life: float = Field(20_000, gt=0)  # images
    weight_decay: float = Field(1e-5, ge=0)
    attention_weight_decay: float = Field(0.01, ge=0)
    clip_norm: float = Field(0.0, ge=0)  # gradient norm, 0 = off
    accumulation: int = Field(1, ge=1)  # micro-batches per step
    checkpointing: bool = False  # recompute the generator's blocks in the backward pass instead of keeping them
    precision: Literal["fp32", "tf32", "bf16"] = "tf32"  # bf16: all but heads, losses and R1
    sharded: bool = False  # FSDP for the generator
    tracker: Literal["tensorboard", "wandb", "none"] = "tensorboard"
    log_every: int = Field(50, ge=1)  # steps
    sample_every: int = Field(500, ge=1)  # steps
    validate_every: int = Field(2000, ge=0)  # steps; 0 = never
    save_every: int = Field(250, ge=1)  # steps

    @model_validator(mode="after")
    def check(self) -> "TrainConfig":
        if not self.phases:
            raise ValueError("train.phases: expected at least one, got none")
        return self


def check_towers(generator: TextConfig, discriminator: DiscriminatorConfig, train: TrainConfig) -> None:
    """Raise ValueError unless all players read the one frozen text tower that a run has."""
    texts = {"discriminator.text": discriminator.text}
    if any(phase.loss.vision for phase in train.phases):
        texts["train.vision.text"] = train.vision.text
    expected = (generator.tower, generator.pretrained, generator.tower_width)
    for name, text in texts.items():
        if (found := (text.tower, text.pretrained, text.tower_width)) != expected:
            raise ValueError(
                f"{name}: expected the generator's tower, pretrained and tower_width {expected}, got {found}"
            )


def check_levels(discriminator: DiscriminatorConfig, made: int) -> None:
    """Raise ValueError where the discriminator reads more pyramid levels than the generator makes."""
    if discriminator.num_levels > made:
        raise ValueError(
            f"discriminator.num_levels: expected at most the {made} that the generator makes, "
            f"got {discriminator.num_levels}"
        )


class Config(Strict):
    """A whole file of configs/: a model, its discriminator and its training."""

    upsampler: UpsamplerConfig
    discriminator: DiscriminatorConfig
    train: TrainConfig

    @model_validator(mode="after")
    def check(self) -> "Config":
        check_towers(self.upsampler.text, self.discriminator, self.train)
        check_levels(self.discriminator, self.upsampler.num_up)
        multiple = self.upsampler.scale * 2**self.upsampler.num_down
        for phase in self.train.phases:
            if phase.crop % multiple:
                raise ValueError(f"train.phases.crop: expected a multiple of {multiple} px, got {phase.crop}")
        return self


def load_config(path: Path, overrides: tuple[str, ...] = ()) -> Config:
    """Read a TOML file; overrides are "dotted.key=value" with TOML values. Raises ValueError naming the dotted key."""
    return parse(Config, read_tables(path, overrides), str(path))


def parse(model: type[T], data: dict[str, Any], source: str) -> T:
    """Validate, with errors in one line: the dotted path, the rule, what was given."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ValueError(f"{source}: " + "; ".join(explain(model, e) for e in error.errors())) from None
