"""Kinds of image files, by their names and Pillow's."""

from collections.abc import Collection
from pathlib import Path

INPUT_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF")  # that Pillow may try
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
STILL_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"}  # of the images that training and FID read


def visible_files(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """All files below a folder that end in one of the suffixes, sorted; none is hidden or in a hidden folder."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in suffixes and path.is_file())
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))


def suffix_of(name: Path) -> str:
    """The ending of a file's name; that of a version, as in out-v1.0, is none."""
    return "" if name.suffix[1:].isdigit() else name.suffix


def is_image_file(path: Path) -> bool:
    """Tell by its suffix whether a file is an image that read_image knows."""
    return path.suffix.lower() in OUTPUT_FORMATS
