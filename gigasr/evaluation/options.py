"""Options of an evaluation, and the words that some options accept."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gigasr.options import Options, UpscaleOptions, option

LowResKind = Literal["bicubic", "matlab", "blur", "noise", "jpeg", "resize", "blind"]
LpipsNet = Literal["squeeze", "alex", "vgg"]
Prompts = Literal["right", "none", "wrong"]  # an image's first caption, nothing, or the caption of another image

DEGRADED: tuple[LowResKind, ...] = ("blur", "noise", "jpeg", "resize", "blind")
SHOWN_METRICS = ("psnr_y", "ssim_y", "lpips", "lr_psnr", "seconds")  # by default
MORE_METRICS = ("niqe", "spectrum_error", "peak_mb")


@dataclass(frozen=True)
class EvalOptions(Options):
    """All options of an evaluation."""

    models: tuple[str, ...]
    data: Path
    upscale: UpscaleOptions = UpscaleOptions()  # of the models; the seed also draws inputs and wrong prompts
    split: str | None = option(None, "Only this split of captions.jsonl.")
    scale: int = option(8, "Factor by which the images are reduced.", (2, 64), short="-s")
    low_res: tuple[str, ...] = ("bicubic",)  # kinds, and folders of given inputs
    prompts: tuple[Prompts, ...] = ("right",)
    given: tuple[str, ...] = ()  # texts that replace `prompts`
    square: int | None = option(
        None, "Take the middle squares, reduced to this side in px; smaller images are left out.", (8, None)
    )
    metrics: tuple[str, ...] = SHOWN_METRICS
    lpips: LpipsNet = option("squeeze", "Network of LPIPS.")
    lpips_features: Path | None = None
    fid: str | None = option(
        None, "FID and patch-FID: inception (downloaded), or a file of its or SqueezeNet's weights."
    )
    clip: str | None = option(
        None, "CLIP score: MODEL:TAG (downloaded) or MODEL:FILE of open_clip, e.g. ViT-B-32:openai."
    )
    truncations: tuple[float, ...] = (1.0, 0.8, 0.6, 0.4, 0.2)  # of base models
    report: Path | None = None
    cases: int = option(8, "Worst images in the report.", (0, None))
    json_file: Path | None = None
    save: Path | None = None  # folder
