"""A page in the browser: enlarge a picture, paint a text; the same as an HTTP API (extra gigasr[ui])."""

import functools
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gigasr.batch import Run
from gigasr.image_writer import to_pil
from gigasr.images import OUTPUT_FORMATS, Frames, read_frames, read_image
from gigasr.pipeline import SIZES, SuperResolver, parse_size, target_size
from gigasr.plan import Job, Source
from gigasr.prompts import check_prompts
from gigasr.worker import Settings, Work

PREVIEW = 4096  # px; longest side of what the page shows; the file has all
THUMBNAIL = 480  # px; longest side of the input's picture
FORMATS = ("png", "tif", "webp", "jpg", "avif", "gif")
EXPECTED = (ValueError, OSError, RuntimeError, MemoryError, ImportError)  # what a user can cause
ONE_AT_A_TIME = {"concurrency_limit": 1, "concurrency_id": "network"}  # the others wait in the queue
Notify = Callable[[float, str], None]  # share done in 0..1, what is being done
Paint = Callable[[dict[str, Any], Path, Notify], list[Path]]  # options as of t2i, folder -> the pictures in it


@dataclass(frozen=True)
class Limits:
    """What one request may ask for."""

    upload_mb: int = 64
    megapixels: int = 268  # of a result; 16384x16384 px


class Enlarger:
    """Enlarges uploads as `gigasr upscale` does: the same options give the same file."""

    def __init__(self, models: Sequence[str], device: str, precision: str, limits: Limits) -> None:
        self.models, self.device, self.precision, self.limits = list(models), device, precision, limits
        self.resolver = functools.lru_cache(maxsize=2)(self.load)

    def load(self, model: str) -> SuperResolver:
        """A model, ready to enlarge."""
        return SuperResolver.from_pretrained(model, self.device, self.precision)

    def enlarge(self, source: Path, target: Path, settings: Settings, prompt: str, notify: Notify) -> Work:
        """Write the result of one picture."""
        check_prompts([prompt])
        self.check_size(read_frames(source), settings)
        notify(0.0, "preparing the model")
        resolver, began = self.resolver(settings.model), time.monotonic()
        done: list[Work] = []

        def advance(work: Work) -> None:
            if work.status == "running":
                left = (time.monotonic() - began) * (1 / work.fraction - 1)
                notify(work.fraction, f"{left:.0f} s left" if work.fraction < 1 else "writing the file")
            else:
                done.append(work)

        job = Job(Source(source, source.parent, is_named=True), target, prompt=prompt)
        run = Run([job], replace(settings, device=self.device, precision=self.precision), advance)
        run.worker.resolver = resolver
        run.start()
        if done[0].error is not None:
            raise done[0].error
        return done[0]

    def check_size(self, frames: Frames, settings: Settings) -> None:
        """Raise ValueError for a result that is too large for this page, all its frames or pages taken together."""
        pixels = 0
        for picture in frames:
            size = None if settings.size is None else parse_size(settings.size, picture.size)
            height, width = target_size(picture.size, settings.scale, size, 1)
            pixels += height * width
            if pixels > self.limits.megapixels * 1e6:
                number = f"{len(frames)} pictures of " if len(frames) > 1 else ""
                raise ValueError(
                    f"size: expected at most {self.limits.megapixels} megapixels on this page, got {number}"
                    f"{width}x{height} px; use a smaller factor, or gigasr upscale"
                )


def import_gradio() -> Any:  # noqa: ANN401
    """Import gradio, which comes with the extra."""
    try:
        import gradio
    except ImportError as error:
        raise ImportError(f"ui: expected gradio 6, got '{error}'; run pip install 'gigasr[ui]'") from error
    return gradio


def build(enlarger: Enlarger, paint: Paint | None, why_not: str = "") -> Any:  # noqa: ANN401
    """Put the page together: gradio's Blocks, to be served by launch(**launch_options(...)).

    paint: what the second tab calls; None = it says why_not instead
    """
    gr = import_gradio()
    with gr.Blocks(title="gigasr", analytics_enabled=False, delete_cache=(3600, 24 * 3600)) as page:
        gr.Markdown("# gigasr")
        with gr.Tab("Enlarge"):
            add_enlarge_tab(enlarger)
        with gr.Tab("Text to image"):
            add_paint_tab(paint) if paint is not None else gr.Markdown(why_not)
    page.queue(max_size=64)
    return page


