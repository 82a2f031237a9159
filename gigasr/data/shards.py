"""Training data in webdataset shards, in img2dataset's layout.

`open_source` chooses between shards and a folder.
"""

import glob
import io
import itertools
import json
import random
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image
from torch.utils.data import IterableDataset, get_worker_info

from gigasr.config.training import DataConfig
from gigasr.data.folder import FolderSource, read_folder
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

IMAGE_KEYS = ("jpg", "jpeg", "png", "webp")
SHUFFLE_SIZE = 200  # samples; a shard's samples are shuffled in blocks of this size
MAX_BROKEN = 500  # samples; this many broken samples in a row end the run


def open_source(data: str, config: DataConfig, split: str | None) -> "FolderSource | ShardSource":
    """Find the training data behind a name.

    data:  a folder of images; a folder of .tar shards; or names of shards: a file, a glob, a brace pattern
           ("shards/{00000..00041}.tar"), an address ("https://...") or a command ("pipe:aws s3 cp s3://... -")
    split: rows of captions.jsonl to read, None = all; shards have no splits
    """
    folder = None if is_address(data) else Path(data)
    if folder and folder.is_dir() and not any(folder.glob("*.tar")):
        return FolderSource(tuple(read_folder(folder, config, split)), config)
    return ShardSource(tuple(find_shards(data)), config)


def is_address(name: str) -> bool:
    """Tell whether webdataset fetches the name: an address or a command.

    A path is neither, even with a drive's letter, although the letter looks like a scheme.
    """
    return re.match(r"[A-Za-z][A-Za-z0-9+]+:", name) is not None


def find_shards(data: str) -> list[str]:
    """List the names of all shards in a folder, a glob or a pattern.

    Raises ValueError for a missing shard, and without the package webdataset.
    """
    try:
        from webdataset.shardlists import expand_urls
    except ImportError as error:
        raise ValueError(f"data: expected webdataset to read {data}, got {error}; install gigasr[train]") from None
    if not is_address(data) and Path(data).is_dir():
        return sorted(str(path) for path in Path(data).glob("*.tar"))
    names: list[str] = []
    for part in data.split("::"):
        for name in expand_urls(part if is_address(part) else Path(part).as_posix()):
            names += sorted(glob.glob(name)) if glob.has_magic(name) and not is_address(name) else [name]
    missing = [name for name in names if not is_address(name) and not Path(name).is_file()]
    if missing or not names:
        raise ValueError(f"data: expected a folder or shards, got {(missing or [data])[0]}, which is not there")
    return names


@dataclass(frozen=True)
class ShardSource:
    """The training data of shards.

    A shard is NNNNN.tar with KEY.jpg (png, webp), KEY.txt and KEY.json, and has NNNNN_stats.json beside it. Each worker
    of each process reads its own shards, in a new order every epoch. If there are fewer shards than workers, several
    workers take turns in one shard.
    """

    shards: tuple[str, ...]
    config: DataConfig

    def batches(
        self, schedule: CropSchedule, batch_size: int, start: int, end: int, seed: int, rank: int = 0, world: int = 1
    ) -> Iterator[LoadedBatch]:
        """Yield a process's batches of the crops start..end.

        batch_size: crops per process, fewer at the end
        start, end: numbers of crops, of all processes together; with the same workers, processes and batch_size a
                    run that resumes at a later start continues exactly
        """
        items = ShardItems(self, CropSampler(schedule, self.config), batch_size, start, end, seed, rank, world)
        yield from load(items, self.config.num_workers, batch_size=batch_size)


@dataclass(frozen=True)
class ShardItems(IterableDataset[Example]):
    """The examples of one process; the workers take turns, a batch each."""

    source: ShardSource
    sampler: CropSampler
    batch_size: int
    start: int
    end: int
    seed: int
    rank: int
    world: int

    def __iter__(self) -> Iterator[Example]:
        info = get_worker_info()
        worker, num_workers = (info.id, info.num_workers) if info else (0, 1)
        first = self.start // (self.world * self.batch_size)  # number of the first batch, counted from image 0
        reader_number = (
            first + worker
        ) % num_workers  # the worker with the first batch reads the sequence next in turn
        num_skipped = len(range(reader_number, first, num_workers)) * self.batch_size
        reader = Reader(self.source, self.seed, self.rank * num_workers + reader_number, self.world * num_workers)
        images = reader.readable(reader.records(num_skipped))
        parts = own_parts(self.start, self.end, self.batch_size, self.rank, self.world)
        for index in itertools.chain.from_iterable(itertools.islice(parts, worker, None, num_workers)):
            image, caption = next(images)
            yield self.sampler.example(index, image, (caption,), random.Random(f"{self.seed}/{index}"))


class Record(NamedTuple):
    """A sample of a shard, not yet decoded."""

    name: str
    image: bytes
    caption: str
    error: str  # reason for leaving the sample out, or empty


