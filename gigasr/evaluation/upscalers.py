"""The compared upscalers: models, interpolations, folders of given results."""

import glob
import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from gigasr.evaluation.settings import EvalSettings
from gigasr.files.formats import is_image_file
from gigasr.files.images import read_image
from gigasr.files.picture import Picture, on_white
from gigasr.models.hub import weights_among
from gigasr.models.zoo import bundled_models, find_model
from gigasr.pipeline import SuperResolver
from gigasr.pixels import to_uint8

INTERPOLATIONS = {"lanczos": "LANCZOS", "bicubic": "BICUBIC"}  # names accepted as models -> PIL's filters
# name, low-res [3, h, w] in [0, 1], prompt -> [3, scale h, scale w]
UpscaleFunction = Callable[[str, Tensor, str], Tensor]


def load_upscaler(model: str, settings: EvalSettings) -> UpscaleFunction:
    """Return a model, an interpolation or a folder of results as a function.

    A folder with weights is a model. A folder named like a bundled model or an interpolation is given as ./NAME.
    """
    if is_result_folder(model):
        return partial(read_result, Path(model))
    if model in INTERPOLATIONS:
        return lambda name, low_res, prompt: interpolate(low_res, settings.scale, INTERPOLATIONS[model])
    options = replace(settings.upscale, model=model, scale=settings.scale)
    resolver = SuperResolver.from_options(options)

    def upscale(name: str, low_res: Tensor, prompt: str) -> Tensor:
        return resolver.strips(Picture(low_res), replace(options, prompt=prompt)).join().rgb

    return upscale


def is_result_folder(model: str) -> bool:
    """Tell whether a name means a folder of results.

    A folder with weights is a model, even with images inside: a training saves samples beside the weights.
    """
    folder = Path(model)
    if model in (*INTERPOLATIONS, *bundled_models()):
        return False
    is_model = folder.is_dir() and weights_among(path.name for path in folder.iterdir())
    return not is_model and any(is_image_file(path) for path in folder.rglob("*"))


def read_result(folder: Path, name: str, low_res: Tensor, prompt: str) -> Tensor:
    """Read the result for an image from a folder -> [3, H, W] in [0, 1]."""
    return on_white(read_image(find_result(folder, name))).rgb


def find_result(folder: Path, name: str, kind: str = "result") -> Path:
    """Find the file with the name of the high-res image, if need be in another format.

    Raises ValueError unless exactly one file fits.

    kind: word for the file in the error
    """
    exact = folder / name
    alike = (path for path in sorted(exact.parent.glob(f"{glob.escape(exact.stem)}.*")) if path.stem == exact.stem)
    found = [exact] if exact.is_file() else [path for path in alike if is_image_file(path)]
    if len(found) != 1:
        names = " and ".join(path.name for path in found) or "none"
        raise ValueError(f"{folder}: expected one {kind} for {name}, got {names}; name {kind}s as the high-res images")
    return found[0]


def interpolate(low_res: Tensor, scale: int, name: str) -> Tensor:
    """Resize by a filter of PIL: [3, h, w] in [0, 1] -> [3, h * scale, w * scale]."""
    import numpy as np
    from PIL import Image

    image = Image.fromarray(to_uint8(low_res).permute(1, 2, 0).numpy())
    upscaled = image.resize((image.width * scale, image.height * scale), Image.Resampling[name])
    return torch.from_numpy(np.asarray(upscaled).copy()).permute(2, 0, 1) / 255


def check_models(models: Sequence[str], samples: Iterable[str]) -> None:
    """Raise ValueError for a missing model or result.

    The check precedes the first model: a long run must not fail late.
    """
    for model in models:
        if is_result_folder(model):
            for name in samples:
                find_result(Path(model), name)
        elif model not in INTERPOLATIONS:
            find_model(model)


def unique_labels(models: Sequence[str]) -> dict[str, str]:
    """Return a unique folder name per model: its file name without the extension.

    Parent folders prefix the names if the file names agree. The extension stays only if nothing else distinguishes two
    models.
    """
    paths = {model: Path(model) for model in models}
    parts = {model: (path if path.name.strip(".") else path.resolve()).parts for model, path in paths.items()}
    depths = range(1, max(map(len, parts.values())) + 1)
    for cut, depth in itertools.product((lambda path: path.with_suffix(""), Path), depths):
        names = {model: "-".join(cut(Path(*each[-depth:])).parts).strip(os.sep) for model, each in parts.items()}
        if len(set(names.values())) == len(names):
            break
    return names
