"""Compare models on a folder of high-res images: figures per image, per set and per model."""

import glob
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from gigasr.cases import Case, Worst
from gigasr.clip_score import ClipScore
from gigasr.data import Sample
from gigasr.frechet import FeatureSet, FrozenFeatures
from gigasr.image_writer import write_image
from gigasr.images import Picture, is_image_file, read_image
from gigasr.low_res import Kind, make_low_res, reduce_matlab
from gigasr.meter import Meter
from gigasr.metrics import (
    NIQE_BLOCK,
    Lpips,
    crop_to_multiple,
    lpips_distance,
    lr_psnr,
    niqe,
    psnr_y,
    spectrum_error,
    ssim_y,
)
from gigasr.pipeline import SuperResolver

FILTERS = {"lanczos": "LANCZOS", "bicubic": "BICUBIC"}  # what may stand in the place of a model -> PIL's name
Enlarge = Callable[[str, Tensor, str], Tensor]  # name, low-res [3, h, w] in [0, 1], prompt -> [3, scale h, scale w]


@dataclass(frozen=True)
class Protocol:
    """What all models get, and where they run."""

    scale: int = 8
    low_res: Kind = "bicubic"
    seed: int = 0  # of the networks and of blind degradations
    device: str = "auto"
    precision: str = "auto"


@dataclass(frozen=True)
class Judges:
    """The networks and packages that judge; what is None or False is left out."""

    lpips: Lpips | None = None
    features: FrozenFeatures | None = None  # of FID and patch-FID
    clip: ClipScore | None = None
    has_niqe: bool = True


@dataclass
class Evaluation:
    """What was found: figures by model and image, figures by model alone, and the worst cases of the first model."""

    images: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    sets: dict[str, dict[str, float]] = field(default_factory=dict)
    cases: list[Case] = field(default_factory=list)

    def table(self) -> dict[str, dict[str, float]]:
        """Model -> figure -> mean over the images that have it; of seconds the median, of memory the peak."""
        return {model: summarise(rows.values()) | self.sets[model] for model, rows in self.images.items()}


def summarise(rows: Iterable[dict[str, float]]) -> dict[str, float]:
    """One row from those of the images; what is not a number is left out."""
    columns: dict[str, list[float]] = {}
    for name, value in ((name, value) for row in rows for name, value in row.items() if not math.isnan(value)):
        columns.setdefault(name, []).append(value)
    kinds: dict[str, Callable[[list[float]], float]] = {"seconds": statistics.median, "peak_mb": max}
    return {name: kinds.get(name, statistics.fmean)(values) for name, values in columns.items()}


def load_enlarger(model: str, protocol: Protocol) -> Enlarge:
    """A model, an interpolation by name, or a folder of results that were made elsewhere, as a function."""
    if any(is_image_file(path) for path in Path(model).rglob("*")):
        return partial(read_result, Path(model))
    if model in FILTERS:
        return lambda name, low_res, prompt: interpolate(low_res, protocol.scale, FILTERS[model])
    resolver = SuperResolver.from_pretrained(model, protocol.device, protocol.precision)
    scale, seed = protocol.scale, protocol.seed
    return lambda name, low_res, prompt: resolver.upscale(Picture(low_res), prompt, scale=scale, seed=seed).rgb


def read_result(folder: Path, name: str, low_res: Tensor, prompt: str) -> Tensor:
    """Read a result of the same name as the high-res image, whatever its format: [3, H, W] in [0, 1]."""
    place = (folder / name).parent
    found = [path for path in sorted(place.glob(f"{glob.escape(Path(name).stem)}.*")) if is_image_file(path)]
    if not found:
        raise ValueError(f"{folder}: expected a result for {name}, got none; name results as the high-res images")
    return read_image(found[0]).rgb


def interpolate(low_res: Tensor, scale: int, name: str) -> Tensor:
    """low_res: [3, h, w] in [0, 1] -> [3, h * scale, w * scale], by one of PIL's filters"""
    import numpy as np
    from PIL import Image

    image = Image.fromarray((low_res * 255).round().byte().permute(1, 2, 0).numpy())
    enlarged = image.resize((image.width * scale, image.height * scale), Image.Resampling[name])
    return torch.from_numpy(np.asarray(enlarged).copy()).permute(2, 0, 1) / 255


def evaluate_pair(
    result: Tensor, truth: Tensor, low_res: Tensor, protocol: Protocol, judges: Judges, prompt: str = ""
) -> dict[str, float]:
    """Give the figures of one result by name.

    result:  [3, H, W]  the super-resolved image, in [0, 1]
    truth:   [3, H, W]  the high-res image, in [0, 1]
    low_res: [3, H / scale, W / scale]  what the result was made from, in [0, 1]
    returns: psnr_y and ssim_y (with a border of `scale` px), lpips, niqe (where two of its blocks fit), spectrum_error,
             lr_psnr (unless the input was degraded blindly), clip (where there is a prompt)
    """
    scale = protocol.scale
    figures = {"psnr_y": psnr_y(result, truth, scale), "ssim_y": ssim_y(result, truth, scale)}
    if judges.lpips is not None:
        figures["lpips"] = lpips_distance(result, truth, judges.lpips)
    if judges.has_niqe and (result.shape[1] // NIQE_BLOCK) * (result.shape[2] // NIQE_BLOCK) >= 2:
        figures["niqe"] = niqe(result)
    figures["spectrum_error"] = spectrum_error(result, truth)
    if protocol.low_res != "blind":
        figures["lr_psnr"] = lr_psnr(result, low_res, scale, reduce_matlab if protocol.low_res == "matlab" else None)
    if judges.clip is not None and prompt:
        figures["clip"] = judges.clip(result, prompt)
    return figures


def evaluate_models(
    models: Sequence[str],
    samples: Mapping[str, Sample],
    protocol: Protocol,
    judges: Judges,
    progress: Callable[[int], None],
    num_cases: int = 0,
    save: Path | None = None,
) -> Evaluation:
    """Evaluate every model on the same low-res inputs.

    samples:   high-res images by name; the first caption of each is its prompt
    num_cases: how many of the first model's worst images are kept as crops
    save:      folder for the results, as MODEL/NAME.png
    """
    found, worst = Evaluation(), Worst(num_cases)
    truths, results = FeatureSet(judges.features), FeatureSet(judges.features)
    for model in models:
        enlarge, meter = load_enlarger(model, protocol), Meter(protocol.device)
        rows = found.images.setdefault(model, {})
        results.clear()
        for name, sample in samples.items():
            truth = crop_to_multiple(read_image(sample.path).rgb, protocol.scale)
            low_res = make_low_res(truth, protocol.scale, protocol.low_res, protocol.seed, name)
            prompt = sample.captions[0]
            result, cost = meter.run(partial(enlarge, name, low_res, prompt))
            rows[name] = evaluate_pair(result, truth, low_res, protocol, judges, prompt) | cost
            results.add(result)
            if len(found.images) == 1:
                truths.add(truth)
            worst.offer(model, name, prompt, rows[name], (result, truth, low_res))
            if save is not None:
                target = (save / Path(model).stem / name).with_suffix(".png")
                target.parent.mkdir(parents=True, exist_ok=True)
                write_image(target, Picture(result))
            progress(len(models) * len(samples))
        found.sets[model] = results.distances(truths)
    found.cases = list(worst.cases.values())
    return found
