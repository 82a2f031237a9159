"""One adversarial training: the networks, their batches and their loss terms; shared with gigasr_base."""

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from gigasr.config.training import DegradationConfig, PhaseConfig
from gigasr.data.captions import mismatch_mask, shuffle_captions
from gigasr.data.degradation import bicubic_low_res, degrade
from gigasr.data.loader import LoadedBatch
from gigasr.data.samples import sample_rng
from gigasr.metrics import Lpips, psnr_y
from gigasr.networks.discriminator import Discriminator
from gigasr.networks.ops import downsample_bicubic
from gigasr.networks.text import TextFeatureCache, TokenFeatures, load_tower
from gigasr.networks.upsampler import Level, Upsampler
from gigasr.networks.vision import ImageTower, VisionDiscriminator
from gigasr.training import losses
from gigasr.training.distributed import gather, num_processes, shard_fsdp
from gigasr.training.ema import update_ema
from gigasr.training.trained_network import TrainedNetwork, channels_last, frozen

Rngs = Sequence[torch.Generator]


@dataclass(frozen=True)
class Batch:
    """One micro-batch: inputs of all networks."""

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


class AdversarialTask:
    """Generator against discriminators, rated by frozen networks besides: one step at a time.

    All randomness of a sample is a function of the seed and its number, so that a resumed run goes on as an
    uninterrupted one would have; one with another number of processes too, but for the mismatched captions, which are
    those of a micro-batch.
    """

    kind = "upsampler"  # in the header of the generator's weights

    def __init__(self, config: Any, device: torch.device, lpips_features: Path | None = None) -> None:
        """config: gigasr's Config, or gigasr_base's; lpips_features: a file where they can't be downloaded"""
        torch.manual_seed(config.train.seed)
        self.config, self.train, self.device = config, config.train, device
        text = self.generator_config.text
        tower = load_tower(text.tower, text.pretrained).to(device)
        self.tower = TextFeatureCache(tower) if self.train.cache_text_features else tower
        self.build_networks()
        self.terms = {name for phase in self.train.phases for name, weight in phase.loss if weight}
        if "lpips" in self.terms:
            self.lpips = channels_last(Lpips("squeeze", features=lpips_features).to(device))
        if "clip" in self.terms:
            self.clip = self.contrastive_tower().to(device)

    def build_networks(self) -> None:
        """Networks and optimisers; the generator's average beside it."""
        train, device = self.train, self.device
        fsdp = train.fsdp and num_processes() > 1
        self.generator = self.build_generator(self.config).to(device)
        for level in self.generator.modules():
            if isinstance(level, Level):
                level.gradient_checkpointing = train.gradient_checkpointing
        self.generator_ema = copy.deepcopy(self.generator).requires_grad_(False).eval()
        self.discriminator = channels_last(Discriminator(self.config.discriminator).to(device))
        if fsdp:
            for network in (self.generator, self.generator_ema):
                shard_fsdp(network, [module for module in network.modules() if isinstance(module, Level)], device)
        self.trained_networks = {
            "g": TrainedNetwork("g", self.generator, train, device, fsdp, self.trains_in_part),
            "d": TrainedNetwork("d", self.discriminator, train, device),  # R1 needs second derivatives: no shards
        }
        if any(phase.loss.vision for phase in train.phases):
            self.vision = VisionDiscriminator(train.vision).to(device)
            self.trained_networks["v"] = TrainedNetwork("v", self.vision, train, device)

    def contrastive_tower(self) -> ImageTower:
        """CLIP for the contrastive loss: the vision-aided discriminator's own where both name the same model."""
        clip, vision = self.train.clip, self.train.vision
        if "v" in self.trained_networks and (clip.tower, clip.pretrained) == (vision.tower, vision.pretrained):
            return self.vision.tower
        return ImageTower(clip.tower, clip.pretrained)

    # What gigasr_base overrides: the generator, its inputs, its call.

    @property
    def trains_in_part(self) -> bool:
        """Whether some phase uses only a part of the generator."""
        return False

    @property
    def generator_config(self) -> Any:
        """The generator's own table of the config."""
        return self.config.upsampler

    @staticmethod
    def build_generator(config: Any) -> nn.Module:
        """The network to train, untrained."""
        return Upsampler(config.upsampler)

    @property
    def scale(self) -> int:
        """HR / LR of the whole generator."""
        return self.generator_config.scale

    def low_res(
        self, loaded: LoadedBatch, hr: Tensor, scale: int, degradation: DegradationConfig, rngs: Rngs
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """hr: [B, 3, H, W] -> low-res inputs, unit noise, undamaged low-res images, all [B, 3, H / scale, W / scale]"""
        lr = degrade(hr, scale, degradation, rngs) if loaded.lr is None else loaded.lr.to(self.device)
        root = bicubic_low_res(hr, scale) if loaded.root is None else loaded.root.to(self.device)
        return lr, torch.stack([torch.randn(lr.shape[1:], generator=rng) for rng in rngs]).to(self.device), root

    def synthesize(self, network: nn.Module, batch: Batch) -> list[Tensor]:
        """Run the generator, its average or its replica on a batch -> pyramid, smallest first"""
        return network(batch.lr, batch.z, batch.tokens, batch.noise, batch.scale)

    def compared(self, batch: Batch, pyramid: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """The pairs of generated and real images of which L1 and Charbonnier are the mean."""
        return [(pyramid[-1], batch.hr)]

    def make_batch(self, loaded: LoadedBatch, scale: int, degradation: DegradationConfig) -> Batch:
        """Complete what the readers give to all that the players see."""
        hr, captions = loaded.hr.to(self.device), loaded.captions
        rngs = [sample_rng(self.train.seed, number) for number in loaded.numbers.tolist()]
        lr, noise, root = self.low_res(loaded, hr, scale, degradation, rngs)
        z = torch.stack([torch.randn(self.generator_config.z_dim, generator=rng) for rng in rngs]).to(self.device)
        shift = torch.stack([torch.randint(losses.MAX_SHIFT + 1, (2,), generator=rng) for rng in rngs])
        tokens = self.tower.encode(captions)
        order = shuffle_captions(captions, rngs[0])
        mismatched = TokenFeatures(*(x[order.to(x.device)] for x in (tokens.features, tokens.eot, tokens.mask)))
        is_mismatched = mismatch_mask(captions, order).to(self.device)
        return Batch(hr, lr, noise, z, captions, tokens, mismatched, is_mismatched, shift, scale, root)

    def step(self, batch: Sequence[Batch], phase: PhaseConfig, number: int, decay: float = 1.0) -> dict[str, float]:
        """Update all networks on one batch, given as its micro-batches.

        A batch of one micro-batch is synthesized once for all networks; more are synthesized anew for each.

        number:  of the step, counted from 0: R1 is lazy
        decay:   the learning rates' factor
        returns: every term by `trained/term`
        """
        pyramid = self.fake_pyramid(batch[0]) if len(batch) == 1 else None
        weights = phase.loss.model_dump()
        d_weights = weights | {"adversarial": 1.0}  # the weight is the generator's: it balances the other terms
        penalised = bool(phase.loss.r1) and number % self.train.r1_every == 0
        rate = decay * phase.discriminator_learning_rate
        log: dict[str, float] = {}
        if phase.is_adversarial:
            log |= self.trained_networks["d"].update(
                batch, lambda b: self.discriminator_terms(b, phase, pyramid, penalised), d_weights, rate, phase.betas
            )
        if phase.loss.vision:
            log |= self.trained_networks["v"].update(
                batch, lambda b: self.vision_terms(b, phase, pyramid), d_weights, rate, phase.betas
            )
        rate = decay * phase.generator_learning_rate
        return log | self.trained_networks["g"].update(
            batch, lambda b: self.generator_terms(b, phase, pyramid), weights, rate, phase.betas
        )

    def average(self, images_seen: int, batch_size: int) -> None:
        """Move the averaged generator towards the trained one; at first its half-life is half the images seen."""
        half_life = min(self.train.ema_half_life, images_seen * 0.5)
        update_ema(self.generator_ema, self.generator, 0.5 ** (batch_size / half_life))

    @torch.no_grad()
    def metrics(self, batch: Batch) -> dict[str, float]:
        """Validation metrics of the averaged generator."""
        fake = self.synthesize(self.generator_ema, batch)[-1]
        pairs = zip((fake + 1) / 2, (batch.hr + 1) / 2, strict=True)
        metrics = {"psnr_y": sum(psnr_y(a.clamp(0, 1), b, border=0) for a, b in pairs) / len(fake)}
        if "lpips" in self.terms:
            metrics["lpips"] = float(self.lpips(fake, batch.hr).mean())
        return metrics

    # The terms of the losses. Log, config and functions share their names.

    def generator_terms(self, batch: Batch, phase: PhaseConfig, pyramid: list[Tensor] | None) -> dict[str, Tensor]:
        """The generator's loss terms by name; pyramid: where it has been synthesized already"""
        pyramid = self.fake_pyramid(batch) if pyramid is None else pyramid
        fake, weights = pyramid[-1], phase.loss
        terms: dict[str, Tensor] = {}
        for name in ("l1", "charbonnier"):
            if getattr(weights, name):
                values = [getattr(losses, name)(*pair) for pair in self.compared(batch, pyramid)]
                terms[name] = torch.stack(values).mean()
        for name in ("ssim", "spectrum"):
            if getattr(weights, name):
                terms[name] = getattr(losses, name)(fake, batch.hr)
        if weights.root and batch.root is not None:
            terms["root"] = losses.charbonnier(pyramid[0], batch.root)
        if weights.lpips:
            with self.autocast():
                pair = (losses.shift_images(images, batch.shift) for images in (fake, batch.hr))
                terms["lpips"] = self.lpips(*pair).mean(dtype=batch.hr.dtype)
        if weights.adversarial or weights.generator_matching:
            terms |= self.adversarial_terms(batch, phase, pyramid)
        if weights.clip:
            texts, offset = gather(self.clip.embed_texts(batch.captions))
            has_caption, _ = gather(texts.new_tensor([[caption != ""] for caption in batch.captions]))
            terms["clip"] = losses.clip_contrastive(
                self.clip.embed_images(fake), texts, self.clip.scale, offset, has_caption[:, 0] > 0
            )
        if weights.vision:
            with frozen(self.vision):
                logits = self.vision(fake, [batch.tokens])[0]
            terms["vision"] = losses.adversarial(logits, True, self.vision.head_weights())
        return terms

    def adversarial_terms(self, batch: Batch, phase: PhaseConfig, pyramid: Sequence[Tensor]) -> dict[str, Tensor]:
        """What the discriminator tells the generator."""
        d, head_weights = self.discriminator, self.discriminator.head_weights()
        texts = [batch.tokens, batch.mismatched] if phase.loss.generator_matching else [batch.tokens]
        with frozen(d), self.autocast():
            logits, *mismatched = d(pyramid, texts, batch.lr)
        terms = {"adversarial": losses.adversarial(logits, True, head_weights)} if phase.loss.adversarial else {}
        for maps in mismatched:
            terms["generator_matching"] = losses.matching(maps, head_weights, batch.is_mismatched, is_real=True)
        return terms

    def discriminator_terms(
        self, batch: Batch, phase: PhaseConfig, pyramid: list[Tensor] | None, penalised: bool
    ) -> dict[str, Tensor]:
        """The discriminator's loss terms by name; real images keep their own captions."""
        fakes = self.detached_pyramid(batch, pyramid)
        d, head_weights = self.trained_networks["d"].network, self.discriminator.head_weights()
        texts = [batch.tokens, batch.mismatched] if phase.loss.matching else [batch.tokens]
        reals = [image.requires_grad_(penalised) for image in self.real_pyramid(batch.hr)]
        plain = sdpa_kernel(SDPBackend.MATH) if penalised else nullcontext()  # fused ones lack second derivatives
        with self.autocast(not penalised), plain:
            real = d(reals, texts, batch.lr)
        with self.autocast():
            fake = d(fakes, texts, batch.lr)
        terms = losses.discriminator_loss_terms(real, fake, head_weights, batch.is_mismatched)
        if penalised:
            terms["r1"] = losses.r1(real[0], reals, head_weights) * self.train.r1_every
        return terms

    def vision_terms(self, batch: Batch, phase: PhaseConfig, pyramid: list[Tensor] | None) -> dict[str, Tensor]:
        """The loss terms of the vision-aided heads by name."""
        fake, heads = self.detached_pyramid(batch, pyramid)[-1], self.trained_networks["v"].network
        texts = [batch.tokens, batch.mismatched] if phase.loss.matching else [batch.tokens]
        return losses.discriminator_loss_terms(
            heads(batch.hr, texts), heads(fake, texts), self.vision.head_weights(), batch.is_mismatched
        )

    def real_pyramid(self, hr: Tensor) -> list[Tensor]:
        """hr: [B, 3, H, W] -> antialiased reductions as the generator's pyramid has them, smallest first"""
        return downsampled_pyramid(hr, self.config.discriminator.num_levels)

    def fake_pyramid(self, batch: Batch) -> list[Tensor]:
        """The trained generator's pyramid, in the precision of the real images."""
        with self.autocast():
            return [image.to(batch.hr.dtype) for image in self.synthesize(self.trained_networks["g"].network, batch)]

    @torch.no_grad()
    def detached_pyramid(self, batch: Batch, pyramid: list[Tensor] | None) -> list[Tensor]:
        """The same without gradients."""
        return [image.detach() for image in (self.fake_pyramid(batch) if pyramid is None else pyramid)]

    def autocast(self, enabled: bool = True) -> torch.autocast:
        """bf16 where the config asks for it; heads of the discriminators leave it by themselves."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled and self.train.precision == "bf16")


def downsampled_pyramid(hr: Tensor, count: int) -> list[Tensor]:
    """hr: [B, 3, H, W] -> antialiased reductions [B, 3, H / 2^(count - 1), ...], ..., a copy of hr"""
    return [hr.clone() if i == 0 else downsample_bicubic(hr, 2**i) for i in reversed(range(count))]
