"""Files of 16 bit give what files of 8 bit give: alpha, orientation, texts and resolution, wherever these stand."""

import logging
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from picture_files import SRGB, png_bytes, png_chunk, random_samples, samples_of
from PIL import Image

from gigasr.files.images import read_image

TURNED = np.rot90(random_samples(3, 16), -1)  # what orientation 6 makes of them


def with_chunk(name: bytes, data: bytes, bits: int = 16, is_late: bool = True) -> bytes:
    """A PNG with a chunk behind its pixels, or before them."""
    png = png_bytes(random_samples(3, bits))
    place = png.index(b"IEND" if is_late else b"IDAT") - 4
    return png[:place] + png_chunk(name, data) + png[place:]


def xmp_chunk(packet: bytes) -> bytes:
    return b"XML:com.adobe.xmp\0\0\0\0\0" + packet


@pytest.mark.parametrize("photometric", ["cielab", "separated"])
def test_alpha_beside_lab_and_cmyk_is_read_as_it_is(tmp_path: Path, photometric: str) -> None:
    samples = random_samples(4 if photometric == "cielab" else 5, 16)
    samples[0, :4, -1] = 0, 200, 32_768, 65_535
    options = {"photometric": photometric, "planarconfig": "contig"}
    tifffile.imwrite(tmp_path / "a.tif", samples, extrasamples=["unassalpha"], **options)
    tifffile.imwrite(tmp_path / "opaque.tif", np.ascontiguousarray(samples[:, :, :-1]), **options)
    picture = read_image(tmp_path / "a.tif")
    assert np.array_equal(samples_of(picture)[:, :, 3], samples[:, :, -1])
    assert np.array_equal(samples_of(picture)[:, :, :3], samples_of(read_image(tmp_path / "opaque.tif")))


@pytest.mark.parametrize("is_late", [True, False])
def test_an_orientation_is_found_wherever_a_png_has_it(tmp_path: Path, is_late: bool) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "exif.png").write_bytes(with_chunk(b"eXIf", exif.tobytes()[6:], is_late=is_late))
    packet = xmp_chunk(b'<a tiff:Orientation="6"/>')
    (tmp_path / "xmp.png").write_bytes(with_chunk(b"iTXt", packet, is_late=is_late))
    for name in ("exif.png", "xmp.png"):
        assert np.array_equal(samples_of(read_image(tmp_path / name)), TURNED)


@pytest.mark.parametrize("bits", [8, 16])
def test_texts_and_xmp_behind_the_pixels_are_read(tmp_path: Path, bits: int) -> None:
    (tmp_path / "a.png").write_bytes(with_chunk(b"tEXt", b"Author\0me", bits))
    (tmp_path / "b.png").write_bytes(with_chunk(b"iTXt", xmp_chunk(b"<a/>"), bits))
    assert read_image(tmp_path / "a.png").texts == {"Author": "me"}
    assert read_image(tmp_path / "b.png").xmp == b"<a/>"


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("unit", "dpi"), [(1, None), (2, (72.0, 36.0)), (3, (182.88, 91.44))])
def test_a_resolution_counts_by_its_unit(tmp_path: Path, bits: int, unit: int, dpi: tuple[float, float] | None) -> None:
    options = {"photometric": "rgb", "resolution": (72, 36), "resolutionunit": unit}
    tifffile.imwrite(tmp_path / "a.tif", random_samples(3, bits), **options)
    assert read_image(tmp_path / "a.tif").dpi == (None if dpi is None else pytest.approx(dpi))


@pytest.mark.parametrize("bits", [8, 16])
def test_a_gamma_that_is_not_srgbs_is_told(tmp_path: Path, bits: int, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.png"
    for gamma, is_reported in ((45_455, False), (100_000, True)):
        path.write_bytes(with_chunk(b"gAMA", gamma.to_bytes(4, "big"), bits, is_late=False))
        with caplog.at_level(logging.WARNING):
            read_image(path)
        assert ("gamma 1 left out" in caplog.text) == is_reported
    caplog.clear()
    Image.open(path).convert("RGB").save(tmp_path / "b.png", icc_profile=SRGB)
    read_image(tmp_path / "b.png")
    assert not caplog.text


@pytest.mark.skipif(sys.platform != "linux", reason="names are Unicode elsewhere")
@pytest.mark.parametrize("bits", [8, 16])
def test_a_name_need_not_be_utf_8(tmp_path: Path, bits: int) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))
    path.write_bytes(png_bytes(random_samples(3, bits)))
    assert np.array_equal(samples_of(read_image(path)), random_samples(3, bits))


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("a camera's raw file", {"subfiletype": 1, "extratags": [(50706, 1, 4, b"\1\4\0\0", True)]}),
        ("a camera's raw file", {"subfiletype": 1, "subifds": 1}),
        ("a sensor's mosaic", {"photometric": 32803, "extratags": [(33421, 3, 2, (2, 2), True)]}),
    ],
)
def test_a_camera_s_raw_file_is_refused_rather_than_its_preview_read(
    tmp_path: Path, message: str, options: dict[str, object]
) -> None:
    samples = random_samples(1, 16)[:, :, 0]
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(samples, **{"photometric": "minisblack", **options})
        if "subifds" in options:
            file.write(samples, photometric="minisblack")
    with pytest.raises(ValueError, match=f"a.tif: expected gray, RGB, CMYK or CIE Lab, got {message}; convert it"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("bits", [8, 16])
def test_tags_of_a_wrong_type_do_not_cost_the_picture(tmp_path: Path, bits: int) -> None:
    tags = [(254, 2, 0, "page", True), (282, 2, 0, "many", True), (283, 2, 0, "more", True)]
    tifffile.imwrite(tmp_path / "a.tif", random_samples(3, bits), photometric="rgb", extratags=tags)
    picture = read_image(tmp_path / "a.tif")
    assert np.array_equal(samples_of(picture), random_samples(3, bits))
    assert picture.dpi is None


def test_a_damaged_chunk_behind_the_pixels_does_not_cost_the_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(with_chunk(b"pHYs", b"\0"))
    assert np.array_equal(samples_of(read_image(tmp_path / "a.png")), random_samples(3, 16))


def test_a_thumbnail_that_is_all_a_tiff_has_is_read(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", random_samples(3, 16), photometric="rgb", subfiletype=1)
    assert np.array_equal(samples_of(read_image(tmp_path / "a.tif")), random_samples(3, 16))
