"""Many files: which images are meant, where each result goes, what is done already, and the run over them."""

import glob
import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gigasr import __version__
from gigasr.files import hash_file
from gigasr.handoff import Handoff
from gigasr.image_writer import check_format, write_strips
from gigasr.images import OUTPUT_FORMATS, is_image_file, read_image
from gigasr.picture import Picture, PictureStrips
from gigasr.pipeline import SuperResolver, parse_size
from gigasr.zoo import DEFAULT, find, load_model

_ERRORS = (ValueError, OSError, RuntimeError, MemoryError)  # of a file; the rest of them goes on
REPORT = "gigasr-report.jsonl"  # in the output folder; a line for every file that was made, kept or failed


@dataclass(frozen=True)
class Source:
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
    """One file to enlarge."""

    source: Source
    target: Path
    report: Path | None = None  # None = none is kept
    prompt: str = ""


@dataclass(frozen=True)
class Settings:
    """What a run is made with; all but the last two have a say in the results."""

    model: str = DEFAULT  # bundled name or file
    scale: float | None = None
    size: str | None = None  # in words, instead of a scale
    seed: int = 0
    fidelity: float = 1.0
    tile: int = 0  # px; 0 = auto
    precision: str = "auto"
    device: str = "auto"
    overwrite: bool = False  # replace outputs that exist


@dataclass
class Work:
    """A file on its way through the run: read, enlarged, written."""

    job: Job
    status: str = "running"  # then done; skipped, as it was done before; kept, an output that is none of ours; failed
    fraction: float = 0.0  # of the rows
    picture: Picture | None = None  # None where nothing is left to do
    size: tuple[int, int] = (0, 0)  # (height, width) of the result, px
    error: Exception | None = None  # of a file kept or failed
    record: dict[str, Any] = field(default_factory=dict)  # its line of the report, as far as known


def list_images(inputs: tuple[Path, ...]) -> list[Path]:
    """Files as given; of a folder, its images."""
    return [source.path for source in find_images(inputs)]


def find_images(inputs: Sequence[str | Path], is_recursive: bool = False, output: Path | None = None) -> list[Source]:
    """Files as given; the images of a folder, or of all folders below it; what a pattern like `*.png` stands for.

    Hidden files, links to folders and the output folder are left out of a folder.
    """
    found: list[Source] = []
    for given in inputs:
        path, is_pattern = Path(given), not Path(given).exists()
        if path.is_file():
            found.append(Source(path, path.parent, is_named=True))
            continue
        root = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts)) if is_pattern else path
        images: list[Path] = []
        for match in map(Path, sorted(glob.glob(str(given), recursive=True)) if is_pattern else [path]):
            images += _walk(match, is_recursive, output) if match.is_dir() else [match] * is_image_file(match)
        if not images and is_pattern:
            raise FileNotFoundError(f"{given}: does not exist; check the name")
        if not images:
            raise ValueError(f"{path}: expected a folder with images, got none; name the files, or add --recursive")
        found += [Source(image, root) for image in images]
    return found


def _walk(folder: Path, is_recursive: bool, output: Path | None) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        raise error

    skipped = None if output is None else output.resolve()
    for parent, folders, names in os.walk(folder, onerror=fail):
        paths = (Path(parent, name) for name in sorted(names) if not name.startswith("."))
        yield from (path for path in paths if is_image_file(path) and path.is_file())
        below = [name for name in sorted(folders) if is_recursive and not name.startswith(".")]
        folders[:] = [name for name in below if Path(parent, name).resolve() != skipped]


def plan_jobs(sources: list[Source], output: Path | None, label: str, suffix: str) -> list[Job]:
    """Give every input its output; clashing and unwritable outputs are errors before anything runs.

    output: a file, for one named input; a folder, in which the tree is kept; or None for beside each input
    label:  what is put between the input's name and the suffix, e.g. "8x"
    suffix: of outputs that are named here, e.g. ".png"

    Of several inputs, those that were made, or would now be made, from another of them are left out.
    """
    is_single = len(sources) == 1 and sources[0].is_named
    is_file = output is not None and not output.is_dir() and (output.suffix.lower() in OUTPUT_FORMATS or is_single)
    if is_file and not is_single:
        raise ValueError(f"{output}: expected a folder for several inputs, got a file's name; choose another -o")
    jobs = []
    for source in sources:
        root = output or source.root
        target = root / source.name.with_name(f"{source.path.stem}_{label}{suffix}")
        if is_file and root.suffix:
            root, target = root.parent, root
        jobs.append(Job(source, target, None if is_single and not (root / REPORT).exists() else root / REPORT))
    for made in () if is_single else (_earlier_outputs(sources), {_absolute(job.target) for job in jobs}):
        jobs = [job for job in jobs if _absolute(job.source.path) not in made]
    planned: dict[Path, Job] = {}
    for job in jobs:
        other = planned.setdefault(_absolute(job.target), job).source.path
        if _absolute(other) != _absolute(job.source.path):
            raise ValueError(f"{job.target}: expected one output per input, got {other} and {job.source.path}; rename")
        check_format(job.target)
        folder = next(p for p in job.target.absolute().parents if p.exists())
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise ValueError(f"{job.target}: expected a writable folder, got {folder}; choose another -o")
    return list(planned.values())


def _absolute(path: Path) -> Path:
    """A name by which two paths to one file are told to be the same; links are left as they are."""
    return Path(os.path.normcase(os.path.abspath(path)))


def _earlier_outputs(sources: list[Source]) -> set[Path]:
    """What the reports in the inputs' folders say was made from one of the inputs."""
    inputs = {_absolute(source.path) for source in sources}
    folders = {source.root / parent for source in sources for parent in source.name.parents}
    records = [item for folder in folders for item in read_report(folder / REPORT).items()]
    return {output for output, record in records if record["input"] in inputs and record["input"] != output}


