"""The upscaler behind the page's first tab: like the command line, within limits."""

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gigasr.files.images import Frames, read_frames
from gigasr.folders.job_runner import JobState
from gigasr.folders.local_runner import LocalRunner
from gigasr.folders.plan import InputImage, Job
from gigasr.folders.prompts import check_prompts
from gigasr.options import Precision, UpscaleOptions
from gigasr.pipeline import SuperResolver
from gigasr.sizes import target_size
from gigasr.ui.jobs import ReportProgress


@dataclass(frozen=True)
class RequestLimits:
    """The limits of one request."""

    upload_mb: int = 64
    megapixels: int = 268  # of a result; 16384x16384 px

    def check(self, pixels: int, number: int, size: tuple[int, int]) -> None:
        """Raise ValueError for too many pixels in the results of a request.

        pixels: of all results together
        number: of results, for the message
        size:   (height, width) of a result in px, for the message
        """
        if pixels > self.megapixels * 1e6:
            asked = f"{size[1]}x{size[0]} px"
            if number > 1:
                asked = f"{number} pictures of {asked}"
            raise ValueError(
                f"size: expected at most {self.megapixels} megapixels on this page, got {asked}; "
                "ask for less, or use gigasr on the command line"
            )


class Upscaler:
    """Upscales uploads: with the same options the same files as `gigasr upscale`."""

    def __init__(self, models: Sequence[str], device: str, precision: Precision, limits: RequestLimits) -> None:
        self.models, self.device, self.precision, self.limits = list(models), device, precision, limits
        self.resolver = functools.lru_cache(maxsize=2)(self.load)

    def load(self, model: str) -> SuperResolver:
        """Load a model, ready to upscale."""
        return SuperResolver.from_pretrained(model, self.device, self.precision)

    def upscale(self, source: Path, target: Path, options: UpscaleOptions, notify: ReportProgress) -> JobState:
        """Upscale a file into the target; raises the errors of the run.

        notify: called with (share done, time left or step)
        """
        check_prompts([options.prompt])
        self.check_size(read_frames(source), options)
        resolver, began = self.resolver(options.model), time.monotonic()
        done: list[JobState] = []

        def advance(state: JobState) -> None:
            if state.status == "running":
                left = (time.monotonic() - began) * (1 / state.fraction - 1)
                notify(state.fraction, f"{left:.0f} s left" if state.fraction < 1 else "writing the file")
            else:
                done.append(state)

        job = Job(InputImage(source, source.parent, is_named=True), target, prompt=options.prompt)
        run = LocalRunner([job], replace(options, device=self.device, precision=self.precision), advance)
        run.runner.resolver = resolver
        run.start()
        if done[0].error is not None:
            raise done[0].error
        return done[0]

    def check_size(self, frames: Frames, options: UpscaleOptions) -> None:
        """Raise ValueError for a result with too many pixels in all frames or pages."""
        pixels = 0
        for picture in frames:
            height, width = target_size(picture.size, options.scale, options.size, 1)
            pixels += height * width
            self.limits.check(pixels, len(frames), (height, width))
