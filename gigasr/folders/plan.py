"""Planning before a run: inputs, outputs, reports and shards."""

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
from gigasr.models.zoo import model_scale
from gigasr.options import UpscaleOptions


@dataclass(frozen=True)
class InputImage:
    """An input image."""

    path: Path
    root: Path  # the output folder has the same tree below
    is_named: bool = False  # given by name, not found in a folder or by a pattern

    @property
    def name(self) -> Path:
        """Return the path below the root."""
        return self.path.relative_to(self.root)


@dataclass(frozen=True)
class Job:
    """Input file, output and prompt."""

    source: InputImage
    target: Path
    report: Path | None = None  # None = no report
    prompt: str = ""


@dataclass(frozen=True)
class Outputs:
    """Names of outputs and reports."""

    folder: Path | None = None  # a file for a single named input; None = beside each input
    label: str = "8x"  # between an input's name and the suffix
    suffix: str = ""  # "" = .png, or the input's own for several frames or pages
    bit_depth: int | None = None  # 8 or 16; None = the input's
    shard: tuple[int, int] = field(default=(1, 1))  # (i, n): the i-th of n; (1, 1) = all files


def size_label(options: UpscaleOptions) -> str:
    """Name the size of results in their files' names: 4k, 3840x2160 or 8x."""
    if options.size is not None:
        return str(options.size)
    return f"{options.scale or model_scale(options.model):g}x"


def find_images(
    inputs: Sequence[str | Path], is_recursive: bool = False, output: Path | None = None
) -> list[InputImage]:
    """Find the images in files, folders and patterns such as `*.png`.

    Folders are searched without hidden files, links to folders and the output folder.

    is_recursive: search folders below, too
    output:       output folder

    Raises FileNotFoundError for missing files and patterns without a match, and ValueError for folders without images.
    """
    found: list[InputImage] = []
    for given in inputs:
        path = Path(given)
        if path.is_file():
            found.append(InputImage(path, path.parent, is_named=True))
            continue
        is_pattern = not path.exists()
        if is_pattern:
            root = _folder_of_pattern(path)
            matches = [Path(match) for match in sorted(glob.glob(str(given), recursive=True))]
        else:
            root, matches = path, [path]
        images = _list_images(matches, is_recursive)
        if output is not None:
            images = _leave_out(images, output, root)
        if not images and is_pattern:
            raise FileNotFoundError(f"{given}: does not exist; check the name")
        if not images:
            raise ValueError(f"{path}: expected a folder with images, got none; name the files, or add --recursive")
        found += [InputImage(image, root) for image in images]
    return found


def _folder_of_pattern(pattern: Path) -> Path:
    """Return the folder before the first wildcard."""
    parts = itertools.takewhile(lambda part: not glob.has_magic(part), pattern.parts)
    return Path(*parts)


def _list_images(paths: list[Path], is_recursive: bool) -> list[Path]:
    """Return the images among files and in folders."""
    images: list[Path] = []
    for path in paths:
        if path.is_dir():
            images += _walk(path, is_recursive)
        elif is_image_file(path):
            images.append(path)
    return images


def _leave_out(images: list[Path], output: Path, root: Path) -> list[Path]:
    """Leave out the images in an output folder below the root."""
    folder = output.resolve()
    if root.resolve() not in folder.parents:
        return images
    return [image for image in images if not image.resolve().is_relative_to(folder)]


def _walk(folder: Path, is_recursive: bool) -> Iterator[Path]:
    """Yield the visible images in a folder, sorted by name in each folder."""

    def fail(error: OSError) -> None:
        raise error

    for parent, folders, names in os.walk(folder, onerror=fail):
        for name in sorted(names):
            path = Path(parent, name)
            if not name.startswith(".") and is_image_file(path) and path.is_file():
                yield path
        if not is_recursive:
            return
        folders[:] = [name for name in sorted(folders) if not name.startswith(".")]  # visited next by os.walk


def plan_jobs(sources: list[InputImage], outputs: Outputs) -> list[Job]:
    """Plan the output of every input, of all shards.

    Inputs that are outputs of another input, from an earlier run or this one, are left out. Raises ValueError for
    clashing and unwritable outputs.
    """
    is_single = len(sources) == 1 and sources[0].is_named
    jobs = [_plan_job(source, outputs, is_single) for source in sources]
    if not is_single:
        targets = {normalised_path(job.target) for job in jobs}
        made = targets | _earlier_outputs(sources)
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
    """Plan the output of an input.

    The report of a single named input is continued if it exists, but not begun.
    """
    output = outputs.folder
    if output is not None and _is_file_name(output, is_single):
        _check_suffix(output, outputs.suffix)
        target = output
        report = output.with_name(report_name())
    else:
        root = output or source.root
        suffix = outputs.suffix or default_suffix(source.path)
        target = root / source.name.with_name(f"{source.path.stem}_{outputs.label}{suffix}")
        report = root / report_name(outputs.shard)
    has_report = report.exists() or not is_single
    return Job(source, target, report if has_report else None)


def _is_file_name(output: Path, is_single: bool) -> bool:
    """Tell whether -o names a file; ValueError for a file of several inputs."""
    if output.is_dir():
        return False
    if is_single:
        return suffix_of(output) != ""
    if output.suffix.lower() in OUTPUT_FORMATS:
        raise ValueError(f"{output}: expected a folder for several inputs, got a file's name; choose another -o")
    return False


def _check_suffix(output: Path, suffix: str) -> None:
    """Raise ValueError if --format contradicts the name of the output."""
    if suffix and OUTPUT_FORMATS.get(suffix) != OUTPUT_FORMATS.get(output.suffix.lower()):
        raise ValueError(f"{output}: expected a name that ends in {suffix}, as --format says; give one of the two")


def check_writable(folder: Path) -> None:
    """Raise ValueError unless a folder, or the nearest existing parent, is writable."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise ValueError(f"{folder}: expected a writable folder, got {existing}; choose another -o")


def is_in_shard(source: InputImage, shard: tuple[int, int]) -> bool:
    """Tell whether a file belongs to the i-th of n shards, (i, n).

    The answer depends on the file's name only: no file is lost if shards see different folders.
    """
    index, count = shard
    name = os.fsencode(source.name.as_posix())
    digest = hashlib.sha256(name).digest()
    number = int.from_bytes(digest[:8], "big")
    return number % count == index - 1


def _earlier_outputs(sources: list[InputImage]) -> set[Path]:
    """Return the outputs of the inputs by the reports in the inputs' folders."""
    inputs = {normalised_path(source.path) for source in sources}
    folders = set()
    for source in sources:
        folders |= {source.root / parent for parent in source.name.parents}
    outputs = set()
    for folder in folders:
        for output, record in read_reports(folder).items():
            if record["input"] in inputs and record["input"] != output:
                outputs.add(output)
    return outputs
