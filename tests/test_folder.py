"""Crops are aligned, captioned and reproducible; filters and broken files leave the rest alone."""

import io
import json
import logging
import pickle
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gigasr.cli.train import open_validation
from gigasr.config.training import DataConfig
from gigasr.data.captions import Sample
from gigasr.data.folder import CropDataset, FolderSource, read_folder
from gigasr.data.loader import LoadedBatch
from gigasr.data.samples import CropSampler, CropSchedule, sample_rng
from gigasr.files.images import load_rgb
from gigasr.training.options import TrainOptions

PLAIN = DataConfig(num_workers=0, caption_dropout=0.0)


def make_crops(samples: list[Sample], crop: int, seed: int = 0, **changes: float) -> CropDataset:
    return CropDataset(tuple(samples), CropSampler(CropSchedule(crop), PLAIN.model_copy(update=changes)), seed)


def test_whole_images_are_reduced_to_the_crop_and_read_once(tmp_path: Path) -> None:
    sample = coordinates(tmp_path)
    crops = make_crops([sample], 20, full_image=True, horizontal_flip=False)
    first = crops[0].hr
    sample.path.unlink()
    assert torch.equal(crops[1].hr, first)
    middle = (first[:, 10, 10] + 1) * 127.5
    torch.testing.assert_close(middle, torch.tensor([31.0, 41.0, 0.0]), atol=1.5, rtol=0)


def equal(a: list[LoadedBatch], b: list[LoadedBatch]) -> bool:
    """Whether two runs of batches are the same, in numbers, pixels and captions."""
    pairs = list(zip(a, b, strict=True))
    return all(torch.equal(x[0], y[0]) and torch.equal(x[1], y[1]) and x[2] == y[2] for x, y in pairs)


