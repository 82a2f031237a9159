"""Kinds of image files, by their names and Pillow's."""

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


def is_image_file(path: Path) -> bool:
    """Tell by its suffix whether a file is an image that read_image knows."""
    return path.suffix.lower() in OUTPUT_FORMATS
