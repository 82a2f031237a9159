"""The settings, images and prompts of an evaluation, the same for all models."""

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
    """The settings of one row of an evaluation, the same for all models."""

    scale: int = 8
    low_res: LowResKind | Path = "bicubic"  # kind of inputs, or the folder of given inputs
    prompts: Prompts | Literal["given"] = "right"  # given: the prompt of `upscale` for all images
    square: int | None = None  # px; the truth is the middle square of each image, resized to this side
    upscale: UpscaleOptions = UpscaleOptions()  # of the models; the seed also draws degradations and wrong prompts


def find_usable(samples: Mapping[str, Sample], settings: EvalSettings) -> dict[str, Sample]:
    """Select the samples with usable images.

    Logs a warning for every other sample. Raises ValueError if no sample is left.
    """
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
    """Read a high-res image -> [3, H, W] in [0, 1], H and W multiples of the scale.

    Transparent parts become white. Raises ValueError for an unreadable image or one too small for the metrics.
    """
    image = on_white(read_image(path)).rgb if settings.square is None else load_square(path, settings.square)
    truth, min_side = crop_to_multiple(image, settings.scale), max(LPIPS_SIDE, SSIM_WINDOW + 2 * settings.scale)
    if min(truth.shape[1:]) < min_side:
        raise ValueError(f"{path}: expected sides of at least {min_side} px, got {truth.shape[2]}x{truth.shape[1]}")
    return truth


def choose_prompts(samples: Mapping[str, Sample], settings: EvalSettings) -> dict[str, str]:
    """Choose the prompt of every image.

    Raises ValueError if wrong prompts are asked for and most captions are equal.
    """
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
