"""gigasr upscale: files and folders in, larger ones out."""

import sys
import time
import traceback
import warnings
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gigasr.cli.common import (
    INTERRUPTED,
    SEED_RANGE,
    GroupedCommand,
    detail_option,
    precision_option,
    progress_bar,
    report_errors,
)
from gigasr.errors import EXPECTED, join_lines

if TYPE_CHECKING:
    from tqdm import tqdm

    from gigasr.folders.job_runner import JobState, Settings
    from gigasr.folders.plan import Job

BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total_fmt} files [{elapsed}, {remaining} left{postfix}]"

COMMON = (
    *("output", "prompt", "prompts", "recursive", "scale", "size"),
    *("model", "detail", "suffix", "overwrite"),
)


class Shard(click.ParamType):
    """A part of the files: 2/8 is the second of eight."""

    name = "i/n"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> tuple[int, int]:
        """ "2/8" -> (2, 8)"""
        part, _, count = value.partition("/")
        if not (part.isdecimal() and count.isdecimal() and 1 <= int(part) <= int(count)):
            self.fail(f"expected i/n with i from 1 to n, got '{value}'", param, context)
        return int(part), int(count)


@click.command(cls=GroupedCommand, common=COMMON)
@click.argument("inputs", nargs=-1, required=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File, or folder for several inputs.")
@click.option("-p", "--prompt", default="", help="What the image shows.")
@click.option(
    "--prompts", help="A prompt per file: a .csv (file,prompt) or .jsonl, or 'sidecar' for the .txt beside each."
)
@click.option("-r", "--recursive", is_flag=True, help="Include subfolders, and keep their tree in the output.")
@click.option("-s", "--scale", type=click.FloatRange(1, 64), help="Factor, 1 to 64.  [default: the model's]")
@click.option("--size", help="Size instead of a factor: 4k or px of the longest side, or WIDTHxHEIGHT (fitted inside).")
@click.option(
    "-n", "--model", default="upsampler_lite", show_default=True, help="Bundled name, file, folder or Hugging Face id."
)
@click.option(
    "-t", "--tile", default=0, type=click.IntRange(0), help="Side of the network's tiles in px.  [default: auto]"
)
@click.option(
    "--batch", default=0, type=click.IntRange(0), help="Maximum number of tiles run at once.  [default: auto]"
)
@click.option("-g", "--device", default="auto", show_default=True, help="auto, cpu, cuda, mps, or cuda:0,cuda:1.")
@precision_option
@click.option("--fp32", is_flag=True, help="Same as --precision fp32.")
@click.option("--seed", default=0, type=SEED_RANGE, show_default=True, help="The same seed gives the same picture.")
@click.option(
    "--fidelity",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="How far the result is corrected to match the input when reduced; 0 = off.",
)
@detail_option
@click.option(
    "--format", "suffix", help="png, jpg, webp, tif, bmp, gif, avif.  [default: png; of several frames, their own]"
)
@click.option("--quality", type=click.IntRange(1, 100), help="For jpg, webp (100 = lossless) and avif.  [default: 95]")
@click.option("--bit-depth", type=click.Choice(["8", "16"]), help="16 for png and tif.  [default: the input's]")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@click.option("--shard", type=Shard(), default="1/1", help="2/8: only the second of eight parts of the files.")
@click.option("--ray", help="Work on Ray: local, auto (the cluster this machine is in) or a cluster's address.")
@click.option(
    "--workers", type=click.IntRange(1), help="Number of Ray workers.  [default: one per GPU, or per four CPU cores]"
)
@click.pass_context
@report_errors
def upscale(context: click.Context, **options: Any) -> None:
    """Upscale images.

    INPUTS are files, folders or patterns such as "*.png". For a folder or several files, the output folder gets a
    report, gigasr-report.jsonl: run the same command again to resume; no file is made twice.

    \b
    Examples:
      gigasr upscale photo.jpg --prompt "a stone arch in the evening sun"
      gigasr upscale photo.jpg --scale 4 -o photo_4x.png
      gigasr upscale scan.png --size 4k --seed 7
      gigasr upscale holiday/ -o large/ --prompt "a beach" --format jpg
      gigasr upscale holiday/ -r -o large/ --prompts captions.csv
      gigasr upscale "scans/*.tif" -o large/ --prompts sidecar

    \b
    Exit codes: 0 all went well, 1 something failed, 2 wrong usage, 130 interrupted.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")  # damaged files have lines of their own
    if options["workers"] and not options["ray"]:
        raise click.UsageError("Option '--workers' needs '--ray'.")
    jobs = plan_run(options)
    settings = read_settings(options)
    is_single = len(jobs) == 1 and jobs[0].source.is_named
    with progress_bar(len(jobs), "upscale", "file") as bar:
        reporter = Reporter(bar, is_single, context.obj)
        try:
            run_jobs(jobs, settings, reporter, options["ray"], options["workers"])
        except KeyboardInterrupt:
            bar.close()
            click.echo(f"interrupted: {reporter.summary()}", err=True)
            sys.exit(INTERRUPTED)
    if not is_single:
        click.echo(reporter.summary())
    if reporter.counts["failed"]:
        sys.exit(1)


def plan_run(options: dict[str, Any]) -> "list[Job]":
    """Everything that can be wrong with the inputs, the outputs and the prompts is found here, before anything runs."""
    from gigasr.folders.plan import Outputs, find_images, is_in_shard, plan_jobs
    from gigasr.folders.prompts import assign_prompts
    from gigasr.models.zoo import model_scale
    from gigasr.sizes import parse_box

    if options["size"] is not None:
        if options["scale"] is not None:
            raise click.UsageError("Options '--scale' and '--size' exclude each other.")
        parse_box(options["size"])
    try:
        sources = find_images(options["inputs"], options["recursive"], options["output"])
    except FileNotFoundError as error:
        raise click.BadParameter(str(error), param_hint="INPUTS") from None
    label = options["size"] or f"{options['scale'] or model_scale(options['model']):g}x"
    suffix = options["suffix"] and "." + options["suffix"].lstrip(".").lower()
    depth = options["bit_depth"] and int(options["bit_depth"])
    jobs = plan_jobs(sources, Outputs(options["output"], label, suffix or "", depth, options["shard"]))
    names = {job.source.path: job.source.name for job in jobs}
    left_out = list(dict.fromkeys(source.path for source in sources if source.path not in names))
    if left_out and options["shard"][0] == 1:
        shown = ", ".join(click.format_filename(path) for path in left_out[:3])
        if len(left_out) > 3:
            shown += ", ..."
        click.echo(
            f"left out {len(left_out)} files that were, or will now be, made from other inputs ({shown})", err=True
        )
    if options["overwrite"]:
        check_replaced(jobs, left_out)
    prompts = assign_prompts(names, options["prompts"], options["prompt"])
    return [replace(job, prompt=prompts[job.source.path]) for job in jobs if is_in_shard(job.source, options["shard"])]


def check_replaced(jobs: "list[Job]", inputs: list[Path]) -> None:
    """Raise ValueError where a result would replace an input that gigasr hasn't made."""
    from gigasr.folders.report import normalised_path, read_reports

    targets = {normalised_path(job.target): job.source.path for job in jobs}
    folders = {job.report.parent for job in jobs if job.report is not None}
    records = {output: record for folder in folders for output, record in read_reports(folder).items()}
    for path in inputs:
        source = targets.get(normalised_path(path))
        if source is not None and not is_result(path, records.get(normalised_path(path), {})):
            raise ValueError(f"{path}: expected a result of gigasr to replace, got an input; choose -o for {source}")


def is_result(path: Path, record: dict[str, Any]) -> bool:
    """Tell whether gigasr made a file, by its record in a report or by its own words."""
    from gigasr.files.exif import written_by_gigasr
    from gigasr.files.images import read_metadata

    if record.get("bytes") == path.stat().st_size:
        return True
    with suppress(ValueError):  # it is no image
        return written_by_gigasr(read_metadata(path))
    return False


def read_settings(options: dict[str, Any]) -> "Settings":
    """The settings of the run from the options."""
    from gigasr.folders.job_runner import Settings

    names = ("model", "scale", "size", "seed", "fidelity", "detail", "tile", "batch", "quality", "device", "overwrite")
    precision = "fp32" if options["fp32"] else options["precision"]
    depth = options["bit_depth"] and int(options["bit_depth"])
    return Settings(precision=precision, bit_depth=depth, **{name: options[name] for name in names})


def run_jobs(
    jobs: "list[Job]", settings: "Settings", reporter: "Reporter", ray: str | None, workers: int | None
) -> None:
    """Run over the files, here or on a cluster; the error of a single one ends the command."""
    if ray is None:
        from gigasr.folders.local_runner import LocalRunner

        LocalRunner(jobs, settings, reporter).start()
    else:
        from gigasr.folders.ray_runner import RayRunner

        RayRunner(jobs, settings, reporter, ray, workers).start()
    if reporter.is_single and reporter.error is not None:
        error = reporter.error
        if isinstance(error, EXPECTED):
            raise error
        raise RuntimeError(f"{jobs[0].source.path}: {error or type(error).__name__}") from error


class Reporter:
    """Reports on a run: on a terminal by a bar and what went wrong, elsewhere by a line per file."""

    def __init__(self, bar: "tqdm[Any]", is_single: bool, is_debug: bool) -> None:
        self.bar, self.is_single, self.is_debug = bar, is_single, is_debug
        self.counts: Counter[str] = Counter()
        self.megapixels = 0.0
        self.began = time.monotonic()
        self.error: Exception | None = None  # the latest
        bar.bar_format = BAR

    def __call__(self, state: "JobState") -> None:
        """Show what became of a file."""
        if state.status == "running":
            self.advance(state.fraction)
            return
        self.counts[state.status] += 1
        self.error = state.error
        self.megapixels += state.pixels / 1e6
        self.bar.set_postfix_str(f"{self.megapixels / (time.monotonic() - self.began):.1f} MP/s", refresh=False)
        if state.status in ("skipped", "kept"):
            self.bar.total -= 1  # so that the time left is that of the files that take time
        self.advance(0)
        with self.bar.external_write_mode():
            self.show(state)

    def advance(self, fraction: float) -> None:
        """Move the bar to the files done and a part of one; it never goes back."""
        self.bar.update(max(0.0, self.counts["done"] + self.counts["failed"] + fraction - self.bar.n))

    def show(self, state: "JobState") -> None:
        """Print the line of a file."""
        source, target = (join_lines(click.format_filename(path)) for path in (state.job.source.path, state.job.target))
        if state.error is not None and self.is_single:
            return
        if state.status == "failed":
            if self.is_debug:
                click.echo("".join(traceback.format_exception(state.error)), err=True)
            reason = join_lines(str(state.error) or type(state.error).__name__).removeprefix(f"{source}: ")
            click.echo(f"{source}: failed: {reason}", err=True)
        elif state.status == "kept":
            click.echo(f"skipped: {state.error}", err=True)
        elif self.is_single or self.bar.disable:
            click.echo(f"{target}  {describe_result(state)}")

    def summary(self) -> str:
        """How many files went which way."""
        skipped = self.counts["skipped"] + self.counts["kept"]
        return f"{self.counts['done']} done, {skipped} skipped, {self.counts['failed']} failed"


def describe_result(state: "JobState") -> str:
    """What a file has become."""
    if state.status == "skipped":
        return "done before"
    height, width = state.size
    size = f"{width}x{height} px"
    return f"{size} x {state.count}" if state.count > 1 else size
