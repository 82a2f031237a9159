"""gigasr t2i: prompts in, pictures out."""

import itertools
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import click

from gigasr import __version__
from gigasr.cli.common import SEED, clear_errors, is_given, progress_bar

if TYPE_CHECKING:
    from torch import Tensor

    from gigasr.files.picture import Picture, PictureStrips
    from gigasr.pipeline import SuperResolver
    from gigasr_base.pipeline import TextToImage

FRAME_DURATION = 100.0  # ms; of animations
ANIMATED = (".webp", ".gif", ".avif")  # names of one, where frames are asked for; .png stands for single pictures
THUMBNAIL = 256  # px; side of the pictures on a contact sheet


@click.command()
@click.argument("prompts", nargs=-1)
@click.option(
    "--prompts", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="File, a prompt per line."
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="File, or folder.  [default: named by the prompt]"
)
@click.option(
    "--size", default="512", show_default=True, help="Side in px, 1k, 2k, 4k, or WIDTHxHEIGHT (cut from a square)."
)
@click.option("-c", "--count", default=1, type=click.IntRange(1), help="Pictures per prompt, with a contact sheet.")
@click.option("--seed", default=0, show_default=True, type=SEED, help="Of the first picture; then +1 each.")
@click.option(
    "--truncation", default=1.0, show_default=True, type=click.FloatRange(0, 1), help="Less is safer; 1 is off."
)
@click.option("--style-prompt", help="What the finer levels follow, and the upsampler.")
@click.option(
    "--mix-at", default=16, show_default=True, type=click.IntRange(1), help="Size in px from which they follow it."
)
@click.option(
    "--to", help="Lead from the prompt to this one: numbered pictures, or an animation if -o is .webp, .gif or .avif."
)
@click.option("--frames", default=16, show_default=True, type=click.IntRange(2), help="Number of them.")
@click.option("-n", "--model", default="base_lite", show_default=True, help="Bundled name or weights file.")
@click.option("--upsampler", default="upsampler_lite", show_default=True, help="For sizes above the model's own.")
@click.option("-g", "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16"]), default="auto", show_default=True)
@click.option("--format", "suffix", default="png", show_default=True, help="Of outputs named by gigasr.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@clear_errors
def t2i(prompts: tuple[str, ...], file: Path | None, output: Path | None, **options: Any) -> None:
    """Paint prompts.

    A size that is not square is the middle of the square picture that covers it.

    \b
    Examples:
      gigasr t2i "a red apple, 3d style" --size 4k
      gigasr t2i "a red apple" --count 16 --truncation 0.7 -o apples/
      gigasr t2i "a house" --style-prompt "a house, sketch" --mix-at 16
      gigasr t2i "a red apple" --to "a green pear" --frames 32 -o pear.webp
    """
    texts = [*prompts, *([] if file is None else read_prompts(file))]
    if not texts:
        raise click.UsageError("Missing argument 'PROMPTS': what to paint, or a file of it with --prompts.")
    if options["to"] is not None and (len(texts) > 1 or options["count"] > 1 or options["style_prompt"] is not None):
        raise click.UsageError("Option '--to' takes one prompt, without --count and --style-prompt.")
    for name, needed in (("mix_at", "style_prompt"), ("frames", "to")):
        if is_given(name) and options[needed] is None:
            raise click.UsageError(f"Option '--{name}' needs '--{needed}'.".replace("_", "-"))
    size = parse_size(options["size"])
    is_animated = options["to"] is not None and is_file(output) and output.suffix.lower() in ANIMATED
    number = options["count"] if options["to"] is None else 1 if is_animated else options["frames"]
    sets = plan_sets(texts, output, "." + options["suffix"].lstrip("."), number, has_sheet=options["to"] is None)
    for target in itertools.chain.from_iterable(sets):
        check_target(target, options["overwrite"])
    from gigasr.folders.prompts import check_prompts

    check_prompts([*texts, *filter(None, (options["style_prompt"], options["to"]))])
    painter, resolver = load_models(size, options)
    for prompt, targets in zip(texts, sets, strict=True):
        pictures = paint(painter, resolver, prompt, size, targets[0].name, options)
        if is_animated:
            write_animation(pictures, targets[0], options["frames"])
        else:
            write_set(pictures, targets)


def read_prompts(path: Path) -> list[str]:
    """The lines of a text file, empty ones left out."""
    from gigasr.files.text_file import read_text

    prompts = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not prompts:
        raise ValueError(f"{path}: expected a prompt per line, got an empty file")
    return prompts


def parse_size(text: str) -> tuple[int, int]:
    """A size in words to (height, width): 512, 4k or 3840x2160."""
    from gigasr.pipeline import SIZES

    side = str(SIZES.get(text.lower(), text))
    match = re.fullmatch(r"([1-9][0-9]{0,5})(?:x([1-9][0-9]{0,5}))?", side.lower())
    if match is None:
        raise ValueError(f"size: expected a side in px, {', '.join(SIZES)} or WIDTHxHEIGHT, got '{text}'")
    return int(match[2] or match[1]), int(match[1])


def is_file(output: Path | None) -> TypeGuard[Path]:
    """Tell whether an output names a file rather than a folder."""
    return output is not None and output.suffix != "" and not output.is_dir()


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
    if is_file(output):
        if len(prompts) > 1:
            raise ValueError(f"{output}: expected a folder for several prompts, got a file; choose another -o")
        folder, stems, suffix = output.parent, [output.stem], output.suffix
    if number == 1:
        return [[folder / f"{stem}{suffix}"] for stem in stems]
    labels = [f"{i:0{max(2, len(str(number)))}d}" for i in range(1, number + 1)] + ["sheet"] * has_sheet
    return [[folder / f"{stem}_{label}{suffix}" for label in labels] for stem in stems]


def check_target(target: Path, overwrite: bool) -> None:
    """Raise ValueError for a file that cannot be written or must not be replaced."""
    from gigasr.files.image_writer import check_format
    from gigasr.folders.plan import check_folder

    check_format(target)
    if target.exists() and not overwrite:
        raise ValueError(f"{target}: exists already; choose another -o, or add --overwrite")
    check_folder(target.absolute().parent)


def load_models(size: tuple[int, int], options: dict[str, Any]) -> "tuple[TextToImage, SuperResolver | None]":
    """The base model and, where the size asks for it, the upsampler."""
    from gigasr.pipeline import SuperResolver
    from gigasr_base.pipeline import TextToImage, check_size

    painter = TextToImage.from_pretrained(options["model"], options["device"], options["precision"])
    check_size(size, painter.size)
    if max(size) <= painter.size:
        return painter, None
    return painter, SuperResolver.from_pretrained(options["upsampler"], options["device"], options["precision"])


def paint(
    painter: "TextToImage",
    resolver: "SuperResolver | None",
    prompt: str,
    size: tuple[int, int],
    label: str,
    options: dict[str, Any],
) -> "Iterator[tuple[PictureStrips, dict[str, str]]]":
    """Paint the pictures of one prompt, each with its metadata."""
    from gigasr.files.picture import PictureStrips
    from gigasr_base.pipeline import enlarge_strips

    for image, text, seed in base_images(painter, prompt, options):
        strips = show_progress(enlarge_strips(image, size, resolver, text, seed), label)
        yield PictureStrips(size, strips), describe(prompt, seed, resolver is not None, options)


def show_progress(picture: "PictureStrips", label: str) -> "Iterator[Picture]":
    """The strips of a picture, as they come, with a bar."""
    with progress_bar(picture.size[0], label, "row") as bar:
        for strip in picture.strips:
            bar.update(strip.size[0])
            yield strip
            del strip  # or it lives while the next one is made


def base_images(painter: "TextToImage", prompt: str, options: dict[str, Any]) -> "Iterator[tuple[Tensor, str, int]]":
    """Images [3, S, S] of the base model, each with the upsampler's prompt and its seed."""
    first, truncation, to, style = (options[key] for key in ("seed", "truncation", "to", "style_prompt"))
    if to is not None:
        frames = painter.interpolate(prompt, to, options["frames"], first, truncation=truncation)
        for i, frame in enumerate(frames):
            yield frame, prompt if 2 * i < len(frames) else to, first
        return
    for seed in range(first, first + options["count"]):
        if style is None:
            yield painter.generate([prompt], [seed], truncation)[0], prompt, seed
        else:
            finest = style if options["mix_at"] <= painter.size else prompt
            yield painter.mix(prompt, style, [seed], options["mix_at"], truncation)[0], finest, seed


def describe(prompt: str, seed: int, is_enlarged: bool, options: dict[str, Any]) -> dict[str, str]:
    """The metadata of a picture."""
    texts = {"Software": f"gigasr {__version__}", "Prompt": prompt, "Seed": str(seed)}
    texts["Model"] = Path(options["model"]).name
    if is_enlarged:
        texts["Upsampler"] = Path(options["upsampler"]).name
    if options["truncation"] < 1:
        texts["Truncation"] = str(options["truncation"])
    if options["style_prompt"] is not None:
        texts |= {"Style prompt": options["style_prompt"], "Mix at": str(options["mix_at"])}
    if options["to"] is not None:
        texts["To"] = options["to"]
    return texts


def write_set(pictures: "Iterator[tuple[PictureStrips, dict[str, str]]]", targets: list[Path]) -> None:
    """Write pictures as they come and, where there is one target more, a contact sheet of them."""
    from torchvision.utils import make_grid

    from gigasr.files.image_writer import write_frames, write_image
    from gigasr.files.picture import Picture, PictureStrips

    thumbnails, seeds = [], []
    targets[0].parent.mkdir(parents=True, exist_ok=True)
    for target, (picture, texts) in zip(targets, pictures, strict=False):
        reduced: list[Tensor] = []
        strips = reduce_strips(picture, reduced) if len(targets) > 1 else picture.strips
        write_frames(target, [PictureStrips(picture.size, strips)], None, texts)
        report(target, picture.size)
        thumbnails += reduced
        seeds.append(texts["Seed"])
    if len(targets) > len(seeds):
        sheet = Picture(make_grid(thumbnails, nrow=math.ceil(math.sqrt(len(thumbnails))), pad_value=1.0))
        write_image(targets[-1], sheet, texts | {"Seed": f"{seeds[0]}-{seeds[-1]}"})
        report(targets[-1], sheet.size)


def reduce_strips(picture: "PictureStrips", reduced: "list[Tensor]") -> "Iterator[Picture]":
    """The strips of a picture; after the last one a small picture of them all, [3, h, w], is added to the list."""
    import torch

    from gigasr.networks.ops import resize

    height, width = picture.size
    factor = min(1.0, THUMBNAIL / max(height, width))
    size = max(1, round(height * factor)), max(1, round(width * factor))
    narrow = []
    for strip in picture.strips:
        narrow.append(resize(strip.rgb[None], (strip.size[0], size[1])))
        yield strip
        del strip  # or it lives while the next one is made
    reduced.append(resize(torch.cat(narrow, dim=2), size)[0].clamp(0, 1))


def write_animation(pictures: "Iterator[tuple[PictureStrips, dict[str, str]]]", target: Path, count: int) -> None:
    """Write pictures as one endless animation, with the metadata of the first."""
    from gigasr.files.image_writer import write_frames
    from gigasr.files.picture import Timing

    first, texts = next(pictures)
    frames = itertools.chain([first], (picture for picture, _ in pictures))
    target.parent.mkdir(parents=True, exist_ok=True)
    write_frames(target, frames, Timing((FRAME_DURATION,) * count, plays=0), texts)
    report(target, first.size)


def report(target: Path, size: tuple[int, int]) -> None:
    """Say where a picture lies."""
    click.echo(f"{target}  {size[1]}x{size[0]} px")
