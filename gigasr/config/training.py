"""Settings of training."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gigasr.config.networks import TextConfig
from gigasr.config.strict import Name, Strict

Beta = Annotated[float, Field(ge=0, lt=1)]


class LossConfig(Strict):
    """The weight of each term; 0 leaves it out."""

    l1: float = Field(0.0, ge=0)  # not in the paper; steadies the start
    charbonnier: float = Field(0.0, ge=0)  # not in the paper; a smooth L1
    ssim: float = Field(0.0, ge=0)  # not in the paper
    spectrum: float = Field(0.0, ge=0)  # not in the paper; as much detail of each fineness
    root: float = Field(0.0, ge=0)  # not in the paper; Charbonnier of the root and the undamaged low-res image
    lpips: float = Field(10.0, ge=0)
    adversarial: float = Field(1.0, ge=0)
    matching: float = Field(1.0, ge=0)  # the discriminator's: real and fake images with another image's caption
    generator_matching: float = Field(0.0, ge=0)  # the generator's side of it, whose meaning the paper leaves open
    clip: float = Field(0.0, ge=0)  # contrastive, image to text
    vision: float = Field(0.0, ge=0)  # vision-aided adversarial
    r1: float = Field(0.2048, ge=0)


LEAST_CROPS = {"ssim": 11, "lpips": 8, "spectrum": 64}  # px; of the window, the shifts, the squares


class EarlyStep(Strict):
    """Steps that end the pyramid at a smaller scale."""

    scale: int = Field(ge=2)  # HR / LR
    crop: int = Field(gt=0)  # px; high-res side


class PhaseConfig(Strict):
    images: int = Field(gt=0)  # how many this phase shows
    crop: int = Field(gt=0)  # px; high-res side
    batch_size: int = Field(gt=0)  # of all processes and accumulation steps together
    generator_lr: float = Field(0.0025, gt=0)
    discriminator_lr: float = Field(0.0025, gt=0)
    betas: tuple[Beta, Beta] = (0.0, 0.99)  # of AdamW, all players
    early: tuple[EarlyStep, ...] = ()  # steps at smaller scales; they take turns with one at the full scale
    decay: bool = False  # learning rates fall with the root of what is left of the phase, to a tenth
    loss: LossConfig = LossConfig()

    @model_validator(mode="after")
    def check_loss(self) -> "PhaseConfig":
        for name, least in LEAST_CROPS.items():
            for crop in (self.crop, *(step.crop for step in self.early)):
                if getattr(self.loss, name) and crop < least:
                    raise ValueError(f"train.phases.crop: expected at least {least} px for loss.{name}, got {crop}")
        if self.early and self.images % self.batch_size:
            raise ValueError(
                f"train.phases.images: expected a multiple of batch_size {self.batch_size} for early, got {self.images}"
            )
        if not any(weight for name, weight in self.loss if name not in ("matching", "r1")):
            raise ValueError("train.phases.loss: expected a term for the generator, got none; give l1 a weight")
        return self

    @property
    def plays(self) -> bool:
        """Whether the discriminator plays, and learns."""
        return bool(self.loss.adversarial or self.loss.matching or self.loss.generator_matching)

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


class RestorationConfig(Strict):
    """What is wrong with the inputs of a network that restores, and how often the caption says so."""

    clean: float = Field(0.25, ge=0, le=1)  # share with nothing wrong; of the rest half have one cause, half several
    heavy: float = Field(0.25, ge=0, le=1)  # share of two rounds of damage among what has several causes
    words: float = Field(0.5, ge=0, le=1)  # share whose state is said
    content: float = Field(0.5, ge=0, le=1)  # share that shows the content's caption
    contrary: float = Field(0.2, ge=0, le=1)  # of the damaged with words: these want it left, the input is the truth
    keep_grain: float = Field(0.2, ge=0, le=1)  # of the other noisy ones with words: these want the noise left


class DegradationConfig(Strict):
    """How low-res inputs are made; what neither share takes is reduced by bicubic alone."""

    camera: float = Field(0.0, ge=0, le=1)  # share with mild blur, noise and JPEG
    second_order: float = Field(0.0, ge=0, le=1)  # share of Real-ESRGAN's two rounds of blur, resize, noise, JPEG
    noise: float = Field(0.0, ge=0)  # largest std of the noise added to every input, [-1, 1] units
    restoration: RestorationConfig | None = None  # draws inputs, their truths and words instead of the three above

    @model_validator(mode="after")
    def check_shares(self) -> "DegradationConfig":
        if self.camera + self.second_order > 1:
            raise ValueError(
                f"camera, second_order: expected at most 1 together, got {self.camera} and {self.second_order}"
            )
        if self.restoration and (self.camera or self.second_order or self.noise):
            raise ValueError("restoration: expected camera, second_order and noise of 0 beside it; leave them out")
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
        for phase in self.phases:
            if phase.images % phase.batch_size and any(other.early for other in self.phases):
                raise ValueError(
                    f"train.phases.images: expected multiples of batch_size {phase.batch_size} beside early, "
                    f"got {phase.images}"
                )
        return self
