"""Turn a run's weights into a bundled model: fp16, with its licence in the header."""

from pathlib import Path

import click
import torch

import gigasr.models.zoo
import gigasr_base.zoo
from gigasr.config import UpsamplerConfig
from gigasr.models.checkpoint import load_weights, save_weights
from gigasr_base.config import GeneratorConfig

KINDS = {  # first part of a model's name -> where it ships, what it was trained on, its config
    "upsampler": (gigasr.models.zoo.WEIGHTS, "photographs", UpsamplerConfig),
    "base": (gigasr_base.zoo.WEIGHTS, "icons", GeneratorConfig),
}


@click.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.argument("name")
@click.option("--mix", type=click.Path(exists=True, path_type=Path), help="Other weights of the same config.")
@click.option("--share", type=click.FloatRange(0, 1), default=0.1, show_default=True, help="Of the other weights.")
def main(source: Path, name: str, mix: Path | None, share: float) -> None:
    """Write the bundled weights NAME, upsampler_… or base_…, from SOURCE, the model.safetensors of a run.

    With --mix they are the weighted mean of SOURCE and another stage of the same run.
    """
    kind = name.partition("_")[0]
    if kind not in KINDS:
        raise click.BadParameter(f"expected upsampler_... or base_..., got {name!r}", param_hint="NAME")
    folder, data, config_type = KINDS[kind]
    state, header, _ = load_weights(source, kind)
    config = config_type.model_validate(header)
    if mix is not None:
        other, other_header, _ = load_weights(mix, kind)
        if config_type.model_validate(other_header) != config:
            raise click.BadParameter(f"expected weights of the config of {source}, got others", param_hint="--mix")
        state = {key: torch.lerp(value.float(), other[key].float(), share) for key, value in state.items()}
    folder.mkdir(exist_ok=True)
    target = folder / f"{name}.safetensors"
    licence = f"Apache-2.0; trained on the {data} listed in the model card"
    save_weights(target, state, kind, config.model_dump(mode="json"), torch.float16, licence=licence)
    click.echo(f"{target}  {target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
