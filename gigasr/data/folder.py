"""Training data: folders of images with captions, cut into reproducible crops."""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch.utils.data import Dataset

from gigasr.config.training import DataConfig
from gigasr.data.captions import Sample, indexed_samples, sidecar_samples
from gigasr.data.loader import LoadedBatch, load
from gigasr.data.samples import (
    CropSampler,
    CropSchedule,
    Example,
    UnreadableFiles,
    describe_left_out,
    own_parts,
    rejecting_filter,
)
from gigasr.files.decoding import DECODER_ERRORS
from gigasr.files.images import load_rgb


def read_folder(folder: Path, config: DataConfig, split: str | None) -> list[Sample]:
    """List a folder's images with captions, filtered.

    A captions.jsonl (one object a line: file, captions, optional split, width, height and scores) lists the images.
    Without a list, all images are taken; the caption is the text file beside the image, or empty. Raises ValueError if
    no image is left.
    """
    index = folder / "captions.jsonl"
    samples: list[Sample] = []
    left_out: Counter[str] = Counter()
    for sample, fields in indexed_samples(index) if index.exists() else sidecar_samples(folder, split):
        wanted = split in (None, fields.get("split", "train"))
        reason = rejecting_filter(fields, sample.path, config) if wanted else "split"
        if reason:
            left_out[reason] += 1
        else:
            samples.append(sample)
    if not samples:
        raise ValueError(
            f"data: expected images in {folder}, got none of {left_out.total()} listed; left out: "
            f"{describe_left_out(left_out)}; check the folder, train.data.split and the filters of train.data"
        )
    return samples


class CropDataset(Dataset[Example]):
    """The endless sequence of a folder's crops.

    Every epoch shows every image once, in a new order. The crop at an index depends only on (seed, index), so a resumed
    run continues exactly. The next readable image of the epoch replaces an unreadable one.
    """

    def __init__(self, samples: tuple[Sample, ...], sampler: CropSampler, seed: int) -> None:
        self.samples, self.sampler, self.seed = samples, sampler, seed
        self.skipped = UnreadableFiles()
        self.kept: dict[Path, Image.Image] = {}
        self.epoch, self.order = -1, list[int]()

    def __getitem__(self, index: int) -> Example:
        epoch, position = divmod(index, len(self.samples))
        if epoch != self.epoch:
            rng = random.Random(f"{self.seed}/{epoch}")
            self.epoch, self.order = epoch, rng.sample(range(len(self.samples)), len(self.samples))
        for step in range(len(self.samples)):
            sample = self.samples[self.order[(position + step) % len(self.samples)]]
            image = self.read(sample.path)
            if image is not None:
                rng = random.Random(f"{self.seed}/{epoch}/{position}")
                return self.sampler.example(index, image, sample.captions, rng)
        raise ValueError(f"data: expected readable images, got none of {len(self.samples)}; the warnings name them")

    def read(self, path: Path) -> Image.Image | None:
        """Read an image; None if it is unreadable."""
        if str(path) in self.skipped.names:
            return None
        if path in self.kept:
            return self.kept[path]
        try:
            image = self.sampler.prepare(load_rgb(path))
            if self.sampler.config.full_image:
                self.kept[path] = image
            return image
        except DECODER_ERRORS as error:
            self.skipped.add(str(path), error)
            return None


@dataclass(frozen=True)
class FolderSource:
    """The training data of a folder."""

    samples: tuple[Sample, ...]
    config: DataConfig

    def batches(
        self, schedule: CropSchedule, batch_size: int, start: int, end: int, seed: int, rank: int = 0, world: int = 1
    ) -> Iterator[LoadedBatch]:
        """Yield a process's batches of the crops start..end.

        All processes together see the crops of a single process.

        batch_size: crops per process, fewer at the end
        start, end: numbers of crops, of all processes together
        """
        crops = CropDataset(self.samples, CropSampler(schedule, self.config), seed)
        parts = own_parts(start, end, batch_size, rank, world)
        yield from load(crops, self.config.num_workers, parts=parts)
