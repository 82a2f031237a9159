"""Training data: folders of images with captions, cut into aligned crops."""

import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"}


@dataclass(frozen=True)
class Sample:
    path: Path
    captions: tuple[str, ...]


def read_folder(folder: Path, split: str | None = None, min_sharpness: float = 0.0) -> list[Sample]:
    """List a folder's images with their captions.

    A captions.jsonl (one object a line: file, captions, optional split and sharpness) decides what is read;
    without one, every image counts and its caption is the text file beside it, or empty.
    """
    index = folder / "captions.jsonl"
    if index.exists():
        rows = [json.loads(line) for line in index.read_text(encoding="utf-8").splitlines() if line.strip()]
        samples = [
            Sample(folder / row["file"], tuple(row["captions"]))
            for row in rows
            if split in (None, row.get("split")) and row.get("sharpness", 1.0) >= min_sharpness
        ]
    else:
        paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
        samples = [Sample(p, (sidecar_caption(p),)) for p in paths]
    if not samples:
        raise ValueError(f"data: expected images in {folder}, got none; check the folder, the split and min_sharpness")
    return samples


def sidecar_caption(path: Path) -> str:
    """The text of the .txt file beside an image, or an empty caption."""
    text = path.with_suffix(".txt")
    return text.read_text(encoding="utf-8").strip() if text.exists() else ""


class Crops(Dataset[tuple[Tensor, str]]):
    """Random square crops, mirrored half the time, each with one of its image's captions or none.

    Half the images are first reduced by up to `max_reduction`: their finest detail is then sharper than a camera's.
    The crop at an index is a function of (seed, index): a resumed run draws what an uninterrupted one would have.
    """

    def __init__(
        self,
        samples: list[Sample],
        crop: int,
        length: int,
        seed: int,
        max_reduction: float = 1.0,
        empty_caption: float = 0.1,
    ) -> None:
        self.samples, self.crop, self.length, self.seed = samples, crop, length, seed
        self.max_reduction, self.empty_caption = max_reduction, empty_caption

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        """returns: hr [3, crop, crop] in [-1, 1], caption"""
        epoch, position = divmod(index, len(self.samples))
        order = random.Random(f"{self.seed}/{epoch}").sample(range(len(self.samples)), len(self.samples))
        rng = random.Random(f"{self.seed}/{epoch}/{position}")
        sample = self.samples[order[position]]
        hr = self.cut(sample.path, rng)
        caption = "" if rng.random() < self.empty_caption else rng.choice(sample.captions)
        return hr, caption

    def cut(self, path: Path, rng: random.Random) -> Tensor:
        """returns: [3, crop, crop] in [-1, 1]"""
        with Image.open(path) as file:
            image = file.convert("RGB")
        factor = rng.uniform(1.0, self.max_reduction) if rng.random() < 0.5 else 1.0
        factor = max(1.0 / 64, min(factor, min(image.size) / self.crop))
        if factor != 1.0:
            width, height = (max(self.crop, round(n / factor)) for n in image.size)
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        left, top = rng.randint(0, image.width - self.crop), rng.randint(0, image.height - self.crop)
        image = image.crop((left, top, left + self.crop, top + self.crop))
        if rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 127.5 - 1
