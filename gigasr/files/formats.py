"""Formats of image files: Pillow's names and the suffixes of file names."""

from collections.abc import Collection
from pathlib import Path

INPUT_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF")  # only these are tried by Pillow
ANIMATED_FORMATS = ("GIF", "PNG", "WEBP", "AVIF")
OUTPUT_FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".gif": "GIF",
    ".avif": "AVIF",
}
STILL_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"}  # read by training and FID


def visible_files(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Return all visible files below a folder with one of the suffixes, sorted."""
    found = []
    for path in folder.rglob("*"):
        if path.suffix.lower() not in suffixes or not path.is_file():
            continue
        parts = path.relative_to(folder).parts
        if not any(part.startswith(".") for part in parts):
            found.append(path)
    return sorted(found)


def suffix_of(name: Path) -> str:
    """Return the suffix of a file's name; "" if it is only digits.

    The end of a version number, as in out-v1.0, is not a suffix.
    """
    return "" if name.suffix[1:].isdigit() else name.suffix


def is_image_file(path: Path) -> bool:
    """Tell by the suffix whether read_image reads a file."""
    return path.suffix.lower() in OUTPUT_FORMATS
