"""The page's second tab: a prompt in, generated pictures and their files out."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from gigasr.options import Options
from gigasr.sizes import SIZES
from gigasr.ui.jobs import Jobs, ReportProgress
from gigasr.ui.parts import (
    ONE_AT_A_TIME,
    PRIVATE,
    add_buttons,
    import_gradio,
    new_folder,
    page_options,
    preview_large,
    report_errors_on_page,
)

IDEAS = ("a red apple, 3d style", "a cat face, flat style", "a rocket, noto style", "a pizza, flat twemoji style")
O = TypeVar("O", bound=Options)


@dataclass(frozen=True)
class T2IService(Generic[O]):
    """The generator behind the tab."""

    kind: type[O]  # of its options
    generate: Callable[[O, Path, ReportProgress], list[Path]]  # writes the pictures into a folder


def add_t2i_tab(service: T2IService[O], jobs: Jobs) -> tuple[Any, Any]:
    """Add the controls and the endpoint /paint.

    returns: the endpoint's event, the cancel button
    """
    gr = import_gradio()
    with gr.Row():
        with gr.Column(scale=2):
            controls = add_t2i_controls()
            button, cancel = add_buttons("Generate")
        with gr.Column(scale=3):
            gallery = gr.Gallery(
                label="Pictures", columns=[2, 2, 4], height=600, object_fit="contain", interactive=False
            )
            files = gr.File(label="Files in full quality", file_count="multiple", interactive=False, visible=False)
    event = gr.on(
        [button.click, controls["prompt"].submit],
        make_endpoint(service, jobs),
        None,
        [gallery, files],
        inputs_kwargs=controls,
        api_name="paint",
        show_progress_on=gallery,
        scroll_to_output=True,
        **ONE_AT_A_TIME,
    )
    event.success(lambda: gr.File(visible=True), None, files, **PRIVATE)
    return event, cancel


def add_t2i_controls() -> dict[str, Any]:
    """Add the fields of the options.

    returns: argument of /paint -> field, in the order of the arguments
    """
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
    controls = {"prompt": prompt, "size": size, "count": count, "seed": seed, "truncation": truncation}
    return controls | {"style_prompt": style_prompt, "mix_at": mix_at, "to": to, "frames": frames}


def make_endpoint(service: T2IService[O], jobs: Jobs) -> Callable[..., Any]:
    """Make the endpoint.

    The HTTP API shows the docstring of `run` and the names of the controls.
    """
    gr = import_gradio()

    async def run(
        request: gr.Request,  # type: ignore[name-defined]
        progress: Any = gr.Progress(),  # noqa: B008
        **values: Any,
    ) -> tuple[list[str], list[str]]:
        """Generate images of a prompt, mixed with a style prompt or leading to another one where they are given.

        Gives previews, and the pictures' files in full quality.
        """
        with report_errors_on_page():
            if not (values["prompt"] or "").strip():
                raise ValueError("prompt: expected what to generate, got nothing; describe the picture")
            options = page_options(service.kind, values)

            def work(notify: ReportProgress) -> tuple[list[str], list[str]]:
                with new_folder() as folder:
                    paths = service.generate(options, folder, notify)
                    return [preview_large(path, folder) for path in paths], [str(path) for path in paths]

            return await jobs.run(request.session_hash, work, lambda share, what: progress(share, desc=what))

    return run
