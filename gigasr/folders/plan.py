"""Which images are meant, where each result goes, and whose turn each is: all that is settled before a run."""

import glob
import hashlib
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gigasr.files.formats import OUTPUT_FORMATS, is_image_file, suffix_of
from gigasr.files.image_writer import check_format
from gigasr.files.images import default_suffix
from gigasr.folders.report import normalised_path, read_reports, report_name


@dataclass(frozen=True)
class InputImage:
    """An input image."""

    path: Path
    root: Path  # folder whose tree is kept in the output folder
    is_named: bool = False  # given as a file, not found in a folder or by a pattern

    @property
    def name(self) -> Path:
        """The path below the root."""
        return self.path.relative_to(self.root)


@dataclass(frozen=True)
class Job:
    """One file to upscale."""

    source: InputImage
    target: Path
    report: Path | None = None  # None = none is kept
    prompt: str = ""


@dataclass(frozen=True)
class Outputs:
    """How outputs and their report are named."""

    folder: Path | None = None  # in which the tree is kept; a file for one named input; None = beside each input
    label: str = "8x"  # between an input's name and the suffix
    suffix: str = ""  # ".png" or another; "" = .png, and for several frames or pages that of their own kind
    bit_depth: int | None = None  # 8 or 16; None = that of the input
    shard: tuple[int, int] = field(default=(1, 1))  # the first of one: all


def find_images(
    inputs: Sequence[str | Path], is_recursive: bool = False, output: Path | None = None
) -> list[InputImage]:
    """Files as given; the images of a folder, or of all folders below it; what a pattern like `*.png` stands for.

    Hidden files, links to folders and an output folder that lies in it are left out of a folder, as of a pattern's.
    """
    found: list[InputImage] = []
    for given in inputs:
        path, is_pattern = Path(given), not Path(given).exists()
        if path.is_file():
            found.append(InputImage(path, path.parent, is_named=True))
            continue
        root = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts)) if is_pattern else path
        images: list[Path] = []
        for match in map(Path, sorted(glob.glob(str(given), recursive=True)) if is_pattern else [path]):
            if match.is_dir():
                images += _walk(match, is_recursive)
            elif is_image_file(match):
                images.append(match)
        skipped = None if output is None else output.resolve()
        if skipped is not None and root.resolve() in skipped.parents:
            images = [image for image in images if not image.resolve().is_relative_to(skipped)]
        if not images and is_pattern:
            raise FileNotFoundError(f"{given}: does not exist; check the name")
        if not images:
            raise ValueError(f"{path}: expected a folder with images, got none; name the files, or add --recursive")
        found += [InputImage(image, root) for image in images]
    return found


def _walk(folder: Path, is_recursive: bool) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise error

    for parent, folders, names in os.walk(folder, onerror=fail):
        paths = (Path(parent, name) for name in sorted(names) if not name.startswith("."))
        yield from (path for path in paths if is_image_file(path) and path.is_file())
        folders[:] = [name for name in sorted(folders) if is_recursive and not name.startswith(".")]


def plan_jobs(sources: list[InputImage], outputs: Outputs) -> list[Job]:
    """Give every input its output, whatever its shard; clashing and unwritable outputs are errors before anything runs.

    Of several inputs, those that were made, or would now be made, from another of them are left out.
    """
    is_single = len(sources) == 1 and sources[0].is_named
    jobs = [_plan_job(source, outputs, is_single) for source in sources]
    for made in () if is_single else (_earlier_outputs(sources), {normalised_path(job.target) for job in jobs}):
        jobs = [job for job in jobs if normalised_path(job.source.path) not in made]
    planned: dict[Path, Job] = {}
    for job in jobs:
        other = planned.setdefault(normalised_path(job.target), job).source.path
        if normalised_path(other) != normalised_path(job.source.path):
            raise ValueError(f"{job.target}: expected one output per input, got {other} and {job.source.path}; rename")
        check_format(job.target, outputs.bit_depth)
    for folder in {job.target.absolute().parent for job in planned.values()}:
        check_writable(folder)
    return list(planned.values())


def _plan_job(source: InputImage, outputs: Outputs, is_single: bool) -> Job:
    output = outputs.folder
    if output is not None and not output.is_dir() and (output.suffix.lower() in OUTPUT_FORMATS or is_single):
        if not is_single:
            raise ValueError(f"{output}: expected a folder for several inputs, got a file's name; choose another -o")
        if suffix_of(output):
            if outputs.suffix and OUTPUT_FORMATS.get(outputs.suffix) != OUTPUT_FORMATS.get(output.suffix.lower()):
                raise ValueError(
                    f"{output}: expected a name that ends in {outputs.suffix}, as --format says; give one of the two"
                )
            report = output.with_name(report_name())
            return Job(source, output, report if report.exists() else None)
    root = output or source.root
    suffix = outputs.suffix or default_suffix(source.path)
    report = root / report_name(outputs.shard)
    target = root / source.name.with_name(f"{source.path.stem}_{outputs.label}{suffix}")
    return Job(source, target, None if is_single and not report.exists() else report)


def check_writable(folder: Path) -> None:
    """Raise ValueError unless a folder, or the nearest one above it that exists, can be written to."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise ValueError(f"{folder}: expected a writable folder, got {existing}; choose another -o")


def is_in_shard(source: InputImage, shard: tuple[int, int]) -> bool:
    """Tell whether a file belongs to the i-th of n parts, (i, n).

    That follows from its name alone, so that no file is lost when the shards see different folders.
    """
    digest = hashlib.sha256(os.fsencode(source.name.as_posix())).digest()
    return int.from_bytes(digest[:8], "big") % shard[1] == shard[0] - 1


def _earlier_outputs(sources: list[InputImage]) -> set[Path]:
    """What the reports in the inputs' folders say was made from one of the inputs."""
    inputs = {normalised_path(source.path) for source in sources}
    folders = {source.root / parent for source in sources for parent in source.name.parents}
    records = [item for folder in folders for item in read_reports(folder).items()]
    return {output for output, record in records if record["input"] in inputs and record["input"] != output}
