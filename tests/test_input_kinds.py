"""Files of every kind, made by other libraries, come out of a run with exactly their values, eight times larger.

The model repeats every pixel, so that whatever is lost or shifted on the way from file to file shows.
"""

import io
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import pyvips
import tifffile
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from picture_files import camera_exif, parse_exif, png_bytes, random_samples, vips_image
from PIL import Image, ImageCms
from torch import Tensor

from gigasr.files.picture import Picture
from gigasr.folders.job_runner import JobState
from gigasr.folders.local_runner import LocalRunner
from gigasr.folders.plan import Outputs, find_images, plan_jobs
from gigasr.inference.row_stream import RowStream
from gigasr.models.zoo import load_model
from gigasr.options import UpscaleOptions
from gigasr.pipeline import SuperResolver

P3 = pyvips.Operation.call("profile_load", "p3")
CMYK = pyvips.Operation.call("profile_load", "cmyk")


class Nearest:
    """A model, and its engine, that repeats every pixel 8 x 8 times."""

    scale, scales, takes_text = 8, [8], False

    def engine(self, prompt: str, seed: int, execution: object, scale: int | None = None) -> "Nearest":
        return self

    def strips(self, lr: RowStream, seed: int) -> Iterator[Tensor]:
        for top in range(0, lr.size[0], 4):
            rows = lr.read(top, min(top + 4, lr.size[0]))
            yield rows.repeat_interleave(8, 2).repeat_interleave(8, 3)


@pytest.fixture
def upscale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., JobState]:
    """Run over one file; the output's suffix and what became of it."""
    monkeypatch.setattr("gigasr.pipeline.load_model", lambda *_: Nearest())

    def run(path: Path, suffix: str = "", **settings: object) -> JobState:
        reported: list[JobState] = []
        jobs = plan_jobs(find_images([path]), Outputs(tmp_path / "out", suffix=suffix))
        LocalRunner(jobs, UpscaleOptions(fidelity=0, **settings), reported.append).start()
        return reported[-1]

    (tmp_path / "out").mkdir()
    return run


def bigger(samples: np.ndarray) -> np.ndarray:
    return samples.repeat(8, 0).repeat(8, 1)


def stored(path: Path) -> np.ndarray:
    """[H, W, C] samples of an output as another library sees them."""
    image = pyvips.Image.new_from_buffer(path.read_bytes(), "")
    return image.numpy().reshape(image.height, image.width, -1)


Make = Callable[[Path], np.ndarray]  # writes a file, and gives the samples that are meant, upright


def hand_png(samples: np.ndarray) -> Make:
    def make(path: Path) -> np.ndarray:
        path.write_bytes(png_bytes(samples))
        return samples

    return make


def by_tifffile(samples: np.ndarray, **options: object) -> Make:
    def make(path: Path) -> np.ndarray:
        tifffile.imwrite(path, samples.squeeze(), **options)
        return samples

    return make


def by_vips(samples: np.ndarray, interpretation: str, **options: object) -> Make:
    def make(path: Path) -> np.ndarray:
        vips_image(samples, interpretation).write_to_file(str(path), **options)
        return samples

    return make


def deep_gray_png(path: Path) -> np.ndarray:
    samples = random_samples(1, 16)
    Image.fromarray(samples[:, :, 0]).save(path)
    return samples


def even_alpha(channels: int, bits: int, alpha: int) -> np.ndarray:
    """Samples that are equally transparent everywhere."""
    samples = random_samples(channels, bits)
    samples[:, :, -1] = alpha
    return samples


def premultiplied_tiff(path: Path) -> np.ndarray:
    samples = even_alpha(4, 8, 51)
    stored = samples.copy()
    stored[:, :, :3] = (samples[:, :, :3] / 5).round()
    tifffile.imwrite(path, stored, photometric="rgb", extrasamples=["assocalpha"])
    return samples


def transparent_palette_png(path: Path) -> np.ndarray:
    opaque = palette_png(path)
    data = path.read_bytes()
    transparency = b"tRNS" + bytes([77] * 8)
    chunk = struct.pack(">I", 8) + transparency + struct.pack(">I", zlib.crc32(transparency))
    start = data.index(b"IDAT") - 4
    path.write_bytes(data[:start] + chunk + data[start:])
    return np.concatenate([opaque, np.full((9, 11, 1), 77, np.uint8)], axis=2)


