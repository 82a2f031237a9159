"""Crops are aligned, captioned and reproducible."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gigasr.data import Crops, Sample, read_folder


def test_the_split_and_the_captions_come_from_the_index(photo_folder: Path) -> None:
    samples = read_folder(photo_folder, "train")
    assert [s.path.name for s in samples] == ["0.png", "1.png", "2.png", "3.png"]
    assert samples[2].captions == ("picture 2",)


def test_without_an_index_captions_stand_beside_the_images(tmp_path: Path) -> None:
    for name in ("a.png", "b.jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "a.txt").write_text("a black square\n", encoding="utf-8")
    assert [s.captions for s in read_folder(tmp_path)] == [("a black square",), ("",)]


def test_an_empty_folder_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="data: expected images in"):
        read_folder(tmp_path)


def coordinates(tmp_path: Path) -> Sample:
    """An image whose red is its row and green its column."""
    rows, columns = np.mgrid[0:60, 0:80].astype(np.uint8)
    Image.fromarray(np.stack([rows, columns, rows * 0], axis=2)).save(tmp_path / "c.png")
    return Sample(tmp_path / "c.png", ("coordinates",))


def test_a_crop_is_a_contiguous_piece_of_its_image(tmp_path: Path) -> None:
    crops = Crops([coordinates(tmp_path)], crop=16, length=20, seed=0)
    for hr, _ in (crops[i] for i in range(20)):
        rows, columns = ((hr[:2] + 1) * 127.5).round()
        assert (rows.diff(dim=0) == 1).all()
        assert (columns.diff(dim=1).abs() == 1).all()


def test_crops_reach_every_border(tmp_path: Path) -> None:
    crops = Crops([coordinates(tmp_path)], crop=56, length=60, seed=0)
    tops = {round(float((crops[i][0][0, 0, 0] + 1) * 127.5)) for i in range(60)}
    assert {0, 4} <= tops


def test_half_the_crops_are_mirrored(tmp_path: Path) -> None:
    crops = Crops([coordinates(tmp_path)], crop=16, length=100, seed=0)
    mirrored = sum(float(crops[i][0][1, 0, 0]) > float(crops[i][0][1, 0, -1]) for i in range(100))
    assert 30 < mirrored < 70


def test_an_index_always_gives_the_same_crop(photo_folder: Path) -> None:
    samples = read_folder(photo_folder, "train")
    a, b = (Crops(samples, 32, 12, seed=3, max_reduction=2.0) for _ in range(2))
    assert all(torch.equal(a[i][0], b[i][0]) and a[i][1] == b[i][1] for i in reversed(range(12)))


def test_every_image_appears_once_per_epoch(photo_folder: Path) -> None:
    samples = read_folder(photo_folder, "train")
    crops = Crops(samples, 32, 12, seed=0, empty_caption=0.0)
    for epoch in range(3):
        assert {crops[epoch * 4 + i][1] for i in range(4)} == {f"picture {i}" for i in range(4)}


def test_a_share_of_the_crops_has_no_caption(photo_folder: Path) -> None:
    crops = Crops(read_folder(photo_folder, "train"), 32, 200, seed=0, empty_caption=0.25)
    assert 25 < sum(crops[i][1] == "" for i in range(200)) < 75


def test_an_image_smaller_than_the_crop_is_enlarged(tmp_path: Path) -> None:
    Image.new("RGB", (20, 40)).save(tmp_path / "small.png")
    hr, _ = Crops(read_folder(tmp_path), 32, 1, seed=0)[0]
    assert hr.shape == (3, 32, 32)
