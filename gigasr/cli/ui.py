"""gigasr ui: serve the web page."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gigasr.cli.common import device_option, precision_option, report_errors
from gigasr.options import Precision
from gigasr_base.options import T2IOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gigasr.ui.jobs import ReportProgress
    from gigasr.ui.t2i_tab import T2IService
    from gigasr.ui.upscaler import RequestLimits, Upscaler


@click.command()
@click.option(
    "-n", "--model", "models", multiple=True, help="Offered model; may be repeated.  [default: the bundled ones]"
)
@click.option("--base", default="base_lite", show_default=True, help="Base model of the text tab: a name or file.")
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 lets other machines in.")
@click.option("--port", default=7860, show_default=True, type=click.IntRange(1, 65535))
@click.option("--max-upload", default=64, show_default=True, type=click.IntRange(1), help="Largest upload, MB.")
@click.option(
    "--max-result", default=268, show_default=True, type=click.IntRange(1), help="Largest result, megapixels."
)
@click.option("--open", "opens", is_flag=True, help="Open the page in the browser.")
@device_option
@precision_option
@report_errors
def ui(
    models: tuple[str, ...],
    base: str,
    host: str,
    port: int,
    max_upload: int,
    max_result: int,
    opens: bool,
    device: str,
    precision: Precision,
) -> None:
    """Serve a web page that upscales pictures and generates images from prompts, and the same as an HTTP API.

    Requests wait in a queue and run one after the other. There are no accounts: whoever reaches the port may use it.
    Needs the extra gigasr[ui].

    \b
    Examples:
      gigasr ui --open
      gigasr ui --host 0.0.0.0 --port 8000 --max-upload 16 --max-result 64
    """
    from gigasr.ui.page import launch_options
    from gigasr.ui.upscaler import RequestLimits

    limits = RequestLimits(max_upload, max_result)
    page = make_page(models, base, limits, device, precision)
    serving = launch_options(limits) | {"server_name": host, "server_port": port, "inbrowser": opens}
    _, address, _ = page.launch(prevent_thread_lock=True, quiet=True, **serving)
    click.echo(f"{address}  (stop with Ctrl-C)")
    page.block_thread()


def make_page(models: "Sequence[str]", base: str, limits: "RequestLimits", device: str, precision: Precision) -> Any:
    """Make the page with both tabs.

    Raises ValueError for a missing model; a missing base model only puts a notice in the second tab.
    """
    from gigasr.models.zoo import DEFAULT_MODEL, bundled_models, find_model
    from gigasr.ui.page import build
    from gigasr.ui.upscaler import Upscaler
    from gigasr_base.zoo import find_base_model as find_base

    for model in models:
        find_model(model)
    names = models or (DEFAULT_MODEL, *(name for name in bundled_models() if name != DEFAULT_MODEL))
    upscaler = Upscaler(names, device, precision, limits)
    try:
        find_base(base)
    except ValueError as error:
        return build(upscaler, None, f"No text to image here: {error}. `gigasr ui --base FILE` starts with one.")
    return build(upscaler, make_t2i(base, upscaler))


def make_t2i(base: str, upscaler: "Upscaler") -> "T2IService[T2IOptions]":
    """Make the service behind the second tab.

    The same options give the same files as `gigasr t2i`.
    """
    from functools import lru_cache

    from gigasr.files.image_writer import write_image
    from gigasr.ui.t2i_tab import T2IService
    from gigasr_base.pipeline import TextToImage, check_reachable_size, upscale_image
    from gigasr_base.t2i_job import check_texts, describe_set, generate_images, plan_sets

    @lru_cache(maxsize=1)
    def load() -> TextToImage:
        return TextToImage.from_pretrained(base, upscaler.device, upscaler.precision)

    def generate(options: T2IOptions, folder: Path, notify: "ReportProgress") -> list[Path]:
        options = replace(options, model=base, upsampler=upscaler.models[0])
        size, number = options.box, options.number
        check_texts([options.prompt], options)
        base_model = load()
        check_reachable_size(size, base_model.size)
        upscaler.limits.check(number * max(size) ** 2, number, size)
        resolver = upscaler.resolver(options.upsampler) if max(size) > base_model.size else None
        (targets,) = plan_sets([options.prompt], folder, ".png", number, has_sheet=False)
        notes = describe_set(options, resolver is not None)

        def lead(done: int, total: int) -> None:
            notify(0.0, f"frames: {done} of {total} images")

        for i, (image, text, seed) in enumerate(generate_images(base_model, options, lead)):

            def progress(done: int, total: int) -> None:
                notify((i + done / total) / number, f"picture {i + 1} of {number}")  # noqa: B023

            picture = upscale_image(image, size, resolver, text, seed, progress)
            write_image(targets[i], picture, notes[i])
        return targets

    return T2IService(T2IOptions, generate)
