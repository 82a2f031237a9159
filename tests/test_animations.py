"""Animations and pages are written as other programs read them."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import pyvips
import tifffile
import torch
from picture_files import SRGB, camera_exif, random_picture, samples_of
from PIL import Image

from gigasr.files.image_writer import check_frames, write_frames
from gigasr.files.images import read_frames
from gigasr.files.picture import AnimationTiming, Picture, PictureStrips

TIMING = AnimationTiming((40, 1000 / 60, 2500), loop_count=3)


def streams(pictures: list[Picture], rows: int = 4) -> Iterator[PictureStrips]:
    """Each picture in strips."""
    for picture in pictures:
        rgbs = picture.rgb.split(rows, dim=1)
        alphas = [None] * len(rgbs) if picture.alpha is None else picture.alpha.split(rows, dim=1)
        strips = [
            Picture(rgb, alpha, picture.is_gray, picture.bit_depth, picture.icc_profile, picture.exif, picture.dpi)
            for rgb, alpha in zip(rgbs, alphas, strict=True)
        ]
        yield PictureStrips(picture.size, iter(strips))


def flat_pictures(has_alpha: bool) -> list[Picture]:
    """Frames of a few colours, with holes."""
    pictures = []
    for number in range(3):
        rgb = torch.full((3, 9, 11), 1.0)
        rgb[number, 2:6, 3:8] = 0
        alpha = torch.ones(1, 9, 11)
        alpha[:, number, :4] = 0
        pictures.append(Picture(rgb, alpha if has_alpha else None))
    return pictures


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("is_gray", [False, True])
@pytest.mark.parametrize("has_alpha", [False, True])
def test_an_animated_png_holds_every_frame_and_its_exact_timing(
    tmp_path: Path, bits: int, is_gray: bool, has_alpha: bool
) -> None:
    pictures = [random_picture(bits, is_gray, has_alpha) for _ in range(3)]
    pictures[1] = Picture(pictures[1].rgb.flip(1), pictures[1].alpha, is_gray, bits)
    write_frames(tmp_path / "a.png", streams(pictures), TIMING)
    image = Image.open(tmp_path / "a.png")
    assert (image.n_frames, image.info["loop"]) == (3, 3)
    for number, (picture, duration) in enumerate(zip(pictures, TIMING.durations, strict=True)):
        image.seek(number)
        assert image.info["duration"] == pytest.approx(duration, rel=1e-6)
        if bits == 8:
            assert np.array_equal(np.asarray(image).reshape(9, 11, -1), samples_of(picture))
    first = pyvips.Image.new_from_file(str(tmp_path / "a.png"))
    assert np.array_equal(first.numpy().reshape(9, 11, -1), samples_of(pictures[0]))


@pytest.mark.parametrize("has_alpha", [False, True])
@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_an_animated_gif_or_webp_holds_every_frame_with_its_timing(
    tmp_path: Path, suffix: str, has_alpha: bool
) -> None:
    pictures = flat_pictures(has_alpha)
    write_frames(tmp_path / f"a.{suffix}", streams(pictures), TIMING, quality=100)
    image = pyvips.Image.new_from_file(str(tmp_path / f"a.{suffix}"), n=-1)
    assert image.get("delay") == ([40, 20, 2500] if suffix == "gif" else [40, 17, 2500])
    shown = image.numpy().reshape(3, 9, 11, -1)
    for picture, frame in zip(pictures, shown, strict=True):
        visible = np.ones((9, 11), bool) if picture.alpha is None else picture.alpha[0].numpy() > 0
        assert np.array_equal(frame[visible][:, :3] / 255, picture.rgb.permute(1, 2, 0).numpy()[visible])
        assert frame.shape[2] == 3 or np.array_equal(frame[:, :, 3] > 0, visible)


def test_an_animated_avif_holds_every_frame_with_its_timing(tmp_path: Path) -> None:
    pictures = [random_picture(8, is_gray=True, has_alpha=False)] * 3
    write_frames(tmp_path / "a.avif", streams(pictures), TIMING, quality=100)
    read = read_frames(tmp_path / "a.avif")
    assert read.timing is not None
    assert read.timing.durations == (40, 17, 2500)
    assert all((again.rgb - pictures[0].rgb).abs().max() < 0.02 for again in read)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_what_a_format_cannot_count_to_is_the_most_it_can(tmp_path: Path, suffix: str) -> None:
    write_frames(tmp_path / f"a.{suffix}", streams(flat_pictures(False)), AnimationTiming((40, 40, 2e7), 100_000))
    timing = read_frames(tmp_path / f"a.{suffix}").timing
    assert timing is not None
    assert timing.durations[2] == {"gif": 655_350, "webp": 2**24 - 1, "png": 2e7}[suffix]
    assert timing.loop_count == (100_000 if suffix == "png" else 0)


@pytest.mark.parametrize("loop_count", [0, 1, 2])
@pytest.mark.parametrize("suffix", ["png", "gif", "webp"])
def test_how_often_an_animation_plays_survives(tmp_path: Path, loop_count: int, suffix: str) -> None:
    write_frames(tmp_path / f"a.{suffix}", streams(flat_pictures(False)), AnimationTiming((40, 40, 40), loop_count))
    read = read_frames(tmp_path / f"a.{suffix}")
    assert read.timing == AnimationTiming((40, 40, 40), loop_count)


def test_pages_of_any_size_depth_and_kind_share_a_tiff(tmp_path: Path) -> None:
    pictures = [random_picture(16, False, True), random_picture(8, True, False)]
    pictures.append(Picture(torch.rand(3, 40, 7), icc_profile=SRGB, exif=camera_exif(), dpi=(300, 300)))
    write_frames(tmp_path / "a.tif", streams(pictures), metadata={"Prompt": "x"})
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert len(file.pages) == 3
        for page, picture in zip(file.pages, pictures, strict=True):
            written = page.asarray().reshape(*picture.size, -1)
            scaled = (picture.rgb[: 1 if picture.is_gray else 3] * (2**picture.bit_depth - 1)).round()
            assert np.array_equal(written[:, :, : len(scaled)], scaled.permute(1, 2, 0).numpy())
        assert file.pages[2].tags["InterColorProfile"].value == SRGB


def test_several_pictures_need_a_format_that_holds_them() -> None:
    for name in ("a.png", "a.gif", "a.webp", "a.avif"):
        check_frames(Path(name), 3, is_animation=True)
    check_frames(Path("a.tif"), 3, is_animation=False)
    check_frames(Path("a.jpg"), 1, is_animation=False)
    with pytest.raises(ValueError, match=r"a.jpg: expected a format for 3 frames .GIF, PNG.* got .jpg; choose another"):
        check_frames(Path("a.jpg"), 3, is_animation=True)
    with pytest.raises(ValueError, match=r"a.png: expected a format for 2 pages .TIFF., got .png"):
        check_frames(Path("a.png"), 2, is_animation=False)
