"""Whatever is in a file, it is a picture or one clear line: no traceback, no hang, no flood of memory."""

import resource
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from picture_files import SRGB, camera_exif, png_bytes, random_samples, vips_image
from PIL import Image, ImageCms

from gigasr.files.images import read_frames

ROOT = Path(__file__).parents[1]
SUFFIXES = (".png", ".jpg", ".webp", ".tif", ".bmp", ".gif", ".avif")


def make_seeds(folder: Path) -> list[Path]:
    """A small intact file of every kind."""
    samples = np.tile(random_samples(3, 8), (4, 4, 1))
    image, deep = Image.fromarray(samples), np.tile(random_samples(3, 16), (4, 4, 1))
    rich = {"exif": camera_exif(6), "icc_profile": SRGB}
    frames = {"save_all": True, "append_images": [image.rotate(90, expand=False)] * 2, "duration": 40}
    (folder / "deep.png").write_bytes(png_bytes(deep))
    for name in ("a.png", "a.jpg", "a.webp", "a.tif", "a.avif"):
        image.save(folder / name, **rich)
    image.save(folder / "a.bmp")
    image.convert("P").save(folder / "palette.png", transparency=3)
    image.convert("CMYK").save(folder / "cmyk.jpg")
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    to_lab.apply(image).save(folder / "lab.tif")
    for name in ("frames.gif", "frames.webp", "frames.png"):
        image.save(folder / name, **frames)
    tifffile.imwrite(folder / "deep.tif", deep, photometric="rgb", compression="zlib", bigtiff=True)
    vips_image(deep, "rgb16").tiffsave(str(folder / "tiled.tif"), tile=True, pyramid=True)
    vips_image(deep, "rgb16").heifsave(str(folder / "deep.avif"), compression="av1", bitdepth=12)
    return sorted(folder.iterdir())


def huge(data: bytes) -> bytes:
    """A header that claims 40000 x 25000 px, in a PNG or BMP."""
    changed = bytearray(data)
    if data.startswith(b"\x89PNG"):
        changed[16:24] = struct.pack(">2I", 40_000, 25_000)
        changed[29:33] = struct.pack(">I", zlib.crc32(bytes(changed[12:29])))
    elif data.startswith(b"BM"):
        changed[18:26] = struct.pack("<2i", 40_000, 25_000)
    elif data.startswith(b"GIF"):
        changed[6:10] = struct.pack("<2H", 65_535, 65_535)
    return bytes(changed)


def mutate(data: bytes, kind: int, rng: np.random.Generator) -> bytes:
    """Bits flipped anywhere or in the header, a part cut off or overwritten, or a huge size claimed."""
    changed = bytearray(data)
    if kind == 0:
        return data[: rng.integers(1, len(data))]
    if kind == 1:
        start = int(rng.integers(0, len(data)))
        changed[start : start + 16] = rng.bytes(16)
        return bytes(changed)
    if kind == 2:
        return huge(data)
    limit = len(data) if kind == 3 else min(len(data), 200)
    for position in rng.integers(0, limit, rng.integers(1, 9)):
        changed[position] ^= 1 << int(rng.integers(0, 8))
    return bytes(changed)


def mutations(seeds: list[Path], count: int) -> Iterator[tuple[str, bytes]]:
    """Names and contents of mutated files; every tenth has a wrong suffix."""
    for number in range(count):
        seed, rng = seeds[number % len(seeds)], np.random.default_rng(number)
        suffix = SUFFIXES[number % len(SUFFIXES)] if number % 10 == 0 else seed.suffix
        yield f"{number:03}-{seed.stem}{suffix}", mutate(seed.read_bytes(), number // len(seeds) % 5, rng)


def assert_picture_or_line(path: Path) -> None:
    try:
        for picture in read_frames(path):
            assert picture.rgb.isfinite().all()
    except ValueError as error:
        assert str(error).startswith(f"{path}: expected ")
        assert "\n" not in str(error)


def is_large(path: Path) -> bool:
    try:
        return max(picture.size[0] * picture.size[1] for picture in read_frames(path)) > 300_000
    except ValueError:
        return False


@pytest.mark.filterwarnings("ignore")
def test_mutated_files_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "seeds").mkdir()
    seeds = make_seeds(tmp_path / "seeds")
    for name, data in mutations(seeds, 255):
        (tmp_path / name).write_bytes(data)
        assert_picture_or_line(tmp_path / name)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(sys.platform == "win32", reason="measures the memory of a child")
def test_600_mutated_files_through_the_command_end_in_a_line_each(tiny_weights: Path, tmp_path: Path) -> None:
    for name in ("seeds", "in"):
        (tmp_path / name).mkdir()
    for name, data in mutations(make_seeds(tmp_path / "seeds"), 600):
        (tmp_path / "in" / name).write_bytes(data)
        if is_large(tmp_path / "in" / name):  # a sound picture by accident, whose result needs memory
            (tmp_path / "in" / name).unlink()
    count = len(list((tmp_path / "in").iterdir()))
    assert count > 590
    command = [sys.executable, "-m", "gigasr", "upscale", tmp_path / "in", "-o", tmp_path / "out", "-n", tiny_weights]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1800, check=False)
    memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
    results, failures = done.stdout.splitlines(), [line for line in done.stderr.splitlines() if ": failed: " in line]
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert len(results) - 1 + len(failures) == count
    assert memory < 1024, f"peak {memory} MiB"
