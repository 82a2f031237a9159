"""Many files: which images are meant, and where each result goes."""

import os
from pathlib import Path

from gigasr.image_writer import check_format
from gigasr.images import is_image_file

SIZES = {"1k": 1024, "2k": 2048, "4k": 4096, "8k": 8192, "16k": 16384}  # px; longest side


def list_images(inputs: tuple[Path, ...]) -> list[Path]:
    """Files as given; of a folder, its images."""
    found: list[Path] = []
    for path in inputs:
        if path.is_dir():
            images = sorted(p for p in path.iterdir() if p.is_file() and is_image_file(p))
            if not images:
                raise ValueError(f"{path}: expected a folder with images, got none; name the files or another folder")
            found += images
        else:
            found.append(path)
    return found


def plan_outputs(
    sources: list[Path], output: Path | None, label: str, suffix: str, overwrite: bool
) -> list[tuple[Path, Path]]:
    """Pair every input with its output; existing, clashing and unwritable outputs are errors before anything runs.

    output: a file, for one input; a folder; or None for beside each input
    label:  what is put between the input's name and the suffix, e.g. "8x"
    suffix: of outputs that are named here, e.g. ".png"
    """
    is_file = output is not None and output.suffix and not output.is_dir() and len(sources) == 1
    targets = [
        output if is_file and output else (output or source.parent) / f"{source.stem}_{label}{suffix}"
        for source in sources
    ]
    for source, target in zip(sources, targets, strict=True):
        check_format(target)
        if targets.count(target) > 1:
            raise ValueError(f"{target}: expected one output per input, got several; rename {source}")
        if target.exists() and not overwrite:
            raise ValueError(f"{target}: exists already; choose another -o, or add --overwrite")
        folder = next(p for p in target.absolute().parents if p.exists())
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise ValueError(f"{target}: expected a writable folder, got {folder}; choose another -o")
    return list(zip(sources, targets, strict=True))


def parse_size(text: str, picture_size: tuple[int, int]) -> tuple[int, int]:
    """A size in words to (height, width): 4k is the longest side; 3840x2160 a box the picture is fitted into."""
    height, width = picture_size
    text = text.lower()
    if text in SIZES:
        box = (SIZES[text], SIZES[text])
    else:
        parts = text.split("x")
        if len(parts) != 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
            raise ValueError(f"size: expected {', '.join(SIZES)} or WIDTHxHEIGHT, got '{text}'")
        box = (int(parts[1]), int(parts[0]))
    factor = min(box[0] / height, box[1] / width)
    return min(box[0], round(height * factor)), min(box[1], round(width * factor))
