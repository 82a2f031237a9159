"""gigasr export: save a model with a fixed prompt and seed for other programs."""

from pathlib import Path

import click

from gigasr.cli.common import SEED_RANGE, check_absent, report_errors


@click.command()
@click.argument("model")
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
@click.option("-p", "--prompt", default="", help="What the images to be upscaled show.")
@click.option("--seed", default=0, type=SEED_RANGE, show_default=True, help="Seed of z, as for upscale.")
@click.option("--overwrite", is_flag=True, help="Replace a file that exists.")
@report_errors
def export(model: str, target: Path, prompt: str, seed: int, overwrite: bool) -> None:
    """Save a model for one prompt and seed.

    MODEL is gigasr's or AuraSR's, named as for upscale. A TARGET that ends in .onnx takes images of any batch, height
    and width, runs wherever ONNX does, and is itself a model for upscale and eval; it needs the extra gigasr[export].
    One that ends in .pth, of gigasr's models alone, is for programs that use spandrel with gigasr's plug-in.

    \b
    Examples:
      gigasr export upsampler_lite lite.onnx --prompt "a stone arch"
      gigasr upscale photo.jpg --model lite.onnx
      gigasr export upsampler_lite lite.pth --seed 3
    """
    from gigasr.folders.prompts import check_prompts
    from gigasr.models.onnx_export import export_onnx as save_onnx
    from gigasr.models.spandrel_plugin import save as save_for_spandrel
    from gigasr.models.zoo import load_model

    if target.suffix.lower() not in (".onnx", ".pth") or not target.absolute().parent.is_dir():
        raise ValueError(f"{target}: expected a name in .onnx or .pth, in a folder that exists; choose another one")
    check_absent(target, overwrite)
    check_prompts([prompt])
    save = save_onnx if target.suffix.lower() == ".onnx" else save_for_spandrel
    save(load_model(model), Path(model).name, target, prompt, seed)
    click.echo(f"{target}  {target.stat().st_size / 1e6:.1f} MB")
