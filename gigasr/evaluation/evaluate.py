"""Compare models on a folder of high-res images: figures per image, per set and per model."""

import math
import statistics
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from torch import Tensor

from gigasr.data.captions import Sample
from gigasr.evaluation.cases import INPUT, TRUTH, Case, Worst
from gigasr.evaluation.enlargers import Enlarge, check_models, load_enlarger, short_names
from gigasr.evaluation.low_res import GROUPS, make_low_res, reduce_matlab
from gigasr.evaluation.meter import Meter
from gigasr.evaluation.protocol import Protocol, choose_prompts, find_usable, load_truth
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
    psnr_y,
    spectrum_error,
    ssim_y,
)
from gigasr.metrics.ops import NUM_RINGS


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

    def leave_out(self, names: Collection[str]) -> None:
        """Drop some figures of the images."""
        self.images = {
            model: {image: {name: row[name] for name in row if name not in names} for image, row in rows.items()}
            for model, rows in self.images.items()
        }

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


def evaluate_pair(
    result: Tensor, truth: Tensor, low_res: Tensor, protocol: Protocol, judges: Judges, caption: str = ""
) -> dict[str, float]:
    """Give the figures of one result by name.

    result:  [3, H, W]  the super-resolved image, in [0, 1]
    truth:   [3, H, W]  the high-res image, in [0, 1]
    low_res: [3, H / scale, W / scale]  what the result was made from, in [0, 1]
    returns: psnr_y and ssim_y (with a border of `scale` px), lpips, niqe (where two of its blocks fit), spectrum_error
             (from 64 px a side), lr_psnr (unless the input was degraded), clip (where there is a caption)
    """
    scale = protocol.scale
    figures = {"psnr_y": psnr_y(result, truth, scale), "ssim_y": ssim_y(result, truth, scale)}
    if judges.lpips is not None:
        figures["lpips"] = lpips_distance(result, truth, judges.lpips)
    if judges.has_niqe and (result.shape[1] // NIQE_BLOCK) * (result.shape[2] // NIQE_BLOCK) >= 2:
        figures["niqe"] = niqe(result)
    if min(truth.shape[1:]) >= 2 * NUM_RINGS:
        figures["spectrum_error"] = spectrum_error(result, truth)
    if protocol.low_res not in GROUPS:
        figures["lr_psnr"] = lr_psnr(result, low_res, scale, reduce_matlab if protocol.low_res == "matlab" else None)
    if judges.clip is not None and caption:
        figures["clip"] = judges.clip(result, caption)
    return figures


def evaluate_models(
    models: Sequence[str],
    samples: Mapping[str, Sample],
    protocols: Mapping[str, Protocol],
    judges: Judges,
    progress: Callable[[int], None],
    num_cases: int = 0,
    save: Path | None = None,
) -> Evaluation:
    """Evaluate every model on the same low-res inputs.

    samples:   high-res images by name; their first captions are the prompts
    protocols: by the name that tells their rows apart, "" for a single one; they differ in low_res and prompts alone
    num_cases: how many of the first model's worst images are kept as crops
    save:      folder for the results, as MODEL/NAME.png or MODEL/PROTOCOL/NAME.png, with MODEL as of `short_names`
    """
    check_names(models, samples, has_files=save is not None)
    check_models(models, samples)
    models, samples = list(dict.fromkeys(models)), find_usable(samples, next(iter(protocols.values())))
    found, worst = Evaluation(), Worst(num_cases)
    truths, results = FeatureSet(judges.features), FeatureSet(judges.features)
    total, folders = len(models) * len(protocols) * len(samples), short_names(models)
    for model in models:
        enlarge = load_enlarger(model, next(iter(protocols.values())))
        for which, protocol in protocols.items():
            rows = found.images.setdefault(label(model, which), {})
            results.clear()
            for name, prompt, pictures, cost in enlarge_all(enlarge, samples, protocol):
                caption = samples[name].captions[0]
                try:
                    rows[name] = evaluate_pair(*pictures, protocol, judges, caption) | cost
                except ValueError as error:
                    raise ValueError(f"{samples[name].path}: {error}") from None
                results.add(pictures[0])
                if len(found.images) == 1:
                    truths.add(pictures[1])
                worst.offer(label(model, which), label(INPUT, which), name, prompt, rows[name], pictures)
                if save is not None:
                    target = (save / folders[model] / which / name).with_suffix(".png")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    write_image(target, Picture(pictures[0]))
                progress(total)
            found.sets[label(model, which)] = results.distances(truths)
    found.images = {row: found.images[row] for row in (label(model, which) for which in protocols for model in models)}
    found.cases = list(worst.cases.values())
    return found


def check_names(models: Sequence[str], samples: Mapping[str, Sample], has_files: bool) -> None:
    """Raise ValueError where two crops of the report, or two files of results, would have one name."""
    if taken := {INPUT, TRUTH}.intersection(models):
        raise ValueError(f"{taken.pop()}: expected another name for a model, got that of a crop; give it as ./NAME")
    stems: dict[Path, str] = {}
    for name in samples if has_files else ():
        other = stems.setdefault(Path(name).with_suffix(""), name)
        if other != name:
            raise ValueError(f"save: expected images that differ in more than their endings, got {other} and {name}")


def label(name: str, which: str) -> str:
    """A row's name in tables: of a model and a protocol, or of the model alone."""
    return f"{name}, {which}" if which else name


def enlarge_all(
    enlarge: Enlarge, samples: Mapping[str, Sample], protocol: Protocol
) -> Iterator[tuple[str, str, tuple[Tensor, Tensor, Tensor], dict[str, float]]]:
    """Name, prompt, pictures (the result, the truth and the low-res input) and cost, image by image."""
    prompts, meter = choose_prompts(samples, protocol), Meter(protocol.device)
    for name, sample in samples.items():
        truth = load_truth(sample.path, protocol)
        low_res = make_low_res(truth, protocol.scale, protocol.low_res, protocol.seed, name)
        result, cost = meter.run(partial(enlarge, name, low_res, prompts[name]))
        yield name, prompts[name], (result, truth, low_res), cost
