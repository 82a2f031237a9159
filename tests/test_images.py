"""Files of every kind are read with the values, the depth and the facts that are in them."""

import io
import logging
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import pyvips
import torch
from picture_files import (
    SRGB,
    TEXTS,
    camera_exif,
    parse_exif,
    png_bytes,
    png_chunk,
    random_picture,
    random_samples,
    samples_of,
    vips_image,
)
from PIL import Image, ImageOps

from gigasr.files.decoding import from_pil
from gigasr.files.formats import is_image_file
from gigasr.files.image_writer import to_pil, write_image
from gigasr.files.images import read_image, read_metadata
from gigasr.files.picture import Picture

# Reading values


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_values_are_read_exactly(tmp_path: Path, bits: int, channels: int) -> None:
    samples = random_samples(channels, bits)
    (tmp_path / "a.png").write_bytes(png_bytes(samples))
    picture = read_image(tmp_path / "a.png")
    assert (picture.bit_depth, picture.is_gray) == (bits, channels < 3)
    assert picture.rgb.shape == (3, 9, 11)
    assert np.array_equal(samples_of(picture), samples)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("compression", ["none", "lzw"])
def test_tiff_values_are_read_exactly(tmp_path: Path, bits: int, channels: int, compression: str) -> None:
    samples = random_samples(channels, bits)
    interpretation = {(1, 8): "b-w", (1, 16): "grey16", (3, 8): "srgb", (3, 16): "rgb16"}[
        (channels + 1) // 2 * 2 - 1, bits
    ]
    vips_image(samples, interpretation).tiffsave(str(tmp_path / "a.tif"), compression=compression)
    picture = read_image(tmp_path / "a.tif")
    assert (picture.bit_depth, picture.is_gray) == (bits, channels < 3)
    assert np.array_equal(samples_of(picture), samples)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_dark_16_bit_file_is_read_as_16_bit(tmp_path: Path, suffix: str, channels: int) -> None:
    samples = random_samples(channels, 8).astype(np.uint16)
    path = tmp_path / f"dark.{suffix}"
    if suffix == "png":
        path.write_bytes(png_bytes(samples))
    else:
        vips_image(samples, "rgb16" if channels == 3 else "grey16").tiffsave(str(path))
    picture = read_image(path)
    assert picture.bit_depth == 16
    assert picture.rgb.max() <= 255 / 65535
    assert np.array_equal(samples_of(picture), samples)


def test_opaque_16_bit_alpha_is_one(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_bytes(np.full((4, 4, 4), 65535, np.uint16)))
    picture = read_image(tmp_path / "a.png")
    assert picture.alpha is not None
    assert torch.equal(picture.alpha, torch.ones(1, 4, 4))


def test_one_bit_is_gray_of_8_bit(tmp_path: Path) -> None:
    Image.fromarray(np.eye(9, dtype=bool)).save(tmp_path / "a.png")
    picture = read_image(tmp_path / "a.png")
    assert (picture.is_gray, picture.bit_depth, picture.alpha) == (True, 8, None)
    assert torch.equal(picture.rgb, torch.eye(9).expand(3, -1, -1))


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_a_palette_keeps_its_colours_and_transparency(tmp_path: Path, suffix: str) -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / f"a.{suffix}", transparency=1)
    picture = read_image(tmp_path / f"a.{suffix}")
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[[1, 0, 1]]]
    assert picture.rgb[:, 0, 0].tolist() == [1, 0, 0]
    assert picture.rgb[:, 0, 2].tolist() == [0, 0, 1]


@pytest.mark.parametrize(("mode", "key"), [("L", 7), ("RGB", (7, 7, 7)), ("1", 0)])
def test_a_transparent_colour_of_a_png_becomes_alpha(tmp_path: Path, mode: str, key: int | tuple[int, ...]) -> None:
    image = Image.new(mode, (2, 1), 255 if mode != "RGB" else (255, 255, 255))
    image.putpixel((1, 0), key)
    image.save(tmp_path / "a.png", transparency=key)
    picture = read_image(tmp_path / "a.png")
    assert picture.alpha is not None
    assert picture.alpha.tolist() == [[[1, 0]]]
    assert picture.is_gray == (mode != "RGB")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_so_does_one_of_few_bits(tmp_path: Path, bits: int) -> None:
    header = struct.pack(">2I5B", 2, 1, bits, 0, 0, 0, 0)  # gray: the transparent 1, and 0
    row = png_chunk(b"IDAT", zlib.compress(bytes([0, 1 << (8 - bits)])))
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"tRNS", b"\0\1") + row + png_chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    picture = read_image(tmp_path / "a.png")
    assert picture.rgb[0].tolist() == [pytest.approx([1 / (2**bits - 1), 0])]
    assert picture.alpha is not None and picture.alpha.tolist() == [[[0, 1]]]


