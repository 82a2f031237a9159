"""Metrics of generated icons: retrieval, silhouettes, smooth interpolation."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

PAPER = 0.9  # a pixel belongs to the white background if its darkest channel is at least this


def nearest(queries: Tensor, gallery: Tensor, count: int) -> Tensor:
    """Find the nearest features by cosine, after subtracting the gallery's mean.

    queries: [N, D], gallery: [M, D]  features of images
    returns: [N, count] long  indices into the gallery, nearest first
    """
    mean = gallery.mean(dim=0)
    likeness = F.normalize(queries - mean, dim=1) @ F.normalize(gallery - mean, dim=1).T
    return likeness.topk(count, dim=1).indices


def hit_rate(found: Tensor, labels: Sequence[str], wanted: Sequence[str]) -> float:
    """Compute the share of queries with a hit: a found item with the wanted label.

    found:  [N, K] long  indices into the gallery
    labels: M labels, of the gallery
    wanted: N labels, of the queries
    """
    hits = [any(labels[i] == label for i in row) for row, label in zip(found.tolist(), wanted, strict=True)]
    return sum(hits) / len(hits)


def silhouette(images: Tensor) -> Tensor:
    """images: [B, 3, H, W] in [0, 1], on white -> [B, H, W] bool, False = background"""
    return images.amin(dim=1) < PAPER


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Compute the IoU of masks: a, b [B, H, W] bool -> [B]; 1 if both are empty."""
    union = (a | b).sum(dim=(1, 2))
    return torch.where(union > 0, (a & b).sum(dim=(1, 2)) / union.clamp(min=1), 1.0)


def frame_steps(frames: Tensor) -> Tensor:
    """frames: [N, 3, H, W] -> [N - 1] root mean square difference between neighbours"""
    return (frames[1:] - frames[:-1]).square().mean(dim=(1, 2, 3)).sqrt()


def largest_jump(frames: Tensor) -> float:
    """Divide the largest step between frames by the median step.

    frames:  [N, 3, H, W], N at least 3
    returns: ratio of root mean square differences; 1 = all steps are equal
    """
    steps = frame_steps(frames)
    return float(steps.max() / steps.median())
