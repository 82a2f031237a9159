"""EXIF's texts and comments come through as they were, and fit where they go."""

import json
import logging
from pathlib import Path

import pytest
import torch
from picture_files import TEXTS, parse_exif
from PIL import Image

from gigasr.files.exif import jpeg_exif, output_tags
from gigasr.files.image_writer import write_image
from gigasr.files.images import read_image, read_metadata
from gigasr.files.picture import Picture

OWN = {"Prompt": "old", "Software": "gigasr 0.1"}
ARTIST, DESCRIPTION, PHOTO, LENS, COMMENT = 0x013B, 0x010E, 0x8769, 0xA434, 0x9286


def with_exif(tags: dict[int, object]) -> Picture:
    exif = Image.Exif()
    exif.update(tags)
    return Picture(torch.rand(3, 4, 5), exif=exif.tobytes())


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "avif"])
@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_texts_beyond_ascii_keep_their_bytes(tmp_path: Path, suffix: str, encoding: str) -> None:
    artist, lens = "José Müller ©".encode(encoding), "Ö 50 mm".encode(encoding)
    Image.new("RGB", (5, 4)).save(tmp_path / "a.jpg", exif=with_exif({ARTIST: artist, PHOTO: {LENS: lens}}).exif)
    write_image(tmp_path / f"out.{suffix}", read_image(tmp_path / "a.jpg"))
    write_image(tmp_path / "again.png", read_image(tmp_path / f"out.{suffix}"))
    data = (tmp_path / "again.png").read_bytes()
    assert artist + b"\0" in data
    assert lens in data


def test_what_is_too_long_for_jpeg_goes_with_a_warning_and_the_rest_stays(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    tags = output_tags(
        with_exif({DESCRIPTION: "x" * 80_000, ARTIST: "Ada", PHOTO: {LENS: "50 mm"}}).exif, (4, 5), TEXTS
    )
    kept = parse_exif(jpeg_exif(tags))
    assert (kept[ARTIST], kept.get_ifd(PHOTO)[LENS]) == ("Ada", "50 mm")
    assert DESCRIPTION not in kept
    assert caplog.text.count("left out") == 1


def test_somebody_elses_comment_stays_beside_the_own_texts(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg", with_exif({PHOTO: {COMMENT: b"ASCII\0\0\0on the beach "}}), TEXTS)
    assert read_metadata(tmp_path / "a.jpg") == TEXTS | {"Comment": "on the beach"}


def test_the_comment_of_an_earlier_run_goes(tmp_path: Path) -> None:
    earlier = b"ASCII\0\0\0" + json.dumps(OWN).encode()
    write_image(tmp_path / "a.png", with_exif({ARTIST: "Ada", PHOTO: {COMMENT: earlier}}), {"Prompt": "new"})
    exif = parse_exif(read_image(tmp_path / "a.png").exif)
    assert exif[ARTIST] == "Ada"
    assert COMMENT not in exif.get_ifd(PHOTO)


def test_somebody_elses_comment_outlives_several_runs(tmp_path: Path) -> None:
    write_image(tmp_path / "1.jpg", with_exif({PHOTO: {COMMENT: b"ASCII\0\0\0on the beach"}}), OWN)
    write_image(tmp_path / "2.jpg", read_image(tmp_path / "1.jpg"), OWN)
    assert read_metadata(tmp_path / "2.jpg") == OWN | {"Comment": "on the beach"}
    write_image(tmp_path / "3.png", read_image(tmp_path / "2.jpg"), OWN)
    assert parse_exif(read_image(tmp_path / "3.png").exif).get_ifd(PHOTO)[COMMENT] == b"ASCII\0\0\0on the beach"


def test_a_hostile_block_of_many_tags_takes_no_time(caplog: pytest.LogCaptureFixture) -> None:
    tags = {PHOTO: dict.fromkeys(range(52_000, 65_000), "x" * 20)}
    kept = parse_exif(jpeg_exif(tags))
    assert 1000 < len(kept.get_ifd(PHOTO)) < 3000
    assert caplog.text.count("left out") == 1
