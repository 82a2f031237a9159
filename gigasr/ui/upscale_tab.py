"""The page's first tab: a picture and how to upscale it, before and after, the file."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gigasr.files.formats import OUTPUT_FORMATS
from gigasr.files.images import read_image
from gigasr.folders.job_runner import Settings
from gigasr.sizes import fit_size, target_size
from gigasr.ui.jobs import Jobs, ReportProgress
from gigasr.ui.parts import (
    ONE_AT_A_TIME,
    PREVIEW,
    PRIVATE,
    add_buttons,
    import_gradio,
    new_folder,
    preview,
    preview_large,
    report_errors_on_page,
)
from gigasr.ui.upscaler import Upscaler

INPUT_THUMBNAIL = 480  # px; longest side of the input's picture
FORMATS = ("png", "tif", "webp", "jpg", "avif", "gif")
PRESETS = {"2×": (2, ""), "4×": (4, ""), "8×": (8, ""), "16×": (16, ""), "4k": (8, "4k"), "8k": (8, "8k")}
Answer = tuple[tuple[str, str], str, str]  # files of before and after, facts in words, the file in full quality


def add_upscale_tab(upscaler: Upscaler, jobs: Jobs) -> tuple[Any, Any]:
    """Add the controls and the endpoint /upscale; returns its event and the button that stops it."""
    gr = import_gradio()
    with gr.Row():
        with gr.Column(scale=2):
            inputs = add_upscale_controls(upscaler.models)
            button, cancel = add_buttons("Upscale")
        with gr.Column(scale=3):
            slider = gr.ImageSlider(
                label="Before and after", interactive=False, type="filepath", max_height=720, buttons=["fullscreen"]
            )
            facts = gr.Markdown(label="Facts")
            result = gr.File(label="Result in full quality", interactive=False, visible=False)
    starts, outputs = [button.click, inputs[1].submit], [slider, facts, result]
    shown = {"show_progress_on": slider, "scroll_to_output": True}
    event = gr.on(starts, make_upscale(upscaler, jobs), inputs, outputs, api_name="upscale", **shown, **ONE_AT_A_TIME)
    event.success(lambda: gr.File(visible=True), None, result, **PRIVATE)
    return event, cancel


def add_upscale_controls(models: list[str]) -> list[Any]:
    """Add what a user can say of the work; returns the inputs of /upscale, the prompt second."""
    gr = import_gradio()
    upload = gr.File(label="Picture", file_types=sorted(OUTPUT_FORMATS), height=130)
    thumbnail = gr.Image(label="Input", interactive=False, visible=False, height=220, buttons=[])
    prompt = gr.Textbox("", label="Prompt", placeholder="what the picture shows; may stay empty", max_lines=4)
    preset = gr.Radio(list(PRESETS), value="8×", label="Upscale", elem_classes="presets")
    with gr.Row():
        scale = gr.Slider(1, 64, 8, step=0.5, label="Factor")
        size = gr.Textbox("", label="or size", placeholder="4k, or 3840x2160", max_lines=1)
    before, outlook = gr.State(), gr.Markdown()
    with gr.Accordion("More", open=False):
        model = gr.Dropdown(models, value=models[0], label="Model")
        seed = gr.Number(0, label="Seed", info="another one, other details", precision=0, minimum=0)
        fidelity = gr.Slider(0, 1, 1, step=0.05, label="Fidelity to the input's colours")
        detail = gr.Slider(0, 2, 1, step=0.05, label="Detail", info="0 is none, 1 as trained, more is crisper")
        suffix = gr.Dropdown(list(FORMATS), value="png", label="Format")
    upload.change(show_thumbnail, upload, [thumbnail, before], **PRIVATE)
    preset.input(PRESETS.get, preset, [scale, size], **PRIVATE)
    gr.on([before.change, scale.change, size.change], tell_outlook, [before, scale, size], outlook, **PRIVATE)
    return [upload, prompt, scale, size, model, seed, fidelity, suffix, detail]


def make_upscale(upscaler: Upscaler, jobs: Jobs) -> Callable[..., Any]:
    """The endpoint; its name, arguments and docstring are the HTTP API's."""
    gr = import_gradio()

    async def upscale(
        request: gr.Request,  # type: ignore[name-defined]
        image: str,
        prompt: str = "",
        scale: float = 8,
        size: str = "",
        model: str = upscaler.models[0],
        seed: int = 0,
        fidelity: float = 1.0,
        suffix: str = "png",
        detail: float = 1.0,
        progress: Any = gr.Progress(),  # noqa: B008 (gradio looks for this default)
    ) -> Answer:
        """Upscale a picture by a factor or, where one is given, to a size such as 4k or 3840x2160.

        Gives previews of before and after, a line about the result, and the result's file in full quality.
        """
        with report_errors_on_page():
            if image is None:
                raise ValueError("picture: expected a file, got none; drop one into the field")
            size = (size or "").strip()
            factor = None if size else float(scale)
            given = Settings(model, factor, size or None, int(seed or 0), float(fidelity), float(detail))
            source = Path(image)

            def work(notify: ReportProgress) -> Answer:
                return answer(upscaler, source, given, prompt or "", suffix, notify)

            return await jobs.run(request.session_hash, work, lambda share, what: progress(share, desc=what))

    return upscale


def show_thumbnail(image: str | None) -> tuple[Any, tuple[int, int] | None]:
    """What an upload looks like and its (height, width), or what is wrong with it."""
    component = import_gradio().Image
    if image is None:
        return component(None, visible=False), None
    with report_errors_on_page(), new_folder() as folder:
        picture = read_image(Path(image))
        return component(preview(picture, INPUT_THUMBNAIL, folder / "preview.webp"), visible=True), picture.size


def tell_outlook(before: tuple[int, int] | None, scale: float, size: str) -> str:
    """What would come of an upload, in words; nothing where there is none, or where starting will say what is wrong."""
    try:
        if before is not None:
            wanted = fit_size(size.strip(), before) if size.strip() else None
            height, width = target_size(before, None if wanted else scale, wanted, 1)
            return f"{before[1]}×{before[0]} becomes **{width}×{height} px**, {width * height / 1e6:.1f} megapixels"
    except ValueError:
        pass
    return ""


def answer(
    upscaler: Upscaler, source: Path, settings: Settings, prompt: str, suffix: str, notify: ReportProgress
) -> Answer:
    """What /upscale gives."""
    began = time.monotonic()
    with new_folder() as folder:
        target = folder / f"{source.stem}_{settings.size or f'{settings.scale:g}x'}.{suffix}"
        work = upscaler.upscale(source, target, settings, prompt, notify)
        height, width = work.size
        facts = f"{width}×{height} px, {target.stat().st_size / 1e6:.1f} MB, {time.monotonic() - began:.1f} s"
        before = preview(read_image(source), min(PREVIEW, max(work.size)), folder / "preview.webp")
        return (before, preview_large(target, folder)), facts, str(target)