def palette_png(path: Path) -> np.ndarray:
    """Eight colours by index, by hand."""
    palette, indices = random_samples(3, 8)[0, :8], np.arange(99).reshape(9, 11) % 8

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + bytes(row) for row in indices.astype(np.uint8))
    chunks = [(b"IHDR", struct.pack(">2I5B", 11, 9, 8, 3, 0, 0, 0)), (b"PLTE", palette.tobytes())]
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in chunks))
    return palette[indices]


def bmp(path: Path) -> np.ndarray:
    samples = random_samples(3, 8)
    rows = b"".join(row[:, ::-1].tobytes().ljust(36, b"\0") for row in samples[::-1])
    path.write_bytes(
        b"BM"
        + struct.pack("<IHHI", 54 + len(rows), 0, 0, 54)
        + struct.pack("<I2i2H6I", 40, 11, 9, 1, 24, *[0] * 6)
        + rows
    )
    return samples


def bilevel(path: Path) -> np.ndarray:
    samples = (random_samples(1, 8) > 127).astype(np.uint8) * 255
    vips_image(samples, "b-w").write_to_file(str(path), bitdepth=1)
    return samples


def flat_inks(bits: int) -> np.ndarray:
    return np.full((16, 16, 4), (30, 60, 90, 20), np.uint8).astype(f"u{bits // 8}") * (257 if bits == 16 else 1)


def cmyk_jpeg(path: Path) -> np.ndarray:
    image = vips_image(flat_inks(8), "cmyk").copy()
    image.set_type(pyvips.GValue.blob_type, "icc-profile-data", CMYK)
    image.write_to_file(str(path), Q=100)
    return image.icc_transform("srgb", intent="relative").numpy()


