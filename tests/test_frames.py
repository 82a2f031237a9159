"""Animations are read frame by frame with their timing, TIFFs page by page."""

import logging
import struct
from pathlib import Path

import numpy as np
import pytest
import pyvips
import tifffile
import torch
from picture_files import parse_exif, png_bytes, png_chunk, random_samples, samples_of, to_integers
from PIL import Image

from gigasr.files import images
from gigasr.files.headers import read_headers
from gigasr.files.images import read_frames, read_image

DURATIONS = [30, 50, 40]  # ms


def flat_frames(mode: str = "RGB") -> list[Image.Image]:
    """Frames of a colour each, of which a GIF needs no more than its palette."""
    frames = [Image.new("RGBA", (7, 5), colour) for colour in ("red", "lime", "blue")]
    for left, frame in enumerate(frames):
        frame.paste((0, 0, 0, 0), (left, 1, left + 2, 3))
    return [frame.convert(mode) for frame in frames]


def animate(path: Path, frames: list[Image.Image], **options: object) -> Path:
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=DURATIONS, **options)
    return path


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_an_animation_is_read_frame_by_frame_with_its_timing(tmp_path: Path, suffix: str, mode: str) -> None:
    frames = flat_frames(mode)
    options = {"gif": {"disposal": 2}, "webp": {"lossless": True, "exact": True}}.get(suffix, {})
    read = read_frames(animate(tmp_path / f"a.{suffix}", frames, loop=3, **options))
    assert (len(read), read.timing.durations) == (3, tuple(DURATIONS))
    assert read.timing.loop_count == (4 if suffix == "gif" else 3)
    for picture, frame in zip(read, frames, strict=True):
        visible = np.asarray(frame.convert("RGBA"))[:, :, 3] > 0
        colours = to_integers(picture.rgb, 8)
        assert np.array_equal(colours[visible], np.asarray(frame)[visible][:, :3])
        assert np.array_equal(visible, np.ones((5, 7)) if picture.alpha is None else picture.alpha[0])


def test_an_animated_avif_is_read_frame_by_frame(tmp_path: Path) -> None:
    frames = flat_frames()
    read = read_frames(animate(tmp_path / "a.avif", frames, quality=100, subsampling="4:4:4"))
    assert (len(read), read.timing.durations) == (3, tuple(DURATIONS))
    for picture, frame in zip(read, frames, strict=True):
        assert np.abs(samples_of(picture) - np.asarray(frame)).max() <= 3


def test_without_a_loop_count_a_gif_plays_once_and_an_apng_for_ever(tmp_path: Path) -> None:
    assert read_frames(animate(tmp_path / "a.gif", flat_frames())).timing.loop_count == 1
    assert read_frames(animate(tmp_path / "b.gif", flat_frames(), loop=0)).timing.loop_count == 0
    assert read_frames(animate(tmp_path / "a.png", flat_frames())).timing.loop_count == 0


def test_the_still_that_stands_in_for_an_apng_is_no_frame_of_it(tmp_path: Path) -> None:
    still = Image.new("RGB", (7, 5), "white")
    path = tmp_path / "a.png"
    still.save(path, save_all=True, append_images=flat_frames(), duration=DURATIONS, default_image=True)
    read = read_frames(path)
    assert read.timing.durations == tuple(DURATIONS)
    assert next(iter(read)).rgb[:, 0, 0].tolist() == [1, 0, 0]


def test_the_pages_of_a_tiff_keep_their_own_size_depth_and_kind(tmp_path: Path) -> None:
    pages = [random_samples(3, 8), random_samples(1, 16)[:, :, 0], random_samples(3, 8, seed=1)[:4]]
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for page in pages:
            file.write(page, photometric="rgb" if page.ndim == 3 else "minisblack")
    read = read_frames(tmp_path / "a.tif")
    assert (len(read), read.timing) == (3, None)
    for picture, page in zip(read, pages, strict=True):
        assert (picture.bit_depth, picture.is_gray) == (8 * page.itemsize, page.ndim == 2)
        assert np.array_equal(samples_of(picture).reshape(page.shape), page)


