"""The data of upsampler_lite is a folder that the trainer reads: photographs, sheets of icons, graphics."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from scripts.make_lite_data import SIZE, main


def make_folder(folder: Path, side: int, rows: list[dict[str, object]]) -> Path:
    folder.mkdir()
    for i, row in enumerate(rows):
        Image.new("RGB", (side, side), (i, 0, 0)).save(folder / str(row["file"]))
    (folder / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    photos: list[dict[str, object]] = [
        {"file": "a.png", "split": "train", "captions": ["a"], "sharpness": 0.4},
        {"file": "b.png", "split": "train", "captions": ["b"], "sharpness": 0.1},
        {"file": "c.png", "split": "val", "captions": ["c"], "sharpness": 0.1},
    ]
    icons: list[dict[str, object]] = [
        {"file": f"{i}.png", "split": "train", "captions": [f"icon {i}"], "name": f"icon {i}"} for i in range(16)
    ]
    return [make_folder(tmp_path / "photos", SIZE, photos), make_folder(tmp_path / "icons", 128, icons)]


def test_blurred_photographs_are_left_out_and_the_split_is_kept(sources: list[Path], tmp_path: Path) -> None:
    options = ["--sheets", "1", "--graphics", "2"]
    done = CliRunner().invoke(main, [*map(str, sources), str(tmp_path / "data"), *options])
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in (tmp_path / "data" / "captions.jsonl").read_text().splitlines()]
    assert [row["file"] for row in rows] == [
        "photos_a.png",
        "photos_c.png",
        "sheet_000.png",
        "graphic_000.png",
        "graphic_001.png",
    ]
    assert [row["split"] for row in rows] == ["train", "val", "train", "train", "train"]
    images = [np.asarray(Image.open(tmp_path / "data" / row["file"])) for row in rows]
    assert all(image.shape == (SIZE, SIZE, 3) for image in images)
    assert len(np.unique(images[2][..., 0])) == 16  # the sheet shows every icon
    assert images[3].std() > 1 and not np.array_equal(images[3], images[4])
