"""Turn a run's weights into a bundled model: fp16, with its licence in the header."""

from pathlib import Path

import click
import torch

from gigasr.checkpoint import load_weights, save_weights
from gigasr.zoo import WEIGHTS

LICENCE = "Apache-2.0; trained on the photographs listed in the model card"


@click.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.argument("name")
def main(source: Path, name: str) -> None:
    """Write gigasr/weights/NAME.safetensors from SOURCE, the model.safetensors of a run."""
    state, config, _ = load_weights(source, "upsampler")
    target = WEIGHTS / f"{name}.safetensors"
    save_weights(target, state, "upsampler", config, torch.float16, licence=LICENCE)
    click.echo(f"{target}  {target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
