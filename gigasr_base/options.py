"""Options of text to image.

The command, the page and the metadata derive from the fields.
"""

from dataclasses import dataclass

from gigasr.options import MAX_SEED, Options, Precision, UpscaleOptions, check_seed, option
from gigasr.sizes import parse_box


@dataclass(frozen=True)
class T2IOptions(Options):
    """All options of text to image."""

    prompt: str = option("", "What the picture shows.", advice="'' says nothing")
    size: str = option("512", "Side in px, 1k, 2k, 4k, or WIDTHxHEIGHT (cut from a square).", advice="'512' is a side")
    count: int = option(
        1, "Pictures per prompt, with a contact sheet.", (1, None), advice="each has a seed of its own", short="-c"
    )
    seed: int = option(0, "Of each prompt's first picture; further ones add 1.", (0, MAX_SEED), check=check_seed)
    truncation: float = option(
        1.0, "Lower is safer; 1 is off.", (0, 1), advice="1 leaves the variety as it is", is_noted=True
    )
    style_prompt: str | None = option(None, "Prompt for the finer levels and the upsampler.", is_noted=True)
    mix_at: int = option(
        16,
        "Size in px from which levels follow it.",
        (1, None),
        advice="the finest level has the model's size",
        needs="style_prompt",
        is_noted=True,
    )
    to: str | None = option(
        None,
        "Interpolate to this prompt: numbered pictures, or an animation if -o is .webp, .gif or .avif.",
        is_noted=True,
    )
    frames: int = option(
        16, "Number of frames with --to.", (2, None), advice="the prompts themselves are two", needs="to"
    )
    model: str = option("base_lite", "Bundled name or weights file.", short="-n")
    upsampler: str = option(UpscaleOptions.model, "For sizes above the model's own.")
    device: str = option("auto", "auto, cpu, cuda, cuda:1, mps.", short="-g")
    precision: Precision = option("auto", "Of the networks' arithmetic.")
    overwrite: bool = option(False, "Replace files that exist.")

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_box(self.size)
        check_seed(self.seed + self.count - 1)
        if self.to is not None and (self.style_prompt is not None or self.count > 1):
            raise ValueError(
                "to: expected one prompt to lead to, got a style prompt or several pictures; leave one out"
            )

    @property
    def box(self) -> tuple[int, int]:
        """Size of the pictures, (height, width) in px."""
        return parse_box(self.size)

    @property
    def number(self) -> int:
        """Number of pictures per prompt."""
        return self.count if self.to is None else self.frames