def deep_cmyk_tiff(path: Path) -> np.ndarray:
    tifffile.imwrite(path, flat_inks(16), photometric="separated", iccprofile=CMYK)
    profiles = ImageCms.ImageCmsProfile(io.BytesIO(CMYK)), ImageCms.createProfile("sRGB")
    transform = ImageCms.buildTransform(*profiles, "CMYK", "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC)
    return np.asarray(transform.apply(Image.fromarray(flat_inks(8), "CMYK"))).astype(np.uint16) * 257


def lab_tiff(path: Path) -> np.ndarray:
    flat = vips_image(np.full((9, 11, 3), (200, 100, 50), np.uint8), "srgb")
    flat.colourspace("labs").write_to_file(str(path))
    return flat.numpy().astype(np.uint16) * 257


def rotated_jpeg(path: Path) -> np.ndarray:
    smooth = np.linspace(0, 255, 32 * 48 * 3).reshape(32, 48, 3).astype(np.uint8)
    image = vips_image(smooth, "srgb").copy()
    image.set_type(pyvips.GValue.gint_type, "orientation", 6)
    image.write_to_file(str(path), Q=100, subsample_mode="off")
    return np.rot90(smooth, -1)


OPAQUE = np.concatenate([random_samples(3, 16), np.full((9, 11, 1), 65_535, np.uint16)], axis=2)
UNASSOCIATED = {"photometric": "rgb", "extrasamples": ["unassalpha"]}
KINDS: dict[str, tuple[Make, int]] = {  # and by how many levels a file may be off that is lossy, or converted
    "dark-16-bit.png": (hand_png(random_samples(3, 8).astype(np.uint16)), 0),
    "dark-16-bit.tif": (by_tifffile(random_samples(3, 8).astype(np.uint16), photometric="rgb"), 0),
    "16-bit.png": (hand_png(random_samples(3, 16)), 0),
    "16-bit-gray.png": (deep_gray_png, 0),
    "16-bit-gray-big-endian.tif": (by_tifffile(random_samples(1, 16), byteorder=">"), 0),
    "16-bit-tiled-bigtiff.tif": (by_tifffile(random_samples(3, 16), tile=(16, 16), bigtiff=True), 0),
    "16-bit-planar.tif": (by_tifffile(random_samples(3, 16), photometric="rgb", compression="zlib"), 0),
    "16-bit-opaque.tif": (by_tifffile(OPAQUE, **UNASSOCIATED), 0),
    "gray.png": (by_vips(random_samples(1, 8), "b-w"), 0),
    "gray.tif": (by_tifffile(random_samples(1, 8), compression="zlib"), 0),
    "1-bit.png": (bilevel, 0),
    "1-bit.tif": (bilevel, 0),
    "rgb.png": (by_vips(random_samples(3, 8), "srgb", interlace=True), 0),
    "rgb.tif": (by_tifffile(random_samples(3, 8), photometric="rgb", planarconfig="contig"), 0),
    "palette.png": (palette_png, 0),
    "palette-alpha.png": (transparent_palette_png, 0),
    "gray-alpha.png": (hand_png(even_alpha(2, 8, 200)), 0),
    "16-bit-gray-alpha.png": (hand_png(even_alpha(2, 16, 300)), 0),
    "16-bit-alpha.png": (hand_png(even_alpha(4, 16, 300)), 0),
    "alpha.tif": (by_tifffile(even_alpha(4, 8, 9), **UNASSOCIATED), 0),
    "premultiplied.tif": (premultiplied_tiff, 3),
    "alpha.webp": (by_vips(even_alpha(4, 8, 9), "srgb", lossless=True, exact=True), 0),
    "rgb.bmp": (bmp, 0),
    "lossless.webp": (by_vips(random_samples(3, 8), "srgb", lossless=True), 0),
    "rgb.avif": (by_vips(random_samples(3, 8), "srgb", lossless=True), 2),
    "cmyk.jpg": (cmyk_jpeg, 2),
    "16-bit-cmyk.tif": (deep_cmyk_tiff, 257),
    "lab.tif": (lab_tiff, 400),
    "orientation-6.jpg": (rotated_jpeg, 4),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_comes_out_with_its_values(upscale, tmp_path: Path, name: str) -> None:  # noqa: ANN001
    make, tolerance = KINDS[name]
    samples = make(tmp_path / name)
    state = upscale(tmp_path / name)
    assert state.error is None
    result, expected = stored(state.job.target), bigger(samples)
    assert (result.shape, result.dtype) == (expected.shape, samples.dtype)
    assert np.abs(result.astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize(("suffix", "bits"), [(".png", 8), (".png", 16), (".tif", 8), (".tif", 16), (".webp", 8)])
def test_alpha_has_no_fringes_and_is_the_bicubic_of_the_input(upscale, tmp_path: Path, suffix: str, bits: int) -> None:  # noqa: ANN001
    samples = random_samples(4, bits)
    white = np.iinfo(samples.dtype).max
    samples[:, :, 3] = white
    samples[2:6, 3:8] = (0, white, 0, 0)  # a hole whose hidden green must not show
    samples[:, :, 1] = np.where(samples[:, :, 3] > 0, 0, samples[:, :, 1])
    (tmp_path / "a.png").write_bytes(png_bytes(samples))
    result = stored(upscale(tmp_path / "a.png", suffix, quality=100).job.target).astype(float)
    alpha = Image.fromarray(samples[:, :, 3].astype(np.float32)).resize((88, 72), Image.Resampling.BICUBIC)
    assert np.abs(result[:, :, 3] - np.asarray(alpha).clip(0, white)).max() <= white / 255
    assert result[:, :, 1].max() == 0
    is_solid = bigger(samples[:, :, 3:])[:, :, 0] > 0
    assert np.array_equal(result[is_solid][:, [0, 2]], bigger(samples)[is_solid][:, [0, 2]])


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".webp", ".avif"])
def test_a_profile_is_kept_and_the_values_with_it(upscale, tmp_path: Path, bits: int, suffix: str) -> None:  # noqa: ANN001
    samples = np.full((9, 11, 3), (200, 80, 40), f"u{bits // 8}") * np.array(257 if bits == 16 else 1, f"u{bits // 8}")
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", iccprofile=P3)
    result = upscale(tmp_path / "a.tif", suffix).job.target
    assert Image.open(result).info["icc_profile"] == P3
    levels = stored(result) / np.iinfo(stored(result).dtype).max * 255
    assert np.abs(levels - (200, 80, 40)).max() <= (0 if suffix in (".png", ".tif") else 3)


@pytest.mark.parametrize("suffix", [".bmp", ".gif"])
def test_a_profile_that_the_output_cannot_carry_is_converted(upscale, tmp_path: Path, suffix: str) -> None:  # noqa: ANN001
    tagged = vips_image(np.full((9, 11, 3), (200, 80, 40), np.uint8), "srgb").copy()
    tagged.set_type(pyvips.GValue.blob_type, "icc-profile-data", P3)
    tagged.write_to_file(str(tmp_path / "a.png"))
    expected = tagged.icc_transform("srgb", intent="relative").numpy()[0, 0]
    result = np.asarray(Image.open(upscale(tmp_path / "a.png", suffix).job.target).convert("RGB"))
    assert np.abs(result.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_stands_upright_with_its_exif_its_new_size_and_its_size_on_paper(
    upscale: Callable[..., JobState], tmp_path: Path, orientation: int
) -> None:
    samples = random_samples(3, 8)
    image = Image.fromarray(samples)
    image.save(tmp_path / "a.png", exif=camera_exif(orientation), dpi=(300, 150))
    target = upscale(tmp_path / "a.png").job.target
    turned = pyvips.Image.new_from_file(str(tmp_path / "a.png")).autorot().numpy()
    assert np.array_equal(stored(target), bigger(turned))
    written = Image.open(target)
    exif = parse_exif(written.info["exif"])
    photo = exif.get_ifd(0x8769)
    assert (exif[0x010F], exif.get(0x0112, 1), photo[0xA002], photo[0xA003]) == ("Maker", 1, *written.size)
    assert written.info["dpi"] == pytest.approx((2400, 1200) if orientation < 5 else (1200, 2400), abs=0.1)


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_an_animation_stays_one_of_its_kind(upscale, tmp_path: Path, suffix: str) -> None:  # noqa: ANN001
    frames = np.concatenate([np.full((9, 11, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255))])
    frames[12:15, 3:6] = 255
    image = vips_image(frames, "srgb").copy()
    image.set_type(pyvips.GValue.gint_type, "page-height", 9)
    image.set_type(pyvips.GValue.array_int_type, "delay", [70, 110])
    options = {"lossless": True} if suffix == "webp" else {}
    image.write_to_file(str(tmp_path / f"a.{suffix}"), **options)
    state = upscale(tmp_path / f"a.{suffix}", quality=100)
    result = pyvips.Image.new_from_file(str(state.job.target), n=-1)
    assert (state.job.target.name, result.get("delay"), state.pixels) == (f"a_8x.{suffix}", [70, 110], 2 * 72 * 88)
    assert np.array_equal(result.numpy()[:, :, :3], bigger(frames))


def test_an_animated_png_stays_one(upscale, tmp_path: Path) -> None:  # noqa: ANN001
    frames = [random_samples(3, 8, seed) for seed in range(3)]
    first, *rest = map(Image.fromarray, frames)
    first.save(tmp_path / "a.png", save_all=True, append_images=rest, duration=[70, 110, 40], loop=3)
    with Image.open(upscale(tmp_path / "a.png").job.target) as result:
        assert (result.n_frames, result.info["loop"]) == (3, 3)
        for index, (frame, duration) in enumerate(zip(frames, (70, 110, 40), strict=True)):
            result.seek(index)
            assert np.array_equal(np.asarray(result.convert("RGB")), bigger(frame))
            assert result.info["duration"] == duration


def test_each_file_of_a_folder_keeps_its_own_metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gigasr.pipeline.load_model", lambda *_: Nearest())
    (tmp_path / "in").mkdir()
    for name in ("Ada", "Bo", "Cy"):
        exif = Image.Exif()
        exif[0x013B] = name
        Image.new("RGB", (5, 4)).save(tmp_path / "in" / f"{name}.jpg", exif=exif)
    jobs = plan_jobs(find_images([tmp_path / "in"]), Outputs(tmp_path / "out", suffix=".webp"))
    LocalRunner(jobs, UpscaleOptions(), lambda state: None).start()
    artists = {path.stem: Image.open(path).getexif()[0x013B] for path in (tmp_path / "out").glob("*.webp")}
    assert artists == {f"{name}_8x": name for name in ("Ada", "Bo", "Cy")}


def test_the_pages_of_a_tiff_stay_pages(upscale, tmp_path: Path) -> None:  # noqa: ANN001
    pages = [random_samples(3, 16), random_samples(1, 8)[:, :5, 0]]
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for page in pages:
            file.write(page)
    state = upscale(tmp_path / "a.tif")
    with tifffile.TiffFile(state.job.target) as file:
        for written, page in zip(file.pages, pages, strict=True):
            assert np.array_equal(written.asarray(), bigger(page))


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((9, 11), np.float32), "got 32 bit signed or float numbers; convert it to 16 bit"),
        (np.zeros((9, 11, 3), np.uint32), "got 32 bit integers; convert it to 16 bit"),
    ],
)
def test_what_would_lose_something_is_refused(upscale, tmp_path: Path, samples: np.ndarray, message: str) -> None:  # noqa: ANN001
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb" if samples.ndim == 3 else "minisblack")
    state = upscale(tmp_path / "a.tif")
    assert state.status == "failed"
    assert message in str(state.error)


