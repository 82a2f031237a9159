"""gigasr train: a config and captioned images in, a run folder out."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gigasr.cli.common import is_given, progress_bar, report_errors
from gigasr.cli.fields import add_options, read_options
from gigasr.config.shipped import find_config
from gigasr.training.options import TrainOptions

DAY = 86_400  # seconds

if TYPE_CHECKING:
    from gigasr.training.adversarial import AdversarialTask
    from gigasr.training.cost import TrainingCost
    from gigasr.training.trainer import DataSource


@click.command()
@click.argument("config")
@add_options(TrainOptions, "data", "validation")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder of the run.  [default: runs/CONFIG]")
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Override a value of the config.")
@add_options(TrainOptions, "init")
@click.option(
    "--init-discriminator",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Start from the discriminator of another run: its discriminator.safetensors.",
)
@add_options(TrainOptions, "resume", "dry_run", "gpus", "tflops", "days", "device")
@click.option(
    "--lpips-features",
    type=click.Path(exists=True, path_type=Path),
    help="SqueezeNet features where they can't be downloaded.",
)
@report_errors
def train(config: str, overrides: tuple[str, ...], **fields: Any) -> None:
    """Train an upsampler or a base generator.

    CONFIG is a TOML file, or the name of one that ships with the package. On several GPUs start the same command with
    torchrun or accelerate.

    \b
    Examples:
      gigasr train upsampler_64_512 --dry-run --gpus 64 --days 7
      gigasr train upsampler_lite --data photos/ -o runs/lite
      gigasr train upsampler_lite --data photos/ -o runs/lite --resume
      gigasr train upsampler_lite --data photos/ -o runs/mine --init upsampler_lite
      gigasr train upsampler_64_512 --data "shards/{00000..00999}.tar"
      torchrun --nproc-per-node 8 -m gigasr train base_64 --data "shards/{00000..00999}.tar"
    """
    path, options = find_config(config), read_options(TrainOptions, fields)
    settings = load_any_config(path, overrides)
    if options.dry_run:
        from gigasr.training.cost import estimate_cost

        total = estimate_cost(task_class(settings), settings, options.gpus)
        return click.echo(format_cost(total, options.tflops, options.days))
    check_training_options(options)
    folder = options.output or Path("runs") / path.stem
    check_run_folder(folder, options.resume)
    for images in filter(None, (options.data, options.validation)):
        if Path(images).is_dir() and folder.resolve().is_relative_to(Path(images).resolve()):
            raise ValueError(f"{folder}: expected a folder outside the data, which samples would join; choose another")
    run_training(settings, options, folder, path.stem)


def check_training_options(options: TrainOptions) -> None:
    """Raise UsageError for missing data and options that exclude each other."""
    for name, rule in TrainOptions.rules().items():
        if rule.needs == "dry_run" and is_given(name):
            raise click.UsageError(f"Option '--{name}' needs '--dry-run'; several GPUs need torchrun or accelerate.")
    if not options.data:
        raise click.UsageError("Missing option '--data': the training images.")
    if options.init and options.resume:
        raise click.UsageError("Options '--init' and '--resume' exclude each other.")
    if options.init_discriminator and options.resume:
        raise click.UsageError("Options '--init-discriminator' and '--resume' exclude each other.")


def check_run_folder(folder: Path, is_resumed: bool) -> None:
    """Raise ValueError for an unsuitable run folder.

    A resumed run needs a folder with a run; a new run needs a folder without one.
    """
    has_state, has_model = ((folder / name).exists() for name in ("state.pt", "model.safetensors"))
    if is_resumed and not has_state:
        raise ValueError(f"{folder}: nothing to resume")
    if not is_resumed and (has_state or has_model):
        advice = "add --resume or choose another -o" if has_state else "choose another -o"
        raise ValueError(f"{folder}: holds a run; {advice}")


def load_any_config(path: Path, overrides: tuple[str, ...]) -> Any:
    """Load a config of an upsampler, or of a base generator.

    A table [generator] tells a base generator.
    """
    from gigasr.config.model import load_config
    from gigasr.config.tables import read_tables

    if "generator" in read_tables(path):
        from gigasr_base.config import load_base_config

        return load_base_config(path, overrides)
    return load_config(path, overrides)


def task_class(settings: Any) -> "type[AdversarialTask]":
    """Return the class of a config's adversarial task."""
    from gigasr_base.config import BaseConfig

    if isinstance(settings, BaseConfig):
        from gigasr_base.adversarial import BaseAdversarialTask

        return BaseAdversarialTask
    from gigasr.training.adversarial import AdversarialTask

    return AdversarialTask


