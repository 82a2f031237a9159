"""gigasr t2i: prompts in, pictures out."""

import itertools
import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gigasr.cli.common import is_given, progress_bar, report_errors
from gigasr.cli.fields import add_options, read_options
from gigasr.files.formats import OUTPUT_FORMATS
from gigasr_base.options import T2IOptions

if TYPE_CHECKING:
    from torch import Tensor

    from gigasr.files.picture import Picture, PictureStrips
    from gigasr.pipeline import SuperResolver
    from gigasr_base.pipeline import TextToImage

FRAME_DURATION = 100.0  # ms; of animations
ANIMATED = (".webp", ".gif", ".avif")  # suffixes of an animation, if frames are asked for; .png gives single pictures
SHEET_THUMBNAIL = 256  # px; side of the pictures on a contact sheet


@click.command()
@click.argument("prompts", nargs=-1)
@click.option(
    "--prompts", "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="File, a prompt per line."
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="File, or folder.  [default: named by the prompt]"
)
@add_options(T2IOptions, *(name for name in T2IOptions.rules() if name != "prompt"))
@click.option("--format", "suffix", default="png", show_default=True, help="Format of files that gigasr names.")
@report_errors
def t2i(prompts: tuple[str, ...], file: Path | None, output: Path | None, suffix: str, **fields: Any) -> None:
    """Generate images from prompts.

    A size that is not square is cut from the middle of a square one. Pictures that are there already, as the same
    command has made them, are left alone: it resumes where it was stopped (BMP holds no notes and can't tell).

    \b
    Examples:
      gigasr t2i "a red apple, 3d style" --size 4k
      gigasr t2i "a red apple" --count 16 --truncation 0.7 -o apples/
      gigasr t2i "a house" --style-prompt "a house, sketch" --mix-at 16
      gigasr t2i "a red apple" --to "a green pear" --frames 32 -o pear.webp
    """
    from gigasr_base.t2i_job import check_texts, describe_set, is_file, plan_sets

    texts = [*prompts, *([] if file is None else read_prompts(file))]
    check_usage(texts, output, fields)
    options = read_options(T2IOptions, fields)
    is_animated = options.to is not None and is_file(output, is_single=True) and output.suffix.lower() in ANIMATED
    number = 1 if is_animated else options.number
    suffix = "." + suffix.lstrip(".").lower()
    sets = plan_sets(texts, output, suffix, number, has_sheet=options.to is None)
    check_formats(itertools.chain.from_iterable(sets))
    check_texts(texts, options)
    base_model, resolver = load_models(options)
    wanted = [replace(options, prompt=text) for text in texts]
    notes = [describe_set(each, resolver is not None, is_animated) for each in wanted]
    done = set() if options.overwrite else find_done(sets, notes)
    for each, targets, noted in zip(wanted, sets, notes, strict=True):
        pictures = generate_pictures(base_model, resolver, each, targets[0].name)
        if done.issuperset(targets):
            click.echo("".join(f"{target}  done before\n" for target in targets), nl=False)
        elif is_animated:
            write_animation(pictures, targets[0], noted[0], options.frames)
        else:
            write_set(pictures, targets, noted, done)


def read_prompts(path: Path) -> list[str]:
    """Read the prompts of a text file, one per line; empty lines are skipped.

    Raises ValueError for a file without prompts.
    """
    from gigasr.files.text_file import read_text

    prompts = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    if not prompts:
        raise ValueError(f"{path}: expected a prompt per line, got an empty file")
    return prompts


def check_usage(prompts: list[str], output: Path | None, fields: Mapping[str, Any]) -> None:
    """Raise UsageError for missing prompts and options that exclude each other."""
    if not prompts:
        raise click.UsageError("Missing argument 'PROMPTS': what to generate, or a file of it with --prompts.")
    if fields["to"] is not None and (len(prompts) > 1 or fields["count"] > 1 or fields["style_prompt"] is not None):
        raise click.UsageError("Option '--to' takes one prompt, without --count and --style-prompt.")
    for name, rule in T2IOptions.rules().items():
        if rule.needs and is_given(name) and fields[rule.needs] is None:
            raise click.UsageError(f"Option '--{name}' needs '--{rule.needs}'.".replace("_", "-"))
    if is_given("suffix") and output is not None and output.suffix.lower() in OUTPUT_FORMATS and not output.is_dir():
        raise click.UsageError("Option '--format' is for a folder, not for a file named by '--output'.")


def check_formats(targets: Iterable[Path]) -> None:
    """Raise ValueError for a target of an unknown format or in a read-only folder."""
    from gigasr.files.image_writer import check_format
    from gigasr.folders.plan import check_writable

    for target in targets:
        check_format(target)
        check_writable(target.absolute().parent)


def find_done(sets: list[list[Path]], notes: list[list[dict[str, str]]]) -> set[Path]:
    """Find the files of an earlier run.

    Raises ValueError for a file of any other origin, which must not be replaced.
    """
    from gigasr_base.t2i_job import is_made

    done = set()
    for target, noted in itertools.chain.from_iterable(map(zip, sets, notes)):
        if is_made(target, noted):
            done.add(target)
        elif target.exists():
            raise ValueError(f"{target}: exists already; choose another -o, or add --overwrite")
    return done