def test_a_bit_depth_and_a_quality_are_honoured(upscale, tmp_path: Path) -> None:  # noqa: ANN001
    (tmp_path / "a.png").write_bytes(png_bytes(random_samples(3, 16)))
    (tmp_path / "b.png").write_bytes(png_bytes(random_samples(3, 8)))
    assert stored(upscale(tmp_path / "a.png", bit_depth=8).job.target).dtype == np.uint8
    deep = stored(upscale(tmp_path / "b.png", bit_depth=16).job.target)
    assert np.array_equal(deep, bigger(random_samples(3, 8)).astype(np.uint16) * 257)
    sizes = [upscale(tmp_path / "b.png", ".jpg", quality=q, overwrite=True).record["bytes"] for q in (20, 95)]
    assert sizes[0] < sizes[1]


SIDES = st.tuples(st.integers(1, 3000), st.integers(1, 7), st.booleans())


@settings(max_examples=15, deadline=None)
@given(SIDES, st.sampled_from([8, 16]), st.booleans())
@example((1, 1, False), 8, True)
@example((3000, 7, False), 16, True)
@example((3000, 7, True), 8, True)
def test_every_size_comes_out_with_its_values(sides: tuple[int, int, bool], bits: int, has_alpha: bool) -> None:
    height, width = sides[:2] if sides[2] else sides[1::-1]
    rgb = (torch.rand(3, height, width) * (2**bits - 1)).round() / (2**bits - 1)
    picture = Picture(rgb, torch.full((1, height, width), 0.3) if has_alpha else None, bit_depth=bits)
    result = SuperResolver(Nearest()).upscale(picture, fidelity=0)
    expected = rgb.repeat_interleave(8, 1).repeat_interleave(8, 2)
    assert result.size == (8 * height, 8 * width)
    assert (result.rgb - expected).abs().max() * (2**bits - 1) < 0.1
    assert (result.alpha is not None) == has_alpha
    assert result.alpha is None or bool((result.alpha == picture.alpha[0, 0, 0]).all())


@pytest.fixture(scope="module")
def resolver(tiny_weights: Path) -> SuperResolver:
    return SuperResolver(load_model(str(tiny_weights)))


@settings(max_examples=3, deadline=None)
@given(SIDES)
@example((1, 1, False))
@example((3000, 7, False))
@example((3000, 7, True))
def test_a_network_takes_every_size(resolver: SuperResolver, sides: tuple[int, int, bool]) -> None:
    height, width = sides[:2] if sides[2] else sides[1::-1]
    result = resolver.upscale(Picture(torch.rand(3, height, width)))
    assert result.size == (8 * height, 8 * width)
    assert bool(result.rgb.isfinite().all())
