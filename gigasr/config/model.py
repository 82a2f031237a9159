"""The config of an upsampler, its discriminator and its training."""

from collections.abc import Iterable
from pathlib import Path

from pydantic import model_validator

from gigasr.config.networks import DiscriminatorConfig, SynthesisConfig, TextConfig, UpsamplerConfig
from gigasr.config.strict import FrozenModel, parse
from gigasr.config.tables import read_tables
from gigasr.config.training import PhaseConfig, TrainConfig


def check_towers(generator: TextConfig, discriminator: DiscriminatorConfig, train: TrainConfig) -> None:
    """Raise ValueError unless all networks of a run use the same frozen text tower."""
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
    """Raise ValueError if the discriminator reads too many pyramid levels.

    made: number of levels of the generator's pyramid
    """
    if discriminator.num_levels > made:
        raise ValueError(
            f"discriminator.num_levels: expected at most the {made} that the generator makes, "
            f"got {discriminator.num_levels}"
        )


def check_stages(discriminator: DiscriminatorConfig, phases: Iterable[PhaseConfig]) -> None:
    """Raise ValueError unless the crops of adversarial phases fit the stages.

    Every stage must halve the crop without remainder. A stage that flattens must reach 1x1.
    """
    flatten = discriminator.flatten
    factor = 2 ** (len(discriminator.stages) - bool(flatten))
    for phase in phases:
        if phase.is_adversarial and (phase.crop % factor or (flatten and phase.crop != flatten * factor)):
            expected = f"{flatten * factor} px" if flatten else f"a multiple of {factor} px"
            raise ValueError(f"train.phases.crop: expected {expected} for the discriminator's stages, got {phase.crop}")


def check_networks(
    generator: SynthesisConfig, made: int, discriminator: DiscriminatorConfig, train: TrainConfig
) -> None:
    """Raise ValueError unless a generator can train with its discriminators.

    made: number of levels of the generator's pyramid
    """
    check_towers(generator.text, discriminator, train)
    check_levels(discriminator, made)
    check_stages(discriminator, train.phases)


class Config(FrozenModel):
    """A whole file of configs/: a model, its discriminator and its training."""

    upsampler: UpsamplerConfig
    discriminator: DiscriminatorConfig
    train: TrainConfig

    @model_validator(mode="after")
    def check(self) -> "Config":
        upsampler, phases = self.upsampler, self.train.phases
        check_networks(upsampler, upsampler.num_up + upsampler.restores, self.discriminator, self.train)
        for phase in phases:
            if phase.loss.root and not upsampler.restores:
                raise ValueError("train.phases.loss.root: expected 0 as upsampler.restores is false; set it to true")
            for scale, crop in [(upsampler.scale, phase.crop), *((step.scale, step.crop) for step in phase.early)]:
                self.check_crop(scale, crop)
        return self

    def check_crop(self, scale: int, crop: int) -> None:
        """Raise ValueError unless a crop fits the network at a scale.

        The pyramid must be able to end at the scale, the discriminator must not read more levels, and the crop must
        have whole pixels at every level.

        scale: HR size / LR size; crop: high-res side, px
        """
        upsampler = self.upsampler
        scales = (*upsampler.early_scales, upsampler.scale)
        if scale not in scales:
            raise ValueError(f"train.phases.early.scale: expected one of upsampler.early_scales {scales}, got {scale}")
        made = scale.bit_length() - 1 + upsampler.restores
        if self.discriminator.num_levels > made:
            raise ValueError(
                f"discriminator.num_levels: expected at most the {made} that the generator makes at scale {scale}, "
                f"got {self.discriminator.num_levels}"
            )
        multiple = scale * 2**upsampler.num_down
        if crop % multiple:
            raise ValueError(f"train.phases.crop: expected a multiple of {multiple} px, got {crop}")


def load_config(path: Path, overrides: tuple[str, ...] = ()) -> Config:
    """Read a config from a TOML file; raises ValueError with the dotted key.

    overrides: "dotted.key=value" with TOML values
    """
    return parse(Config, read_tables(path, overrides), str(path))
