"""File names, images and metadata of a set, for the t2i command and the page."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from gigasr import __version__
from gigasr.files.atomic import hash_file
from gigasr.files.exif import written_by_gigasr
from gigasr.files.formats import OUTPUT_FORMATS, suffix_of
from gigasr.files.images import read_metadata
from gigasr.folders.prompts import check_prompts
from gigasr.models import zoo
from gigasr.options import note_label
from gigasr_base.options import T2IOptions
from gigasr_base.zoo import find_base_model as find_base

if TYPE_CHECKING:
    from torch import Tensor

    from gigasr.files.picture import RowProgress
    from gigasr_base.pipeline import TextToImage

# Metadata keys that describe_set writes; a file counts as already made only if exactly the same keys match.
METADATA_KEYS = {
    *("Software", "Prompt", "Seed", "Model", "Upsampler", "Frame", "Frames", "Fingerprint"),
    *(note_label(name) for name, rule in T2IOptions.rules().items() if rule.is_noted),
}


def is_file(output: Path | None, is_single: bool) -> TypeGuard[Path]:
    """Tell whether an output names a file rather than a folder.

    An image format's suffix means a file; for a single picture, any suffix does.
    """
    if output is None or output.is_dir():
        return False
    return output.suffix.lower() in OUTPUT_FORMATS or (is_single and suffix_of(output) != "")


def plan_sets(prompts: list[str], output: Path | None, suffix: str, number: int, has_sheet: bool) -> list[list[Path]]:
    """Name the files of every prompt: one picture, or a numbered set.

    A contact sheet is the last file of a set. Raises ValueError for a file as the output of several prompts.

    output: a file, for one prompt; a folder; or None for the current folder
    suffix: of files named after their prompt, e.g. ".png"
    """
    stems = [re.sub(r"\W+", "-", prompt.lower())[:48].strip("-") or "image" for prompt in prompts]
    folder = output or Path()
    if len(prompts) > 1:
        digits = len(str(len(prompts)))
        stems = [f"{i:0{digits}d}-{stem}" for i, stem in enumerate(stems, start=1)]
    if is_file(output, is_single=len(prompts) == 1 and not (has_sheet and number > 1)):
        if len(prompts) > 1:
            raise ValueError(f"{output}: expected a folder for several prompts, got a file; choose another -o")
        folder, stems, suffix = output.parent, [output.stem], output.suffix
    if number == 1:
        return [[folder / f"{stem}{suffix}"] for stem in stems]
    labels = [f"{i:0{max(2, len(str(number)))}d}" for i in range(1, number + 1)]
    if has_sheet:
        labels.append("sheet")
    return [[folder / f"{stem}_{label}{suffix}" for label in labels] for stem in stems]


def check_texts(prompts: list[str], options: T2IOptions) -> None:
    """Raise ValueError for prompts too long for the text tower or not in UTF-8."""
    check_prompts([*prompts, *filter(None, (options.style_prompt, options.to))])


def generate_images(
    base_model: "TextToImage", options: T2IOptions, progress: "RowProgress | None" = None
) -> "Iterator[tuple[Tensor, str, int]]":
    """Generate the images of a prompt with the base model.

    yields:   image [3, S, S], prompt and seed for the upsampler
    progress: of frames between two prompts; all are generated before the first is yielded
    """
    prompt, first, truncation, to = options.prompt, options.seed, options.truncation, options.to
    if to is not None:
        frames = base_model.interpolate(prompt, to, options.frames, first, None, truncation, progress)
        for i, frame in enumerate(frames):
            yield frame, prompt if 2 * i < len(frames) else to, first
        return
    for seed in range(first, first + options.count):
        style = options.style_prompt
        if style is None:
            yield base_model.generate([prompt], [seed], truncation)[0], prompt, seed
        else:
            yield base_model.mix(prompt, style, [seed], options.mix_at, truncation)[0], style, seed


def describe_set(options: T2IOptions, is_upscaled: bool, is_animated: bool = False) -> list[dict[str, str]]:
    """Make the metadata of each file of a set, in the order of `plan_sets`."""
    texts = describe_pictures(options, is_upscaled)
    texts["Fingerprint"] = t2i_fingerprint(options.box, options.model, options.upsampler if is_upscaled else None)
    first, count, frames = options.seed, options.count, options.frames
    if is_animated:
        return [texts | {"Frames": str(frames)}]
    if options.to is not None:
        return [texts | {"Frame": f"{i} of {frames}"} for i in range(1, frames + 1)]
    seeds = [str(seed) for seed in range(first, first + count)]
    if count > 1:
        seeds.append(f"{first}-{first + count - 1}")  # of the sheet
    return [texts | {"Seed": seed} for seed in seeds]


def describe_pictures(options: T2IOptions, is_upscaled: bool) -> dict[str, str]:
    """Make the metadata common to the pictures of a set."""
    texts = {"Software": f"gigasr {__version__}", "Prompt": options.prompt, "Seed": str(options.seed)}
    texts["Model"] = Path(options.model).name
    if is_upscaled:
        texts["Upsampler"] = Path(options.upsampler).name
    return texts | options.notes()


@lru_cache(maxsize=16)  # shared by all prompts of a command and all requests of a page
def t2i_fingerprint(size: tuple[int, int], model: str, upsampler: str | None) -> str:
    """Hash the weights and the size into 16 hex digits.

    The fingerprint identifies pictures of an earlier run.
    """
    paths = [find_base(model), *([] if upsampler is None else [zoo.find_model(upsampler)])]
    key = json.dumps([size, *(hash_file(path) for path in paths)])
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def is_made(target: Path, texts: dict[str, str]) -> bool:
    """Tell from a file's metadata whether it is the picture to be made.

    The version of gigasr may differ.
    """
    with suppress(ValueError, OSError):  # no image, or no file
        found = {name: text for name, text in read_metadata(target).items() if name in METADATA_KEYS}
        return written_by_gigasr(found) and found | {"Software": texts["Software"]} == texts
    return False
