"""Batches: what all networks of a training take, completed from what the readers load."""

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


@dataclass(frozen=True)
class Batch:
    """One micro-batch: the inputs of all networks."""

    hr: Tensor  # [B, 3, H, W] in [-1, 1]
    lr: Tensor | None  # [B, 3, H / scale, W / scale] in [-1, 1]; None for the base model
    noise: Tensor | None  # [B, 3, H / scale, W / scale] N(0, 1)
    z: Tensor  # [B, z_dim]
    captions: list[str]
    tokens: TokenFeatures
    mismatched: TokenFeatures  # of another image's caption
    is_mismatched: Tensor  # [B] bool; False where the other image has the same caption, or none
    shift: Tensor  # [B, 2] px down and right by which LPIPS sees each image moved
    scale: int = 1  # HR / LR
    root: Tensor | None = None  # [B, 3, H / scale, W / scale] in [-1, 1], the low-res image as it is to become


class BatchMaker:
    """Makes batches from loaded crops.

    The randomness of a sample depends only on the seed and the sample's number, so a resumed run continues exactly.
    With another number of processes only the mismatched captions differ: they come from the same micro-batch.
    """

    def __init__(self, seed: int, z_dim: int, text_tower: TextTower, device: torch.device) -> None:
        self.seed, self.z_dim, self.text_tower, self.device = seed, z_dim, text_tower, device

    def make(self, loaded: LoadedBatch, scale: int, degradation: DegradationConfig) -> Batch:
        """Add low-res inputs, noise, z, text features and mismatched captions to loaded crops. scale: HR / LR"""
        hr, captions = loaded.hr.to(self.device), loaded.captions
        rngs = [sample_rng(self.seed, number) for number in loaded.numbers.tolist()]
        lr, noise, root = self.low_res(loaded, hr, scale, degradation, rngs)
        z = torch.stack([torch.randn(self.z_dim, generator=rng) for rng in rngs]).to(self.device)
        shift = torch.stack([torch.randint(MAX_SHIFT + 1, (2,), generator=rng) for rng in rngs])
        tokens = self.text_tower.encode(captions)
        order = shuffle_captions(captions, rngs[0])
        mismatched = TokenFeatures(*(x[order.to(x.device)] for x in (tokens.features, tokens.eot, tokens.mask)))
        is_mismatched = mismatch_mask(captions, order).to(self.device)
        return Batch(hr, lr, noise, z, captions, tokens, mismatched, is_mismatched, shift, scale, root)

    def low_res(
        self, loaded: LoadedBatch, hr: Tensor, scale: int, degradation: DegradationConfig, rngs: Rngs
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """hr: [B, 3, H, W] -> low-res inputs, unit noise, undamaged low-res images, all [B, 3, H / scale, W / scale]"""
        lr = degrade(hr, scale, degradation, rngs) if loaded.lr is None else loaded.lr.to(self.device)
        root = bicubic_low_res(hr, scale) if loaded.root is None else loaded.root.to(self.device)
        noise = torch.stack([torch.randn(lr.shape[1:], generator=rng) for rng in rngs]).to(self.device)
        return lr, noise, root
