"""The web page and its HTTP API: upscale a picture, generate images from text.

Needs the extra gigasr[ui].
"""

from typing import Any

from gigasr.ui.jobs import Jobs
from gigasr.ui.parts import import_gradio
from gigasr.ui.t2i_tab import T2IService, add_t2i_tab
from gigasr.ui.upscale_tab import add_upscale_tab
from gigasr.ui.upscaler import RequestLimits, Upscaler

CSS = """
.gradio-container { max-width: 1240px !important; width: 100%; margin: auto }
.head h1 { margin: 0; letter-spacing: -.02em } .head p { color: var(--body-text-color-subdued); margin: 0 }
.presets label { padding: 6px 13px } .presets label input { position: absolute; opacity: 0; pointer-events: none }
.presets label:focus-within { outline: 2px solid var(--primary-400) } .presets label span { margin: 0 }
"""
COLOURS = {  # of the theme
    "body_background_fill": "*neutral_50",
    "body_background_fill_dark": "*neutral_950",
    "block_title_background_fill": "none",
    "block_title_text_color": "*body_text_color",
    "block_title_padding": "0",
    "block_label_background_fill": "*block_background_fill",
    "block_label_background_fill_dark": "*block_background_fill",
    "block_label_text_color": "*body_text_color_subdued",
    "block_label_text_color_dark": "*body_text_color_subdued",
    "button_primary_background_fill": "*primary_600",
    "button_primary_background_fill_hover": "*primary_700",
}


def build(upscaler: Upscaler, t2i: T2IService[Any] | None, why_not: str = "") -> Any:
    """Build the page: gradio's Blocks, served by launch(**launch_options(...)).

    t2i:     None = the second tab shows `why_not`
    why_not: Markdown, the reason for the missing tab
    """
    gr = import_gradio()
    jobs = Jobs()

    def stop(request: gr.Request) -> None:  # type: ignore[name-defined]
        """Stop what this session has asked for."""
        jobs.stop(request.session_hash)

    with gr.Blocks(title="gigasr", analytics_enabled=False, delete_cache=(3600, 24 * 3600)) as page:
        gr.Markdown("# gigasr\nEnlarges pictures in one pass, guided by text.", elem_classes="head")
        with gr.Tab("Upscale"):
            work, cancel = add_upscale_tab(upscaler, jobs)
            cancel.click(stop, cancels=[work], api_name="stop", queue=False)
        with gr.Tab("Text to image"):
            if t2i is None:
                gr.Markdown(why_not)
            else:
                work, cancel = add_t2i_tab(t2i, jobs)
                cancel.click(stop, cancels=[work], api_visibility="private", queue=False)
        page.unload(stop)
    page.queue(max_size=64)
    return page


def launch_options(limits: RequestLimits) -> dict[str, Any]:
    """Make the page's options of launch(): theme, CSS, limit of uploads.

    Fonts are the system's: the page loads nothing from other hosts.
    """
    gr = import_gradio()
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    theme = gr.themes.Soft(primary_hue="teal", secondary_hue="teal", neutral_hue="slate", **fonts).set(**COLOURS)
    looks = {"theme": theme, "css": CSS, "footer_links": ["api"]}
    return {"max_file_size": limits.upload_mb * 1_000_000, "ssr_mode": False, **looks}
