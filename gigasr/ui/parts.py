"""Shared parts of the page's tabs: gradio, errors, folders of requests, previews."""

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

PREVIEW = 4096  # px; longest side of a preview; the file keeps the full size
PRIVATE = {"api_visibility": "private", "show_progress": "hidden"}  # of events that are no part of the API
ONE_AT_A_TIME = {"concurrency_limit": 1, "concurrency_id": "network"}  # the others wait in the queue


def import_gradio() -> Any:
    """Import gradio; raises ImportError without the extra gigasr[ui]."""
    try:
        import gradio
    except ImportError as error:
        raise ImportError(f"ui: expected gradio 6, got '{error}'; run pip install 'gigasr[ui]'") from error
    return gradio


def add_buttons(label: str) -> tuple[Any, Any]:
    """Add a start button with a label and a cancel button."""
    gr = import_gradio()
    with gr.Row():
        return gr.Button(label, variant="primary", scale=3), gr.Button("Cancel", scale=1, min_width=90)


@contextmanager
def report_errors_on_page() -> Iterator[None]:
    """Show a user's errors on the page.

    A message has one line and does not show the server's folders.
    """
    gr = import_gradio()
    try:
        yield
    except EXPECTED as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        subject, colon, rest = join_lines(reason).partition(": ")
        text = f"{Path(subject).name}: {rest}" if colon else subject
        raise gr.Error(text, print_exception=False) from error


def page_options(kind: type[T], values: Mapping[str, Any]) -> T:
    """Make options from the values of the page's fields; empty fields keep defaults."""
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
    """Make a folder for the files of all requests, inside the folder of the uploads.

    The server makes the folder once and removes it at the end.
    """
    folder = Path(uploads) / uuid.uuid4().hex
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@contextmanager
def new_folder() -> Iterator[Path]:
    """Make a folder for the files of one request.

    A failed or stopped request removes the folder; gradio deletes the files of others after a day.
    """
    folder = own_folder(import_gradio().utils.get_upload_folder()) / uuid.uuid4().hex
    folder.mkdir(parents=True)
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def preview(picture: Picture, side: int, target: Path) -> str:
    """Save a picture, resized to a longest side of `side` px, in 8 bit.

    returns: the target
    """
    image = to_pil(replace(picture, bit_depth=8))
    factor = side / max(image.size)
    image.resize((max(1, round(image.width * factor)), max(1, round(image.height * factor)))).save(target, quality=90)
    return str(target)


def preview_large(source: Path, folder: Path) -> str:
    """Save a preview of a result, with a longest side of at most PREVIEW px.

    libvips streams the result: memory never holds all pixels. libvips reads no animated AVIF:
    its first frame is read as a whole.

    returns: the preview's file
    """
    import pyvips

    target = folder / f"{source.stem}_preview.webp"
    try:
        pyvips.Image.thumbnail(str(source), PREVIEW, height=PREVIEW, size="down").write_to_file(str(target), Q=90)
    except pyvips.Error:
        picture = read_image(source)
        return preview(picture, min(PREVIEW, max(picture.size)), target)
    return str(target)