def test_premultiplied_tiff_is_unpremultiplied(tmp_path: Path) -> None:
    samples = np.full((4, 4, 4), (20000, 10000, 5000, 32768), np.uint16)
    vips_image(samples, "rgb16").tiffsave(str(tmp_path / "a.tif"), premultiply=True)
    assert np.abs(samples_of(read_image(tmp_path / "a.tif")) - samples).max() <= 2


def test_a_tiff_where_0_is_white_is_not_inverted(tmp_path: Path) -> None:
    for samples, interpretation in [(random_samples(1, 8), "b-w"), (random_samples(1, 16), "grey16")]:
        vips_image(samples, interpretation).tiffsave(str(tmp_path / "a.tif"), miniswhite=True)
        assert np.array_equal(samples_of(read_image(tmp_path / "a.tif")), samples)


# Orientation, EXIF, ICC, DPI


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_every_orientation_is_applied_and_reset(tmp_path: Path, orientation: int, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    image = Image.fromarray(random_samples(3, 8))
    image.save(path, exif=camera_exif(orientation))
    stored = Image.open(path)
    upright = np.asarray(ImageOps.exif_transpose(stored) if suffix != "tif" else stored)  # Pillow turns TIFF by itself
    picture = read_image(path)
    assert np.array_equal(samples_of(picture), upright)
    assert picture.size == ((9, 11) if orientation < 5 else (11, 9))
    assert parse_exif(picture.exif).get(0x0112, 1) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_every_orientation_is_applied_to_16_bit(tmp_path: Path, orientation: int, suffix: str) -> None:
    path, samples = tmp_path / f"a.{suffix}", random_samples(3, 16)
    stored = vips_image(samples, "rgb16").copy()
    stored.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    stored.write_to_file(str(path))
    index = Image.fromarray(np.arange(99, dtype=np.uint8).reshape(9, 11))
    index.getexif()[0x0112] = orientation
    order = np.asarray(ImageOps.exif_transpose(index))
    assert np.array_equal(samples_of(read_image(path)), samples.reshape(99, 3)[order])


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_exif_icc_and_dpi_survive_with_the_new_size(tmp_path: Path, bits: int, suffix: str) -> None:
    source = Picture(torch.rand(3, 6, 7), bit_depth=bits, icc_profile=SRGB, exif=camera_exif(6), dpi=(300, 150))
    write_image(tmp_path / f"a.{suffix}", source)
    picture = read_image(tmp_path / f"a.{suffix}")
    exif = parse_exif(picture.exif)
    photo = exif.get_ifd(0x8769)
    assert picture.icc_profile == SRGB
    assert picture.size == (6, 7)
    assert (exif[0x010F], photo[0xA002], photo[0xA003]) == ("Maker", 7, 6)
    assert (photo[0x927C], photo[0x829A]) == (b"private" * 9, 0.01)
    assert exif.get_ifd(0x8825)[2] == (48.0, 8.0, 6.5)
    if suffix != "webp":
        assert picture.dpi == pytest.approx((300, 150), abs=0.1)


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_the_resolution_is_turned_with_the_picture(tmp_path: Path, suffix: str) -> None:
    image = Image.new("RGB", (7, 6))
    image.save(tmp_path / f"a.{suffix}", exif=camera_exif(6), dpi=(300, 150))
    picture = read_image(tmp_path / f"a.{suffix}")
    assert picture.size == (7, 6)
    assert picture.dpi == pytest.approx((150, 300))


def test_a_resolution_that_a_jpeg_cannot_say_is_left_out(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg", Picture(torch.rand(3, 6, 7), dpi=(70_000, 70_000)))
    assert read_image(tmp_path / "a.jpg").dpi is None


def test_no_dpi_stays_no_dpi(tmp_path: Path) -> None:
    for bits in (8, 16):
        for suffix in ("png", "tif", "jpg"):
            write_image(tmp_path / f"a.{suffix}", random_picture(bits, False, False))
            assert read_image(tmp_path / f"a.{suffix}").dpi is None


def test_damaged_exif_does_not_cost_the_picture(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    samples = random_samples(3, 8)
    Image.fromarray(samples).save(tmp_path / "a.png", exif=b"Exif\0\0" + b"\xff" * 40)
    with caplog.at_level(logging.WARNING):
        picture = read_image(tmp_path / "a.png")
    assert picture.exif is None
    assert np.array_equal(samples_of(picture), samples)
    assert "EXIF ignored" in caplog.text


def test_exif_too_long_for_jpeg_loses_the_private_block_only(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x8769] = "Maker", {0x927C: b"x" * 70_000}
    write_image(tmp_path / "a.jpg", Picture(torch.rand(3, 4, 4), exif=exif.tobytes()), TEXTS)
    kept = parse_exif(read_image(tmp_path / "a.jpg").exif)
    assert kept[0x010F] == "Maker"
    assert 0x927C not in kept.get_ifd(0x8769)
    assert read_metadata(tmp_path / "a.jpg") == TEXTS


# Bad files


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "bmp"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
@pytest.mark.filterwarnings("ignore:Truncated File Read")
def test_a_truncated_file_is_a_value_error_of_one_line(tmp_path: Path, bits: int, suffix: str, share: float) -> None:
    path = tmp_path / f"broken.{suffix}"
    write_image(path, Picture(torch.rand(3, 40, 50), bit_depth=bits))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ValueError, match=r"broken\.\w+: expected an (intact )?image") as error:
        read_image(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("content", "message"), [(b"", "got an empty file"), (b"hello" * 99, "got something else")])
def test_a_file_that_is_no_image_is_a_value_error(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=f"a.png: expected an image.*{message}"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("bits", [8, 16])
def test_a_header_that_claims_a_billion_pixels_is_refused(tmp_path: Path, bits: int) -> None:
    data = bytearray(png_bytes(random_samples(3, bits)))
    data[16:24] = struct.pack(">2I", 40_000, 25_000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    (tmp_path / "bomb.png").write_bytes(data)
    with pytest.raises(ValueError, match="bomb.png: expected at most 178956970 px, got 1000000000"):
        read_image(tmp_path / "bomb.png")


def test_a_bomb_in_a_format_left_to_pillow_is_refused(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "bomb.bmp")
    data = bytearray((tmp_path / "bomb.bmp").read_bytes())
    data[18:26] = struct.pack("<2i", 40_000, 25_000)
    (tmp_path / "bomb.bmp").write_bytes(data)
    with pytest.raises(ValueError, match="bomb.bmp: expected at most 178956970 px"):
        read_image(tmp_path / "bomb.bmp")


def test_float_images_are_a_value_error(tmp_path: Path) -> None:
    image = Image.fromarray(np.zeros((4, 4), np.float32))
    image.save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="a.tif: expected unsigned integers of 1 to 8 or of 16 bit, got 32 bit"):
        read_image(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="image: expected 8 or 16 bit integers, got PIL mode F"):
        from_pil(image)


def test_the_errors_of_the_disk_stay_os_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_image(tmp_path / "missing.png")
    with pytest.raises((IsADirectoryError, PermissionError)):
        read_image(tmp_path)
    with pytest.raises(FileNotFoundError):
        write_image(tmp_path / "missing" / "a.png", random_picture(8, False, False))


# PIL


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16"])
def test_pil_images_come_back_exactly(mode: str) -> None:
    channels = {"L": 1, "I;16": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode]
    samples = random_samples(channels, 16 if mode == "I;16" else 8)
    image = Image.fromarray(samples.squeeze())
    assert image.mode == mode
    again = to_pil(from_pil(image))
    assert again.mode == mode
    assert again.size == (11, 9)
    assert np.array_equal(np.asarray(again), np.asarray(image))


def test_pil_images_keep_profile_exif_and_dpi() -> None:
    source = io.BytesIO()
    Image.new("RGB", (7, 6)).save(source, "JPEG", icc_profile=SRGB, exif=camera_exif(6), dpi=(300, 150))
    picture = from_pil(Image.open(source))
    again = to_pil(picture)
    assert picture.size == (7, 6)
    assert again.info["icc_profile"] == SRGB
    assert again.info["dpi"] == (150, 300)  # upright
    assert again.getexif().get_ifd(0x8769)[0xA003] == 7


# Folders


def test_image_files_are_known_by_their_suffix() -> None:
    assert all(is_image_file(Path(name)) for name in ("a.png", "b.JPG", "c.tar.tiff", "d.webp", "e.gif"))
    assert not any(is_image_file(Path(name)) for name in ("Thumbs.db", "png", "a.txt", ".gigasr-1.tmp"))
