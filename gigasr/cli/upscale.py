"""gigasr upscale: image files and folders in, upscaled files out."""

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

from gigasr.cli.common import INTERRUPTED, GroupedCommand, progress_bar, report_errors
from gigasr.cli.fields import add_options, read_options
from gigasr.errors import EXPECTED, join_lines
from gigasr.options import UpscaleOptions

if TYPE_CHECKING:
    from tqdm import tqdm

    from gigasr.folders.job_runner import JobState
    from gigasr.folders.plan import InputImage, Job

BAR = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total_fmt} files [{elapsed}, {remaining} left{postfix}]"

COMMON = (
    *("output", "prompt", "prompts", "recursive", "scale", "size"),
    *("model", "detail", "suffix", "overwrite"),
)
FIELDS = tuple(name for name in UpscaleOptions.rules() if name not in ("prompt", "strip"))


class Shard(click.ParamType):
    """One of n parts of the files: 2/8 is the second of eight."""

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
@add_options(UpscaleOptions, "prompt")
@click.option(
    "--prompts", help="A prompt per file: a .csv (file,prompt) or .jsonl, or 'sidecar' for the .txt beside each."
)
@click.option("-r", "--recursive", is_flag=True, help="Include subfolders, and keep their tree in the output.")
@add_options(UpscaleOptions, *FIELDS)
@click.option("--fp32", is_flag=True, help="Same as --precision fp32.")
@click.option(
    "--format", "suffix", help="png, jpg, webp, tif, bmp, gif, avif.  [default: png; of several frames, their own]"
)
@click.option("--shard", type=Shard(), default="1/1", help="2/8: only the second of eight parts of the files.")
@click.option("--ray", help="Work on Ray: local, auto (the cluster this machine is in) or a cluster's address.")
@click.option(
    "--workers", type=click.IntRange(1), help="Number of Ray workers.  [default: one per GPU, or per four CPU cores]"
)
@click.pass_context
@report_errors
def upscale(
    context: click.Context,
    inputs: tuple[str, ...],
    output: Path | None,
    prompts: str | None,
    recursive: bool,
    fp32: bool,
    suffix: str | None,
    shard: tuple[int, int],
    ray: str | None,
    workers: int | None,
    **fields: Any,
) -> None:
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
    if workers and not ray:
        raise click.UsageError("Option '--workers' needs '--ray'.")
    if fields["size"] is not None and fields["scale"] is not None:
        raise click.UsageError("Options '--scale' and '--size' exclude each other.")
    if fp32:
        fields["precision"] = "fp32"
    options = read_options(UpscaleOptions, fields)
    sources = find_sources(inputs, recursive, output)
    jobs = plan_run(sources, output, suffix, shard, prompts, options)
    is_single = len(jobs) == 1 and jobs[0].source.is_named
    with progress_bar(len(jobs), "upscale", "file") as bar:
        reporter = Reporter(bar, is_single, context.obj)
        try:
            run_jobs(jobs, options, reporter, ray, workers)
        except KeyboardInterrupt:
            bar.close()
            click.echo(f"interrupted: {reporter.summary()}", err=True)
            sys.exit(INTERRUPTED)
    if not is_single:
        click.echo(reporter.summary())
    if reporter.counts["failed"]:
        sys.exit(1)


def find_sources(inputs: tuple[str, ...], is_recursive: bool, output: Path | None) -> "list[InputImage]":
    """Find the input images; a missing one is a usage error."""
    from gigasr.folders.plan import find_images

    try:
        return find_images(inputs, is_recursive, output)
    except FileNotFoundError as error:
        raise click.BadParameter(str(error), param_hint="INPUTS") from None


