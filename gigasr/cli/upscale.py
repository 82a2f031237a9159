"""gigasr upscale: files and folders in, larger ones out."""

from pathlib import Path
from typing import Any

import click

from gigasr import __version__
from gigasr.cli.common import clear_errors, progress_bar


@click.command()
@click.argument("inputs", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File, or folder for several inputs.")
@click.option("-p", "--prompt", default="", help="What the image shows.")
@click.option("-s", "--scale", type=click.FloatRange(1, 64), help="Factor, 1 to 64.  [default: 8]")
@click.option("--size", help="Size instead of a factor: 4k (longest side), or WIDTHxHEIGHT (fitted inside).")
@click.option("-n", "--model", default="upsampler_lite", show_default=True, help="Bundled name or weights file.")
@click.option(
    "-t", "--tile", default=0, type=click.IntRange(0), help="Side of the network's regions in px.  [default: auto]"
)
@click.option("-g", "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", show_default=True)
@click.option("--fp32", is_flag=True, help="Same as --precision fp32.")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same picture.")
@click.option(
    "--fidelity", default=1.0, show_default=True, type=click.FloatRange(0, 1), help="Share of the low-res correction."
)
@click.option("--format", "suffix", default="png", show_default=True, help="Of outputs named by gigasr.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@click.pass_context
@clear_errors
def upscale(context: click.Context, inputs: tuple[Path, ...], output: Path | None, prompt: str, **options: Any) -> None:  # noqa: ANN401
    """Enlarge images.

    \b
    Examples:
      gigasr upscale photo.jpg --prompt "a stone arch in the evening sun"
      gigasr upscale photo.jpg --scale 4 -o photo_4x.png
      gigasr upscale scan.png --size 4k --seed 7
      gigasr upscale holiday/ -o large/ --prompt "a beach" --format jpg
    """
    from gigasr.batch import list_images, plan_outputs

    label = options["size"] or f"{options['scale'] or 8:g}x"
    suffix = "." + options["suffix"].lstrip(".")
    jobs = plan_outputs(list_images(inputs), output, label, suffix, options["overwrite"])
    from gigasr.text import CONTEXT_LENGTH, count_tokens

    if (count := count_tokens(prompt)) > CONTEXT_LENGTH:
        raise ValueError(f"prompt: expected at most {CONTEXT_LENGTH - 2} tokens, got {count - 2}; shorten it")
    from gigasr.pipeline import SuperResolver
    from gigasr.zoo import load_upsampler

    precision = "fp32" if options["fp32"] else options["precision"]
    resolver = SuperResolver(load_upsampler(options["model"]), options["device"], precision, options["tile"])
    failures = 0
    for source, target in jobs:
        try:
            upscale_file(resolver, source, target, prompt, options)
        except (ValueError, OSError) as error:
            if len(jobs) == 1 or context.obj:
                raise
            failures += 1
            click.echo(f"{source}: failed: {error}", err=True)
    if failures:
        raise click.ClickException(f"{failures} of {len(jobs)} images failed")


def upscale_file(resolver: Any, source: Path, target: Path, prompt: str, options: dict[str, Any]) -> None:  # noqa: ANN401
    """Enlarge one file and say where the result lies."""
    from gigasr.batch import parse_size
    from gigasr.image_writer import write_image
    from gigasr.images import read_image

    picture = read_image(source)
    size = None if options["size"] is None else parse_size(options["size"], picture.size)
    with progress_bar(0, source.name, "strip") as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        result = resolver.upscale(
            picture, prompt, options["scale"], size, options["seed"], options["fidelity"], progress=progress
        )
    metadata = {
        "Software": f"gigasr {__version__}",
        "Prompt": prompt,
        "Seed": str(options["seed"]),
        "Model": Path(options["model"]).name,
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    write_image(target, result, metadata)
    height, width = result.size
    click.echo(f"{target}  {width}x{height} px")