def launch_options(limits: Limits) -> dict[str, Any]:
    """Options of launch() that belong to the page: a limit for uploads, and fonts that no other host must deliver."""
    gr = import_gradio()
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    return {"max_file_size": limits.upload_mb * 1_000_000, "theme": theme, "footer_links": ["api"], "ssr_mode": False}


def add_enlarge_tab(enlarger: Enlarger) -> None:
    """The first tab, and the endpoint /upscale."""
    gr = import_gradio()
    with gr.Row():
        with gr.Column(scale=2):
            upload = gr.File(label="Picture", file_types=sorted(OUTPUT_FORMATS), height=130)
            thumbnail = gr.Image(label="Input", interactive=False, visible=False, height=220, buttons=[])
            prompt = gr.Textbox("", label="Prompt", placeholder="what the picture shows; may stay empty", lines=2)
            with gr.Row():
                scale = gr.Slider(1, 64, 8, step=0.5, label="Factor")
                size = gr.Textbox("", label="or size", placeholder="4k, or 3840x2160", max_lines=1)
            with gr.Accordion("More", open=False):
                model = gr.Dropdown(enlarger.models, value=enlarger.models[0], label="Model")
                seed = gr.Number(0, label="Seed", precision=0, minimum=0)
                fidelity = gr.Slider(0, 1, 1, step=0.05, label="Fidelity to the input's colours")
                suffix = gr.Dropdown(list(FORMATS), value="png", label="Format")
            button = gr.Button("Enlarge", variant="primary")
        with gr.Column(scale=3):
            slider = gr.ImageSlider(
                label="Before and after", interactive=False, type="filepath", max_height=720, buttons=["fullscreen"]
            )
            facts = gr.Markdown(label="Facts")
            result = gr.File(label="Result in full quality", interactive=False)

    def upscale(  # its name, arguments and docstring are the HTTP API's
        image: str,
        prompt: str = "",
        scale: float = 8,
        size: str = "",
        model: str = enlarger.models[0],
        seed: int = 0,
        fidelity: float = 1.0,
        suffix: str = "png",
        progress: Any = gr.Progress(),  # noqa: ANN401, B008 (gradio looks for this default)
    ) -> tuple[tuple[str, str], str, str]:
        """Enlarge a picture by a factor or, where one is given, to a size such as 4k or 3840x2160.

        Gives previews of before and after, a line about the result, and the result's file in full quality.
        """
        with one_line_errors():
            if image is None:
                raise ValueError("picture: expected a file, got none; drop one into the field")
            size = size.strip()
            settings = Settings(
                model=model,
                scale=None if size else float(scale),
                size=size or None,
                seed=int(seed),
                fidelity=float(fidelity),
            )
            return answer(
                enlarger, Path(image), settings, prompt, suffix, lambda share, what: progress(share, desc=what)
            )

    upload.change(show_thumbnail, upload, thumbnail, api_visibility="private", show_progress="hidden")
    inputs = [upload, prompt, scale, size, model, seed, fidelity, suffix]
    button.click(upscale, inputs, [slider, facts, result], api_name="upscale", show_progress_on=slider, **ONE_AT_A_TIME)


def show_thumbnail(image: str | None) -> Any:  # noqa: ANN401
    """What an upload looks like, or what is wrong with it."""
    with one_line_errors():
        value = None if image is None else preview(Path(image), THUMBNAIL)
        return import_gradio().Image(value, visible=image is not None)


def answer(
    enlarger: Enlarger, source: Path, settings: Settings, prompt: str, suffix: str, notify: Notify
) -> tuple[tuple[str, str], str, str]:
    """What /upscale gives."""
    began = time.monotonic()
    target = new_folder() / f"{source.stem}_{settings.size or f'{settings.scale:g}x'}.{suffix}"
    work = enlarger.enlarge(source, target, settings, prompt, notify)
    height, width = work.size
    facts = f"{width}×{height} px, {target.stat().st_size / 1e6:.1f} MB, {time.monotonic() - began:.1f} s"
    return (preview(source, min(PREVIEW, max(work.size))), preview_large(target)), facts, str(target)


