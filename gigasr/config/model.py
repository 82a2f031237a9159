"""A whole file of configs/: the upsampler, its discriminator and its training; checks across their tables."""

from collections.abc import Iterable
from pathlib import Path

from pydantic import model_validator

from gigasr.config.networks import DiscriminatorConfig, SynthesisConfig, TextConfig, UpsamplerConfig
from gigasr.config.strict import FrozenModel, parse
from gigasr.config.tables import read_tables
from gigasr.config.training import PhaseConfig, TrainConfig


def check_towers(generator: TextConfig, discriminator: DiscriminatorConfig, train: TrainConfig) -> None:
    """Raise ValueError unless all networks read the one frozen text tower that a run has."""
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


def check_stages(discriminator: DiscriminatorConfig, phases: Iterable[PhaseConfig]) -> None:
    """Raise ValueError unless the stages halve, and the last one flattens, the crops of the adversarial phases."""
    flatten = discriminator.flatten
    factor = 2 ** (len(discriminator.stages) - bool(flatten))
    for phase in phases:
        if phase.is_adversarial and (phase.crop % factor or (flatten and phase.crop != flatten * factor)):
            expected = f"{flatten * factor} px" if flatten else f"a multiple of {factor} px"
            raise ValueError(f"train.phases.crop: expected {expected} for the discriminator's stages, got {phase.crop}")


def check_networks(
    generator: SynthesisConfig, made: int, discriminator: DiscriminatorConfig, train: TrainConfig
) -> None:
    """Raise ValueError unless a generator that makes so many pyramid levels can train with its opponents."""
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
        """Raise ValueError unless crops of a scale have whole pixels at every level, and a level at that scale."""
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
    """Read a TOML file; overrides are "dotted.key=value" with TOML values. Raises ValueError naming the dotted key."""
    return parse(Config, read_tables(path, overrides), str(path))
