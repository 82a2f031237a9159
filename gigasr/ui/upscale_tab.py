"""The page's first tab: a picture and options in, comparison and file out."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gigasr.files.formats import OUTPUT_FORMATS
from gigasr.files.images import read_image
from gigasr.folders.plan import size_label
from gigasr.options import STRENGTHS, Rule, UpscaleOptions
from gigasr.sizes import target_size
from gigasr.ui.jobs import Jobs, ReportProgress
from gigasr.ui.parts import (
    ONE_AT_A_TIME,
    PREVIEW,
    PRIVATE,
    add_buttons,
    import_gradio,
    new_folder,
    page_options,
    preview,
    preview_large,
    report_errors_on_page,
)
from gigasr.ui.upscaler import Upscaler

INPUT_THUMBNAIL = 480  # px; longest side of the input's picture
FORMATS = ("png", "tif", "webp", "jpg", "avif", "gif")
PRESETS = {"2×": (2, ""), "4×": (4, ""), "8×": (8, ""), "16×": (16, ""), "4k": (8, "4k"), "8k": (8, "8k")}
Answer = tuple[tuple[str, str], str, str]  # (files before and after), facts as text, file in full quality


def add_upscale_tab(upscaler: Upscaler, jobs: Jobs) -> tuple[Any, Any]:
    """Add the controls and the endpoint /upscale.

    returns: the endpoint's event, the cancel button
    """
    gr = import_gradio()
    with gr.Row():
        with gr.Column(scale=2):
            upload, controls = add_upscale_controls(upscaler.models)
            button, cancel = add_buttons("Upscale")
        with gr.Column(scale=3):
            slider = gr.ImageSlider(
                label="Before and after", interactive=False, type="filepath", max_height=720, buttons=["fullscreen"]
            )
            facts = gr.Markdown(label="Facts")
            result = gr.File(label="Result in full quality", interactive=False, visible=False)
    event = gr.on(
        [button.click, controls["prompt"].submit],
        make_upscale(upscaler, jobs),
        upload,
        [slider, facts, result],
        inputs_kwargs=controls,
        api_name="upscale",
        show_progress_on=slider,
        scroll_to_output=True,
        **ONE_AT_A_TIME,
    )
    event.success(lambda: gr.File(visible=True), None, result, **PRIVATE)
    return event, cancel


def add_upscale_controls(models: list[str]) -> tuple[Any, dict[str, Any]]:
    """Add the field of the picture and the fields of the options.

    returns: field of the picture; argument of /upscale -> field, in the order of the arguments
    """
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
        sliders = {name: add_slider(name, UpscaleOptions.rules()[name]) for name in STRENGTHS}
        suffix = gr.Dropdown(list(FORMATS), value="png", label="Format")
    upload.change(show_thumbnail, upload, [thumbnail, before], **PRIVATE)
    preset.input(PRESETS.get, preset, [scale, size], **PRIVATE)
    gr.on([before.change, scale.change, size.change], tell_outlook, [before, scale, size], outlook, **PRIVATE)
    controls = {"prompt": prompt, "scale": scale, "size": size, "model": model, "seed": seed}
    return upload, controls | {"fidelity": sliders.pop("fidelity"), "suffix": suffix} | sliders


def add_slider(name: str, rule: Rule) -> Any:
    """Add a slider for a strength, with the limits and help of its rule."""
    low, high = rule.limits
    return import_gradio().Slider(low, high, 1, step=0.05, label=name.capitalize(), info=rule.help)


def make_upscale(upscaler: Upscaler, jobs: Jobs) -> Callable[..., Any]:
    """Make the endpoint.

    The HTTP API shows the name and docstring of `upscale` and the names of the controls.
    """
    gr = import_gradio()

    async def upscale(
        request: gr.Request,  # type: ignore[name-defined]
        image: str,
        progress: Any = gr.Progress(),  # noqa: B008 (gradio looks for this default)
        *,
        suffix: str,
        **values: Any,
    ) -> Answer:
        """Upscale a picture by a factor or, where one is given, to a size such as 4k or 3840x2160.

        Gives previews of before and after, a line about the result, and the result's file in full quality.
        """
        with report_errors_on_page():
            if image is None:
                raise ValueError("picture: expected a file, got none; drop one into the field")
            if (values["size"] or "").strip():
                del values["scale"]
            options, source = page_options(UpscaleOptions, values), Path(image)

            def work(notify: ReportProgress) -> Answer:
                return answer(upscaler, source, options, suffix, notify)

            return await jobs.run(request.session_hash, work, lambda share, what: progress(share, desc=what))

    return upscale


def show_thumbnail(image: str | None) -> tuple[Any, tuple[int, int] | None]:
    """Make a thumbnail of an upload, or show an error on the page.

    returns: the updated component; (height, width) of the upload in px, None without an upload
    """
    component = import_gradio().Image
    if image is None:
        return component(None, visible=False), None
    with report_errors_on_page(), new_folder() as folder:
        picture = read_image(Path(image))
        return component(preview(picture, INPUT_THUMBNAIL, folder / "preview.webp"), visible=True), picture.size


def tell_outlook(before: tuple[int, int] | None, scale: float, size: str) -> str:
    """Describe the size of the result before a start.

    Returns "" without an upload and for wrong values: starting will report those.
    """
    try:
        if before is not None:
            wanted = size.strip() or None
            height, width = target_size(before, None if wanted else scale, wanted, 1)
            return f"{before[1]}×{before[0]} becomes **{width}×{height} px**, {width * height / 1e6:.1f} megapixels"
    except ValueError:
        pass
    return ""


def answer(upscaler: Upscaler, source: Path, options: UpscaleOptions, suffix: str, notify: ReportProgress) -> Answer:
    """Upscale a file for the endpoint /upscale."""
    began = time.monotonic()
    with new_folder() as folder:
        target = folder / f"{source.stem}_{size_label(options)}.{suffix}"
        work = upscaler.upscale(source, target, options, notify)
        height, width = work.size
        facts = f"{width}×{height} px, {target.stat().st_size / 1e6:.1f} MB, {time.monotonic() - began:.1f} s"
        before = preview(read_image(source), min(PREVIEW, max(work.size)), folder / "preview.webp")
        return (before, preview_large(target, folder)), facts, str(target)
