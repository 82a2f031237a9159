"""Inputs and outputs are paired before anything runs; sizes in words become pixels."""

from pathlib import Path

import pytest
from PIL import Image

from gigasr.batch import list_images, parse_size, plan_outputs


def make_images(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        Image.new("RGB", (4, 4)).save(path)
    return paths


def test_a_folder_stands_for_its_images_in_order(tmp_path: Path) -> None:
    b, a = make_images(tmp_path, "b.png", "a.jpg")
    (tmp_path / "notes.txt").write_text("no image")
    assert list_images((tmp_path, b)) == [a, b, b]


def test_outputs_lie_beside_their_inputs_under_a_name_that_says_the_factor(tmp_path: Path) -> None:
    (photo,) = make_images(tmp_path, "photo.jpg")
    assert plan_outputs([photo], None, "8x", ".png", False) == [(photo, tmp_path / "photo_8x.png")]


def test_several_inputs_go_into_the_output_folder(tmp_path: Path) -> None:
    sources = make_images(tmp_path, "a.png", "b.png")
    outputs = plan_outputs(sources, tmp_path / "out", "4k", ".jpg", False)
    assert [target.relative_to(tmp_path).as_posix() for _, target in outputs] == ["out/a_4k.jpg", "out/b_4k.jpg"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("4k", (2048, 4096)), ("200x300", (100, 200)), ("1000x150", (150, 300)), ("8K", (4096, 8192))],
)
def test_a_size_in_words_is_fitted_to_the_picture(text: str, expected: tuple[int, int]) -> None:
    assert parse_size(text, (100, 200)) == expected


@pytest.mark.parametrize("text", ["5k", "100", "0x5", "axb", "1x2x3", "-1x5"])
def test_a_size_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="size: expected 1k, 2k, 4k, 8k, 16k or WIDTHxHEIGHT"):
        parse_size(text, (10, 10))
