"""Settings of an evaluation, its images and prompts: the same for all models."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from gigasr.data.captions import Sample, shuffle_captions
from gigasr.evaluation.image_sets import load_square
from gigasr.evaluation.options import LowResKind, Prompts
from gigasr.files.images import read_image
from gigasr.files.picture import on_white
from gigasr.metrics import LPIPS_SIDE, crop_to_multiple
from gigasr.metrics.ops import SSIM_WINDOW
from gigasr.options import UpscaleOptions

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvalSettings:
    """What all models get, and where they run."""

    scale: int = 8
    low_res: LowResKind | Path = "bicubic"  # how inputs are made, or the folder of given ones
    prompts: Prompts | Literal["given"] = "right"  # given: that of `upscale`, for all images
    square: int | None = None  # px; the middle square of each image, brought to this side, is the truth
    upscale: UpscaleOptions = UpscaleOptions()  # of the models; its seed also draws degradations and wrong captions


def find_usable(samples: Mapping[str, Sample], settings: EvalSettings) -> dict[str, Sample]:
    """The samples whose images can be evaluated; each of the others is warned about, and none left is a ValueError."""
    usable = {}
    for name, sample in samples.items():
        try:
            load_truth(sample.path, settings)
        except (ValueError, OSError) as error:
            logger.warning("left out: %s", error)
        else:
            usable[name] = sample
    if not usable:
        raise ValueError("data: expected images that can be evaluated, got none; see the reasons above")
    return usable


def load_truth(path: Path, settings: EvalSettings) -> Tensor:
    """The high-res image, a multiple of the scale, what is transparent white: [3, H, W] in [0, 1]

    Raises ValueError where it can't be read or is too small for the metrics.
    """
    image = on_white(read_image(path)).rgb if settings.square is None else load_square(path, settings.square)
    truth, min_side = crop_to_multiple(image, settings.scale), max(LPIPS_SIDE, SSIM_WINDOW + 2 * settings.scale)
    if min(truth.shape[1:]) < min_side:
        raise ValueError(f"{path}: expected sides of at least {min_side} px, got {truth.shape[2]}x{truth.shape[1]}")
    return truth


def choose_prompts(samples: Mapping[str, Sample], settings: EvalSettings) -> dict[str, str]:
    """The prompt of every image."""
    captions = [sample.captions[0] for sample in samples.values()]
    if settings.prompts == "given":
        captions = [settings.upscale.prompt] * len(captions)
    elif settings.prompts == "none":
        captions = [""] * len(captions)
    elif settings.prompts == "wrong":
        order = shuffle_captions(captions, torch.Generator().manual_seed(settings.upscale.seed)).tolist()
        if any(captions[i] == own for i, own in zip(order, captions, strict=True)):
            raise ValueError("prompts: expected captions that differ, got the same for most images; leave 'wrong' out")
        captions = [captions[i] for i in order]
    return dict(zip(samples, captions, strict=True))
