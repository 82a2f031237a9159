"""What a training run writes for people: log.jsonl, curves in a tracker, grids of samples with their captions."""

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
    """Writes on the first process, stays silent on all others."""

    def __init__(self, folder: Path, tracker: str) -> None:
        self.folder, self.is_main = folder, process_index() == 0
        self.recent: dict[str, list[float]] = {}
        self.board: Any = None  # TensorBoard's SummaryWriter
        self.wandb: Any = None  # a run
        if self.is_main:
            folder.mkdir(parents=True, exist_ok=True)
        try:
            if tracker == "tensorboard":
                from torch.utils.tensorboard import SummaryWriter

                if self.is_main:
                    self.board = SummaryWriter(folder / "gigasr")
            elif tracker == "wandb":
                import wandb

                if self.is_main:
                    self.wandb = wandb.init(project="gigasr", name=folder.name, dir=str(folder))
        except ImportError:
            advice = f"run pip install {tracker}, or --set train.tracker=none"
            raise ImportError(f"{tracker}: not installed; {advice}") from None

    def trim(self, step: int) -> None:
        """Drop the lines of later steps, which a run that was killed after its last save has left: they come again."""
        path = self.folder / "log.jsonl"
        if self.is_main and path.exists():
            lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
            if kept != lines:
                with atomic_write(path) as temporary:
                    temporary.write_text("".join(kept), encoding="utf-8")

    def add(self, values: dict[str, float]) -> None:
        """Take a step's values into the means of the next line: some terms come only every so many steps."""
        for key, value in values.items():
            self.recent.setdefault(key, []).append(value)

    def means(self) -> dict[str, float]:
        """The mean of each term over the steps that had it, since the last call."""
        means = {key: sum(values) / len(values) for key, values in self.recent.items()}
        self.recent.clear()
        return means

    def write(self, step: int, images: int, values: dict[str, float]) -> None:
        """Append one line to log.jsonl and the same values to the tracker's curves."""
        if not self.is_main:
            return
        row = {"step": step, "images": images} | {key: round(value, 5) for key, value in values.items()}
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if self.board is not None:
            for key, value in values.items():
                self.board.add_scalar(key, value, images)
            self.board.flush()
        if self.wandb is not None:
            self.wandb.log(values, step=images)

    def write_samples(self, images: int, columns: Sequence[Tensor], captions: Sequence[str]) -> None:
        """Save a grid, one row per caption.

        columns: each [B, 3, H, W] in [-1, 1], of any sizes; resized to the largest
        """
        if not self.is_main:
            return
        grid = draw_grid(columns, captions)
        grid.save(self.folder / f"samples-{images:08d}.png")
        if self.board is not None:
            self.board.add_image("samples", np.asarray(grid), images, dataformats="HWC")

    def close(self) -> None:
        """Flush the tracker."""
        if self.board is not None:
            self.board.close()
        if self.wandb is not None:
            self.wandb.finish()


def draw_grid(columns: Sequence[Tensor], captions: Sequence[str]) -> Image.Image:
    """columns: each [B, 3, H, W] in [-1, 1] -> a picture with B rows, each above its caption"""
    height, width = (max(sizes) for sizes in zip(*(column.shape[2:] for column in columns), strict=True))
    columns = [F.interpolate(column.detach().float().cpu(), (height, width), mode="nearest") for column in columns]
    rows = signed_to_uint8(torch.cat(columns, dim=3)).permute(0, 2, 3, 1).numpy()
    grid = Image.new("RGB", (width * len(columns), len(rows) * (height + CAPTION_HEIGHT)), "white")
    draw = ImageDraw.Draw(grid)
    for i, (row, caption) in enumerate(zip(rows, captions, strict=True)):
        top = i * (height + CAPTION_HEIGHT)
        grid.paste(Image.fromarray(row), (0, top))
        draw.text((2, top + height + 1), caption.encode("latin-1", "replace").decode("latin-1"), fill="black")
    return grid


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """Turn SIGINT, SIGTERM and SIGHUP into an event, so that a step ends and is saved; outside the main thread nothing.

    A SIGHUP that is ignored, as nohup has it, stays so.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    previous = {number: signal.signal(number, lambda *_: stop.set()) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