def read_report(path: Path) -> dict[Path, dict[str, Any]]:
    """The latest record of each output that was finished; lines that are cut or foreign are left out."""
    found = {}
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        with suppress(ValueError, LookupError, TypeError):
            record = json.loads(line)
            if record["status"] == "done":
                found[_absolute(path.parent / record["output"])] = record | {"input": _absolute(Path(record["input"]))}
    return found


def append_record(path: Path, record: dict[str, Any]) -> None:
    """Add a line to a report, on the disk when this returns; a line cut by a crash is ended first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as file:
        file.seek(max(file.seek(0, os.SEEK_END) - 1, 0))
        is_cut = file.read() not in (b"", b"\n")
        file.write(b"\n" * is_cut + json.dumps(record).encode() + b"\n")
        os.fsync(file.fileno())


class Run:
    """A run over files: one is enlarged and written strip by strip, the next one is read and the last one finished."""

    def __init__(self, jobs: list[Job], settings: Settings, notify: Callable[[Work], None]) -> None:
        """notify: called by start() after every strip of a file, and when it is done, skipped, kept or failed"""
        self.jobs, self.settings, self.notify = jobs, settings, notify
        self.options = asdict(settings) | {"model": hash_file(find(settings.model)), "device": "", "overwrite": False}
        self.reports = {path: read_report(path) if path else {} for path in {job.report for job in jobs}}
        self.resolver: SuperResolver | None = None
        self.writing: Future[Work] | None = None

    def start(self) -> None:
        """Go through the files; what reading, enlarging or writing one raises is noted, and the rest goes on.

        On what ends the run, such as KeyboardInterrupt, the file in work is dropped and one being written is finished.
        """
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
            submitted = (reader.submit(self.read, job) for job in self.jobs)
            try:
                reading = next(submitted, None)
                while reading is not None:
                    work = reading.result()
                    reading = next(submitted, None)
                    made, passed = self.enlarge(work), Handoff[Picture]()
                    writing = writer.submit(self.write, work, made and PictureStrips(made.size, iter(passed)))
                    writing.add_done_callback(passed.close)
                    if made is not None:
                        self.hand_over(made, passed, work)
                    self.settle(is_waiting=True)
                    self.writing = writing
            finally:
                self.settle(is_waiting=True)

    def settle(self, is_waiting: bool) -> None:
        """Tell of the file that was written last."""
        if self.writing is not None and (is_waiting or self.writing.done()):
            work, self.writing = self.writing.result(), None
            self.notify(work)

    def read(self, job: Job) -> Work:
        """Look whether a file is done, and read it where it isn't; runs in the reader's thread."""
        work = Work(job)
        with _noting_errors(work):
            key = json.dumps([self.options, job.prompt, job.target.suffix]).encode()
            work.record["input_hash"] = hash_file(job.source.path)
            work.record["options_hash"] = hashlib.sha256(key).hexdigest()[:16]
            known = self.reports[job.report].get(_absolute(job.target), {})
            if self.settings.overwrite or not job.target.exists():
                work.picture = read_image(job.source.path)
            elif {**work.record, "bytes": job.target.stat().st_size}.items() <= known.items():
                work.status = "skipped"
            else:
                work.status = "kept"
                work.error = ValueError(f"{job.target}: exists already; choose another -o, or add --overwrite")
        return work

    def enlarge(self, work: Work) -> PictureStrips | None:
        """The result, to be made strip by strip; None where there is nothing to do."""
        has, picture, work.picture = self.settings, work.picture, None
        with _noting_errors(work):
            if picture is not None:
                self.resolver = self.resolver or SuperResolver(
                    load_model(has.model), has.device, has.precision, has.tile
                )
                size = None if has.size is None else parse_size(has.size, picture.size)
                return self.resolver.strips(picture, work.job.prompt, has.scale, size, has.seed, has.fidelity)
        return None

    def hand_over(self, made: PictureStrips, passed: Handoff[Picture], work: Work) -> None:
        """Make the strips of a result and hand them to the writer's thread, and what goes wrong too."""
        began = time.perf_counter()
        try:
            for strip in passed.feed(made.strips, _ERRORS):
                work.fraction += strip.size[0] / made.size[0]
                self.settle(is_waiting=False)
                self.notify(work)
            work.record["seconds"] = round(time.perf_counter() - began, 3)
            passed.finish()
        except BaseException as error:
            passed.finish(error)
            raise

    def write(self, work: Work, made: PictureStrips | None) -> Work:
        """Write the result, where there is one, and the line of the report; runs in the writer's thread."""
        job, settings = work.job, self.settings
        with _noting_errors(work):
            if made is not None:
                texts = {"Software": f"gigasr {__version__}", "Prompt": job.prompt, "Seed": str(settings.seed)}
                texts["Model"] = Path(settings.model).name
                job.target.parent.mkdir(parents=True, exist_ok=True)
                write_strips(job.target, made, texts)
                work.status, work.size = "done", made.size
                work.record["bytes"] = job.target.stat().st_size
        if job.report is not None and work.status != "skipped":
            output = job.target.relative_to(job.report.parent).as_posix()
            record = {"input": str(job.source.path.absolute()), "output": output, **work.record}
            append_record(job.report, {**record, "status": work.status, "error": str(work.error or "")})
        return work


@contextmanager
def _noting_errors(work: Work) -> Iterator[None]:
    try:
        yield
    except _ERRORS as error:
        work.status, work.error, work.picture = "failed", error, None
