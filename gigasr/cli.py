"""The command line: options in, one clear line out. Heavy packages are imported by the command that needs them."""

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import click

from gigasr import __version__

if TYPE_CHECKING:
    from tqdm import tqdm

P = ParamSpec("P")
R = TypeVar("R")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="gigasr")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.pass_context
def main(context: click.Context, debug: bool) -> None:
    """Enlarge images in one pass, guided by text."""
    context.obj = debug


def clear_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn the errors a user can cause into one line and exit code 1; --debug shows where they came from."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except (ValueError, OSError, RuntimeError, ImportError) as error:
            if click.get_current_context().obj:
                raise
            text = (
                f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
            )
            raise click.ClickException(" ".join(text.split())) from None

    return wrapped


@contextmanager
def progress_bar(total: int, label: str, unit: str) -> Iterator["tqdm[Any]"]:
    """A bar on a terminal, nothing elsewhere."""
    from tqdm import tqdm

    with tqdm(total=total, desc=label, unit=unit, disable=not sys.stderr.isatty(), leave=False) as bar:
        yield bar


# --- upscale ----------------------------------------------------------------------------------------------------------


@main.command()
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


# --- train ------------------------------------------------------------------------------------------------------------


@main.command()
@click.argument("config", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--data",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with captions.jsonl or .txt files.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder of the run.  [default: runs/CONFIG]")
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Override a value of the config.")
@click.option("--resume", is_flag=True, help="Go on from the folder's last state.")
@click.option("--dry-run", is_flag=True, help="Print the parameters of every part and stop.")
@click.option("-g", "--device", default="auto", show_default=True)
@click.option(
    "--lpips-features",
    type=click.Path(exists=True, path_type=Path),
    help="SqueezeNet features where they can't be downloaded.",
)
@clear_errors
def train(
    config: Path,
    data: Path | None,
    output: Path | None,
    overrides: tuple[str, ...],
    resume: bool,
    dry_run: bool,
    device: str,
    lpips_features: Path | None,
) -> None:
    """Train an upsampler.

    \b
    Examples:
      gigasr train configs/upsampler_64_512.toml --dry-run
      gigasr train configs/upsampler_lite.toml --data photos/ -o runs/lite
      gigasr train configs/upsampler_lite.toml --data photos/ -o runs/lite --resume
    """
    from gigasr.config import load_config

    settings = load_config(config, overrides)
    if dry_run:
        from gigasr.trainer import count_parameters

        return click.echo("\n".join(f"{part:<36}{count:>14,}" for part, count in count_parameters(settings).items()))
    if data is None:
        raise click.UsageError("Missing option '--data': the folder of training images.")
    from gigasr.data import read_folder
    from gigasr.pipeline import choose_device
    from gigasr.trainer import Trainer

    samples = read_folder(data, settings.train.split, settings.train.min_sharpness)
    folder = output or Path("runs") / config.stem
    if (folder / "state.pt").exists() != resume:
        raise ValueError(
            f"{folder}: {'nothing to resume' if resume else 'holds a run; add --resume or choose another -o'}"
        )
    trainer = Trainer(settings, samples, folder, choose_device(device), lpips_features)
    if resume:
        trainer.resume()
    with progress_bar(trainer.total_images, config.stem, "image") as bar:
        bar.update(trainer.images_seen)

        def progress(images: int, log: dict[str, float]) -> None:
            bar.update(images)
            bar.set_postfix(log)

        trainer.fit(progress)
    click.echo(f"{folder / 'model.safetensors'}  after {trainer.images_seen} images")


# --- eval and models --------------------------------------------------------------------------------------------------


@main.command("eval")
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


@main.command()
def models() -> None:
    """List the models that ship with the package."""
    from gigasr.zoo import WEIGHTS, bundled

    for name in bundled():
        click.echo(f"{name}  {(WEIGHTS / f'{name}.safetensors').stat().st_size / 1e6:.1f} MB")


@main.command()
@click.option("-g", "--device", default="auto", show_default=True)
@click.option("--repeats", default=3, show_default=True, type=click.IntRange(1))
@clear_errors
def bench(device: str, repeats: int) -> None:
    """Time upsampler_lite against SRVGGNetCompact(64, 32), per output megapixel, in one run.

    Needs the extra gigasr[eval].
    """
    from gigasr.bench import run

    click.echo(run(device, repeats))
