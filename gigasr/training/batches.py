"""Batches: the inputs of all networks, made from loaded crops."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gigasr.config.training import DegradationConfig
from gigasr.data.captions import mismatch_mask, shuffle_captions
from gigasr.data.degradation import bicubic_low_res, degrade
from gigasr.data.loader import LoadedBatch
from gigasr.data.samples import sample_rng
from gigasr.networks.text import TokenFeatures
from gigasr.training.losses import MAX_SHIFT
from gigasr.training.networks import TextTower

Rngs = Sequence[torch.Generator]
Pyramid = list[Tensor]  # images [B, 3, H_i, W_i] in [-1, 1], smallest first


@dataclass(frozen=True)
class Batch:
    """One micro-batch: the inputs of all networks."""

    hr: Tensor  # [B, 3, H, W] in [-1, 1]
    lr: Tensor | None  # [B, 3, H / scale, W / scale] in [-1, 1]; None for the base model
    noise: Tensor | None  # [B, 3, H / scale, W / scale] N(0, 1)
    z: Tensor  # [B, z_dim]
    captions: list[str]
    tokens: TokenFeatures
    mismatched: TokenFeatures  # of the mismatched captions
    is_mismatched: Tensor  # [B] bool; False where both captions are equal, or the other is empty
    shift: Tensor  # [B, 2] px; LPIPS compares the images moved down and right by these
    scale: int = 1  # HR / LR
    root: Tensor | None = None  # [B, 3, H / scale, W / scale] in [-1, 1], the undamaged low-res image


class BatchMaker:
    """A maker of batches from loaded crops.

    The randomness of a sample depends only on the seed and the sample's number, so a resumed run continues exactly.
    With another number of processes only the mismatched captions differ, as both captions come from one micro-batch.
    """

    def __init__(self, seed: int, z_dim: int, text_tower: TextTower, device: torch.device) -> None:
        self.seed, self.z_dim, self.text_tower, self.device = seed, z_dim, text_tower, device

    def make(self, loaded: LoadedBatch, scale: int, degradation: DegradationConfig) -> Batch:
        """Add low-res inputs, noise, z, text features and mismatched captions.

        scale: HR / LR
        """
        hr, captions = loaded.hr.to(self.device), loaded.captions
        rngs = [sample_rng(self.seed, number) for number in loaded.numbers.tolist()]
        lr, noise, root = self.low_res(loaded, hr, scale, degradation, rngs)
        z = _draw_normal((self.z_dim,), rngs).to(self.device)
        shift = torch.stack([torch.randint(MAX_SHIFT + 1, (2,), generator=rng) for rng in rngs])
        tokens = self.text_tower.encode(captions)
        order = shuffle_captions(captions, rngs[0])
        mismatched = _reorder(tokens, order)
        is_mismatched = mismatch_mask(captions, order).to(self.device)
        return Batch(hr, lr, noise, z, captions, tokens, mismatched, is_mismatched, shift, scale, root)

    def low_res(
        self, loaded: LoadedBatch, hr: Tensor, scale: int, degradation: DegradationConfig, rngs: Rngs
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Make low-res inputs, unit noise and undamaged low-res images.

        hr: [B, 3, H, W] -> three of [B, 3, H / scale, W / scale]
        """
        lr, root = loaded.lr, loaded.root
        if lr is None:
            lr = degrade(hr, scale, degradation, rngs)
        if root is None:
            root = bicubic_low_res(hr, scale)
        noise = _draw_normal(lr.shape[1:], rngs)
        return lr.to(self.device), noise.to(self.device), root.to(self.device)


def _draw_normal(shape: Sequence[int], rngs: Rngs) -> Tensor:
    """Draw N(0, 1) on the CPU, one generator per sample -> [B, *shape]"""
    return torch.stack([torch.randn(shape, generator=rng) for rng in rngs])


def _reorder(tokens: TokenFeatures, order: Tensor) -> TokenFeatures:
    """Give sample i the features of sample order[i]."""
    order = order.to(tokens.features.device)
    return TokenFeatures(tokens.features[order], tokens.eot[order], tokens.mask[order])
