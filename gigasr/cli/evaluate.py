"""gigasr eval, models, bench: what the models are worth."""

from pathlib import Path

import click

from gigasr.cli.common import clear_errors, progress_bar


@click.command("eval")
@click.argument("models", nargs=-1, required=True)
@click.option(
    "--data",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of high-res images.",
)
@click.option("-s", "--scale", default=8, show_default=True, type=click.IntRange(2, 64))
@click.option(
    "--lpips-features",
    type=click.Path(exists=True, path_type=Path),
    help="SqueezeNet features where they can't be downloaded.",
)
@click.option("-g", "--device", default="auto", show_default=True)
@click.option("--every", default=1, show_default=True, type=click.IntRange(1), help="Take every n-th image.")
@click.option("--save", type=click.Path(file_okay=False, path_type=Path), help="Folder for the results.")
@clear_errors
def evaluate(
    models: tuple[str, ...],
    data: Path,
    scale: int,
    lpips_features: Path | None,
    device: str,
    every: int,
    save: Path | None,
) -> None:
    """Compare models on images reduced by bicubic: a table of means.

    MODELS are bundled names, files, lanczos or bicubic. Needs the extra gigasr[eval].

    \b
    Example:
      gigasr eval upsampler_lite lanczos --data kodak24 --scale 8
    """
    from gigasr.batch import list_images
    from gigasr.evaluation import evaluate_models, format_table

    with progress_bar(0, "eval", "image") as bar:

        def progress(total: int) -> None:
            bar.total = total
            bar.update()

        rows = evaluate_models(models, list_images((data,))[::every], scale, lpips_features, device, save, progress)
    click.echo(format_table(rows))


@click.command()
def models() -> None:
    """List the models that ship with the package."""
    from gigasr.zoo import WEIGHTS, bundled

    for name in bundled():
        click.echo(f"{name}  {(WEIGHTS / f'{name}.safetensors').stat().st_size / 1e6:.1f} MB")


@click.command()
@click.option("-g", "--device", default="auto", show_default=True)
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1))
@clear_errors
def bench(device: str, repeats: int) -> None:
    """Time upsampler_lite against SRVGGNetCompact(64, 32), per output megapixel, in one run.

    Needs the extra gigasr[eval].
    """
    from gigasr.bench import run

    click.echo(run(device, repeats))
