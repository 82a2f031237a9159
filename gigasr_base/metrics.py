"""Metrics of generated icons: likeness to real ones, silhouettes, smoothness of an interpolation."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

PAPER = 0.9  # a pixel whose darkest channel is above this belongs to the white ground


def nearest(queries: Tensor, gallery: Tensor, count: int) -> Tensor:
    """Find the most alike features by cosine, after taking away what all of the gallery have in common.

    queries: [N, D], gallery: [M, D]  features of images
    returns: [N, count] long  places in the gallery, the most alike first
    """
    mean = gallery.mean(dim=0)
    likeness = F.normalize(queries - mean, dim=1) @ F.normalize(gallery - mean, dim=1).T
    return likeness.topk(count, dim=1).indices


def hit_rate(found: Tensor, labels: Sequence[str], wanted: Sequence[str]) -> float:
    """Give the share of queries among whose finds is one with the wanted label.

    found:  [N, K] long  places in the gallery
    labels: M, of the gallery
    wanted: N, of the queries
    """
    hits = [any(labels[i] == label for i in row) for row, label in zip(found.tolist(), wanted, strict=True)]
    return sum(hits) / len(hits)


def silhouette(images: Tensor) -> Tensor:
    """images: [B, 3, H, W] in [0, 1], on white -> [B, H, W] bool, True = not the ground"""
    return images.amin(dim=1) < PAPER


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """a, b: [B, H, W] bool -> [B] intersection over union; 1 where both are empty"""
    union = (a | b).sum(dim=(1, 2))
    return torch.where(union > 0, (a & b).sum(dim=(1, 2)) / union.clamp(min=1), 1.0)


def frame_steps(frames: Tensor) -> Tensor:
    """frames: [N, 3, H, W] -> [N - 1] root mean square difference of each from the one before"""
    return (frames[1:] - frames[:-1]).square().mean(dim=(1, 2, 3)).sqrt()


def largest_jump(frames: Tensor) -> float:
    """Compare the largest step from frame to frame with the median one.

    frames:  [N, 3, H, W], N at least 3
    returns: largest / median of the root mean square differences; 1 = all steps are alike
    """
    steps = frame_steps(frames)
    return float(steps.max() / steps.median())
