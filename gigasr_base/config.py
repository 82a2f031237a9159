"""Configuration of the base generator and of its training."""

from pathlib import Path

from pydantic import model_validator

from gigasr.config.model import check_networks
from gigasr.config.networks import DiscriminatorConfig, SynthesisConfig
from gigasr.config.strict import FrozenModel, parse
from gigasr.config.tables import read_tables
from gigasr.config.training import DataConfig, PhaseConfig, TrainConfig

CONST_SIZE = 4  # px; side of the learned constant


class GeneratorConfig(SynthesisConfig):
    """Levels at 4, 8, 16, ... px; w_dim 1024 in the paper."""

    @property
    def sizes(self) -> list[int]:
        """Sides of the levels' images, px."""
        return [CONST_SIZE * 2**i for i in range(len(self.levels))]

    @property
    def size(self) -> int:
        """Side of the images, px."""
        return self.sizes[-1]


class BaseDataConfig(DataConfig):
    """The training images of a base model. A small image shows the whole picture, as its caption does."""

    full_image: bool = True


class BaseTrainConfig(TrainConfig):
    """The training of a base model."""

    data: BaseDataConfig = BaseDataConfig()


class BaseConfig(FrozenModel):
    """A whole file of configs/: a base generator, its discriminator and its training."""

    generator: GeneratorConfig
    discriminator: DiscriminatorConfig
    train: BaseTrainConfig

    @model_validator(mode="after")
    def check(self) -> "BaseConfig":
        for phase in self.train.phases:
            check_crop(phase, self.generator)
        check_networks(self.generator, len(self.generator.levels), self.discriminator, self.train)
        return self


def check_crop(phase: PhaseConfig, generator: GeneratorConfig) -> None:
    """Raise ValueError unless the crop of a phase is the size of a level.

    An adversarial phase, or one with the vision-aided discriminator, needs the size of the last level.
    """
    is_adversarial = phase.is_adversarial or phase.loss.vision
    sizes = generator.sizes[-1:] if is_adversarial else generator.sizes
    if phase.crop not in sizes:
        reason = "; with less only regression terms may have a weight" if is_adversarial else ""
        raise ValueError(f"train.phases.crop: expected {' or '.join(map(str, sizes))} px, got {phase.crop}{reason}")


def load_base_config(path: Path, overrides: tuple[str, ...] = ()) -> BaseConfig:
    """Read a TOML file with a [generator] table.

    Raises ValueError with the dotted key of a wrong value.
    """
    return parse(BaseConfig, read_tables(path, overrides), str(path))
