"""Pictures of random values and files of them made by other libraries than ours, shared by the tests of files."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pyvips
import torch
from PIL import Image, ImageCms
from torch import Tensor

from gigasr.files.picture import Picture
from gigasr.folders.job_runner import JobState

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


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_bytes(samples: np.ndarray) -> bytes:
    """Encode [H, W, C] integers as an unfiltered PNG, by hand."""
    height, width, channels = samples.shape
    bits = 8 * samples.itemsize
    header = struct.pack(">2I5B", width, height, bits, PNG_COLOUR_TYPES[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(f">u{samples.itemsize}").tobytes() for row in samples)
    start = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)
    return start + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")


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


def make_images(folder: Path, *names: str) -> list[Path]:
    """Small pictures, each with its own content."""
    paths = [folder / name for name in names]
    for seed, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return paths


def by_file(reported: list[JobState]) -> list[JobState]:
    """What a run told of each file, once per file, in the files' order."""
    return sorted({id(state): state for state in reported}.values(), key=lambda state: state.job.source.path)


def statuses(reported: list[JobState]) -> list[str]:
    """What became of each file, in the files' order."""
    return [state.status for state in by_file(reported)]
