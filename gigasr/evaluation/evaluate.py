"""Compare models on high-res images: metrics per image, per set and per model."""

import math
import re
import statistics
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from torch import Tensor

from gigasr.data.captions import Sample
from gigasr.evaluation.given import check_inputs, load_low_res
from gigasr.evaluation.low_res import DEGRADATIONS, downsample_matlab
from gigasr.evaluation.meter import ResourceMeter
from gigasr.evaluation.settings import EvalSettings, choose_prompts, find_usable, load_truth
from gigasr.evaluation.upscalers import UpscaleFunction, check_models, load_upscaler, unique_labels
from gigasr.evaluation.worst_cases import INPUT, TRUTH, WorstCase, WorstCases
from gigasr.files.image_writer import write_image
from gigasr.files.picture import Picture
from gigasr.metrics import (
    NIQE_BLOCK,
    ClipScore,
    FeatureSet,
    FrozenFeatures,
    Lpips,
    lpips_distance,
    lr_psnr,
    niqe,
    pooled_psnr,
    psnr_y,
    spectrum_error,
    ssim_y,
)
from gigasr.metrics.ops import NUM_RINGS


@dataclass(frozen=True)
class MetricModels:
    """The networks and packages of the metrics; None or False leaves a metric out."""

    lpips: Lpips | None = None
    features: FrozenFeatures | None = None  # of FID and patch-FID
    clip: ClipScore | None = None
    has_niqe: bool = True


@dataclass
class Evaluation:
    """The results of an evaluation.

    images: row (model and settings) -> image -> metric -> value
    sets:   row -> metric -> value over all images
    cases:  the worst images of the first model
    """

    images: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    sets: dict[str, dict[str, float]] = field(default_factory=dict)
    cases: list[WorstCase] = field(default_factory=list)

    def leave_out(self, names: Collection[str]) -> None:
        """Drop some metrics of the images."""
        self.images = {
            model: {image: {name: row[name] for name in row if name not in names} for image, row in rows.items()}
            for model, rows in self.images.items()
        }
        self.sets = {
            model: {name: value for name, value in row.items() if name not in names} for model, row in self.sets.items()
        }

    def table(self) -> dict[str, dict[str, float]]:
        """Summarise each row: metric -> mean over the images with a value.

        Seconds give the median, memory gives the peak. LR-PSNR is pooled over all images: a mean of decibels would be
        infinite as soon as one image is exact.
        """
        return {model: summarise(rows.values()) | self.sets[model] for model, rows in self.images.items()}


def summarise(rows: Iterable[dict[str, float]]) -> dict[str, float]:
    """Summarise the metrics of images in one row; NaN values are left out."""
    columns: dict[str, list[float]] = {}
    for name, value in ((name, value) for row in rows for name, value in row.items() if not math.isnan(value)):
        columns.setdefault(name, []).append(value)
    kinds: dict[str, Callable[[list[float]], float]] = {"seconds": statistics.median, "peak_mb": max}
    return {name: kinds.get(name, statistics.fmean)(values) for name, values in columns.items()}


