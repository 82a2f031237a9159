"""Turn a run's weights into a bundled model: fp16, with its licence in the header."""

from pathlib import Path

import click
import torch
from torch import Tensor

import gigasr.models.zoo
import gigasr_base.zoo
from gigasr.config.networks import UpsamplerConfig
from gigasr.models.checkpoint import load_weights, save_weights
from gigasr_base.config import GeneratorConfig

KINDS = {  # first part of a model's name -> where it ships, what it was trained on, its config
    "upsampler": (gigasr.models.zoo.WEIGHTS, "photographs", UpsamplerConfig),
    "base": (gigasr_base.zoo.BASE_WEIGHTS, "icons", GeneratorConfig),
}
PART = (click.Path(exists=True, path_type=Path), click.FloatRange(0, 1))
Part = tuple[Path, float]


def mixture(state: dict[str, Tensor], others: tuple[Part, ...], kind: str) -> dict[str, Tensor]:
    """The weighted mean of a state and of other weights by their shares."""
    rest = 1 - sum(share for _, share in others)
    mixed = {key: rest * value.float() for key, value in state.items()}
    for path, share in others:
        for key, value in load_weights(path, kind)[0].items():
            mixed[key] += share * value.float()
    return mixed


@click.command()
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.argument("name")
@click.option("--mix", type=PART, multiple=True, help="Other weights of the same config, and their share.")
@click.option("--mix-body", type=PART, multiple=True, help="The same for an upsampler's body, instead of --mix.")
def main(source: Path, name: str, mix: tuple[Part, ...], mix_body: tuple[Part, ...]) -> None:
    """Write the bundled weights NAME, upsampler_… or base_…, from SOURCE, the model.safetensors of a run.

    With --mix they are the weighted mean of SOURCE, which has what the shares leave, and of others that began as the
    same: stages of a run, or runs that started from one of them.
    """
    kind = name.partition("_")[0]
    if kind not in KINDS:
        raise click.BadParameter(f"expected upsampler_... or base_..., got {name!r}", param_hint="NAME")
    if mix_body and kind != "upsampler":
        raise click.BadParameter(
            "expected an upsampler, which has a body and a tail; use --mix", param_hint="--mix-body"
        )
    folder, data, config_type = KINDS[kind]
    state, header, _ = load_weights(source, kind)
    config = config_type.model_validate(header)
    for path, _ in (*mix, *mix_body):
        if config_type.model_validate(load_weights(path, kind)[1]) != config:
            raise click.BadParameter(f"expected weights of the config of {source}, got {path}", param_hint="--mix")
    mixed = mixture(state, mix, kind)
    if mix_body:
        tail = tuple(f"levels.{i}." for i in range(config.num_down + 1, len(config.levels))) + ("to_rgb.",)
        body = mixture(state, mix_body, kind)
        mixed = {key: mixed[key] if key.startswith(tail) else body[key] for key in mixed}
    folder.mkdir(exist_ok=True)
    target = folder / f"{name}.safetensors"
    licence = f"Apache-2.0; trained on the {data} listed in the model card"
    save_weights(target, mixed, kind, config.model_dump(mode="json"), torch.float16, licence=licence)
    click.echo(f"{target}  {target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
