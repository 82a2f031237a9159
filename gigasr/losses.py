"""One pure function per loss term; its name is its key in the config and in the log. High logit = real."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def l1(fake: Tensor, real: Tensor) -> Tensor:
    """fake, real: [B, 3, H, W] in [-1, 1] -> mean absolute difference"""
    return (fake - real).abs().mean()


def weighted_mean(maps: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Average each logit or loss map over samples and space, then sum with one weight each.

    maps:    [B_i, 1, H_i, W_i] of any sizes
    weights: one per map
    """
    return torch.stack([weight * m.mean() for m, weight in zip(maps, weights, strict=True)]).sum()


def adversarial(logits: Sequence[Tensor], is_real: bool, weights: Sequence[float]) -> Tensor:
    """Logistic loss of every prediction of the discriminator (paper, Eq. 6; non-saturating for the generator).

    logits:  one [B, 1, H, W] map per (level, exit)
    is_real: the label to be reached
    weights: one per map
    """
    sign = -1.0 if is_real else 1.0
    return weighted_mean([F.softplus(sign * m) for m in logits], weights)


def r1(logits: Sequence[Tensor], inputs: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Gradient penalty on real images: half the squared norm of d(weighted logits)/d(inputs), mean over samples.

    logits:  one [B, 1, H, W] map per (level, exit), computed from `inputs`
    inputs:  the real pyramid, [B, 3, H_i, W_i], requiring gradients
    weights: one per map; the penalty covers the weighted sum of all predictions

    Source: Mescheder et al. (arXiv:1801.04406); whether the paper penalises all predictions is not given.
    """
    total = torch.stack([weight * m.mean(dim=(1, 2, 3)).sum() for m, weight in zip(logits, weights, strict=True)]).sum()
    gradients = torch.autograd.grad(total, list(inputs), create_graph=True)
    return 0.5 * torch.stack([g.square().sum() for g in gradients]).sum() / len(inputs[0])
