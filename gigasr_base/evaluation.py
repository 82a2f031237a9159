"""Evaluate base models over truncations: FID to real images, CLIP score, sheets."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor
from torchvision.utils import make_grid

from gigasr.data.captions import Sample
from gigasr.files.images import load_rgb
from gigasr.metrics import ClipScore, FeatureSet, FrozenFeatures
from gigasr.networks.ops import resize
from gigasr.options import check_seed
from gigasr.pixels import to_uint8
from gigasr_base.metrics import hit_rate, nearest
from gigasr_base.pipeline import TextToImage

SHEET = 64  # images on a sheet


@dataclass
class BaseEvaluation:
    """The results of an evaluation; a row is a base model at a truncation.

    table:  row -> metric -> value
    images: row -> image -> metric -> value
    sheets: row -> the first SHEET images, uint8 [3, H, W]
    """

    table: dict[str, dict[str, float]] = field(default_factory=dict)
    images: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    sheets: dict[str, Tensor] = field(default_factory=dict)


def evaluate_base(
    base_models: dict[str, TextToImage],
    samples: Mapping[str, Sample],
    truncations: Sequence[float],
    seed: int,
    features: FrozenFeatures | None,
    clip: ClipScore | None,
    progress: Callable[[int], None],
) -> BaseEvaluation:
    """Evaluate base models on the first captions of samples, at every truncation.

    FID compares with the samples' images, cut square and resized to the model's size.

    samples:  real images with captions, by name
    seed:     of the first sample; every further sample adds 1
    features: of FID; None = without FID and retrieval
    progress: called after each image with the number of all images
    """
    check_seed(seed + len(samples) - 1)
    found = BaseEvaluation()
    for name, base_model in base_models.items():
        real = FeatureSet(features)
        for sample in samples.values():
            real.add(load_real(sample, base_model.size))
        for truncation in truncations:
            fake, rows, images = FeatureSet(features), [], []
            for number, sample in enumerate(samples.values()):
                prompt, began = sample.captions[0], time.perf_counter()
                image = base_model.generate([prompt], [seed + number], truncation)[0]
                rows.append({"seconds": time.perf_counter() - began})
                if clip is not None:
                    rows[-1]["clip"] = clip(image, prompt)
                fake.add(image)
                images.append(image)
                progress(len(base_models) * len(truncations) * len(samples))
            label = f"{name}, truncation {truncation:g}"
            found.images[label] = dict(zip(samples, rows, strict=True))
            means = {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}
            found.table[label] = {"truncation": truncation} | fake.distances(real) | retrieval(fake, real) | means
            found.sheets[label] = to_uint8(make_grid(images[:SHEET], nrow=16, pad_value=1.0))
    return found


def retrieval(fake: FeatureSet, real: FeatureSet) -> dict[str, float]:
    """Compute how often the five nearest real images include the caption's own.

    returns: {"retrieval": share of the generated images}; empty without features
    """
    if fake.features is None:
        return {}
    names = [str(i) for i in range(len(real.whole))]
    found = nearest(torch.cat(fake.whole), torch.cat(real.whole), min(5, len(names)))
    return {"retrieval": hit_rate(found, names, names)}


def load_real(sample: Sample, size: int) -> Tensor:
    """Read the middle square of an image -> [3, size, size] in [0, 1].

    Transparent parts become white.
    """
    image = pil_to_tensor(load_rgb(sample.path)) / 255
    side = min(image.shape[1:])
    top, left = ((length - side) // 2 for length in image.shape[1:])
    square = image[:, top : top + side, left : left + side]
    return resize(square[None], (size, size))[0].clamp(0, 1)
