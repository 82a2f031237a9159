"""The adversarial task of the base generator: text to images, no low-res inputs."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from gigasr.config.training import DegradationConfig, PhaseConfig
from gigasr.data.loader import LoadedBatch
from gigasr.training.adversarial import AdversarialTask
from gigasr.training.batches import Batch, BatchMaker, Pyramid, Rngs
from gigasr.training.distributed import gather
from gigasr.training.losses import Logits, per_sample
from gigasr.training.terms import LossTerms, Pairs, downsampled_pyramid
from gigasr_base.config import BaseConfig, GeneratorConfig
from gigasr_base.generator import Generator


class _BaseBatchMaker(BatchMaker):
    """A maker of batches without low-res images."""

    def low_res(
        self, loaded: LoadedBatch, hr: Tensor, scale: int, degradation: DegradationConfig, rngs: Rngs
    ) -> tuple[None, None, None]:
        """Return None for low-res inputs, noise and undamaged low-res images."""
        return None, None, None


class _BaseLossTerms(LossTerms):
    """Loss terms that compare every level of the pyramid with the image."""

    def compared(self, batch: Batch, pyramid: Pyramid) -> Pairs:
        """Pair every level with the captioned image, downsampled to the level's size."""
        return list(zip(pyramid, downsampled_pyramid(batch.hr, len(pyramid)), strict=True))


class BaseAdversarialTask(AdversarialTask):
    """The adversarial task of a generator without low-res input."""

    kind = "base"
    batch_maker_class = _BaseBatchMaker
    terms_class = _BaseLossTerms
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
        """Return HR / LR: 1, without a low-res image."""
        return 1

    def synthesize(self, network: nn.Module, batch: Batch) -> Pyramid:
        """Run a generator on a batch -> pyramid, smallest first.

        network: the generator, its EMA or its replica
        """
        with sdpa_kernel(SDPBackend.MATH):  # on maps this small the fused kernels' backward passes are slower
            return network(batch.z, batch.tokens, batch.hr.shape[-1])

    def step(self, batch: Sequence[Batch], phase: PhaseConfig, number: int, decay: float = 1.0) -> dict[str, float]:
        """Update all networks and the running mean of w.

        The mean of w moves by the w of the whole batch, gathered from all processes.
        """
        log = super().step(batch, phase, number, decay)
        w, _ = gather(self.generator.take_w()[None])
        self.generator.move_w_mean(w.mean(dim=0))
        return log

    @torch.no_grad()
    def metrics(self, batch: Batch) -> dict[str, float]:
        """Compute PSNR and how often own captions are preferred to mismatched ones.

        The discriminator prefers the caption with the higher score, on real and on generated images. Phases at smaller
        sizes have PSNR alone.
        """
        metrics = super().metrics(batch)
        if batch.hr.shape[-1] < self.config.generator.size:
            return metrics
        real, fake = self.terms.real_pyramid(batch.hr), self.synthesize(self.generator_ema, batch)
        for name, pyramid in (("real", real), ("fake", fake)):
            matched, mismatched = self.discriminator(pyramid, [batch.tokens, batch.mismatched])
            is_preferred = self.scores(matched) > self.scores(mismatched)
            preferred = is_preferred[batch.is_mismatched].float()
            metrics[f"{name}_caption_preferred"] = float(preferred.mean()) if len(preferred) else 0.5
        return metrics

    def scores(self, maps: Logits) -> Tensor:
        """Sum the prediction heads' maps per image, weighted by head.

        maps:    per head [levels * B, 1, H, W], with the head's number of levels
        returns: [B]
        """
        weights = self.discriminator.head_weights()
        scores = []
        for i, (logits, weight) in enumerate(zip(maps, weights, strict=True)):
            levels = min(i + 1, self.config.discriminator.num_levels)
            per_image = per_sample(logits).view(levels, -1).mean(dim=0)
            scores.append(weight * per_image)
        return torch.stack(scores).sum(dim=0)