def format_cost(total: "TrainingCost", tflops: float, days: float | None) -> str:
    """Format the cost of a training as tables of parts, phases and memory.

    tflops: TFLOP/s that each GPU sustains
    days:   time to finish in; None = unlimited
    """
    from gigasr.text_table import align

    costs, gpus, images = total.phases, total.gpus, total.images
    crops: dict[int, dict[str, float]] = {}
    for cost in costs:
        crops[cost.phase.crop] = crops.get(cost.phase.crop, {}) | cost.parts
    parts = [["part", "parameters", *(f"FLOP, {crop} px" for crop in crops)]]
    for name, count in total.parameters.items():
        parts.append([name, f"{count:,}", *(short_number(flops.get(name, 0)) for flops in crops.values())])
    phases = [["phase", "images", "px", "batch", "per GPU at once", "FLOP per image", "images/s"]]
    for number, cost in enumerate(costs, 1):
        phase, rate = cost.phase, gpus * tflops * 1e12 / cost.flops
        row = [
            short_number(phase.images),
            str(phase.crop),
            str(phase.batch_size),
            str(cost.size),
            short_number(cost.flops),
        ]
        phases.append([str(number), *row, f"{rate:.4g}"])
    memory = [["bytes per GPU", *(f"phase {number}" for number in range(1, len(costs) + 1))]]
    memory += [[name, *(short_number(cost.memory[name]) for cost in costs)] for name in costs[0].memory]
    memory.append(["sum", *(short_number(sum(cost.memory.values())) for cost in costs)])
    seconds = total.flops / (gpus * tflops * 1e12)
    lines = [*align(parts), "", *align(phases), "", *align(memory), ""]
    lines.append(
        f"{short_number(images)} images, {total.flops / 1e15:,.4g} PFLOP on {gpus} x {tflops:g} TFLOP/s: "
        f"{seconds / DAY:,.3g} days, {images / seconds:,.4g} images/s"
    )
    if days is not None:
        needed = days * DAY
        rate = total.flops / (needed * gpus * 1e12)
        lines.append(f"in {days:g} days: {images / needed:,.4g} images/s, {rate:,.4g} TFLOP/s per GPU")
    return "\n".join([*lines, "not counted: frozen networks (text tower, LPIPS, CLIP), vision-aided discriminator"])


def short_number(value: float) -> str:
    """Format a number with three digits and a metric prefix: 12300 -> "12.3 k"."""
    prefixes = ["", " k", " M", " G", " T", " P", " E"]
    while value >= 999.5 and len(prefixes) > 1:
        value /= 1000
        prefixes.pop(0)
    return f"{value:.3g}{prefixes[0]}"


def open_validation(options: TrainOptions, settings: Any) -> "DataSource | None":
    """Open the source of validation crops, with whole captions.

    Prints a line and returns None for a folder without a validation split.
    """
    from gigasr.data.shards import open_source

    config = settings.train.data.model_copy(update={"caption_dropout": 0.0, "word_dropout": 0.0})
    if options.validation is not None:
        return open_source(options.validation, config, None)
    if config.validation_split in splits(Path(options.data)):
        return open_source(options.data, config, config.validation_split)
    click.echo("no validation: give --validation, or a captions.jsonl with a validation split")
    return None


def splits(folder: Path) -> set[str]:
    """Read the names of splits in a folder's captions.jsonl; a missing file has none."""
    from gigasr.data.captions import read_rows

    index = folder / "captions.jsonl"
    return {str(row.fields.get("split", "train")) for row in read_rows(index)} if index.exists() else set()


def find_weights(kind: str, name: str) -> Path:
    """Find the weights of a bundled name or path, of an upsampler or a base generator."""
    from gigasr.models.zoo import find_model
    from gigasr_base.zoo import find_base_model

    return find_base_model(name) if kind == "base" else find_model(name)


def run_training(settings: Any, options: TrainOptions, folder: Path, label: str) -> None:
    """Train to the end, or until a signal asks to stop, and print the result."""
    import torch

    from gigasr.data.shards import open_source
    from gigasr.training.distributed import join_processes, leave_processes
    from gigasr.training.trainer import Trainer

    source = open_source(options.data, settings.train.data, settings.train.data.split)
    device = join_processes(options.device)
    allow_tf32 = settings.train.precision != "fp32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allow_tf32
    task = task_class(settings).from_config(settings, device, options.lpips_features)
    trainer = Trainer(task, source, folder, open_validation(options, settings))
    if options.resume:
        trainer.resume()
    if options.init:
        trainer.start_from(find_weights(task.kind, options.init))
    if options.init_discriminator:
        trainer.start_discriminator_from(options.init_discriminator)
    with progress_bar(trainer.total_images, label, "image") as bar:
        bar.disable |= not trainer.is_main
        bar.update(trainer.images_seen)

        def progress(images: int, log: dict[str, float]) -> None:
            bar.update(images)
            bar.set_postfix(log)

        finished = trainer.fit(progress)
    if trainer.is_main:
        ending = "" if finished else "; stopped, go on with --resume"
        click.echo(f"{folder / 'model.safetensors'}  after {trainer.images_seen} images{ending}")
    leave_processes()
