"""Settings of training."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from gigasr.config.networks import TextConfig
from gigasr.config.strict import FrozenModel, OptionalStr

Beta = Annotated[float, Field(ge=0, lt=1)]


class LossConfig(FrozenModel):
    """The weight of each loss term; 0 leaves a term out."""

    l1: float = Field(0.0, ge=0, description="mean distance to the original; not in the paper, steadies the start")
    charbonnier: float = Field(0.0, ge=0, description="the same, smooth at zero; not in the paper")
    ssim: float = Field(0.0, ge=0, description="1 minus the structural similarity; not in the paper")
    spectrum: float = Field(0.0, ge=0, description="difference of the radial power spectra; not in the paper")
    root: float = Field(
        0.0, ge=0, description="Charbonnier distance of the root to the undamaged low-res image; not in the paper"
    )
    lpips: float = Field(10.0, ge=0, description="perceptual distance to the original")
    adversarial: float = Field(1.0, ge=0, description="logistic loss of the discriminator's predictions")
    matching: float = Field(
        1.0, ge=0, description="the discriminator's term for images with another image's caption, real and generated"
    )
    generator_matching: float = Field(
        0.0, ge=0, description="the generator's side of the same, whose meaning the paper leaves open"
    )
    clip: float = Field(0.0, ge=0, description="contrastive loss of CLIP, image to text")
    vision: float = Field(0.0, ge=0, description="adversarial loss of the vision-aided discriminator")
    r1: float = Field(0.2048, ge=0, description="gradient penalty of the discriminator on real images")

    @property
    def is_root_only(self) -> bool:
        """Whether only the root's loss term counts; the generator then stops at its root."""
        return [name for name, weight in self if weight] == ["root"]


MIN_CROPS = {"ssim": 11, "lpips": 8, "spectrum": 64}  # px; of the window, the shifts, the squares


class EarlyStep(FrozenModel):
    """A kind of step that ends the pyramid at a smaller scale."""

    scale: int = Field(ge=2, description="HR size / LR size, one of the upsampler's early_scales")
    crop: int = Field(gt=0, description="high-res side of the crops, px")


class PhaseConfig(FrozenModel):
    """One phase of the training."""

    images: int = Field(gt=0, description="number of images that this phase shows")
    crop: int = Field(gt=0, description="high-res side of the crops, px")
    batch_size: int = Field(gt=0, description="images per step, of all processes and accumulation steps together")
    generator_learning_rate: float = Field(0.0025, gt=0, description="learning rate of the generator")
    discriminator_learning_rate: float = Field(0.0025, gt=0, description="learning rate of the discriminators")
    betas: tuple[Beta, Beta] = Field((0.0, 0.99), description="betas of AdamW, for all networks")
    early: tuple[EarlyStep, ...] = Field(
        (), description="steps at smaller scales, which take turns with one at the full scale"
    )
    learning_rate_decay: bool = Field(
        False, description="let the learning rates fall with the root of what is left of the phase, to a tenth"
    )
    loss: LossConfig = Field(LossConfig(), description="weights of the loss terms")

    @model_validator(mode="after")
    def check_loss(self) -> "PhaseConfig":
        for name, min_crop in MIN_CROPS.items():
            for crop in (self.crop, *(step.crop for step in self.early)):
                if getattr(self.loss, name) and crop < min_crop:
                    raise ValueError(f"train.phases.crop: expected at least {min_crop} px for loss.{name}, got {crop}")
        if self.early and self.images % self.batch_size:
            raise ValueError(
                f"train.phases.images: expected a multiple of batch_size {self.batch_size} for early, got {self.images}"
            )
        if not any(weight for name, weight in self.loss if name not in ("matching", "r1")):
            raise ValueError("train.phases.loss: expected a term for the generator, got none; give l1 a weight")
        return self

    @property
    def is_adversarial(self) -> bool:
        """Whether the phase trains with the discriminator."""
        return bool(self.loss.adversarial or self.loss.matching or self.loss.generator_matching)

    def micro_batch_size(self, parts: int) -> int:
        """Return the number of images in one micro-batch.

        Raises ValueError unless parts divides the batch size.

        parts: processes times accumulation steps
        """
        if self.batch_size % parts:
            raise ValueError(
                f"train.phases.batch_size: expected a multiple of {parts} (processes times accumulation steps), "
                f"got {self.batch_size}"
            )
        return self.batch_size // parts


class DataConfig(FrozenModel):
    """The training images: which are taken, and what is cropped from them."""

    split: OptionalStr = Field("train", description='split of captions.jsonl to train on; "" = all')
    validation_split: OptionalStr = Field("val", description='split of captions.jsonl to validate on; "" = none')
    min_size: int = Field(0, ge=0, description="least shorter side of an image, px; smaller images are left out")
    min_scores: dict[str, float] = Field(
        {},
        description="least scores of an image, such as { sharpness = 0.3 }; images with less or without are left out",
    )
    max_downscale: float = Field(1.0, ge=1, description="half the images are reduced by up to this before cropping")
    full_image: bool = Field(
        False,
        description="reduce images whole to the crop, instead of cropping; a folder's are kept in memory; "
        "base models: true by default",
    )
    horizontal_flip: bool = Field(True, description="mirror half the crops")
    caption_dropout: float = Field(0.1, ge=0, le=1, description="share of crops without their caption")
    word_dropout: float = Field(0.0, ge=0, lt=1, description="probability of each word of a caption to be left out")
    num_workers: int = Field(1, ge=0, description="processes that read data, per process that trains")


