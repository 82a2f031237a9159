import io
import logging
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageOps
from torch import Tensor

from gigasr import image_writer
from gigasr.image_writer import check_format, to_pil, write_image
from gigasr.images import (
    OUTPUT_FORMATS,
    Picture,
    fill_transparent,
    from_pil,
    is_image_file,
    read_image,
    read_metadata,
)

pyvips = pytest.importorskip("pyvips")

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
PNG_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
TEXTS = {"prompt": 'a café, 漢字 \n "quoted"', "seed": "7"}


def random_samples(channels: int, bits: int, seed: int = 0) -> np.ndarray:
    """[9, 11, channels] integers over the whole range"""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2**bits, (9, 11, channels), dtype=np.uint16 if bits == 16 else np.uint8)


def random_picture(bits: int, is_gray: bool, has_alpha: bool) -> Picture:
    colours = 1 if is_gray else 3
    planes = torch.from_numpy(random_samples(4, bits).astype(np.float32) / np.float32(2**bits - 1)).permute(2, 0, 1)
    return Picture(
        planes[:colours].expand(3, -1, -1), planes[3:] if has_alpha else None, is_gray=is_gray, bit_depth=bits
    )


def png_bytes(samples: np.ndarray) -> bytes:
    """Encode [H, W, C] integers as an unfiltered PNG, by hand."""
    height, width, channels = samples.shape

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    bits = 8 * samples.itemsize
    header = struct.pack(">2I5B", width, height, bits, PNG_COLOUR_TYPES[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(f">u{samples.itemsize}").tobytes() for row in samples)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def vips_image(samples: np.ndarray, interpretation: str) -> "pyvips.Image":
    height, width, channels = samples.shape
    bands = pyvips.Image.new_from_memory(
        samples.tobytes(), width, height, channels, {1: "uchar", 2: "ushort"}[samples.itemsize]
    )
    return bands.copy(interpretation=interpretation)


def vips_samples(path: Path) -> np.ndarray:
    return pyvips.Image.new_from_buffer(path.read_bytes(), "").numpy()


def to_integers(x: Tensor, bits: int) -> np.ndarray:
    """[C, H, W] in [0, 1] -> [H, W, C]; the exact integers, or a failure"""
    scaled = x.double().permute(1, 2, 0) * (2**bits - 1)
    assert (scaled - scaled.round()).abs().max() < 0.01
    return scaled.round().numpy()


def samples_of(picture: Picture) -> np.ndarray:
    planes = [picture.rgb[:1] if picture.is_gray else picture.rgb]
    planes += [] if picture.alpha is None else [picture.alpha]
    return to_integers(torch.cat(planes), picture.bit_depth)


def camera_exif(orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = orientation, "Maker", 72.0
    exif[0x8769] = {0xA002: 999, 0xA003: 999, 0x927C: b"private" * 9, 0x829A: 0.01}
    exif[0x8825] = {1: "N", 2: (48.0, 8.0, 6.5)}
    return exif.tobytes()


def parse_exif(data: bytes | None) -> Image.Exif:
    exif = Image.Exif()
    exif.load(data or b"")
    return exif


# Picture


def test_a_picture_gives_its_size_as_height_and_width() -> None:
    assert Picture(torch.zeros(3, 4, 5)).size == (4, 5)


@pytest.mark.parametrize(
    ("rgb", "alpha", "bit_depth", "message"),
    [
        (torch.zeros(1, 4, 5), None, 8, r"picture.rgb: expected \[3, H, W\] float32, got \[1, 4, 5\]"),
        (torch.zeros(3, 4, 5).half(), None, 8, "got .* torch.float16"),
        (torch.zeros(3, 4, 5), torch.zeros(1, 4, 4), 8, r"picture.alpha: expected \[1, 4, 5\] float32"),
        (torch.zeros(3, 4, 5), None, 12, "picture.bit_depth: expected 8 or 16, got 12"),
    ],
)
def test_a_picture_refuses_wrong_parts(rgb: Tensor, alpha: Tensor | None, bit_depth: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Picture(rgb, alpha, bit_depth=bit_depth)


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


def test_premultiplied_tiff_is_unpremultiplied(tmp_path: Path) -> None:
    samples = np.full((4, 4, 4), (20000, 10000, 5000, 32768), np.uint16)
    vips_image(samples, "rgb16").tiffsave(str(tmp_path / "a.tif"), premultiply=True)
    assert np.abs(samples_of(read_image(tmp_path / "a.tif")) - samples).max() <= 2


def test_a_tiff_where_0_is_white_is_not_inverted(tmp_path: Path) -> None:
    for samples, interpretation in [(random_samples(1, 8), "b-w"), (random_samples(1, 16), "grey16")]:
        vips_image(samples, interpretation).tiffsave(str(tmp_path / "a.tif"), miniswhite=True)
        assert np.array_equal(samples_of(read_image(tmp_path / "a.tif")), samples)


# Colour spaces


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


def test_cmyk_without_a_usable_profile_is_converted_plainly(tmp_path: Path) -> None:
    for profile in (None, b"\0" * 200):
        Image.fromarray(INKS, "CMYK").save(tmp_path / "a.jpg", icc_profile=profile, quality=100)
        picture = read_image(tmp_path / "a.jpg")
        expected = torch.tensor([225, 195, 165]) / 255 * 235 / 255
        assert torch.allclose(picture.rgb[:, 4, 4], expected, atol=2 / 255)


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


def test_the_first_frame_of_an_animation_is_read_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    picture = read_image(tmp_path / "a.gif")
    assert picture.rgb[:, 0, 0].tolist() == [1, 0, 0]
    assert "only the first is read" in caplog.text


# Writing


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("is_gray", [False, True])
@pytest.mark.parametrize("has_alpha", [False, True])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_round_trips_are_exact(tmp_path: Path, bits: int, is_gray: bool, has_alpha: bool, suffix: str) -> None:
    path, picture = tmp_path / f"a.{suffix}", random_picture(bits, is_gray, has_alpha)
    write_image(path, picture, TEXTS)
    again = read_image(path)
    assert (again.bit_depth, again.is_gray) == (bits, is_gray)
    assert torch.equal(again.rgb, picture.rgb)
    assert (again.alpha is None) == (picture.alpha is None)
    assert picture.alpha is None or torch.equal(again.alpha, picture.alpha)
    written = vips_samples(path)  # what another program sees
    assert written.dtype == (np.uint16 if bits == 16 else np.uint8)
    assert np.array_equal(written.reshape(9, 11, -1), samples_of(picture))


@pytest.mark.parametrize("suffix", ["bmp", "webp"])
@pytest.mark.parametrize("is_gray", [False, True])
def test_bmp_and_lossless_webp_are_exact_at_8_bit(tmp_path: Path, suffix: str, is_gray: bool) -> None:
    picture = random_picture(8, is_gray, has_alpha=suffix == "webp")
    write_image(tmp_path / f"a.{suffix}", picture, quality=100)
    again = read_image(tmp_path / f"a.{suffix}")
    assert torch.equal(again.rgb, picture.rgb)
    assert again.is_gray == (is_gray and suffix == "bmp")
    assert picture.alpha is None or torch.equal(again.alpha, picture.alpha)


@pytest.mark.parametrize("is_gray", [False, True])
def test_jpeg_keeps_gray_and_is_close(tmp_path: Path, is_gray: bool) -> None:
    ramp = torch.linspace(0, 1, 48).expand(1 if is_gray else 3, 32, 48).clone()
    ramp[0] = ramp[0].flip(1)
    picture = Picture(ramp.expand(3, -1, -1), is_gray=is_gray)
    write_image(tmp_path / "a.jpg", picture)
    again = read_image(tmp_path / "a.jpg")
    assert again.is_gray == is_gray
    assert torch.allclose(again.rgb, picture.rgb, atol=3 / 255)


def test_quality_makes_files_smaller(tmp_path: Path) -> None:
    picture = Picture(torch.rand(3, 64, 64))
    for suffix in ("jpg", "webp"):
        sizes = []
        for quality in (20, 95):
            write_image(tmp_path / f"a.{suffix}", picture, quality=quality)
            sizes.append((tmp_path / f"a.{suffix}").stat().st_size)
        assert sizes[0] < sizes[1]


@pytest.mark.parametrize("suffix", ["jpg", "bmp"])
def test_formats_without_alpha_lay_the_picture_on_white(tmp_path: Path, suffix: str) -> None:
    alpha = torch.zeros(1, 16, 16)
    alpha[:, :, 8:] = 1
    write_image(tmp_path / f"a.{suffix}", Picture(torch.zeros(3, 16, 16), alpha))
    again = read_image(tmp_path / f"a.{suffix}")
    assert again.alpha is None
    assert again.rgb[:, :, :8].min() > 0.98
    assert again.rgb[:, :, 8:].max() < 0.02


def test_values_are_rounded_and_clamped(tmp_path: Path) -> None:
    values = torch.tensor([-1.0, 0.4 / 255, 0.6 / 255, 99.51 / 255, 254.6 / 255, 2.0])
    write_image(tmp_path / "a.png", Picture(values.expand(3, 1, -1)))
    assert np.asarray(Image.open(tmp_path / "a.png"))[0, :, 0].tolist() == [0, 0, 1, 100, 255, 255]


def test_a_gray_picture_whose_colours_differ_is_written_as_luma(tmp_path: Path) -> None:
    rgb = torch.rand(3, 9, 11)
    write_image(tmp_path / "a.png", Picture(rgb, is_gray=True))
    luma = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]
    written = Image.open(tmp_path / "a.png")
    assert written.mode == "L"
    assert np.array_equal(np.asarray(written), (luma * 255).round().numpy())


def test_large_pictures_span_several_strips_and_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_writer, "_TIFF_STRIP_BYTES", 200)
    monkeypatch.setattr(image_writer, "_PNG_BLOCK_BYTES", 200)
    picture = random_picture(16, is_gray=False, has_alpha=True)
    for suffix in ("png", "tif"):
        write_image(tmp_path / f"a.{suffix}", picture)
        assert np.array_equal(vips_samples(tmp_path / f"a.{suffix}"), samples_of(picture))


def test_an_unknown_suffix_is_an_error_that_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a.heic: expected a name that ends in \.png, \.jpg.*, got '\.heic'"):
        write_image(tmp_path / "a.heic", random_picture(8, False, False))
    with pytest.raises(ValueError, match="a.heic: expected a name that ends in"):
        check_format(tmp_path / "a.heic")
    check_format(tmp_path / "a.PNG")


def test_a_side_too_long_for_the_format_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a.webp: expected at most 16383 px a side in WEBP, got 2x16384 px"):
        write_image(tmp_path / "a.webp", Picture(torch.zeros(3, 2, 16384)))


def test_a_quality_out_of_range_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"quality: expected 1\.\.100, got 0"):
        write_image(tmp_path / "a.jpg", random_picture(8, False, False), quality=0)


