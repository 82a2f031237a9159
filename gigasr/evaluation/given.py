"""Low-res inputs from a folder; the files are named like the high-res images."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from gigasr.data.captions import Sample
from gigasr.evaluation.low_res import make_low_res
from gigasr.evaluation.settings import EvalSettings, load_truth
from gigasr.evaluation.upscalers import find_result
from gigasr.files.images import read_image
from gigasr.files.picture import on_white


def load_low_res(name: str, truth: Tensor, settings: EvalSettings) -> Tensor:
    """Read the low-res input of an image, or make it from the truth.

    name:    path of the image, relative to the data folder
    truth:   [3, H, W]  in [0, 1], multiples of the scale
    returns: [3, H / scale, W / scale]  in [0, 1]

    Raises ValueError for a file that is missing or of another size.
    """
    scale, source = settings.scale, settings.low_res
    if not isinstance(source, Path):
        return make_low_res(truth, scale, source, settings.upscale.seed, name)
    path = find_result(source, name, "input")
    low_res = on_white(read_image(path)).rgb
    height, width = truth.shape[1] // scale, truth.shape[2] // scale
    if low_res.shape[1:] != (height, width):
        raise ValueError(
            f"{path}: expected {width}x{height} px, 1/{scale} of its high-res image, "
            f"got {low_res.shape[2]}x{low_res.shape[1]} px; {advise(truth, low_res, scale)}"
        )
    return low_res


def advise(truth: Tensor, low_res: Tensor, scale: int) -> str:
    """Advise how to correct an input of a wrong size.

    truth: [3, H, W], low_res: [3, h, w]
    """
    factors = {round(large / small) for large, small in zip(truth.shape[1:], low_res.shape[1:], strict=True)}
    if len(factors) == 1 and (factor := factors.pop()) not in (scale, 1):
        return f"add --scale {factor}"
    return "make it from this image"


def check_inputs(samples: Mapping[str, Sample], settings_by_label: Iterable[EvalSettings]) -> None:
    """Raise ValueError for a given input that is missing or has another size.

    The check precedes the first model: a long run must not fail late.
    """
    for settings in settings_by_label:
        for name, sample in samples.items() if isinstance(settings.low_res, Path) else ():
            load_low_res(name, load_truth(sample.path, settings), settings)