def plan_run(
    sources: "list[InputImage]",
    output: Path | None,
    suffix: str | None,
    shard: tuple[int, int],
    prompts: str | None,
    options: UpscaleOptions,
) -> "list[Job]":
    """Plan the outputs and prompts of a run.

    Errors of both are raised here, before the first job runs. An input that is the output of another is left out.
    """
    from gigasr.folders.plan import Outputs, is_in_shard, plan_jobs, size_label
    from gigasr.folders.prompts import assign_prompts

    suffix = f".{suffix.lstrip('.').lower()}" if suffix else ""
    jobs = plan_jobs(sources, Outputs(output, size_label(options), suffix, options.bit_depth, shard))
    names = {job.source.path: job.source.name for job in jobs}
    left_out = list(dict.fromkeys(source.path for source in sources if source.path not in names))
    if left_out and shard[0] == 1:
        shown = ", ".join(click.format_filename(path) for path in left_out[:3])
        if len(left_out) > 3:
            shown += ", ..."
        click.echo(
            f"left out {len(left_out)} files that were, or will now be, made from other inputs ({shown})", err=True
        )
    if options.overwrite:
        check_replaced(jobs, left_out)
    texts = assign_prompts(names, prompts, options.prompt)
    return [replace(job, prompt=texts[job.source.path]) for job in jobs if is_in_shard(job.source, shard)]


def check_replaced(jobs: "list[Job]", inputs: list[Path]) -> None:
    """Raise ValueError if a result would replace an input that gigasr has not made."""
    from gigasr.folders.report import normalised_path, read_reports

    targets = {normalised_path(job.target): job.source.path for job in jobs}
    folders = {job.report.parent for job in jobs if job.report is not None}
    records = {output: record for folder in folders for output, record in read_reports(folder).items()}
    for path in inputs:
        source = targets.get(normalised_path(path))
        if source is not None and not is_result(path, records.get(normalised_path(path), {})):
            raise ValueError(f"{path}: expected a result of gigasr to replace, got an input; choose -o for {source}")


def is_result(path: Path, record: dict[str, Any]) -> bool:
    """Tell from a report's record or from the metadata whether gigasr made a file."""
    from gigasr.files.exif import written_by_gigasr
    from gigasr.files.images import read_metadata

    if record.get("bytes") == path.stat().st_size:
        return True
    with suppress(ValueError):  # no image
        return written_by_gigasr(read_metadata(path))
    return False


def run_jobs(
    jobs: "list[Job]", options: UpscaleOptions, reporter: "Reporter", ray: str | None, workers: int | None
) -> None:
    """Run the jobs on this machine or on Ray.

    Raises the error of a single file. Errors of several files go to the reporter only.
    """
    if ray is None:
        from gigasr.folders.local_runner import LocalRunner

        LocalRunner(jobs, options, reporter).start()
    else:
        from gigasr.folders.ray_runner import RayRunner

        RayRunner(jobs, options, reporter, ray, workers).start()
    if reporter.is_single and reporter.error is not None:
        error = reporter.error
        if isinstance(error, EXPECTED):
            raise error
        raise RuntimeError(f"{jobs[0].source.path}: {error or type(error).__name__}") from error


class Reporter:
    """Prints the progress of a run: a bar on a terminal, else a line per file.

    Failures are printed in both cases."""

    def __init__(self, bar: "tqdm[Any]", is_single: bool, is_debug: bool) -> None:
        self.bar, self.is_single, self.is_debug = bar, is_single, is_debug
        self.counts: Counter[str] = Counter()
        self.megapixels = 0.0
        self.began = time.monotonic()
        self.error: Exception | None = None  # the latest
        bar.bar_format = BAR

    def __call__(self, state: "JobState") -> None:
        """Count and print the outcome of a file; a running file only moves the bar."""
        if state.status == "running":
            self.advance(state.fraction)
            return
        self.counts[state.status] += 1
        self.error = state.error
        self.megapixels += state.pixels / 1e6
        self.bar.set_postfix_str(f"{self.megapixels / (time.monotonic() - self.began):.1f} MP/s", refresh=False)
        if state.status in ("skipped", "kept"):
            self.bar.total -= 1  # the time left counts only files that take time
        self.advance(0)
        with self.bar.external_write_mode():
            self.show(state)

    def advance(self, fraction: float) -> None:
        """Move the bar forward to the files done plus a fraction; never backwards."""
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
        """Count the files done, skipped and failed, in words."""
        skipped = self.counts["skipped"] + self.counts["kept"]
        return f"{self.counts['done']} done, {skipped} skipped, {self.counts['failed']} failed"


def describe_result(state: "JobState") -> str:
    """Describe the result of a file: its size in px and number of frames."""
    if state.status == "skipped":
        return "done before"
    height, width = state.size
    size = f"{width}x{height} px"
    return f"{size} x {state.count}" if state.count > 1 else size
