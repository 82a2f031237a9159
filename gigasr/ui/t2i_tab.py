"""The page's second tab: a text, the pictures generated from it, the files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gigasr.sizes import SIZES
from gigasr.ui.jobs import Jobs, ReportProgress
from gigasr.ui.parts import (
    ONE_AT_A_TIME,
    PRIVATE,
    add_buttons,
    import_gradio,
    new_folder,
    preview_large,
    report_errors_on_page,
)

IDEAS = ("a red apple, 3d style", "a cat face, flat style", "a rocket, noto style", "a pizza, flat twemoji style")
Generate = Callable[
    [dict[str, Any], Path, ReportProgress], list[Path]
]  # options as of t2i, folder -> the pictures in it


def add_t2i_tab(generate: Generate, jobs: Jobs) -> tuple[Any, Any]:
    """Add the controls and the endpoint /paint; returns its event and the button that stops it."""
    gr = import_gradio()
    with gr.Row():
        with gr.Column(scale=2):
            inputs = add_t2i_controls()
            button, cancel = add_buttons("Generate")
        with gr.Column(scale=3):
            gallery = gr.Gallery(
                label="Pictures", columns=[2, 2, 4], height=600, object_fit="contain", interactive=False
            )
            files = gr.File(label="Files in full quality", file_count="multiple", interactive=False, visible=False)
    starts, outputs = [button.click, inputs[0].submit], [gallery, files]
    shown = {"show_progress_on": gallery, "scroll_to_output": True}
    event = gr.on(starts, make_endpoint(generate, jobs), inputs, outputs, api_name="paint", **shown, **ONE_AT_A_TIME)
    event.success(lambda: gr.File(visible=True), None, files, **PRIVATE)
    return event, cancel


def add_t2i_controls() -> list[Any]:
    """Add what a user can say of the work; returns the inputs of /paint, the prompt first."""
    gr = import_gradio()
    prompt = gr.Textbox("", label="Prompt", placeholder=IDEAS[0], max_lines=4)
    gr.Examples([[idea] for idea in IDEAS], prompt, label="Ideas", api_visibility="private")
    with gr.Row():
        size = gr.Dropdown(
            ["64", "512", *list(SIZES)[:3]],
            value="512",
            label="Size",
            info="side in px, or WIDTHxHEIGHT",
            allow_custom_value=True,
        )
        count = gr.Slider(1, 16, 1, step=1, label="Pictures")
    with gr.Accordion("More", open=False):
        seed = gr.Number(0, label="Seed of the first", precision=0, minimum=0)
        truncation = gr.Slider(0, 1, 1, step=0.05, label="Truncation", info="less is safer, 1 is off")
    with gr.Accordion("Mix with another prompt", open=False):
        style_prompt = gr.Textbox("", label="Style prompt", placeholder="what the finer levels follow")
        mix_at = gr.Dropdown([4, 8, 16, 32, 64], value=16, label="From this size on, px")
    with gr.Accordion("Lead to another prompt", open=False):
        to = gr.Textbox("", label="To", placeholder="a green pear")
        frames = gr.Slider(2, 32, 8, step=1, label="Frames")
    return [prompt, size, count, seed, truncation, style_prompt, mix_at, to, frames]


def make_endpoint(generate: Generate, jobs: Jobs) -> Callable[..., Any]:
    """The endpoint; its arguments and docstring are the HTTP API's."""
    gr = import_gradio()

    async def run(
        request: gr.Request,  # type: ignore[name-defined]
        prompt: str,
        size: str = "512",
        count: int = 1,
        seed: int = 0,
        truncation: float = 1.0,
        style_prompt: str = "",
        mix_at: int = 16,
        to: str = "",
        frames: int = 8,
        progress: Any = gr.Progress(),  # noqa: B008
    ) -> tuple[list[str], list[str]]:
        """Generate images of a prompt, mixed with a style prompt or leading to another one where they are given.

        Gives previews, and the pictures' files in full quality.
        """
        with report_errors_on_page():
            if not (prompt or "").strip():
                raise ValueError("prompt: expected what to generate, got nothing; describe the picture")
            options: dict[str, Any] = {"count": int(count), "seed": int(seed or 0), "truncation": truncation}
            options |= {"mix_at": int(mix_at or 16), "prompt": prompt, "size": str(size or 512), "frames": int(frames)}
            options |= {"style_prompt": (style_prompt or "").strip() or None, "to": (to or "").strip() or None}
            if options["to"] and (options["style_prompt"] or options["count"] > 1):
                raise ValueError(
                    "to: expected one prompt to lead to, got a style prompt or several pictures; leave one out"
                )

            def work(notify: ReportProgress) -> tuple[list[str], list[str]]:
                with new_folder() as folder:
                    paths = generate(options, folder, notify)
                    return [preview_large(path, folder) for path in paths], [str(path) for path in paths]

            return await jobs.run(request.session_hash, work, lambda share, what: progress(share, desc=what))

    return run