@pytest.mark.parametrize("suffix", OUTPUT_FORMATS)
def test_a_failed_write_leaves_the_target_and_no_other_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(b"precious")
    with pytest.raises(ValueError, match="picture: expected finite values, got NaN"):
        write_image(path, Picture(torch.full((3, 4, 4), float("nan"))))
    assert path.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [path]


def test_a_successful_write_replaces_the_target_and_leaves_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    write_image(path, random_picture(8, False, False))
    assert read_image(path).size == (9, 11)
    assert list(tmp_path.iterdir()) == [path]


# Texts


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("is_gray", [False, True])
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_texts_come_back(tmp_path: Path, bits: int, is_gray: bool, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    write_image(path, random_picture(bits, is_gray, has_alpha=True), TEXTS)
    assert read_metadata(path) == TEXTS


def test_files_without_texts_give_none(tmp_path: Path) -> None:
    for suffix in OUTPUT_FORMATS:
        write_image(tmp_path / f"a{suffix}", random_picture(8, False, False))
        assert read_metadata(tmp_path / f"a{suffix}") == {}


def test_a_foreign_comment_is_not_taken_for_texts(tmp_path: Path) -> None:
    for comment in (b"ASCII\0\0\0holiday", b"ASCII\0\0\0[1, 2]", b"\xff" * 20):
        exif = Image.Exif()
        exif[0x8769] = {0x9286: comment}
        Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg", exif=exif)
        assert read_metadata(tmp_path / "a.jpg") == {}


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
    assert again.info["dpi"] == (300, 150)
    assert again.getexif().get_ifd(0x8769)[0xA003] == 7


# Alpha


def test_visible_colours_and_opaque_pictures_are_left_alone() -> None:
    rgb, alpha = torch.rand(3, 9, 6), torch.rand(1, 9, 6).clamp_min(1 / 65535)
    assert fill_transparent(rgb, alpha) is rgb
    alpha[:, 2:5] = 0
    visible = (alpha > 0).expand(3, -1, -1)
    assert torch.equal(fill_transparent(rgb, alpha)[visible], rgb[visible])


@pytest.mark.parametrize(("height", "width"), [(8, 8), (1, 7), (33, 5)])
def test_hidden_colours_do_not_leak_into_visible_ones(height: int, width: int) -> None:
    """A red shape on transparent green, enlarged: no pixel may turn greenish."""
    rgb, alpha = torch.zeros(3, height, width), torch.zeros(1, height, width)
    rgb[1] = 1
    rgb[:, : height // 2 + 1, 2:4] = torch.tensor([1.0, 0, 0]).view(3, 1, 1)
    alpha[:, : height // 2 + 1, 2:4] = 1
    filled = fill_transparent(rgb, alpha)
    enlarged = torch.nn.functional.interpolate(filled[None], scale_factor=4, mode="bilinear")
    assert enlarged[:, 1].max() == 0
    assert enlarged[:, 0].min() > 0.999


def test_a_wholly_transparent_picture_becomes_finite() -> None:
    assert fill_transparent(torch.rand(3, 5, 4), torch.zeros(1, 5, 4)).isfinite().all()


# Folders


def test_image_files_are_known_by_their_suffix() -> None:
    assert all(is_image_file(Path(name)) for name in ("a.png", "b.JPG", "c.tar.tiff", "d.webp", "e.gif"))
    assert not any(is_image_file(Path(name)) for name in ("Thumbs.db", "png", "a.txt", ".gigasr-1.tmp"))
