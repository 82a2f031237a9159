"""The adversarial training step: update all networks on one batch."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from gigasr.config.training import DegradationConfig, PhaseConfig
from gigasr.data.loader import LoadedBatch
from gigasr.metrics import psnr_y
from gigasr.networks.discriminator import Discriminator
from gigasr.networks.upsampler import Upsampler
from gigasr.training.batches import Batch, BatchMaker, Pyramid
from gigasr.training.ema import update_ema
from gigasr.training.networks import (
    TaskNetworks,
    load_text_tower,
    mixed_precision,
    prepare_pair,
    required,
    with_loss_networks,
)
from gigasr.training.terms import LossTerms
from gigasr.training.trained_network import Terms


class AdversarialTask:
    """Generator against discriminators, trained one step at a time.

    gigasr_base overrides the generator, its call, its batches and its loss terms.
    """

    kind = "upsampler"  # in the header of the generator's weights
    batch_maker_class: type[BatchMaker] = BatchMaker
    terms_class: type[LossTerms] = LossTerms

    def __init__(self, config: Any, device: torch.device, networks: TaskNetworks) -> None:
        """Take the networks of a training. config: gigasr's Config, or gigasr_base's"""
        self.config, self.train, self.device = config, config.train, device
        self.networks = networks
        self.generator, self.generator_ema = networks.generator.module, networks.generator_ema
        self.discriminator = networks.discriminator.module
        self.terms = self.terms_class(self.train, networks, device)

    @classmethod
    def from_config(cls, config: Any, device: torch.device, lpips_features: Path | None = None) -> Self:
        """Build a task with untrained networks.

        lpips_features: a file of SqueezeNet features, for machines without network access
        """
        train = config.train
        torch.manual_seed(train.seed)
        tower = load_text_tower(cls.generator_table(config).text, train, device)
        generator, discriminator = cls.build_generator(config), Discriminator(config.discriminator)
        pair = prepare_pair(generator, discriminator, train, device, cls.trains_in_part(config))
        networks = with_loss_networks(replace(pair, text_tower=tower), train, device, lpips_features)
        return cls(config, device, networks)

    @staticmethod
    def generator_table(config: Any) -> Any:
        """Return the generator's own table of the config."""
        return config.upsampler

    @staticmethod
    def build_generator(config: Any) -> nn.Module:
        """Build the network to train, untrained."""
        return Upsampler(config.upsampler)

    @staticmethod
    def trains_in_part(config: Any) -> bool:
        """Tell whether some steps use only a part of the generator."""
        return any(phase.early or phase.loss.is_root_only for phase in config.train.phases)

    @property
    def generator_config(self) -> Any:
        """Return the generator's own table of the config."""
        return self.generator_table(self.config)

    @property
    def scale(self) -> int:
        """Return HR / LR of the whole generator."""
        return self.generator_config.scale

    def synthesize(self, network: nn.Module, batch: Batch) -> Pyramid:
        """Run a generator on a batch -> pyramid, smallest first.

        network: the generator, its average or its replica
        """
        return network(batch.lr, batch.z, batch.tokens, batch.noise, batch.scale)

    @cached_property
    def batch_maker(self) -> BatchMaker:
        """Return the maker of this task's batches; needs the text tower."""
        tower = required(self.networks.text_tower, "text_tower")
        return self.batch_maker_class(self.train.seed, self.generator_config.z_dim, tower, self.device)

    def make_batch(self, loaded: LoadedBatch, scale: int, degradation: DegradationConfig) -> Batch:
        """Complete loaded crops to the inputs of all networks."""
        return self.batch_maker.make(loaded, scale, degradation)

    def step(self, batch: Sequence[Batch], phase: PhaseConfig, number: int, decay: float = 1.0) -> dict[str, float]:
        """Update all networks on one batch, given as micro-batches.

        A single micro-batch is synthesized once for all networks. Several are synthesized again for each network, so
        only one is in memory at a time.

        number:  the step, counted from 0: R1 is due every r1_every steps
        decay:   factor of the learning rates
        returns: every term by `network/term`
        """
        networks, betas = self.networks, phase.betas
        if phase.loss.is_root_only:
            batch = [replace(micro, scale=1) for micro in batch]  # the pyramid ends at its root
        pyramid = None
        if len(batch) == 1:
            pyramid = self.fake_pyramid(batch[0])
        generator_weights = phase.loss.model_dump()
        # the weight of the adversarial term only balances the generator's other terms
        discriminator_weights = generator_weights | {"adversarial": 1.0}
        is_penalised = bool(phase.loss.r1) and number % self.train.r1_every == 0
        generator_rate = decay * phase.generator_learning_rate
        discriminator_rate = decay * phase.discriminator_learning_rate
        log: dict[str, float] = {}
        if phase.is_adversarial:
            log |= networks.discriminator.update(
                batch,
                lambda micro: self.discriminator_terms(micro, phase, pyramid, is_penalised),
                discriminator_weights,
                discriminator_rate,
                betas,
            )
        if phase.loss.vision:
            log |= required(networks.vision, "vision").update(
                batch,
                lambda micro: self.vision_terms(micro, phase, pyramid),
                discriminator_weights,
                discriminator_rate,
                betas,
            )
        log |= networks.generator.update(
            batch, lambda micro: self.generator_terms(micro, phase, pyramid), generator_weights, generator_rate, betas
        )
        return log

    def generator_terms(self, batch: Batch, phase: PhaseConfig, pyramid: Pyramid | None) -> Terms:
        """Compute the generator's loss terms by name.

        pyramid: None = synthesize the batch
        """
        if pyramid is None:
            pyramid = self.fake_pyramid(batch)
        return self.terms.generator(batch, phase.loss, pyramid)

    def discriminator_terms(
        self, batch: Batch, phase: PhaseConfig, pyramid: Pyramid | None, is_penalised: bool
    ) -> Terms:
        """Compute the discriminator's loss terms by name.

        pyramid: None = synthesize the batch
        """
        return self.terms.discriminator(batch, phase.loss, self.detached_pyramid(batch, pyramid), is_penalised)

    def vision_terms(self, batch: Batch, phase: PhaseConfig, pyramid: Pyramid | None) -> Terms:
        """Compute the vision-aided discriminator's loss terms by name.

        pyramid: None = synthesize the batch
        """
        return self.terms.vision(batch, phase.loss, self.detached_pyramid(batch, pyramid))

    def fake_pyramid(self, batch: Batch) -> Pyramid:
        """Run the trained generator -> pyramid, smallest first.

        The images have the precision of the real images.
        """
        with mixed_precision(self.train, self.device):
            pyramid = self.synthesize(self.networks.generator.network, batch)
            return [image.to(batch.hr.dtype) for image in pyramid]

    @torch.no_grad()
    def detached_pyramid(self, batch: Batch, pyramid: Pyramid | None) -> Pyramid:
        """Return the pyramid, or synthesize one, without gradients."""
        if pyramid is None:
            pyramid = self.fake_pyramid(batch)
        return [image.detach() for image in pyramid]

    def average(self, images_seen: int, batch_size: int) -> None:
        """Move the averaged generator towards the trained generator.

        At the start the half-life is half the number of images seen.
        """
        half_life = min(self.train.ema_half_life, images_seen * 0.5)
        decay = 0.5 ** (batch_size / half_life)
        update_ema(self.generator_ema, self.generator, decay)

    @torch.no_grad()
    def metrics(self, batch: Batch) -> dict[str, float]:
        """Compute validation metrics of the averaged generator."""
        fake = self.synthesize(self.generator_ema, batch)[-1]
        psnrs = []
        for result, truth in zip((fake + 1) / 2, (batch.hr + 1) / 2, strict=True):
            psnrs.append(psnr_y(result.clamp(0, 1), truth, border=0))
        metrics = {"psnr_y": sum(psnrs) / len(psnrs)}
        if self.networks.lpips is not None:
            metrics["lpips"] = float(self.networks.lpips(fake, batch.hr).mean())
        return metrics