def test_thumbnails_and_smaller_versions_in_a_tiff_are_no_pages(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(random_samples(3, 8), photometric="rgb")
        file.write(random_samples(3, 8)[::2, ::2], photometric="rgb", subfiletype=1)
    assert len(read_frames(tmp_path / "a.tif")) == 1


@pytest.mark.parametrize("is_big", [False, True])
def test_every_page_has_its_own_exif(tmp_path: Path, is_big: bool) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif", bigtiff=is_big) as file:
        for bits, maker in ((8, "one"), (16, "two"), (8, "three")):
            file.write(random_samples(3, bits), photometric="rgb", extratags=[(0x010F, 2, 0, maker, True)])
    makers = [parse_exif(picture.exif)[0x010F] for picture in read_frames(tmp_path / "a.tif")]
    assert makers == ["one", "two", "three"]


@pytest.mark.parametrize("bits", [8, 16])
def test_a_fourth_channel_of_a_tiff_is_alpha_only_where_it_says_so(tmp_path: Path, bits: int) -> None:
    for kind in ("unspecified", "unassalpha"):
        samples = random_samples(4, bits)
        tifffile.imwrite(tmp_path / f"{kind}.tif", samples, photometric="rgb", extrasamples=[kind])
        picture = read_image(tmp_path / f"{kind}.tif")
        assert (picture.alpha is not None) == (kind == "unassalpha")
        assert np.array_equal(samples_of(picture)[:, :, :3], samples[:, :, :3])


def test_a_directory_that_leads_back_to_itself_ends(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", random_samples(3, 8), photometric="rgb", byteorder="<")
    data = bytearray((tmp_path / "a.tif").read_bytes())
    first = struct.unpack_from("<I", data, 4)[0]
    end = first + 2 + 12 * struct.unpack_from("<H", data, first)[0]
    data[end : end + 4] = struct.pack("<I", first)
    (tmp_path / "a.tif").write_bytes(data)
    with (tmp_path / "a.tif").open("rb") as file:
        assert len(read_headers(file)) == 1


def test_the_first_of_several_is_read_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        picture = read_image(animate(tmp_path / "a.gif", flat_frames()))
    assert picture.rgb[:, 0, 0].tolist() == [1, 0, 0]
    assert "has 3 pictures; only the first is read" in caplog.text


def test_an_animation_with_too_many_pixels_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_FRAME_PIXELS", 100)
    with pytest.raises(ValueError, match="a.gif: expected at most 100 px in all frames or pages, got 105"):
        read_frames(animate(tmp_path / "a.gif", flat_frames()))


def test_a_tiff_with_too_many_pixels_in_all_its_pages_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "MAX_FRAME_PIXELS", 200)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for _ in range(3):
            file.write(random_samples(3, 16), photometric="rgb")
    with pytest.raises(ValueError, match="a.tif: expected at most 200 px in all frames or pages, got 297"):
        read_frames(tmp_path / "a.tif")


def test_an_animation_of_16_bit_is_refused_rather_than_cut_to_its_first_frame(tmp_path: Path) -> None:
    still = png_bytes(random_samples(3, 16))
    start = still.index(b"IDAT") - 4
    frames = png_chunk(b"acTL", struct.pack(">2I", 2, 0)) + png_chunk(
        b"fcTL", struct.pack(">5I2H2B", 0, 11, 9, 0, 0, 1, 10, 0, 0)
    )
    (tmp_path / "a.png").write_bytes(still[:start] + frames + still[start:])
    with pytest.raises(ValueError, match="a.png: expected frames of 8 bit, got an animation of more; convert it"):
        read_frames(tmp_path / "a.png")


def test_a_damaged_frame_is_an_error_before_the_first_is_given(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.random.default_rng(i).integers(0, 256, (40, 50, 3), np.uint8)) for i in range(3)]
    data = animate(tmp_path / "a.gif", frames).read_bytes()
    (tmp_path / "a.gif").write_bytes(data[:-200])
    with pytest.raises(ValueError, match="a.gif: expected an intact image"):
        read_frames(tmp_path / "a.gif")


@pytest.mark.parametrize("bits", [8, 10, 12])
def test_an_avif_is_read_with_the_depth_of_its_header(tmp_path: Path, bits: int) -> None:
    shift, kind = (8, "uchar") if bits == 8 else (16 - bits, "ushort")
    values = np.linspace(0, 2**bits - 1, 32 * 24).reshape(24, 32, 1).round().repeat(3, 2)
    stored = (values * 2**shift).astype(np.uint16) if bits > 8 else values.astype(np.uint8)
    image = pyvips.Image.new_from_memory(stored.tobytes(), 32, 24, 3, kind)
    image = image.copy(interpretation="rgb16" if bits > 8 else "srgb")
    image.heifsave(str(tmp_path / "a.avif"), compression="av1", bitdepth=bits, lossless=True)
    picture = read_image(tmp_path / "a.avif")
    assert picture.bit_depth == (8 if bits == 8 else 16)
    assert torch.allclose(picture.rgb.permute(1, 2, 0), torch.from_numpy(values).float() / (2**bits - 1), atol=1e-6)