def load_models(options: T2IOptions) -> "tuple[TextToImage, SuperResolver | None]":
    """Load the base model and, for sizes above the base model's, the upsampler.

    Raises ValueError for an unreachable size or a wrong mix_at.
    """
    from gigasr.pipeline import SuperResolver
    from gigasr_base.pipeline import TextToImage, check_reachable_size

    base_model = TextToImage.from_pretrained(options.model, options.device, options.precision)
    check_reachable_size(options.box, base_model.size)
    if options.style_prompt is not None:
        base_model.check_mix(options.mix_at)
    if max(options.box) <= base_model.size:
        return base_model, None
    return base_model, SuperResolver.from_pretrained(options.upsampler, options.device, options.precision)


def generate_pictures(
    base_model: "TextToImage", resolver: "SuperResolver | None", options: T2IOptions, label: str
) -> "Iterator[PictureStrips]":
    """Generate the pictures of one prompt; taking the strips upscales them."""
    from gigasr.files.picture import PictureStrips
    from gigasr_base.pipeline import upscale_strips
    from gigasr_base.t2i_job import generate_images

    with progress_bar(2 * options.frames, f"{label}, frames", "image", options.to is not None) as bar:
        images = generate_images(base_model, options, lambda done, total: bar.update(1))
        first = next(images)  # generates all frames
    for image, text, seed in itertools.chain([first], images):
        strips = upscale_strips(image, options.box, resolver, text, seed)
        yield PictureStrips(options.box, show_progress(strips, label))


def show_progress(picture: "PictureStrips", label: str) -> "Iterator[Picture]":
    """Pass the strips of a picture on, with a progress bar."""
    with progress_bar(picture.size[0], label, "row") as bar:
        for strip in picture.strips:
            bar.update(strip.size[0])
            yield strip
            del strip  # else two strips would be in memory


def write_set(
    pictures: "Iterator[PictureStrips]", targets: list[Path], notes: list[dict[str, str]], done: set[Path]
) -> None:
    """Write the pictures that are not done yet, then the contact sheet.

    targets: of the pictures; one more for the contact sheet, if wanted
    done:    targets to keep; the contact sheet includes them
    """
    from torchvision.utils import make_grid

    from gigasr.files.image_writer import write_frames, write_image
    from gigasr.files.images import read_image
    from gigasr.files.picture import Picture, PictureStrips

    thumbnails: list[Tensor] = []
    make_folder(targets[0].parent)
    for target, picture, noted in zip(targets, pictures, notes, strict=False):
        if target in done:
            kept = read_image(target)
            deque(collect_thumbnail(PictureStrips(kept.size, iter([kept])), thumbnails), maxlen=0)
            click.echo(f"{target}  done before")
            continue
        strips = collect_thumbnail(picture, thumbnails) if len(targets) > 1 else picture.strips
        write_frames(target, [PictureStrips(picture.size, strips)], None, noted)
        report(target, picture.size)
    if len(targets) > len(thumbnails) > 0:
        sheet = Picture(make_grid(thumbnails, nrow=math.ceil(math.sqrt(len(thumbnails))), pad_value=1.0))
        write_image(targets[-1], sheet, notes[-1])
        report(targets[-1], sheet.size)


def collect_thumbnail(picture: "PictureStrips", thumbnails: "list[Tensor]") -> "Iterator[Picture]":
    """Pass the strips of a picture on, then append a thumbnail, [3, h, w], to a list."""
    import torch

    from gigasr.networks.ops import resize

    height, width = picture.size
    factor = min(1.0, SHEET_THUMBNAIL / max(height, width))
    size = max(1, round(height * factor)), max(1, round(width * factor))
    narrow = []
    for strip in picture.strips:
        narrow.append(resize(strip.rgb[None], (strip.size[0], size[1])))
        yield strip
        del strip  # else two strips would be in memory
    thumbnails.append(resize(torch.cat(narrow, dim=2), size)[0].clamp(0, 1))


def write_animation(pictures: "Iterator[PictureStrips]", target: Path, noted: dict[str, str], count: int) -> None:
    """Write pictures as the frames of one endlessly repeated animation."""
    from gigasr.files.image_writer import write_frames
    from gigasr.files.picture import AnimationTiming

    first = next(pictures)
    make_folder(target.parent)
    write_frames(
        target, itertools.chain([first], pictures), AnimationTiming((FRAME_DURATION,) * count, loop_count=0), noted
    )
    report(target, first.size)


def make_folder(folder: Path) -> None:
    """Make a folder; remove leftovers of killed commands from an existing one."""
    from gigasr.files.atomic import remove_leftovers

    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)


def report(target: Path, size: tuple[int, int]) -> None:
    """Print the path and size of a picture."""
    click.echo(f"{target}  {size[1]}x{size[0]} px")
