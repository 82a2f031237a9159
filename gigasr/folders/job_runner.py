"""Processing of one file: look up, read, upscale, write; for local and Ray runs."""

import hashlib
import itertools
import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from gigasr import __version__
from gigasr.files.atomic import hash_file
from gigasr.files.image_writer import check_frames, check_image_size, write_frames
from gigasr.files.images import read_frames, read_metadata
from gigasr.files.picture import AnimationTiming, Picture, PictureStrips
from gigasr.folders.channel import BoundedChannel, background_thread
from gigasr.folders.plan import Job
from gigasr.models.zoo import find_model, model_scale
from gigasr.options import UpscaleOptions
from gigasr.pipeline import SuperResolver

JOB_ERRORS = (Exception,)  # of a file, whatever its encoder or decoder comes up with; the rest of them goes on
# The parts of a fingerprint in version 0.1.0, in its order: files that it made keep theirs. The last ones do not vary.
_PARTS = (
    *("model", "scale", "size", "seed", "fidelity", "detail", "tile", "aurasr"),
    *("precision", "quality", "bit_depth", "device", "overwrite"),
)
_CONSTANTS = {"aurasr": "gigasr", "device": "", "overwrite": False}


@dataclass
class JobState:
    """Progress and result of one file."""

    job: Job
    status: str = "running"  # then done; skipped, as it was done before; kept, an output that is none of ours; failed
    fraction: float = 0.0  # of the rows of all its pictures
    pictures: Iterator[Picture] | None = None  # None where nothing is left to do; several of an animation or a TIFF
    count: int = 1  # pictures
    timing: AnimationTiming | None = None  # of an animation
    size: tuple[int, int] = (0, 0)  # (height, width) of a result, px
    pixels: int = 0  # of all results
    error: Exception | None = None  # of a file kept or failed
    record: dict[str, Any] = field(default_factory=dict)  # its line of the report, as far as known
    is_known: bool = False  # a report has the line already

    @contextmanager
    def record_failure(self) -> Iterator[None]:
        """Record an exception as this file's failure; the run goes on."""
        try:
            yield
        except JOB_ERRORS as error:
            self.status, self.error, self.pictures = "failed", error, None


class ResultStrip(NamedTuple):
    """Strip of an upscaled picture of a file."""

    number: int  # of the picture
    size: tuple[int, int]  # of its whole result
    picture: Picture


