"""Compare models on a folder of high-res images: figures per model, means over the images."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from gigasr.image_writer import write_image
from gigasr.images import Picture, read_image
from gigasr.metrics import (
    Lpips,
    crop_to_multiple,
    low_res_from,
    lpips_distance,
    lr_psnr,
    niqe,
    psnr_y,
    spectrum_error,
    ssim_y,
)
from gigasr.pipeline import SuperResolver

Enlarge = Callable[[Tensor, str], Tensor]  # low-res [3, h, w] in [0, 1], prompt -> [3, h * scale, w * scale]


def load_enlarger(name: str, scale: int, device: str) -> Enlarge:
    """A model, or an interpolation by name, as a function."""
    filters = {"lanczos": "LANCZOS", "bicubic": "BICUBIC"}
    if name in filters:
        return lambda low_res, prompt: interpolate(low_res, scale, filters[name])
    resolver = SuperResolver.from_pretrained(name, device)
    return lambda low_res, prompt: resolver.upscale(Picture(low_res), prompt, scale=scale).rgb


def interpolate(low_res: Tensor, scale: int, name: str) -> Tensor:
    """low_res: [3, h, w] in [0, 1] -> [3, h * scale, w * scale], by one of PIL's filters"""
    import numpy as np
    from PIL import Image

    image = Image.fromarray((low_res * 255).round().byte().permute(1, 2, 0).numpy())
    enlarged = image.resize((image.width * scale, image.height * scale), Image.Resampling[name])
    return torch.from_numpy(np.asarray(enlarged).copy()).permute(2, 0, 1) / 255


def evaluate_pair(result: Tensor, truth: Tensor, low_res: Tensor, scale: int, lpips: Lpips) -> dict[str, float]:
    """Give all figures of one result by name.

    result:  [3, H, W]  the super-resolved image, in [0, 1]
    truth:   [3, H, W]  the high-res image, in [0, 1]
    low_res: [3, H / scale, W / scale]  what the result was made from, in [0, 1]
    returns: psnr_y, ssim_y (both with a border of `scale` px), lpips, niqe, spectrum_error, lr_psnr
    """
    return {
        "psnr_y": psnr_y(result, truth, scale),
        "ssim_y": ssim_y(result, truth, scale),
        "lpips": lpips_distance(result, truth, lpips),
        "niqe": niqe(result),
        "spectrum_error": spectrum_error(result, truth),
        "lr_psnr": lr_psnr(result, low_res, scale),
    }


def evaluate_models(
    models: Sequence[str],
    paths: Sequence[Path],
    scale: int,
    lpips_features: Path | None,
    device: str,
    save: Path | None,
    progress: Callable[[int], None],
) -> dict[str, dict[str, float]]:
    """Evaluate every model on the same low-res inputs; returns model -> figure -> mean.

    A .txt file beside an image is its prompt. Results go to save/MODEL/NAME.png where save is given.
    """
    lpips = Lpips("squeeze", features=lpips_features)
    table = {}
    for model in models:
        enlarge = load_enlarger(model, scale, device)
        rows = []
        for path in paths:
            truth = crop_to_multiple(read_image(path).rgb, scale)
            low_res = low_res_from(truth, scale)
            caption = path.with_suffix(".txt")
            result = enlarge(low_res, caption.read_text(encoding="utf-8").strip() if caption.exists() else "")
            rows.append(evaluate_pair(result, truth, low_res, scale, lpips))
            if save is not None:
                folder = save / Path(model).stem
                folder.mkdir(parents=True, exist_ok=True)
                write_image(folder / f"{path.stem}.png", Picture(result))
            progress(len(models) * len(paths))
        table[model] = {key: sum(row[key] for row in rows) / len(rows) for key in rows[0]}
    return table


def format_table(table: dict[str, dict[str, float]]) -> str:
    """model -> figure -> value, as aligned text."""
    names = {key: None for row in table.values() for key in row}
    width = max(len(model) for model in table)
    lines = [" " * width + "".join(f"{name:>16}" for name in names)]
    lines += [f"{model:<{width}}" + "".join(f"{row[name]:>16.4f}" for name in names) for model, row in table.items()]
    return "\n".join(lines)