def evaluate_pair(
    result: Tensor,
    truth: Tensor,
    low_res: Tensor,
    settings: EvalSettings,
    metric_models: MetricModels,
    caption: str = "",
) -> dict[str, float]:
    """Compute the metrics of one result, by name.

    result:  [3, H, W]  the super-resolved image, in [0, 1]
    truth:   [3, H, W]  the high-res image, in [0, 1]
    low_res: [3, H / scale, W / scale]  the input of the result, in [0, 1]
    returns: psnr_y and ssim_y (with a border of `scale` px), lpips, niqe (if two of its blocks fit), spectrum_error
             (from 64 px a side), lr_psnr (unless we degraded the input), clip (if there is a caption)
    """
    scale = settings.scale
    metrics = {"psnr_y": psnr_y(result, truth, scale), "ssim_y": ssim_y(result, truth, scale)}
    if metric_models.lpips is not None:
        metrics["lpips"] = lpips_distance(result, truth, metric_models.lpips)
    if metric_models.has_niqe and (result.shape[1] // NIQE_BLOCK) * (result.shape[2] // NIQE_BLOCK) >= 2:
        metrics["niqe"] = niqe(result)
    if min(truth.shape[1:]) >= 2 * NUM_RINGS:
        metrics["spectrum_error"] = spectrum_error(result, truth)
    if settings.low_res not in DEGRADATIONS:
        metrics["lr_psnr"] = lr_psnr(
            result, low_res, scale, downsample_matlab if settings.low_res == "matlab" else None
        )
    if metric_models.clip is not None and caption:
        metrics["clip"] = metric_models.clip(result, caption)
    return metrics


def evaluate_models(
    models: Sequence[str],
    samples: Mapping[str, Sample],
    settings_by_label: Mapping[str, EvalSettings],
    metric_models: MetricModels,
    progress: Callable[[int], None],
    num_cases: int = 0,
    save: Path | None = None,
) -> Evaluation:
    """Evaluate every model on the same low-res inputs.

    samples:   high-res images by name; their first captions are the prompts
    settings_by_label: the settings of each row, "" for a single row; low_res, prompts and a given prompt may differ
    num_cases: number of the first model's worst images to keep as crops
    save:      folder for the results, as MODEL/NAME.png or MODEL/LABEL/NAME.png, with MODEL as of `unique_labels` and
               LABEL as of `folder_names`
    """
    check_names(models, samples, has_files=save is not None)
    check_models(models, samples)
    models, samples = list(dict.fromkeys(models)), find_usable(samples, next(iter(settings_by_label.values())))
    check_inputs(samples, settings_by_label.values())
    found, worst = Evaluation(), WorstCases(num_cases)
    truths, results = FeatureSet(metric_models.features), FeatureSet(metric_models.features)
    folders, subfolders = unique_labels(models), folder_names(settings_by_label)
    total = len(models) * len(settings_by_label) * len(samples)
    for model in models:
        upscale = load_upscaler(model, next(iter(settings_by_label.values())))
        for which, settings in settings_by_label.items():
            rows = found.images.setdefault(label(model, which), {})
            lr_psnrs: list[tuple[float, int]] = []  # dB and pixels of each image
            results.clear()
            for name, prompt, pictures, cost in upscale_all(upscale, samples, settings):
                caption = samples[name].captions[0]
                try:
                    rows[name] = evaluate_pair(*pictures, settings, metric_models, caption) | cost
                except ValueError as error:
                    raise ValueError(f"{samples[name].path}: {error}") from None
                if "lr_psnr" in rows[name]:
                    lr_psnrs.append((rows[name]["lr_psnr"], pictures[2][0].numel()))
                results.add(pictures[0])
                if len(found.images) == 1:
                    truths.add(pictures[1])
                worst.update(label(model, which), label(INPUT, which), name, prompt, rows[name], pictures)
                if save is not None:
                    target = (save / folders[model] / subfolders[which] / name).with_suffix(".png")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    write_image(target, Picture(pictures[0]))
                progress(total)
            pooled = {"lr_psnr": pooled_psnr(lr_psnrs)} if lr_psnrs else {}
            found.sets[label(model, which)] = pooled | results.distances(truths)
    found.images = {
        row: found.images[row] for row in (label(model, which) for which in settings_by_label for model in models)
    }
    found.cases = list(worst.cases.values())
    return found


def check_names(models: Sequence[str], samples: Mapping[str, Sample], has_files: bool) -> None:
    """Raise ValueError if two crops of the report or two result files share a name."""
    if taken := {INPUT, TRUTH}.intersection(models):
        raise ValueError(f"{taken.pop()}: expected another name for a model, got that of a crop; give it as ./NAME")
    stems: dict[Path, str] = {}
    for name in samples if has_files else ():
        other = stems.setdefault(Path(name).with_suffix(""), name)
        if other != name:
            raise ValueError(f"save: expected images that differ in more than their endings, got {other} and {name}")


def folder_names(labels: Iterable[str]) -> dict[str, str]:
    """Return a unique folder name for every label.

    Characters that file systems refuse become "_"; equal names get a number.
    """
    names: dict[str, str] = {}
    for number, text in enumerate(labels, start=1):
        name = re.sub(r"[^\w ,+-]+", "_", text)[:64].strip(" _")
        while (text and not name) or name.casefold() in map(str.casefold, names.values()):
            name = f"{name} {number}".lstrip()
        names[text] = name
    return names


def label(name: str, which: str) -> str:
    """Return the name of a row: "model, settings", or the model alone."""
    return f"{name}, {which}" if which else name


def upscale_all(
    upscale: UpscaleFunction, samples: Mapping[str, Sample], settings: EvalSettings
) -> Iterator[tuple[str, str, tuple[Tensor, Tensor, Tensor], dict[str, float]]]:
    """Upscale the samples one by one and measure the cost.

    yields: name, prompt, pictures (result, truth, low-res input), cost (seconds and peak_mb)
    """
    prompts, meter = choose_prompts(samples, settings), ResourceMeter(settings.upscale.device)
    for name, sample in samples.items():
        truth = load_truth(sample.path, settings)
        low_res = load_low_res(name, truth, settings)
        result, cost = meter.run(partial(upscale, name, low_res, prompts[name]))
        yield name, prompts[name], (result, truth, low_res), cost
