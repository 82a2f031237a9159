"""Configuration of the base generator and of its training."""

from pathlib import Path

from pydantic import model_validator

from gigasr.config import (
    DiscriminatorConfig,
    Strict,
    SynthesisConfig,
    TrainConfig,
    check_towers,
    parse,
    read_tables,
)

CONSTANT = 4  # px; side of the learned constant


class GeneratorConfig(SynthesisConfig):
    """Levels at 4, 8, 16, ... px; w_dim 1024 in the paper."""

    @property
    def size(self) -> int:
        """Side of the images, px."""
        return CONSTANT * 2 ** (len(self.levels) - 1)


class BaseConfig(Strict):
    """A whole file of configs/: a base generator, its discriminator and its training."""

    generator: GeneratorConfig
    discriminator: DiscriminatorConfig
    train: TrainConfig

    @model_validator(mode="after")
    def check(self) -> "BaseConfig":
        check_towers(self.generator.text, self.discriminator, self.train)
        return self


def load_base_config(path: Path, overrides: tuple[str, ...] = ()) -> BaseConfig:
    """Read a TOML file with a [generator] table. Raises ValueError naming the dotted key."""
    return parse(BaseConfig, read_tables(path, overrides), str(path))