class Reader:
    """One of several readers; together they share the shards.

    A reader's endless sequence of samples depends only on the seed, the reader's number and the number of readers.
    """

    def __init__(self, source: ShardSource, seed: int, number: int, readers: int) -> None:
        self.shards, self.config, self.seed = source.shards, source.config, seed
        num_groups = min(readers, len(self.shards))  # readers of one group share a shard
        self.shard_group, self.num_shard_groups = number % num_groups, num_groups
        self.position_in_group = number // num_groups
        self.group_size = len(range(self.shard_group, readers, num_groups))
        self.sizes: dict[int, int] = {}
        self.skipped = UnreadableFiles()
        self.left_out: Counter[str] = Counter()

    def records(self, num_skipped: int) -> Iterator[Record]:
        """Yield records without end, after the first `num_skipped`.

        Shards of known size inside the skipped range stay closed. Raises ValueError after an epoch without records.
        """
        for epoch in itertools.count():
            found = 0
            order = random.Random(f"{self.seed}/{epoch}").sample(range(len(self.shards)), len(self.shards))
            for shard in order[self.shard_group :: self.num_shard_groups]:
                size = self.known_size(shard) if num_skipped else None
                if size is not None and size <= num_skipped:
                    num_skipped, found = num_skipped - size, found + size
                    continue
                count = 0
                for record in self.shuffled(shard, random.Random(f"{self.seed}/{epoch}/{shard}")):
                    count += 1
                    if num_skipped:
                        num_skipped -= 1
                    else:
                        yield record
                self.sizes[shard], found = count, found + count
            if not found:
                raise ValueError(
                    f"data: expected samples for each of the readers in {len(self.shards)} shards, got none; left out: "
                    f"{describe_left_out(self.left_out)}; check the shards and the filters of train.data, or use fewer "
                    "workers"
                )

    def known_size(self, shard: int) -> int | None:
        """Return the number of this reader's records in a shard, if known.

        The number is known from an earlier epoch, or without filters from the shard's statistics.
        """
        if shard in self.sizes or self.config.min_size or self.config.min_scores or is_address(self.shards[shard]):
            return self.sizes.get(shard)
        path = Path(self.shards[shard])
        try:
            stats = json.loads(path.with_name(f"{path.stem}_stats.json").read_text(encoding="utf-8"))
            self.sizes[shard] = len(range(self.position_in_group, int(stats["successes"]), self.group_size))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return self.sizes[shard]

    def shuffled(self, shard: int, rng: random.Random) -> Iterator[Record]:
        """Yield this reader's records of a shard, shuffled in blocks by rng."""
        samples = itertools.islice(self.samples(self.shards[shard]), self.position_in_group, None, self.group_size)
        records = (record for record in map(self.record, samples) if record)
        while block := list(itertools.islice(records, SHUFFLE_SIZE)):
            rng.shuffle(block)
            yield from block

    def samples(self, shard: str) -> Iterator[dict[str, Any]]:
        """Yield webdataset's samples of a shard; after damage, the rest is skipped."""
        from webdataset.tariterators import group_by_keys, tar_file_expander, url_opener

        def skip(error: Exception) -> bool:
            self.skipped.add(shard, repr(error))
            return True

        def grouped(opened: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
            return group_by_keys(tar_file_expander(opened, handler=skip), handler=skip)

        if is_address(shard):
            yield from grouped(url_opener([{"url": shard}], handler=skip))
            return
        try:
            with Path(shard).open("rb") as stream:
                yield from grouped([{"url": shard, "stream": stream}])
        except OSError as error:
            skip(error)

    def record(self, sample: dict[str, Any]) -> Record | None:
        """Turn a sample into a record; None if a filter rejects it."""
        name = f"{sample['__url__']}: {sample['__key__']}"
        image = next((sample[key] for key in IMAGE_KEYS if key in sample), b"")
        try:
            fields = dict(json.loads(sample.get("json", b"{}")))
        except (ValueError, TypeError) as error:
            return Record(name, image, "", f"its json is broken: {error}")
        caption = sample["txt"].decode("utf-8", "replace").strip() if "txt" in sample else fields.get("caption")
        if not image or not isinstance(caption, str):
            return Record(name, image, "", "it has no caption" if image else "it has no image")
        reason = rejecting_filter(fields, io.BytesIO(image), self.config)
        if reason:
            self.left_out[reason] += 1
            return None
        return Record(name, image, caption, "")

    def readable(self, records: Iterator[Record]) -> Iterator[tuple[Image.Image, str]]:
        """Yield the image and the caption of each record.

        The next readable record replaces a broken record. The substitute is still yielded again in its own place. So
        positions never shift, and a resumed run need not decode the skipped records. Raises ValueError after MAX_BROKEN
        broken records in a row.
        """
        ahead: deque[Record] = deque()
        while True:
            for place in range(MAX_BROKEN):
                if place == len(ahead):
                    ahead.append(next(records))
                image = self.decode(ahead[place])
                if image is not None:
                    break
            else:
                raise ValueError(
                    f"data: expected readable samples, got {MAX_BROKEN} broken ones in a row; the warnings name them"
                )
            yield image, ahead[place].caption
            ahead.popleft()

    def decode(self, record: Record) -> Image.Image | None:
        """Decode the record's image; None if the record is broken."""
        if record.name in self.skipped.names:
            return None
        try:
            if record.error:
                raise ValueError(record.error)
            return load_rgb(io.BytesIO(record.image))
        except DECODER_ERRORS as error:
            self.skipped.add(record.name, error)
            return None
