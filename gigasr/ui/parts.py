"""What both tabs of the page need: gradio itself, errors in one line, files of requests and pictures of them."""

import atexit
import functools
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from gigasr.errors import EXPECTED, join_lines
from gigasr.files.image_writer import to_pil
from gigasr.files.images import read_image
from gigasr.files.picture import Picture
from gigasr.options import Options

T = TypeVar("T", bound=Options)

PREVIEW = 4096  # px; longest side of what the page shows; the file has all
PRIVATE = {"api_visibility": "private", "show_progress": "hidden"}  # what the page does by the way
ONE_AT_A_TIME = {"concurrency_limit": 1, "concurrency_id": "network"}  # the others wait in the queue


def import_gradio() -> Any:
    """Import gradio, which comes with the extra."""
    try:
        import gradio
    except ImportError as error:
        raise ImportError(f"ui: expected gradio 6, got '{error}'; run pip install 'gigasr[ui]'") from error
    return gradio


def add_buttons(label: str) -> tuple[Any, Any]:
    """A button that starts and one that stops."""
    gr = import_gradio()
    with gr.Row():
        return gr.Button(label, variant="primary", scale=3), gr.Button("Cancel", scale=1, min_width=90)


@contextmanager
def report_errors_on_page() -> Iterator[None]:
    """Show what a user can cause in one line on the page, without the server's paths."""
    gr = import_gradio()
    try:
        yield
    except EXPECTED as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        subject, colon, rest = join_lines(reason).partition(": ")
        text = f"{Path(subject).name}: {rest}" if colon else subject
        raise gr.Error(text, print_exception=False) from error


def page_options(kind: type[T], values: Mapping[str, Any]) -> T:
    """Make options from the values of the page's fields; empty ones keep their defaults."""
    given: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, str):
            value = value.strip()
        if value is not None and value != "":
            expected = kind.field_types()[name]
            given[name] = expected(value) if expected in (int, str) else value  # sliders give floats
    return kind(**given)


@functools.cache
def own_folder(uploads: str) -> Path:
    """A folder in that of the uploads for the files of all requests, gone when the server ends."""
    folder = Path(uploads) / uuid.uuid4().hex
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@contextmanager
def new_folder() -> Iterator[Path]:
    """A folder for the files of one request, removed where it fails or is stopped; gradio deletes them after a day."""
    folder = own_folder(import_gradio().utils.get_upload_folder()) / uuid.uuid4().hex
    folder.mkdir(parents=True)
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def preview(picture: Picture, side: int, target: Path) -> str:
    """Show a picture in a file with a longest side of `side` px, resized by bicubic where it is smaller."""
    image = to_pil(replace(picture, bit_depth=8))
    factor = side / max(image.size)
    image.resize((max(1, round(image.width * factor)), max(1, round(image.height * factor)))).save(target, quality=90)
    return str(target)


def preview_large(source: Path, folder: Path) -> str:
    """A file that shows a result, reduced to PREVIEW px where it is larger, without ever holding all of it.

    Of an animation as AVIF, which libvips doesn't read, the first frame is read as a whole.
    """
    import pyvips

    target = folder / f"{source.stem}_preview.webp"
    try:
        pyvips.Image.thumbnail(str(source), PREVIEW, height=PREVIEW, size="down").write_to_file(str(target), Q=90)
    except pyvips.Error:
        picture = read_image(source)
        return preview(picture, min(PREVIEW, max(picture.size)), target)
    return str(target)
