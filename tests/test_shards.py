"""Shards flow whatever is broken in them, are shared by all readers, and go on where they stopped."""

import io
import itertools
import json
import logging
import pickle
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gigasr.config.training import DataConfig
from gigasr.data.folder import FolderSource
from gigasr.data.loader import LoadedBatch
from gigasr.data.samples import CropSampler, CropSchedule
from gigasr.data.shards import MAX_BROKEN, SHUFFLE_SIZE, Reader, ShardItems, ShardSource, open_source

pytest.importorskip("webdataset", reason="needs the extra gigasr[train]")

PLAIN = DataConfig(num_workers=0, caption_dropout=0.0)


def jpeg(size: tuple[int, int] = (24, 20)) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)).save(file, "JPEG")
    return file.getvalue()


def sample(name: str, **changes: bytes | None) -> dict[str, bytes]:
    """The files of one sample in img2dataset's layout, some of them changed or (None) missing."""
    fields = {"width": 20, "height": 24, "similarity": int(name[-1]) / 10}
    files = {"jpg": jpeg(), "txt": f"picture {name}".encode(), "json": json.dumps(fields).encode()} | changes
    return {f"{name}.{suffix}": content for suffix, content in files.items() if content is not None}


def write_shard(path: Path, samples: list[dict[str, bytes]], stats: bool = False) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in itertools.chain.from_iterable(files.items() for files in samples):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    if stats:
        path.with_name(f"{path.stem}_stats.json").write_text(json.dumps({"successes": len(samples)}), encoding="utf-8")


def write_shards(folder: Path, sizes: list[int], stats: bool = False) -> Path:
    """Shards of so many samples; the caption of each names its shard and its place."""
    for i, size in enumerate(sizes):
        write_shard(folder / f"{i:05}.tar", [sample(f"{i}-{k:03}") for k in range(size)], stats)
    return folder


def broken_samples() -> list[dict[str, bytes]]:
    """Sixty samples, three of them broken: a truncated image, no caption, json that is none."""
    broken: dict[int, dict[str, Any]] = {10: {"jpg": jpeg()[:200]}, 30: {"txt": None}, 50: {"json": b'{"width":'}}
    return [sample(f"0-{k:03}", **broken.get(k, {})) for k in range(60)]


def open_shards(folder: Path, **changes: object) -> ShardSource:
    source = open_source(str(folder), PLAIN.model_copy(update=changes), None)
    assert isinstance(source, ShardSource)
    return source


def captions(batches: list[LoadedBatch]) -> list[str]:
    return [caption for batch in batches for caption in batch[2]]


def equal(a: list[LoadedBatch], b: list[LoadedBatch]) -> bool:
    """Whether two runs of batches are the same, in numbers, pixels and captions."""
    pairs = list(zip(a, b, strict=True))
    return all(torch.equal(x[0], y[0]) and torch.equal(x[1], y[1]) and x[2] == y[2] for x, y in pairs)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_folders_globs_braces_and_commands_name_the_same_shards(tmp_path: Path) -> None:
    write_shards(tmp_path, [2, 2])
    base = tmp_path.as_posix()
    names = [base, f"{base}/*.tar", f"{base}/{{00000..00001}}.tar", f"{base}/00000.tar::{base}/00001.tar"]
    assert all([Path(s).name for s in open_shards(Path(n)).shards] == ["00000.tar", "00001.tar"] for n in names)
    piped = open_source(f"pipe:cat {base}/{{00000..00001}}.tar", PLAIN, None)
    assert Counter(captions(list(piped.batches(CropSchedule(8), 2, 0, 4, seed=0)))).total() == 4


def test_a_folder_without_shards_is_a_folder_of_images(photo_folder: Path) -> None:
    source = open_source(str(photo_folder), PLAIN, "val")
    assert isinstance(source, FolderSource)
    assert captions(list(source.batches(CropSchedule(8), 1, 0, 1, seed=0))) == ["picture 4"]


@pytest.mark.parametrize("name", ["nowhere", "nowhere/*.tar", "nowhere/{0..3}.tar"])
def test_missing_shards_are_one_clear_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"data: expected a folder or shards, got .*nowhere.*, which is not there"):
        open_source(f"{tmp_path.as_posix()}/{name}", PLAIN, None)


