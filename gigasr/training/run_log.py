"""The readable output of a training: log.jsonl, tracker curves, grids of samples."""

import json
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from gigasr.files.atomic import atomic_write
from gigasr.pixels import signed_to_uint8
from gigasr.training.distributed import process_index

CAPTION_HEIGHT = 14  # px


class RunLog:
    """The log of a run, written by the first process only."""

    def __init__(self, folder: Path, tracker: str) -> None:
        self.folder, self.is_main = folder, process_index() == 0
        self._recent: dict[str, list[float]] = {}
        self._tensorboard: Any = None  # a SummaryWriter
        self._wandb: Any = None  # a run
        if self.is_main:
            folder.mkdir(parents=True, exist_ok=True)
        try:
            if tracker == "tensorboard":
                from torch.utils.tensorboard import SummaryWriter

                if self.is_main:
                    self._tensorboard = SummaryWriter(folder / "gigasr")
            elif tracker == "wandb":
                import wandb

                if self.is_main:
                    self._wandb = wandb.init(project="gigasr", name=folder.name, dir=str(folder))
        except ImportError:
            advice = f"run pip install {tracker}, or --set train.tracker=none"
            raise ImportError(f"{tracker}: not installed; {advice}") from None

    def trim(self, step: int) -> None:
        """Drop the lines of steps after `step`.

        A run killed after the last save leaves such lines, and a resumed run repeats the steps.
        """
        path = self.folder / "log.jsonl"
        if self.is_main and path.exists():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            whole_lines = [line for line in lines if line.endswith("\n")]
            kept = [line for line in whole_lines if json.loads(line)["step"] <= step]
            if kept != lines:
                with atomic_write(path) as temporary:
                    temporary.write_text("".join(kept), encoding="utf-8")

    def add(self, values: dict[str, float]) -> None:
        """Add a step's values to the means of the next line."""
        for key, value in values.items():
            self._recent.setdefault(key, []).append(value)

    def means(self) -> dict[str, float]:
        """Return the mean of each term since the last call, over the steps with the term."""
        means = {key: sum(values) / len(values) for key, values in self._recent.items()}
        self._recent.clear()
        return means

    def write(self, step: int, images: int, values: dict[str, float]) -> None:
        """Append a line to log.jsonl and the values to the tracker's curves."""
        if not self.is_main:
            return
        row: dict[str, float] = {"step": step, "images": images}
        for key, value in values.items():
            row[key] = round(value, 5)
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if self._tensorboard is not None:
            for key, value in values.items():
                self._tensorboard.add_scalar(key, value, images)
            self._tensorboard.flush()
        if self._wandb is not None:
            self._wandb.log(values, step=images)

    def write_samples(self, images: int, columns: Sequence[Tensor], captions: Sequence[str]) -> None:
        """Save a grid with one row per caption.

        columns: each [B, 3, H, W] in [-1, 1], of any sizes; resized to the largest
        """
        if not self.is_main:
            return
        grid = draw_grid(columns, captions)
        grid.save(self.folder / f"samples-{images:08d}.png")
        if self._tensorboard is not None:
            self._tensorboard.add_image("samples", np.asarray(grid), images, dataformats="HWC")

    def close(self) -> None:
        """Flush the tracker."""
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish()


def draw_grid(columns: Sequence[Tensor], captions: Sequence[str]) -> Image.Image:
    """Draw a grid with B rows, each above its caption.

    columns: each [B, 3, H, W] in [-1, 1], of any sizes
    """
    height = max(column.shape[2] for column in columns)
    width = max(column.shape[3] for column in columns)
    resized = []
    for column in columns:
        resized.append(F.interpolate(column.detach().float().cpu(), (height, width), mode="nearest"))
    rows = signed_to_uint8(torch.cat(resized, dim=3)).permute(0, 2, 3, 1).numpy()
    row_height = height + CAPTION_HEIGHT
    grid = Image.new("RGB", (width * len(resized), len(rows) * row_height), "white")
    draw = ImageDraw.Draw(grid)
    for i, (row, caption) in enumerate(zip(rows, captions, strict=True)):
        top = i * row_height
        grid.paste(Image.fromarray(row), (0, top))
        drawable = caption.encode("latin-1", "replace").decode("latin-1")
        draw.text((2, top + height + 1), drawable, fill="black")
    return grid


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """Turn SIGINT, SIGTERM and SIGHUP into an event: the step can end and be saved.

    Signals stay as they are outside the main thread. An ignored SIGHUP, as under nohup, stays ignored.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    previous = {}
    for number in numbers:
        previous[number] = signal.signal(number, lambda *_: stop.set())
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