class JobRunner:
    """Upscaler of files; the model is loaded for the first file without a result."""

    def __init__(self, options: UpscaleOptions) -> None:
        self.options = options
        self.parts = fingerprint_parts(options)
        self.resolver: SuperResolver | None = None
        self.lock = threading.Lock()  # on it, for process()

    def process(self, job: Job, known: Mapping[str, Any]) -> JobState:
        """Read, upscale and write a file.

        May run in several threads: one thread upscales while others read and write.

        known: the file's record in a report, or {}
        """
        with background_thread() as writer:  # first, as it settles how many threads this one computes with
            state = self.read(job, known)
            if state.pictures is not None:
                channel = BoundedChannel[ResultStrip]()
                with channel.closing():
                    writer.submit(self.write, state, channel).add_done_callback(channel.close)
                    with self.lock:
                        for _ in self.upscale_into(state, channel):
                            pass
        return replace(state, pictures=None)

    def read(self, job: Job, known: Mapping[str, Any]) -> JobState:
        """Read the first picture of a file, unless the file is done.

        Later pictures are read while upscaling.

        known: the file's record in a report, or {}
        """
        state = JobState(job)
        with state.record_failure():
            key = json.dumps([self.parts, job.prompt, job.target.suffix]).encode()
            state.record["input_hash"] = hash_file(job.source.path)
            state.record["options_hash"] = hashlib.sha256(key).hexdigest()[:16]
            if self.options.overwrite or not job.target.exists():
                frames = read_frames(job.source.path)
                state.count, state.timing = len(frames), frames.timing
                check_frames(job.target, state.count, is_animation=frames.timing is not None)
                pictures = iter(frames)
                state.pictures = itertools.chain([next(pictures)], pictures)
            elif self.is_done(state, known):
                state.status = "skipped"
            else:
                state.status = "kept"
                state.error = ValueError(f"{job.target}: exists already; choose another -o, or add --overwrite")
        return state

    def is_done(self, state: JobState, known: Mapping[str, Any]) -> bool:
        """Tell whether the existing output has the present input and options.

        The record tells; without a record, the fingerprint in the output does. A run killed after writing leaves an
        output without a record.
        """
        target, made_from = state.job.target, dict(state.record)
        state.record["bytes"] = target.stat().st_size
        state.is_known = made_from.items() <= known.items()
        if state.is_known:
            return bool(known.get("bytes") == state.record["bytes"])
        with suppress(ValueError):  # it is no image
            return read_metadata(target).get("Fingerprint") == job_fingerprint(state)
        return False

    def upscale_into(self, state: JobState, channel: BoundedChannel[ResultStrip]) -> Iterator[None]:
        """Upscale, and pass the strips to the writing thread; yield after every strip.

        Errors of upscaling are raised in the writing thread.
        """
        if state.pictures is not None:
            self.load()  # what goes wrong here ends the run
        began = time.perf_counter()
        for strip in channel.produce(self.upscale(state), JOB_ERRORS):
            if strip.number == 0:
                state.size = strip.size
            state.fraction += strip.picture.size[0] / strip.size[0] / state.count
            state.pixels += strip.picture.size[0] * strip.picture.size[1]
            del strip  # or it lives while the next one is made
            yield
        if state.pictures is not None:
            state.record["seconds"] = round(time.perf_counter() - began, 3)

    def load(self) -> SuperResolver:
        """Return the model, loaded by the first call."""
        if self.resolver is None:
            self.resolver = SuperResolver.from_options(self.options)
        return self.resolver

    def upscale(self, state: JobState) -> Iterator[ResultStrip]:
        """Upscale a file's pictures; yield the results strip by strip."""
        if state.pictures is None:
            return
        options, resolver = replace(self.options, prompt=state.job.prompt), self.load()
        for number, picture in enumerate(state.pictures):
            picture = replace(picture, bit_depth=options.bit_depth or picture.bit_depth)
            made = resolver.strips(picture, options)
            check_image_size(state.job.target, made.size)
            yield from map(partial(ResultStrip, number, made.size), made.strips)

    def write(self, state: JobState, strips: Iterable[ResultStrip]) -> None:
        """Write a file's results, with gigasr's texts in the metadata."""
        job, options = state.job, self.options
        with state.record_failure():
            results = _join(strips)
            first = next(results)  # an error of the first is met before a folder is made
            prompt = job.prompt if self.load().model.takes_text else ""
            texts = {"Software": f"gigasr {__version__}", "Prompt": prompt, "Seed": str(options.seed)}
            texts |= {"Model": Path(options.model).name, "Fingerprint": job_fingerprint(state)}
            texts |= options.notes()
            job.target.parent.mkdir(parents=True, exist_ok=True)
            write_frames(job.target, itertools.chain([first], results), state.timing, texts, options.quality)
            state.record["bytes"] = job.target.stat().st_size
            state.status = "done"


def fingerprint_parts(options: UpscaleOptions) -> dict[str, object]:
    """Return the options that a result depends on, beside its prompt; later ones where they are not the defaults."""
    scale = options.scale
    if scale is not None and scale == model_scale(options.model):
        scale = None  # as where none is given
    values = asdict(options) | _CONSTANTS | {"model": hash_file(find_model(options.model)), "scale": scale}
    changed, known = options.changed(), UpscaleOptions.rules()
    later = [name for name in changed if known[name].changes_result and name not in (*_PARTS, "prompt")]
    parts = {name: values[name] for name in (*_PARTS, *later)}
    if "detail" not in changed:
        del parts["detail"]
    return parts


def job_fingerprint(state: JobState) -> str:
    """Return the hashes of an output's input and options."""
    return f"{state.record['input_hash']}-{state.record['options_hash']}"


def _join(strips: Iterable[ResultStrip]) -> Iterator[PictureStrips]:
    """Group strips by picture; take one picture's strips before the next picture's."""
    for _, group in itertools.groupby(strips, key=lambda strip: strip.number):
        first = next(group)
        yield PictureStrips(first.size, (strip.picture for strip in itertools.chain([first], group)))
