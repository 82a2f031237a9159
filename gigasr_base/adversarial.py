"""The adversarial task of the base generator: text to images, without low-res inputs."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from gigasr.config.training import DegradationConfig, PhaseConfig
from gigasr.data.loader import LoadedBatch
from gigasr.training.adversarial import AdversarialTask
from gigasr.training.batches import Batch, BatchMaker, Rngs
from gigasr.training.distributed import gather
from gigasr.training.losses import per_sample
from gigasr.training.terms import LossTerms, downsampled_pyramid
from gigasr_base.config import BaseConfig, GeneratorConfig
from gigasr_base.generator import Generator


class BaseBatchMaker(BatchMaker):
    """Makes batches without low-res images."""

    def low_res(
        self, loaded: LoadedBatch, hr: Tensor, scale: int, degradation: DegradationConfig, rngs: Rngs
    ) -> tuple[None, None, None]:
        """Return None for low-res inputs, noise and undamaged low-res images."""
        return None, None, None


class BaseLossTerms(LossTerms):
    """Loss terms of a generator whose levels are all compared with the captioned image."""

    def compared(self, batch: Batch, pyramid: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Pair every level with the captioned image, reduced to its size."""
        return list(zip(pyramid, downsampled_pyramid(batch.hr, len(pyramid)), strict=True))


class BaseAdversarialTask(AdversarialTask):
    """Train a generator that has no low-res input."""

    kind = "base"
    batch_maker_class = BaseBatchMaker
    terms_class = BaseLossTerms
    generator: Generator

    @staticmethod
    def generator_table(config: BaseConfig) -> GeneratorConfig:
        """Return the generator's own table of the config."""
        return config.generator

    @staticmethod
    def build_generator(config: BaseConfig) -> nn.Module:
        """Build the network to train, untrained."""
        return Generator(config.generator)

    @staticmethod
    def trains_in_part(config: BaseConfig) -> bool:
        """Tell whether some phase trains only the levels up to a smaller size."""
        return any(phase.crop < config.generator.size for phase in config.train.phases)

    @property
    def scale(self) -> int:
        """HR / LR: 1, as there is no low-res image."""
        return 1

    def synthesize(self, network: nn.Module, batch: Batch) -> list[Tensor]:
        """Run the generator, its average or its replica on a batch -> pyramid, smallest first"""
        with sdpa_kernel(SDPBackend.MATH):  # on maps this small the fused kernels' backward passes are slower
            return network(batch.z, batch.tokens, batch.hr.shape[-1])

    def step(self, batch: Sequence[Batch], phase: PhaseConfig, number: int, decay: float = 1.0) -> dict[str, float]:
        """Update all networks, and the mean of w by the w of the whole batch."""
        log = super().step(batch, phase, number, decay)
        w, _ = gather(self.generator.take_w()[None])
        self.generator.move_w_mean(w.mean(dim=0))
        return log

    @torch.no_grad()
    def metrics(self, batch: Batch) -> dict[str, float]:
        """PSNR to the captioned image; how often the discriminator prefers an image's own caption to a mismatched one.

        The latter on real and on generated images, where the phase trains all levels.
        """
        metrics = super().metrics(batch)
        if batch.hr.shape[-1] < self.config.generator.size:
            return metrics
        pyramids = {"real": self.terms.real_pyramid(batch.hr), "fake": self.synthesize(self.generator_ema, batch)}
        for name, pyramid in pyramids.items():
            matched, mismatched = (
                self.scores(maps) for maps in self.discriminator(pyramid, [batch.tokens, batch.mismatched])
            )
            preferred = (matched > mismatched)[batch.is_mismatched].float()
            metrics[f"{name}_caption_preferred"] = float(preferred.mean()) if len(preferred) else 0.5
        return metrics

    def scores(self, maps: Sequence[Tensor]) -> Tensor:
        """maps: of every head, [levels * B, 1, H, W], levels as in the heads -> [B] their weighted sum"""
        weights, per_image = self.discriminator.head_weights(), []
        for i, (logits, weight) in enumerate(zip(maps, weights, strict=True)):
            levels = min(i + 1, self.config.discriminator.num_levels)
            per_image.append(weight * per_sample(logits).view(levels, -1).mean(dim=0))
        return torch.stack(per_image).sum(dim=0)
