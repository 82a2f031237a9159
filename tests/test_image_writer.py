"""Pictures are written whole, with all that is said of them, or not at all."""

from pathlib import Path

import numpy as np
import pytest
import torch
from picture_files import TEXTS, random_picture, samples_of, vips_samples
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from gigasr.files import encoding
from gigasr.files.formats import OUTPUT_FORMATS
from gigasr.files.image_writer import check_format, write_image
from gigasr.files.images import read_image, read_metadata
from gigasr.files.picture import Picture


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


def test_a_gray_gif_keeps_what_is_transparent(tmp_path: Path) -> None:
    picture = random_picture(8, is_gray=True, has_alpha=True)
    write_image(tmp_path / "a.gif", picture)
    alpha = np.asarray(Image.open(tmp_path / "a.gif").convert("RGBA"))[:, :, 3]
    assert picture.alpha is not None
    assert np.array_equal(alpha == 255, (picture.alpha[0] * 255).round().numpy() >= 128)


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
    monkeypatch.setattr(encoding, "_BLOCK_BYTES", 200)
    picture = random_picture(16, is_gray=False, has_alpha=True)
    for suffix in ("png", "tif"):
        write_image(tmp_path / f"a.{suffix}", picture)
        assert np.array_equal(vips_samples(tmp_path / f"a.{suffix}"), samples_of(picture))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_flat_and_noisy_blocks_of_one_picture_come_back(tmp_path: Path, bits: int, suffix: str) -> None:
    rgb = torch.rand(3, 600, 400).mul_(2**bits - 1).round_().div_(2**bits - 1)
    rgb[:, 200:400] = 0.2  # of noise, flat, noise again
    path, picture = tmp_path / f"a.{suffix}", Picture(rgb, bit_depth=bits)
    write_image(path, picture)
    assert np.array_equal(vips_samples(path), samples_of(picture))
    if bits == 8:  # Pillow checks the sums of chunks and stream
        assert np.array_equal(np.asarray(Image.open(path)), samples_of(picture))
    assert path.stat().st_size < 0.72 * 3 * 600 * 400 * bits / 8  # noise can't shrink, the rest takes next to nothing


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_flat_picture_makes_a_small_file(tmp_path: Path, suffix: str) -> None:
    write_image(tmp_path / f"a.{suffix}", Picture(torch.full((3, 1000, 1000), 0.3)))
    assert (tmp_path / f"a.{suffix}").stat().st_size < 3 * 1000 * 1000 / 300


def test_an_unknown_suffix_is_an_error_that_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a.heic: expected a name that ends in \.png, \.jpg.*, got '\.heic'"):
        write_image(tmp_path / "a.heic", random_picture(8, False, False))
    with pytest.raises(ValueError, match="a.heic: expected a name that ends in"):
        check_format(tmp_path / "a.heic")
    check_format(tmp_path / "a.PNG")


def test_a_side_too_long_for_the_format_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a.webp: expected at most 16383 px a side in WEBP, got 16384x2 px"):
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


@pytest.mark.parametrize("mode", ["RGB", "I;16"])
def test_what_others_wrote_into_a_png_stays_beside_the_own_texts(tmp_path: Path, mode: str) -> None:
    texts = PngInfo()
    for key, text in {"Title": "Ein Öl", "parameters": "steps 20", "Software": "Editor", "Prompt": "old"}.items():
        texts.add_text(key, text)
    texts.add_itxt("Author", "渋谷", lang="ja", tkey="作者")
    texts.add_text("Raw profile type exif", "\nexif\n 2\nffff")
    Image.new(mode, (4, 4)).save(tmp_path / "in.png", pnginfo=texts)
    own = {"Software": "gigasr 1", "Prompt": "new", "Seed": "3"}
    for target, source in (("a.png", "in.png"), ("b.png", "a.png")):
        write_image(tmp_path / target, read_image(tmp_path / source), own)
    kept = {"Title": "Ein Öl", "Author": "渋谷"}
    assert read_metadata(tmp_path / "a.png") == kept | {"parameters": "steps 20"} | own
    assert read_metadata(tmp_path / "b.png") == kept | own
    write_image(tmp_path / "c.png", read_image(tmp_path / "a.png"))
    assert read_metadata(tmp_path / "c.png") == kept
    write_image(tmp_path / "d.jpg", read_image(tmp_path / "a.png"), own)
    assert read_metadata(tmp_path / "d.jpg") == own
