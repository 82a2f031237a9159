"""LPIPS, the learned perceptual distance."""

import warnings
from pathlib import Path
from typing import Literal, Self
from urllib.error import URLError

import torch
from torch import Tensor, nn

from gigasr.metrics.external import import_package, read_features
from gigasr.metrics.inputs import check_pair, to_8bit
from gigasr.pixels import uint8_to_signed

LPIPS_SIDE = 32  # px; least side of an image


class Lpips(nn.Module):
    """Learned perceptual distance, frozen: a metric, and a loss for images.

    `Lpips(features="squeezenet1_1_features.pth")` works offline: the file holds torchvision's weights of the backbone,
    of the whole network or of its `features` alone. Without a file torchvision downloads them; raises ConnectionError
    if it can't.

    Source: The Unreasonable Effectiveness of Deep Features as a Perceptual Metric (arXiv:1801.03924), version 0.1.
    """

    def __init__(self, net: Literal["squeeze", "alex", "vgg"] = "squeeze", features: str | Path | None = None) -> None:
        super().__init__()
        if net not in ("squeeze", "alex", "vgg"):
            raise ValueError(f"metrics.Lpips: net: expected squeeze, alex or vgg, got {net!r}; name one of them")
        lpips = import_package("lpips", "the package lpips", "run pip install lpips")
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


def lpips_distance(result: Tensor, truth: Tensor, lpips: Lpips) -> float:
    """Compute LPIPS between two images, on the device of `lpips`.

    result, truth: [3, H, W]  in [0, 1]
    returns: 0 for equal images
    """
    check_pair("metrics.lpips_distance", result, truth, min_side=LPIPS_SIDE)
    device = next(lpips.parameters()).device
    x, y = (uint8_to_signed(to_8bit(image).to(device)).unsqueeze(0) for image in (result, truth))
    with torch.no_grad():
        return float(lpips(x, y))


def _load_features(backbone: nn.Module, path: str | Path) -> None:
    """Load torchvision's `features` into the backbone.

    The backbone holds the same layers, each with the prefix of a slice. Raises ValueError for another backbone's file.
    """
    stored = read_features(path)
    wanted = {key: key.partition(".")[2] for key in backbone.state_dict()}
    missing = sorted(set(wanted.values()) - stored.keys())
    if missing:
        raise ValueError(
            f"metrics.Lpips: features: expected the backbone's torchvision weights, got no {missing[0]!r} in {path}; "
            "use the file that belongs to the net"
        )
    backbone.load_state_dict({key: stored[name] for key, name in wanted.items()})