def add_paint_tab(paint: Paint) -> None:
    """The second tab, and the endpoint /paint."""
    gr = import_gradio()
    with gr.Row():
        with gr.Column(scale=2):
            prompt = gr.Textbox("", label="Prompt", placeholder="a red apple, 3d style", lines=2)
            size = gr.Textbox("512", label="Size", info=f"side in px, {', '.join(SIZES)}, or WIDTHxHEIGHT")
            count = gr.Slider(1, 16, 1, step=1, label="Pictures")
            seed = gr.Number(0, label="Seed of the first", precision=0, minimum=0)
            truncation = gr.Slider(0, 1, 1, step=0.05, label="Truncation", info="less is safer, 1 is off")
            with gr.Accordion("Mix with another prompt", open=False):
                style_prompt = gr.Textbox("", label="Style prompt", placeholder="what the finer levels follow")
                mix_at = gr.Dropdown([4, 8, 16, 32, 64], value=16, label="From this size on, px")
            with gr.Accordion("Lead to another prompt", open=False):
                to = gr.Textbox("", label="To", placeholder="a green pear")
                frames = gr.Slider(2, 32, 8, step=1, label="Frames")
            button = gr.Button("Paint", variant="primary")
        with gr.Column(scale=3):
            gallery = gr.Gallery(label="Pictures", columns=4, interactive=False)
            files = gr.File(label="Files in full quality", file_count="multiple", interactive=False)

    def run(
        prompt: str,
        size: str = "512",
        count: int = 1,
        seed: int = 0,
        truncation: float = 1.0,
        style_prompt: str = "",
        mix_at: int = 16,
        to: str = "",
        frames: int = 8,
        progress: Any = gr.Progress(),  # noqa: ANN401, B008
    ) -> tuple[list[str], list[str]]:
        """Paint a prompt, mixed with a style prompt or leading to another one where they are given.

        Gives previews, and the pictures' files in full quality.
        """
        with one_line_errors():
            if not prompt.strip():
                raise ValueError("prompt: expected what to paint, got nothing; describe the picture")
            options: dict[str, Any] = {
                "count": int(count),
                "seed": int(seed),
                "truncation": truncation,
                "mix_at": int(mix_at),
            }
            options |= {"prompt": prompt, "size": size, "frames": int(frames)}
            options |= {"style_prompt": style_prompt.strip() or None, "to": to.strip() or None}
            paths = paint(options, new_folder(), lambda share, what: progress(share, desc=what))
            return [preview_large(path) for path in paths], [str(path) for path in paths]

    inputs = [prompt, size, count, seed, truncation, style_prompt, mix_at, to, frames]
    button.click(run, inputs, [gallery, files], api_name="paint", show_progress_on=gallery, **ONE_AT_A_TIME)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Show what a user can cause in one line on the page, without the server's paths."""
    gr = import_gradio()
    try:
        yield
    except EXPECTED as error:
        subject, colon, rest = " ".join(str(error).split()).partition(": ")
        text = f"{Path(subject).name}: {rest}" if colon else subject
        raise gr.Error(text, print_exception=False) from error


def new_folder() -> Path:
    """A folder for the files of one request; gradio deletes them after a day and when the server ends."""
    folder = Path(import_gradio().utils.get_upload_folder()) / uuid.uuid4().hex
    folder.mkdir(parents=True)
    return folder


def preview(source: Path, side: int) -> str:
    """A file that shows an input with a longest side of `side` px, enlarged by bicubic where it is smaller."""
    picture = read_image(source)
    image = to_pil(replace(picture, bit_depth=8))
    factor = side / max(image.size)
    target = new_folder() / f"{source.stem}.webp"
    image.resize((max(1, round(image.width * factor)), max(1, round(image.height * factor)))).save(target, quality=90)
    return str(target)


def preview_large(source: Path) -> str:
    """A file that shows a result, reduced to PREVIEW px where it is larger, without ever holding all of it."""
    import pyvips

    target = new_folder() / f"{source.stem}.webp"
    pyvips.Image.thumbnail(str(source), PREVIEW, height=PREVIEW, size="down").write_to_file(str(target), Q=90)
    return str(target)
