"""What the command t2i and the page share: the files of a set, its images, and what is noted in its pictures."""

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

# All keys that describe_set may write: with more of them, a picture is another one than that which would be made.
METADATA_KEYS = {
    *("Software", "Prompt", "Seed", "Model", "Upsampler", "Frame", "Frames", "Fingerprint"),
    *(note_label(name) for name, rule in T2IOptions.rules().items() if rule.is_noted),
}


def is_file(output: Path | None, is_single: bool) -> TypeGuard[Path]:
    """Tell whether an output names a file rather than a folder; that of a single picture does so with any suffix."""
    if output is None or output.is_dir():
        return False
    return output.suffix.lower() in OUTPUT_FORMATS or (is_single and suffix_of(output) != "")


def plan_sets(prompts: list[str], output: Path | None, suffix: str, number: int, has_sheet: bool) -> list[list[Path]]:
    """Name the files of every prompt: one picture, or a numbered set followed by its contact sheet.

    output: a file, for one prompt; a folder; or None for the present folder
    suffix: of files that are named after their prompt, e.g. ".png"
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
    """Raise ValueError for prompts that would be cut."""
    check_prompts([*prompts, *filter(None, (options.style_prompt, options.to))])


def generate_images(
    base_model: "TextToImage", options: T2IOptions, progress: "RowProgress | None" = None
) -> "Iterator[tuple[Tensor, str, int]]":
    """Images [3, S, S] of the base model, each with the upsampler's prompt and its seed.

    progress: of the frames that lead to another prompt, which are all generated before the first one comes
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
    """The metadata of each file of a set, in the order of `plan_sets`."""
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
    """What the pictures of a set have in common."""
    texts = {"Software": f"gigasr {__version__}", "Prompt": options.prompt, "Seed": str(options.seed)}
    texts["Model"] = Path(options.model).name
    if is_upscaled:
        texts["Upsampler"] = Path(options.upsampler).name
    return texts | options.notes()


@lru_cache(maxsize=16)  # of all prompts of a command, and of a page
def t2i_fingerprint(size: tuple[int, int], model: str, upsampler: str | None) -> str:
    """The weights and the size as 16 hex digits, by which a picture is known that was generated before."""
    paths = [find_base(model), *([] if upsampler is None else [zoo.find_model(upsampler)])]
    key = json.dumps([size, *(hash_file(path) for path in paths)])
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def is_made(target: Path, texts: dict[str, str]) -> bool:
    """Tell by its own words whether a file is the picture that would be made, by whichever version of gigasr."""
    with suppress(ValueError, OSError):  # it is no image, or isn't there
        found = {name: text for name, text in read_metadata(target).items() if name in METADATA_KEYS}
        return written_by_gigasr(found) and found | {"Software": texts["Software"]} == texts
    return False