def test_every_sample_comes_once_per_epoch_in_an_order_of_its_own(tmp_path: Path) -> None:
    source = open_shards(write_shards(tmp_path, [5, 7, 4]))
    seen = captions(list(source.batches(CropSchedule(8), 4, 0, 48, seed=0)))
    epochs = [seen[:16], seen[16:32], seen[32:]]
    assert all(len(set(epoch)) == 16 for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert seen != captions(list(source.batches(CropSchedule(8), 4, 0, 48, seed=1)))


def test_no_block_of_a_shard_keeps_its_order(tmp_path: Path) -> None:
    source = open_shards(write_shards(tmp_path, [SHUFFLE_SIZE + 20]))
    names = [record.caption[-3:] for record in itertools.islice(Reader(source, 0, 0, 1).records(0), SHUFFLE_SIZE + 20)]
    assert names != sorted(names)
    assert sorted(names[:SHUFFLE_SIZE]) == [f"{k:03}" for k in range(SHUFFLE_SIZE)]


def test_processes_and_workers_share_the_shards(tmp_path: Path) -> None:
    source = open_shards(write_shards(tmp_path, [4] * 4), num_workers=2)
    parts = [captions(list(source.batches(CropSchedule(8), 2, 0, 16, seed=0, rank=rank, world=2))) for rank in range(2)]
    assert len(parts[0]) == 8 and len(set(parts[0] + parts[1])) == 16


def test_several_readers_take_turns_in_one_shard(tmp_path: Path) -> None:
    source = open_shards(write_shards(tmp_path, [9, 9]))
    readers = [Reader(source, 0, number, 5) for number in range(5)]
    seen = [[r.caption for r in itertools.islice(reader.records(0), 3)] for reader in readers]
    assert len(set(itertools.chain.from_iterable(seen))) == 15


def test_broken_samples_are_warned_about_once_and_the_rest_flows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_shard(tmp_path / "0.tar", broken_samples())
    seen = captions(list(open_shards(tmp_path).batches(CropSchedule(8), 10, 0, 180, seed=0)))
    assert len(set(seen)) == 57
    broken = sorted(message.split(": skipped")[0][-5:] for message in warnings(caplog))
    assert broken == ["0-010", "0-030", "0-050"]
    assert "(3 so far)" in warnings(caplog)[-1]


def test_a_torn_shard_gives_what_is_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_shards(tmp_path, [3, 6])
    torn = tmp_path / "00001.tar"
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2])
    seen = captions(list(open_shards(tmp_path).batches(CropSchedule(8), 4, 0, 24, seed=0)))
    counts = Counter(name[:9] for name in set(seen))
    assert counts["picture 0"] == 3 and 1 <= counts["picture 1"] < 6
    assert sum(f"{torn}: skipped" in message for message in warnings(caplog)) == 1


def test_only_broken_samples_are_one_clear_error(tmp_path: Path) -> None:
    write_shard(tmp_path / "0.tar", [sample(f"0-{k}", jpg=b"none") for k in range(9)])
    with pytest.raises(ValueError, match=f"expected readable samples, got {MAX_BROKEN} broken"):
        next(open_shards(tmp_path).batches(CropSchedule(8), 4, 0, 24, seed=0))


@pytest.mark.parametrize("changes", [{"min_scores": {"similarity": 0.5}}, {"min_size": 32}])
def test_filters_leave_samples_out(tmp_path: Path, changes: dict[str, Any]) -> None:
    large = json.dumps({"width": 64, "height": 64, "similarity": 0.9}).encode()
    write_shard(tmp_path / "0.tar", [sample("0-001"), sample("0-002", json=large), sample("0-003", json=None)])
    source = open_shards(tmp_path, **changes)
    assert set(captions(list(source.batches(CropSchedule(8), 2, 0, 6, seed=0)))) == {"picture 0-002"}


def test_the_error_says_how_many_samples_each_filter_removed(tmp_path: Path) -> None:
    source = open_shards(write_shards(tmp_path, [9]), min_size=24, min_scores={"similarity": 0.5})
    with pytest.raises(ValueError, match=r"left out: 5 by min_scores.similarity, 4 by min_size"):
        next(source.batches(CropSchedule(8), 2, 0, 6, seed=0))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("stats", [False, True])
def test_stopping_and_going_on_is_not_stopping(tmp_path: Path, num_workers: int, stats: bool) -> None:
    write_shards(tmp_path, [7, 5, 6], stats)
    write_shard(tmp_path / "00003.tar", broken_samples()[:52], stats)
    source = open_shards(tmp_path, num_workers=num_workers)
    whole = list(source.batches(CropSchedule(8), 3, 0, 120, seed=5, rank=1, world=2))
    for stop in (1, 7, 16):
        assert equal(whole[stop:], list(source.batches(CropSchedule(8), 3, 6 * stop, 120, seed=5, rank=1, world=2)))


def test_shards_of_known_size_are_not_opened_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_shards(write_shards(tmp_path, [4] * 5, stats=True))
    expected = next(itertools.islice(Reader(source, 0, 0, 1).records(0), 57, None))
    opened: list[str] = []
    read = Reader.samples
    monkeypatch.setattr(Reader, "samples", lambda self, shard: opened.append(shard) or read(self, shard))
    assert next(Reader(source, 0, 0, 1).records(57)) == expected
    assert len(opened) == 1


def test_numbers_and_pixels_fit_the_request(tmp_path: Path) -> None:
    batches = list(open_shards(write_shards(tmp_path, [6])).batches(CropSchedule(8), 4, 8, 18, seed=0))
    assert [batch[0].tolist() for batch in batches] == [[8, 9, 10, 11], [12, 13, 14, 15], [16, 17]]
    assert batches[0][1].shape == (4, 3, 8, 8) and float(batches[0][1].abs().max()) <= 1


def test_shards_can_be_sent_to_a_process_that_shares_no_memory(tmp_path: Path) -> None:
    items = ShardItems(open_shards(write_shards(tmp_path, [6])), CropSampler(CropSchedule(8), PLAIN), 2, 0, 6, 0, 0, 1)
    copy = pickle.loads(pickle.dumps(items))
    assert all(torch.equal(a.hr, b.hr) for a, b in zip(items, copy, strict=True))