def write_index(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Small grey images and a captions.jsonl of them."""
    for i, row in enumerate(rows):
        Image.new("RGB", (24 + i, 30)).save(folder / f"{i}.png")
        row |= {"file": f"{i}.png", "captions": [f"picture {i}"]}
    (folder / "captions.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")


def coordinates(tmp_path: Path) -> Sample:
    """An image whose red is its row and green its column."""
    rows, columns = np.mgrid[0:60, 0:80].astype(np.uint8)
    Image.fromarray(np.stack([rows, columns, rows * 0], axis=2)).save(tmp_path / "c.png")
    return Sample(tmp_path / "c.png", ("coordinates",))


@pytest.fixture
def source(photo_folder: Path) -> FolderSource:
    return FolderSource(tuple(read_folder(photo_folder, PLAIN, "train")), PLAIN)


def test_the_split_and_the_captions_come_from_the_index(photo_folder: Path) -> None:
    samples = read_folder(photo_folder, PLAIN, "train")
    assert [s.path.name for s in samples] == ["0.png", "1.png", "2.png", "3.png"]
    assert samples[2].captions == ("picture 2",)
    assert len(read_folder(photo_folder, PLAIN, None)) == 5


def test_without_an_index_captions_stand_beside_the_images(tmp_path: Path) -> None:
    for name in ("a.png", "b.jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "a.txt").write_text("a black square\n", encoding="utf-8")
    assert [s.captions for s in read_folder(tmp_path, PLAIN, "train")] == [("a black square",), ("",)]


@pytest.mark.parametrize("name", ["a.txt", "captions.jsonl"])
def test_a_text_in_another_encoding_is_named(tmp_path: Path, name: str) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / name).write_bytes("un café".encode("latin-1"))
    with pytest.raises(ValueError, match=rf"{name}: expected text in UTF-8"):
        read_folder(tmp_path, PLAIN, "train")


def test_an_empty_folder_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="data: expected images in"):
        read_folder(tmp_path, PLAIN, None)


def test_a_row_without_captions_is_named(tmp_path: Path) -> None:
    (tmp_path / "captions.jsonl").write_text('\n{"file": "a.png"}\n', encoding="utf-8")
    with pytest.raises(
        ValueError, match='file and a list of captions, in line 2, got \'."file": "a.png".\'; correct it'
    ):
        read_folder(tmp_path, PLAIN, None)


@pytest.mark.parametrize("captions", ['"a dog"', '["a dog", null]', "null", "{}"])
def test_captions_that_are_no_list_of_texts_are_named(tmp_path: Path, captions: str) -> None:
    (tmp_path / "captions.jsonl").write_text(f'{{"file": "a.png", "captions": {captions}}}', encoding="utf-8")
    with pytest.raises(ValueError, match="file and a list of captions, in line 1, got '.*captions"):
        read_folder(tmp_path, PLAIN, None)


def test_too_small_images_are_left_out_by_the_row_or_else_by_the_header(tmp_path: Path) -> None:
    write_index(tmp_path, [{}, {"width": 26, "height": 99}, {"width": 20, "height": 99}, {}])
    samples = read_folder(tmp_path, DataConfig(min_size=26), None)
    assert [s.path.name for s in samples] == ["1.png", "3.png"]  # headers say 24 and 27


def test_a_low_or_missing_score_leaves_an_image_out(tmp_path: Path) -> None:
    write_index(tmp_path, [{"sharpness": 0.5}, {"sharpness": 0.2}, {"sharpness": None}, {}, {"sharpness": 0.3}])
    samples = read_folder(tmp_path, DataConfig(min_scores={"sharpness": 0.3}), None)
    assert [s.path.name for s in samples] == ["0.png", "4.png"]


def test_the_error_counts_what_each_filter_removed(tmp_path: Path) -> None:
    write_index(tmp_path, [{"split": "val"}, {"split": "train", "q": 1}, {"split": "train", "q": 9}])
    with pytest.raises(ValueError, match=r"none of 3 listed; left out: 1 by min_scores.q, 1 by min_size, 1 by split"):
        read_folder(tmp_path, DataConfig(min_size=64, min_scores={"q": 5}), "train")


def test_a_crop_is_a_contiguous_piece_of_its_image(tmp_path: Path) -> None:
    crops = make_crops([coordinates(tmp_path)], crop=16)
    for i in range(20):
        rows, columns = ((crops[i].hr[:2] + 1) * 127.5).round()
        assert (rows.diff(dim=0) == 1).all() and (rows.diff(dim=1) == 0).all()
        assert (columns.diff(dim=1).abs() == 1).all() and (columns.diff(dim=0) == 0).all()


def test_crops_reach_every_border(tmp_path: Path) -> None:
    crops = make_crops([coordinates(tmp_path)], crop=56)
    tops = {round(float((crops[i].hr[0, 0, 0] + 1) * 127.5)) for i in range(60)}
    assert {0, 4} <= tops


def mirrored(crops: CropDataset) -> int:
    """How many of the first 100 crops of `coordinates` are mirrored."""
    return sum(float(crops[i].hr[1, 0, 0]) > float(crops[i].hr[1, 0, -1]) for i in range(100))


def test_half_the_crops_are_mirrored_unless_that_is_switched_off(tmp_path: Path) -> None:
    sample = coordinates(tmp_path)
    assert 30 < mirrored(make_crops([sample], crop=16)) < 70
    assert mirrored(make_crops([sample], crop=16, horizontal_flip=False)) == 0


def test_an_index_always_gives_the_same_crop(photo_folder: Path) -> None:
    samples = read_folder(photo_folder, PLAIN, "train")
    a, b = (make_crops(samples, 32, seed=3, max_downscale=2.0, caption_dropout=0.3) for _ in range(2))
    expected = {i: b[i] for i in reversed(range(12))}
    assert all(torch.equal(a[i].hr, expected[i].hr) and a[i].caption == expected[i].caption for i in range(12))


def test_every_image_appears_once_per_epoch(photo_folder: Path) -> None:
    crops = make_crops(read_folder(photo_folder, PLAIN, "train"), 32)
    for epoch in range(3):
        assert {crops[epoch * 4 + i].caption for i in range(4)} == {f"picture {i}" for i in range(4)}


def test_a_share_of_the_crops_has_no_caption(photo_folder: Path) -> None:
    crops = make_crops(read_folder(photo_folder, PLAIN, "train"), 32, caption_dropout=0.25)
    assert 25 < sum(crops[i].caption == "" for i in range(200)) < 75


def test_each_word_of_a_caption_is_left_out_as_often_as_the_config_says() -> None:
    words = [f"w{i}" for i in range(50)]
    sampler = CropSampler(CropSchedule(8), DataConfig(caption_dropout=0.0, word_dropout=0.3))
    rng = random.Random(0)
    left = [sampler.example(i, Image.new("RGB", (8, 8)), (" ".join(words),), rng).caption.split() for i in range(40)]
    assert 0.65 < sum(map(len, left)) / (40 * 50) < 0.75
    assert all(some == [word for word in words if word in some] for some in left)


def test_validation_has_whole_captions(photo_folder: Path) -> None:
    data = DataConfig(num_workers=0, caption_dropout=0.5, word_dropout=0.5)
    source = open_validation(TrainOptions(data=str(photo_folder)), SimpleNamespace(train=SimpleNamespace(data=data)))
    assert source is not None
    assert [batch[2] for batch in source.batches(CropSchedule(32), 1, 0, 20, seed=0)] == [["picture 4"]] * 20


def test_an_image_smaller_than_the_crop_is_upscaled() -> None:
    hr = CropSampler(CropSchedule(32), PLAIN).random_crop(Image.new("RGB", (20, 40)), 32, random.Random(0))
    assert hr.shape == (32, 32, 3)


def test_what_is_transparent_becomes_white(tmp_path: Path) -> None:
    Image.new("RGBA", (1, 1), (255, 0, 0, 51)).save(tmp_path / "a.png")
    assert load_rgb(tmp_path / "a.png").getpixel((0, 0)) == (255, 204, 204)


def test_16_bit_images_keep_their_range(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 32896, 65535]], np.uint16)).save(tmp_path / "a.png")
    assert np.asarray(load_rgb(tmp_path / "a.png"))[0, :, 1].tolist() == [0, 128, 255]


def break_files(samples: list[Sample], tmp_path: Path, count: int) -> list[Sample]:
    """The same samples, the first `count` of them truncated, no image, missing."""
    data = samples[0].path.read_bytes()
    (tmp_path / "0.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "1.png").write_bytes(b"<html>not found</html>")
    return [Sample(tmp_path / f"{i}.png", ("broken",)) for i in range(count)] + samples[count:]


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_damaged_exif_does_not_cost_the_picture() -> None:
    exif = Image.Exif()
    exif.update({0x0112: 6, 0x011A: 72.0, 0x010E: "a", 0x013E: (0.3, 0.3)})
    file = io.BytesIO()
    Image.new("RGB", (16, 8), "red").save(file, "JPEG", exif=exif)
    start = file.getvalue().index(b"Exif") + 6
    for offset in range(start, start + len(exif.tobytes()) - 6):
        damaged = bytearray(file.getvalue())
        damaged[offset] = 59
        assert set(load_rgb(io.BytesIO(damaged)).size) == {8, 16}


def test_the_next_readable_image_stands_in_for_a_broken_one(
    photo_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    samples = read_folder(photo_folder, PLAIN, "train")
    a, b = (make_crops(break_files(samples, tmp_path, 3), 32) for _ in range(2))
    assert {a[i].caption for i in range(12)} == {"picture 3"}
    warned = [r.getMessage().split(": skipped")[0] for r in caplog.records if r.levelno == logging.WARNING]
    assert sorted(warned) == [str(tmp_path / f"{i}.png") for i in range(3)]
    assert all(torch.equal(a[i].hr, b[i].hr) for i in (7, 3, 0))


def test_a_folder_of_broken_images_is_one_clear_error(photo_folder: Path, tmp_path: Path) -> None:
    samples = break_files(read_folder(photo_folder, PLAIN, "train"), tmp_path, 3)[:3]
    with pytest.raises(ValueError, match="expected readable images, got none of 3"):
        make_crops(samples, 32)[0]


def test_two_processes_see_what_one_would(source: FolderSource) -> None:
    whole = list(source.batches(CropSchedule(32), 4, 4, 18, seed=1))
    halves = [list(source.batches(CropSchedule(32), 2, 4, 18, seed=1, rank=rank, world=2)) for rank in range(2)]
    assert [n for batch in whole for n in batch[0].tolist()] == list(range(4, 18))
    for i, (numbers, hr, captions, _, _) in enumerate(whole):
        parts = [half[i] for half in halves if i < len(half)]
        assert torch.equal(numbers, torch.cat([part[0] for part in parts]))
        assert torch.equal(hr, torch.cat([part[1] for part in parts]))
        assert captions == [caption for part in parts for caption in part[2]]


def test_workers_change_nothing_not_even_torchs_random_state(source: FolderSource) -> None:
    alone = list(source.batches(CropSchedule(32), 3, 0, 12, seed=1))
    state = torch.get_rng_state()
    helped = FolderSource(source.samples, PLAIN.model_copy(update={"num_workers": 2}))
    assert equal(alone, list(helped.batches(CropSchedule(32), 3, 0, 12, seed=1)))
    assert torch.equal(state, torch.get_rng_state())


def test_a_resumed_folder_goes_on_where_it_stopped(source: FolderSource) -> None:
    whole, rest = (list(source.batches(CropSchedule(32), 3, start, 12, seed=1)) for start in (0, 6))
    assert equal(whole[2:], rest)


def test_crops_can_be_sent_to_a_process_that_shares_no_memory(photo_folder: Path) -> None:
    crops = make_crops(read_folder(photo_folder, PLAIN, "train"), 32)
    assert torch.equal(pickle.loads(pickle.dumps(crops))[5].hr, crops[5].hr)


def test_the_noise_of_a_crop_depends_on_seed_and_index_alone() -> None:
    draws = {sample_rng(seed, index).initial_seed() for seed in range(20) for index in range(20)}
    assert len(draws) == 400
    assert torch.equal(torch.randn(4, generator=sample_rng(3, 7)), torch.randn(4, generator=sample_rng(3, 7)))
    noise = torch.stack([torch.randn(64, generator=sample_rng(0, index)) for index in range(200)])
    assert float(torch.corrcoef(noise).fill_diagonal_(0).abs().max()) < 0.65