class RestorationConfig(FrozenModel):
    """The damage of a restoring network's inputs, and the words for it."""

    clean: float = Field(
        0.25, ge=0, le=1, description="share of undamaged inputs; half of the others have one damage, half several"
    )
    heavy: float = Field(0.25, ge=0, le=1, description="share with two rounds of damage, among inputs with several")
    words: float = Field(0.5, ge=0, le=1, description="share of inputs whose caption tells the damage")
    content: float = Field(0.5, ge=0, le=1, description="share of inputs whose caption tells the content")
    contrary: float = Field(
        0.2, ge=0, le=1, description="share whose caption asks to keep all damage, among damaged inputs with words"
    )
    keep_grain: float = Field(
        0.2,
        ge=0,
        le=1,
        description="share whose caption asks to keep the noise, among other noisy inputs with words",
    )


class DegradationConfig(FrozenModel):
    """The degradations of low-res inputs. Images outside of both shares are reduced by bicubic interpolation alone."""

    mild: float = Field(0.0, ge=0, le=1, description="share with mild blur, noise and JPEG")
    real_esrgan: float = Field(
        0.0, ge=0, le=1, description="share with Real-ESRGAN's two rounds of blur, resizing, noise and JPEG"
    )
    noise: float = Field(
        0.0, ge=0, description="largest standard deviation of the noise added to every input, [-1, 1] units"
    )
    restoration: RestorationConfig | None = Field(
        None, description="damaged inputs with their truths and words, instead of the three above"
    )

    @model_validator(mode="after")
    def check_shares(self) -> "DegradationConfig":
        if self.mild + self.real_esrgan > 1:
            raise ValueError(f"mild, real_esrgan: expected at most 1 together, got {self.mild} and {self.real_esrgan}")
        if self.restoration and (self.mild or self.real_esrgan or self.noise):
            raise ValueError("restoration: expected mild, real_esrgan and noise of 0 beside it; leave them out")
        return self


class ClipConfig(FrozenModel):
    """The frozen open_clip model of the contrastive loss."""

    tower: str = Field("ViT-B-32", description="model of open_clip")
    pretrained: OptionalStr = Field("openai", description="tag of open_clip or a local file")


class VisionConfig(FrozenModel):
    """The vision-aided discriminator: a frozen open_clip image tower and trained heads."""

    tower: str = Field("ViT-B-32", description="model of open_clip")
    pretrained: OptionalStr = Field("openai", description="tag of open_clip or a local file")
    layers: tuple[int, ...] = Field(
        (3, 6, 9, 12), description="blocks of the tower, counted from 1, after which features are taken"
    )
    channels: int = Field(64, gt=0, description="feature channels of the fixed random projections")
    text: TextConfig = Field(TextConfig(), description="text tower and text transformer")


class TrainConfig(FrozenModel):
    """The phases of the training, and all that they share."""

    phases: tuple[PhaseConfig, ...] = Field(description="the phases, in their order")
    seed: int = Field(0, description="seed of everything random")
    data: DataConfig = Field(DataConfig(), description="training images")
    degradation: DegradationConfig = Field(DegradationConfig(), description="degradations of low-res inputs")
    clip: ClipConfig = Field(ClipConfig(), description="model of the contrastive loss")
    vision: VisionConfig = Field(VisionConfig(), description="vision-aided discriminator")
    cache_text_features: bool = Field(
        False, description="keep the frozen tower's features of every caption in memory, for small data"
    )
    r1_every: int = Field(16, ge=1, description="steps from one gradient penalty to the next (lazy regularisation)")
    ema_half_life: float = Field(20_000, gt=0, description="half-life of the averaged weights, images")
    weight_decay: float = Field(
        1e-5, ge=0, description="weight decay of all weights but those of the attention over images"
    )
    attention_weight_decay: float = Field(0.01, ge=0, description="weight decay of the attention over images")
    max_grad_norm: float = Field(0.0, ge=0, description="largest norm of a network's gradient; 0 = off")
    gradient_accumulation_steps: int = Field(1, ge=1, description="micro-batches per step")
    gradient_checkpointing: bool = Field(
        False, description="recompute the generator's blocks in the backward pass: less memory, more work"
    )
    precision: Literal["fp32", "tf32", "bf16"] = Field(
        "tf32", description="number format of the arithmetic; with bf16 predictions, losses and R1 stay in tf32"
    )
    fsdp: bool = Field(False, description="spread the generator over all processes (FSDP)")
    tracker: Literal["tensorboard", "wandb", "none"] = Field("tensorboard", description="service that shows the curves")
    log_every: int = Field(50, ge=1, description="steps between two lines of the log")
    sample_every: int = Field(500, ge=1, description="steps between two grids of samples")
    validate_every: int = Field(2000, ge=0, description="steps between two validations; 0 = never")
    save_every: int = Field(250, ge=1, description="steps between two saves")

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
