"""Inks and Lab become sRGB."""

from pathlib import Path

import numpy as np
import pytest
import pyvips
import torch
from picture_files import SRGB, random_samples, samples_of, vips_image
from PIL import Image, ImageCms

from gigasr.files.colour import srgb_converter
from gigasr.files.image_writer import write_image
from gigasr.files.images import read_image
from gigasr.files.picture import Picture


def cmyk_profile() -> bytes:
    return pyvips.Operation.call("profile_load", "cmyk")


INKS = np.full((8, 8, 4), (30, 60, 90, 20), np.uint8)


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk_becomes_srgb_through_its_profile(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(INKS, "CMYK").save(
        path, icc_profile=cmyk_profile(), **({"quality": 100} if suffix == "jpg" else {})
    )
    picture = read_image(path)
    expected = pyvips.Image.new_from_buffer(path.read_bytes(), "").icc_transform("srgb", intent="relative").numpy()
    assert picture.alpha is None
    assert picture.icc_profile is None
    assert np.abs(samples_of(picture) - expected).max() <= 1


def test_16_bit_cmyk_agrees_with_8_bit_cmyk(tmp_path: Path) -> None:
    Image.fromarray(INKS, "CMYK").save(tmp_path / "8.tif", icc_profile=cmyk_profile())
    deep = vips_image(INKS.astype(np.uint16) * 257, "cmyk").copy()
    deep.set_type(pyvips.GValue.blob_type, "icc-profile-data", cmyk_profile())
    deep.tiffsave(str(tmp_path / "16.tif"))
    picture = read_image(tmp_path / "16.tif")
    assert picture.bit_depth == 16
    assert torch.allclose(picture.rgb, read_image(tmp_path / "8.tif").rgb, atol=1 / 255)


def test_cmyk_without_a_usable_profile_is_taken_for_coated_paper_at_both_depths(tmp_path: Path) -> None:
    vips_image(INKS.astype(np.uint16) * 257, "cmyk").tiffsave(str(tmp_path / "16.tif"))
    deep = read_image(tmp_path / "16.tif").rgb[:, 4, 4]
    expected = vips_image(INKS, "cmyk").icc_transform("srgb", input_profile="cmyk", intent="relative").numpy()[4, 4]
    assert np.abs(deep.numpy() * 255 - expected).max() <= 1
    for profile in (None, b"\0" * 200):
        Image.fromarray(INKS, "CMYK").save(tmp_path / "a.jpg", icc_profile=profile, quality=100)
        assert torch.allclose(read_image(tmp_path / "a.jpg").rgb[:, 4, 4], deep, atol=2 / 255)


def test_colours_go_through_their_profile_and_an_unusable_one_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    wide = pyvips.Operation.call("profile_load", "p3")
    samples = random_samples(3, 8)
    tagged = vips_image(samples, "srgb").copy()
    tagged.set_type(pyvips.GValue.blob_type, "icc-profile-data", wide)
    expected = tagged.icc_transform("srgb", intent="relative").numpy()
    converted = srgb_converter(wide, False, "a")(samples)
    assert np.abs(converted.astype(int) - expected).max() <= 2
    assert not np.array_equal(converted, samples)
    assert srgb_converter(b"\0" * 200, False, "a.bmp")(samples) is samples
    assert "a.bmp: its colour profile is unusable" in caplog.text


def test_lab_becomes_srgb_at_both_depths(tmp_path: Path) -> None:
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    ImageCms.applyTransform(Image.new("RGB", (4, 4), (200, 100, 50)), to_lab).save(tmp_path / "8.tif")
    flat = vips_image(np.full((4, 4, 3), (200, 100, 50), np.uint8), "srgb")
    flat.colourspace("labs").tiffsave(str(tmp_path / "16.tif"))
    for bits in (8, 16):
        picture = read_image(tmp_path / f"{bits}.tif")
        assert picture.bit_depth == bits
        assert torch.allclose(picture.rgb[:, 0, 0] * 255, torch.tensor([200.0, 100, 50]), atol=1.5)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_profile_of_another_colour_space_is_dropped(tmp_path: Path, bits: int, suffix: str) -> None:
    gray = Picture(torch.rand(1, 4, 5).expand(3, -1, -1), is_gray=True, bit_depth=bits, icc_profile=SRGB)
    write_image(tmp_path / f"a.{suffix}", gray)
    assert read_image(tmp_path / f"a.{suffix}").icc_profile is None
