"""What the command t2i and the page share: the files of a set, its images, and what is noted in its pictures."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from gigasr import __version__
from gigasr.files.atomic import hash_file
from gigasr.files.formats import OUTPUT_FORMATS, suffix_of
from gigasr.files.images import read_metadata
from gigasr.folders.prompts import check_prompts
from gigasr.inference.noise import check_seed
from gigasr.models import zoo
from gigasr_base.zoo import find_base_model as find_base

if TYPE_CHECKING:
    from torch import Tensor

    from gigasr.files.picture import RowProgress
    from gigasr_base.pipeline import TextToImage

# Everything that describe_set may say: what a picture says more than the one that would be made is another one's.
METADATA_KEYS = {
    *("Software", "Prompt", "Seed", "Model", "Upsampler", "Truncation", "Style prompt", "Mix at", "To"),
    *("Frame", "Frames", "Fingerprint"),
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


def check_texts(prompts: list[str], options: dict[str, Any]) -> None:
    """Raise ValueError for prompts that would be cut, and for a last seed that is too large."""
    check_prompts([*prompts, *filter(None, (options["style_prompt"], options["to"]))])
    check_seed(options["seed"] + options["count"] - 1)


def generate_images(
    base_model: "TextToImage", prompt: str, options: dict[str, Any], progress: "RowProgress | None" = None
) -> "Iterator[tuple[Tensor, str, int]]":
    """Images [3, S, S] of the base model, each with the upsampler's prompt and its seed.

    progress: of the frames that lead to another prompt, which are all generated before the first one comes
    """
    first, truncation, to, style = (options[key] for key in ("seed", "truncation", "to", "style_prompt"))
    if to is not None:
        frames = base_model.interpolate(prompt, to, options["frames"], first, None, truncation, progress)
        for i, frame in enumerate(frames):
            yield frame, prompt if 2 * i < len(frames) else to, first
        return
    for seed in range(first, first + options["count"]):
        if style is None:
            yield base_model.generate([prompt], [seed], truncation)[0], prompt, seed
        else:
            yield base_model.mix(prompt, style, [seed], options["mix_at"], truncation)[0], style, seed


def describe_set(
    prompt: str, size: tuple[int, int], is_upscaled: bool, options: dict[str, Any], is_animated: bool = False
) -> list[dict[str, str]]:
    """The metadata of each file of a set, in the order of `plan_sets`."""
    texts = describe_pictures(prompt, is_upscaled, options)
    texts["Fingerprint"] = t2i_fingerprint(size, options["model"], options["upsampler"] if is_upscaled else None)
    first, count, frames = options["seed"], options["count"], options["frames"]
    if is_animated:
        return [texts | {"Frames": str(frames)}]
    if options["to"] is not None:
        return [texts | {"Frame": f"{i} of {frames}"} for i in range(1, frames + 1)]
    seeds = [str(seed) for seed in range(first, first + count)]
    if count > 1:
        seeds.append(f"{first}-{first + count - 1}")  # of the sheet
    return [texts | {"Seed": seed} for seed in seeds]


def describe_pictures(prompt: str, is_upscaled: bool, options: dict[str, Any]) -> dict[str, str]:
    """What the pictures of a set have in common."""
    texts = {"Software": f"gigasr {__version__}", "Prompt": prompt, "Seed": str(options["seed"])}
    texts["Model"] = Path(options["model"]).name
    if is_upscaled:
        texts["Upsampler"] = Path(options["upsampler"]).name
    if options["truncation"] < 1:
        texts["Truncation"] = str(options["truncation"])
    if options["style_prompt"] is not None:
        texts |= {"Style prompt": options["style_prompt"], "Mix at": str(options["mix_at"])}
    if options["to"] is not None:
        texts["To"] = options["to"]
    return texts


@lru_cache(maxsize=16)  # of all prompts of a command, and of a page
def t2i_fingerprint(size: tuple[int, int], model: str, upsampler: str | None) -> str:
    """The weights and the size as 16 hex digits, by which a picture is known that was generated before."""
    paths = [find_base(model), *([] if upsampler is None else [zoo.find_model(upsampler)])]
    key = json.dumps([size, *(hash_file(path) for path in paths)])
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def is_made(target: Path, texts: dict[str, str]) -> bool:
    """Tell by its own words whether a file is the picture that would be made."""
    with suppress(ValueError, OSError):  # it is no image, or isn't there
        return texts == {name: text for name, text in read_metadata(target).items() if name in METADATA_KEYS}
    return False
