"""Fréchet distance (FID) of two sets of images, whole and in patches.

The distance compares features of a frozen network.

Source: GANs Trained by a Two Time-Scale Update Rule (arXiv:1706.08500). Images are resized as in clean-fid
(arXiv:2104.11222), antialiased, unlike the first implementation.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gigasr.metrics.external import read_features
from gigasr.networks.ops import resize
from gigasr.pixels import to_uint8

PATCH = 256  # px; side of the squares of patch-FID
INCEPTION = "inception"  # instead of a file: torch-fidelity fetches the weights
_INCEPTION_KEY, _SQUEEZE_KEY = "Mixed_7c.branch_pool.conv.weight", "12.expand3x3.weight"
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # SqueezeNet's normalisation in its training


class FrozenFeatures(nn.Module):
    """A frozen network from images to feature vectors.

    `FrozenFeatures("squeezenet1_1_features.pth")` works offline. Its distances are comparable only among themselves,
    not with distances in papers. Papers use Inception: a file of torch-fidelity's weights, or "inception" to have
    torch-fidelity fetch them.
    """

    def __init__(self, source: str | Path) -> None:
        super().__init__()
        keys = {} if str(source) == INCEPTION else read_features(source)
        if not keys or _INCEPTION_KEY in keys:
            self.name, self.side = "inception", 299
            self.network: nn.Module = _inception(None if not keys else Path(source))
        elif _SQUEEZE_KEY in keys:
            self.name, self.side = "squeeze", 224
            self.network = _squeeze(keys)
        else:
            raise ValueError(
                f"fid: expected torch-fidelity's Inception or torchvision's SqueezeNet 1.1 weights, got neither in "
                f"{source}; give one of them, or the word {INCEPTION}"
            )
        self.requires_grad_(False).eval()

    @property
    def classifier(self) -> Tensor | None:
        """Weights from features to logits, without bias; None without Inception.

        [1008, 2048] on the CPU
        """
        return self.network.get_parameter("fc.weight").cpu() if self.name == "inception" else None

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """images: [B, 3, H, W] in [0, 1], rounded to 8 bit after the resize -> [B, D] on the CPU"""
        device = next(self.network.parameters()).device
        resized = resize(images.to(device), (self.side, self.side))
        levels = to_uint8(resized)
        if self.name == "inception":
            features: Tensor = self.network(levels)[0]
        else:
            mean, std = (resized.new_tensor(value).view(3, 1, 1) for value in (_MEAN, _STD))
            features = self.network((levels / 255 - mean) / std).mean(dim=(2, 3))
        return features.float().cpu()


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """Compute the Fréchet distance of two Gaussians fitted to two sets of features.

    x: [N, D], y: [M, D]  N and M at least 2
    returns: |mean_x - mean_y|² + tr(C_x + C_y - 2 (C_x C_y)^½); 0 for equal sets

    With the centred features X and Y, C_x = XᵀX and C_y = YᵀY, the trace of the root is the nuclear norm of XYᵀ. This
    needs no matrix root and is exact for sets smaller than D, too. Raises ValueError for smaller sets and unequal D.
    """
    if min(len(x), len(y)) < 2 or x.shape[1:] != y.shape[1:]:
        raise ValueError(
            f"frechet_distance: expected two sets [N, D] with N at least 2 and one D, got {list(x.shape)} and "
            f"{list(y.shape)}; use more images"
        )
    a, b = _factor(x), _factor(y)
    root = torch.linalg.matrix_norm(a @ b.T, "nuc")
    distance = (x.double().mean(0) - y.double().mean(0)).square().sum() + a.square().sum() + b.square().sum() - 2 * root
    return max(0.0, float(distance))


def inception_score(logits: Tensor, num_splits: int = 10) -> float:
    """Measure a classifier's certainty per image and the variety of its classes.

    logits:  [N, C]  without the bias, as in the first implementation
    returns: 1..C, the mean over the splits; without splits if there are fewer images than splits

    Source: Improved Techniques for Training GANs (arXiv:1606.03498).
    """
    scores = []
    for part in logits.double().softmax(dim=1).tensor_split(num_splits if len(logits) >= num_splits else 1):
        scores.append(torch.special.xlogy(part, part / part.mean(dim=0)).sum(dim=1).mean().exp())
    return float(torch.stack(scores).mean())


def patches(image: Tensor, side: int = PATCH) -> Tensor:
    """Cut an image into whole squares from the top left, without the rest.

    image:   [3, H, W]  at least side px a side
    returns: [N, 3, side, side]

    The paper (arXiv:2303.05511) gives neither size nor number of its patches.
    """
    return image.unfold(1, side, side).unfold(2, side, side).permute(1, 2, 0, 3, 4).flatten(0, 1)


class FeatureSet:
    """Features of a set of images, gathered one by one; empty without a network."""

    def __init__(self, features: FrozenFeatures | None) -> None:
        self.features = features
        self.clear()

    def clear(self) -> None:
        """Remove all features."""
        self.whole: list[Tensor] = []
        self.patches: list[Tensor] = []

    def add(self, image: Tensor) -> None:
        """Add an image [3, H, W] in [0, 1]."""
        if self.features is not None:
            self.whole.append(self.features(image[None]))
            if min(image.shape[1:]) >= PATCH:
                self.patches.append(self.features(patches(image)))

    def distances(self, truth: "FeatureSet") -> dict[str, float]:
        """Compute FID and patch-FID to another set, each from two images up.

        With Inception the Inception Score of this set is included. Other networks are named in the keys, as in
        fid_squeeze.
        """
        if self.features is None:
            return {}
        suffix = "" if self.features.name == "inception" else f"_{self.features.name}"
        named = {f"fid{suffix}": (self.whole, truth.whole), f"patch_fid{suffix}": (self.patches, truth.patches)}
        pairs = {name: (torch.cat(x), torch.cat(y)) for name, (x, y) in named.items() if x}
        found = {name: frechet_distance(x, y) for name, (x, y) in pairs.items() if len(x) > 1}
        classifier = self.features.classifier
        if found and classifier is not None:
            found["inception_score"] = inception_score(torch.cat(self.whole) @ classifier.T)
        return found


def _factor(x: Tensor) -> Tensor:
    """[N, D] -> A of at most D rows, float64, with AᵀA the covariance."""
    centred = (x.double() - x.double().mean(dim=0)) / (len(x) - 1) ** 0.5
    return torch.linalg.qr(centred, mode="r").R if len(x) > x.shape[1] else centred


def _inception(path: Path | None) -> nn.Module:
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise ImportError(
            f"fid: expected the package torch-fidelity, got '{error}'; run pip install 'gigasr[eval]'"
        ) from error
    network: nn.Module = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], path and str(path))
    return network


def _squeeze(keys: dict[str, Any]) -> nn.Module:
    from torchvision.models import squeezenet1_1

    network: nn.Module = squeezenet1_1(weights=None).features
    if missing := network.state_dict().keys() - keys.keys():
        raise ValueError(f"fid: expected SqueezeNet 1.1's weights, got none for {min(missing)}; download them again")
    network.load_state_dict({key: keys[key] for key in network.state_dict()})
    return network
