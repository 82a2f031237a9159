"""Figures that judge a super-resolved image: PSNR, SSIM, LPIPS, NIQE, spectrum, faithfulness.

Images are float tensors [3, H, W] in [0, 1] on any device; every figure first rounds them to 8 bit, as files would.
"""

import importlib
import math
import pickle
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Self
from urllib.error import URLError

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from gigasr.metric_ops import NUM_RINGS, SSIM_WINDOW, luma, radial_spectrum, structural_similarity

LPIPS_SIDE = 32  # px; the least side of an image
NIQE_BLOCK = 96  # px; NIQE compares statistics of whole blocks
Reduce = Callable[[Tensor, int], Tensor]  # [3, H, W], scale -> [3, H / scale, W / scale], both in [0, 1]


class Lpips(nn.Module):
    """Learned perceptual distance, frozen: a figure, and a loss with gradients to the images.

    `Lpips(features="squeezenet1_1_features.pth")` works offline: the file holds torchvision's weights of the backbone,
    the whole network's or those of its `features` alone. Without a file torchvision downloads them; raises
    ConnectionError where it can't.

    Source: The Unreasonable Effectiveness of Deep Features as a Perceptual Metric (arXiv:1801.03924), version 0.1.
    """

    def __init__(self, net: Literal["squeeze", "alex", "vgg"] = "squeeze", features: str | Path | None = None) -> None:
        super().__init__()
        if net not in ("squeeze", "alex", "vgg"):
            raise ValueError(f"metrics.Lpips: net: expected squeeze, alex or vgg, got {net!r}; name one of them")
        lpips = _import("lpips", "the package lpips", "run pip install lpips")
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            try:
                self.network = lpips.LPIPS(net=net, pnet_rand=features is not None, verbose=False)
            except URLError as error:
                raise ConnectionError(
                    f"metrics.Lpips: expected torchvision's weights of {net} for download, got '{error.reason}'; "
                    "go online, or give their file with --lpips-features"
                ) from None
        if features is not None:
            _load_features(self.network.net, features)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: the calibrated heads contain dropout."""
        return super().train(False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """x: [B, 3, H, W], y: [B, 3, H, W], both in [-1, 1] -> [B]"""
        distance: Tensor = self.network(x, y)
        return distance.flatten()


def psnr_y(result: Tensor, truth: Tensor, border: int) -> float:
    """Compute the peak signal-to-noise ratio of the luma; the peak is 255 although studio luma spans 16..235.

    result, truth: [3, H, W]  in [0, 1]; `border` px are cut from each side
    returns: dB, infinite for equal images

    Source: equals basicsr's calculate_psnr(test_y_channel=True).
    """
    x, y = _luma_pair("metrics.psnr_y", result, truth, border, least=1)
    return _psnr(x, y)


def ssim_y(result: Tensor, truth: Tensor, border: int) -> float:
    """Compute the structural similarity of the luma, averaged where the window fits into the image.

    result, truth: [3, H, W]  in [0, 1]; `border` px are cut from each side
    returns: at most 1, for equal images

    Source: Image Quality Assessment: From Error Visibility to Structural Similarity (IEEE TIP 2004);
    equals basicsr's calculate_ssim(test_y_channel=True).
    """
    x, y = _luma_pair("metrics.ssim_y", result, truth, border, least=SSIM_WINDOW)
    return float(structural_similarity(x, y).mean())


def lpips_distance(result: Tensor, truth: Tensor, lpips: Lpips) -> float:
    """Compute LPIPS between two images, on the device of `lpips`.

    result, truth: [3, H, W]  in [0, 1]
    returns: 0 for equal images
    """
    _check_pair("metrics.lpips_distance", result, truth, least=LPIPS_SIDE)
    device = next(lpips.parameters()).device
    x, y = (_to_8bit(image).to(device, torch.float32).unsqueeze(0) / 127.5 - 1 for image in (result, truth))
    with torch.no_grad():
        return float(lpips(x, y))


def niqe(image: Tensor) -> float:
    """Compute NIQE, which needs no truth, on the luma without cutting a border.

    image: [3, H, W]  in [0, 1]; only whole blocks of 96x96 px count, and two are needed
    returns: lower is more natural; not a number where fewer than two blocks hold texture

    Source: Making a "Completely Blind" Image Quality Analyzer (IEEE SPL 2013), as in basicsr.
    """
    _check_image("metrics.niqe", image)
    height, width = image.shape[1:]
    if (height // NIQE_BLOCK) * (width // NIQE_BLOCK) < 2:
        raise ValueError(
            f"metrics.niqe: expected at least two blocks of {NIQE_BLOCK}x{NIQE_BLOCK} px, got {height}x{width} px; "
            "use a larger image or leave NIQE out"
        )
    calculate = import_basicsr().calculate_niqe
    bgr = _to_8bit(image).flip(0).permute(1, 2, 0).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return float(calculate(bgr, crop_border=0))
        except np.linalg.LinAlgError:
            return math.nan


def spectrum_error(result: Tensor, truth: Tensor) -> float:
    """Compare how much detail of each fineness two images hold; blur and checkerboard both show.

    result, truth: [3, H, W]  in [0, 1]; their central square of at least 64x64 px is compared
    returns: RMS over the rings of the difference of the two radial power spectra, in dB; 0 for equal images
    """
    x, y = _luma_pair("metrics.spectrum_error", result, truth, border=0, least=2 * NUM_RINGS)
    return float((radial_spectrum(x) - radial_spectrum(y)).square().mean().sqrt())


def lr_psnr(result: Tensor, low_res: Tensor, scale: int, reduce: Reduce | None = None) -> float:
    """Compute how faithful a result is to its input: reduced again, it should be the input.

    result:  [3, H * scale, W * scale]  in [0, 1]
    low_res: [3, H, W]  in [0, 1]
    reduce:  how the input was made; None = low_res_from
    returns: PSNR over RGB in dB, infinite for a perfect round trip
    """
    _check_image("metrics.lr_psnr", result)
    _check_image("metrics.lr_psnr", low_res)
    height, width = low_res.shape[1:]
    if result.shape[1:] != (height * scale, width * scale):
        raise ValueError(
            f"metrics.lr_psnr: expected a result of {height * scale}x{width * scale} px ({scale} times its input), "
            f"got {result.shape[1]}x{result.shape[2]} px; resize or crop the result to that size"
        )
    return _psnr(_to_8bit((reduce or low_res_from)(result, scale)).double(), _to_8bit(low_res).double())


def low_res_from(hr: Tensor, scale: int) -> Tensor:
    """Make the benchmark's input: cropped to a multiple of `scale`, reduced by PIL's antialiased bicubic, in 8 bit.

    hr:      [3, H, W]  in [0, 1]
    returns: [3, H // scale, W // scale]  in [0, 1], multiples of 1/255, on the CPU
    """
    picture = Image.fromarray(_to_8bit(crop_to_multiple(hr, scale)).permute(1, 2, 0).numpy())
    reduced = picture.resize((picture.width // scale, picture.height // scale), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(reduced)).permute(2, 0, 1) / 255


def crop_to_multiple(hr: Tensor, scale: int) -> Tensor:
    """Cut rows and columns from the bottom and the right until both sides are multiples of `scale`.

    hr:      [3, H, W]  in [0, 1]
    returns: [3, H - H % scale, W - W % scale]  the truth that belongs to `low_res_from(hr, scale)`
    """
    _check_image("metrics.crop_to_multiple", hr)
    height, width = hr.shape[1:]
    if scale < 1 or min(height, width) < scale:
        raise ValueError(
            f"metrics.crop_to_multiple: expected an image of at least scale x scale px and a scale of at least 1, "
            f"got {height}x{width} px and a scale of {scale}; use a larger image or another scale"
        )
    return hr[:, : height - height % scale, : width - width % scale]


def import_basicsr() -> ModuleType:
    """Import basicsr's metrics; no other function imports basicsr.

    basicsr 1.4.2 imports a module that torchvision has renamed, so it is given the renamed one.
    """
    renamed = importlib.import_module("torchvision.transforms._functional_tensor")
    sys.modules.setdefault("torchvision.transforms.functional_tensor", renamed)
    advice = "run pip install 'gigasr[eval]' (its basicsr builds on Python 3.12 or older)"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _import("basicsr.metrics", "the package basicsr 1.4.2", advice)


def _import(module: str, package: str, advice: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"metrics: expected {package}, got '{error}'; {advice}") from error


def read_features(path: str | Path) -> dict[str, Any]:
    """A file of torchvision's weights, without the word that its models put before those of `features`."""
    try:
        loaded = dict(torch.load(path, map_location="cpu", weights_only=True))
    except (RuntimeError, EOFError, TypeError, ValueError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path}: expected weights, got {type(error).__name__}; download the file again") from None
    return {str(key).removeprefix("features."): value for key, value in loaded.items()}


def _load_features(backbone: nn.Module, path: str | Path) -> None:
    """Load torchvision's `features` into the backbone, which holds the same layers behind the name of a slice."""
    stored = read_features(path)
    wanted = {key: key.partition(".")[2] for key in backbone.state_dict()}
    missing = sorted(set(wanted.values()) - stored.keys())
    if missing:
        raise ValueError(
            f"metrics.Lpips: features: expected the backbone's torchvision weights, got no {missing[0]!r} in {path}; "
            "use the file that belongs to the net"
        )
    backbone.load_state_dict({key: stored[name] for key, name in wanted.items()})


def _check_image(name: str, image: Tensor) -> None:
    if image.ndim != 3 or image.shape[0] != 3 or not image.is_floating_point():
        raise ValueError(
            f"{name}: expected a float image [3, H, W] in [0, 1], got {image.dtype} of shape {tuple(image.shape)}; "
            "pass one RGB image, without a batch dimension"
        )
    if not image.isfinite().all():
        raise ValueError(f"{name}: expected finite values, got NaN or infinity; look for an overflow in the network")


def _check_pair(name: str, result: Tensor, truth: Tensor, least: int, border: int = 0) -> None:
    _check_image(name, result)
    _check_image(name, truth)
    if result.shape != truth.shape:
        raise ValueError(
            f"{name}: expected two images of one size, got {result.shape[1]}x{result.shape[2]} px and "
            f"{truth.shape[1]}x{truth.shape[2]} px; crop the truth with crop_to_multiple"
        )
    height, width = result.shape[1:]
    if border < 0 or min(height, width) - 2 * border < least:
        raise ValueError(
            f"{name}: expected at least {least}x{least} px inside a border of {border} px, got {height}x{width} px; "
            "use larger images or another border"
        )


def _luma_pair(name: str, result: Tensor, truth: Tensor, border: int, least: int) -> tuple[Tensor, Tensor]:
    """Check both images; give the luma of their 8-bit images without the border, [H, W] in 16..235, float64."""
    _check_pair(name, result, truth, least, border)
    inside = [slice(border, length - border) for length in result.shape[1:]]
    x, y = (luma(_to_8bit(image).double() / 255)[*inside] for image in (result, truth))
    return x, y


def _to_8bit(image: Tensor) -> Tensor:
    """[3, H, W] in [0, 1] -> uint8 on the CPU, rounded to nearest."""
    return (image.detach().cpu().float().clamp(0, 1) * 255).round().to(torch.uint8)


def _psnr(x: Tensor, y: Tensor) -> float:
    return float(10 * torch.log10(255**2 / (x - y).square().mean()))
