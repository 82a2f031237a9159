"""The loss terms of each network; log, config and `losses` share the names."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from gigasr.config.training import LossConfig, TrainConfig
from gigasr.networks.ops import downsample_bicubic
from gigasr.networks.text import TokenFeatures
from gigasr.training import losses
from gigasr.training.batches import Batch, Pyramid
from gigasr.training.distributed import gather
from gigasr.training.networks import TaskNetworks, mixed_precision, required
from gigasr.training.trained_network import Terms, frozen

Pairs = list[tuple[Tensor, Tensor]]  # generated and real images


class LossTerms:
    """The loss terms of generator and discriminators, by name."""

    def __init__(self, train: TrainConfig, networks: TaskNetworks, device: torch.device) -> None:
        self.train, self.networks, self.device = train, networks, device

    def generator(self, batch: Batch, weights: LossConfig, pyramid: Pyramid) -> Terms:
        """Compute the generator's weighted terms.

        pyramid: generated images, smallest first
        """
        terms = self.reconstruction(batch, weights, pyramid)
        if weights.lpips:
            terms["lpips"] = self.perceptual(batch, pyramid[-1])
        if weights.adversarial or weights.generator_matching:
            terms |= self.adversarial(batch, weights, pyramid)
        if weights.clip:
            terms["clip"] = self.contrastive(batch, pyramid[-1])
        if weights.vision:
            terms["vision"] = self.vision_aided(batch, pyramid[-1])
        return terms

    def reconstruction(self, batch: Batch, weights: LossConfig, pyramid: Pyramid) -> Terms:
        """Compare the generated images with the real ones, without a network."""
        terms: Terms = {}
        if weights.l1:
            terms["l1"] = _mean_over_pairs(losses.l1, self.compared(batch, pyramid))
        if weights.charbonnier:
            terms["charbonnier"] = _mean_over_pairs(losses.charbonnier, self.compared(batch, pyramid))
        if weights.ssim:
            terms["ssim"] = losses.ssim(pyramid[-1], batch.hr)
        if weights.spectrum:
            terms["spectrum"] = losses.spectrum(pyramid[-1], batch.hr)
        if weights.root and batch.root is not None:
            terms["root"] = losses.charbonnier(pyramid[0], batch.root)
        return terms

    def compared(self, batch: Batch, pyramid: Pyramid) -> Pairs:
        """Pair generated with real images; L1 and Charbonnier are means over the pairs."""
        return [(pyramid[-1], batch.hr)]

    def perceptual(self, batch: Batch, fake: Tensor) -> Tensor:
        """Compute the mean LPIPS distance of the shifted images.

        fake: [B, 3, H, W] -> scalar
        """
        lpips = required(self.networks.lpips, "lpips")
        with self.autocast():
            shifted_fake = losses.shift_images(fake, batch.shift)
            shifted_real = losses.shift_images(batch.hr, batch.shift)
            return lpips(shifted_fake, shifted_real).mean(dtype=batch.hr.dtype)

    def adversarial(self, batch: Batch, weights: LossConfig, pyramid: Pyramid) -> Terms:
        """Compute the generator's terms from the discriminator's logits."""
        discriminator = self.networks.discriminator.module
        head_weights = discriminator.head_weights()
        with frozen(discriminator), self.autocast():
            texts = _captions(batch, bool(weights.generator_matching))
            logits = discriminator(pyramid, texts, batch.lr)
        terms: Terms = {}
        if weights.adversarial:
            terms["adversarial"] = losses.adversarial(logits[0], True, head_weights)
        for maps in logits[1:]:
            terms["generator_matching"] = losses.matching(maps, head_weights, batch.is_mismatched, is_real=True)
        return terms

    def contrastive(self, batch: Batch, fake: Tensor) -> Tensor:
        """Compute CLIP's contrastive loss, among the captions of all processes.

        fake: [B, 3, H, W] -> scalar
        """
        clip = required(self.networks.clip, "clip")
        texts, offset = gather(clip.embed_texts(batch.captions))
        own_has_caption = texts.new_tensor([[caption != ""] for caption in batch.captions])
        has_caption, _ = gather(own_has_caption)
        images = clip.embed_images(fake)
        return losses.clip_contrastive(images, texts, clip.scale, offset, has_caption[:, 0] > 0)

    def vision_aided(self, batch: Batch, fake: Tensor) -> Tensor:
        """Compute the generator's loss from the vision-aided discriminator.

        fake: [B, 3, H, W] -> scalar
        """
        vision = required(self.networks.vision, "vision").module
        with frozen(vision):
            logits = vision(fake, [batch.tokens])[0]
        return losses.adversarial(logits, True, vision.head_weights())

    def discriminator(self, batch: Batch, weights: LossConfig, fakes: Pyramid, is_penalised: bool) -> Terms:
        """Compute the discriminator's terms; real images keep their own captions.

        fakes:        the generated pyramid, without gradients
        is_penalised: whether the gradient penalty R1 is due in this step
        """
        trained = self.networks.discriminator
        head_weights = trained.module.head_weights()
        texts = _captions(batch, bool(weights.matching))
        reals = [image.requires_grad_(is_penalised) for image in self.real_pyramid(batch.hr)]
        attention: AbstractContextManager[object] = nullcontext()
        if is_penalised:
            attention = sdpa_kernel(SDPBackend.MATH)  # fused attention lacks second derivatives
        with self.autocast(not is_penalised), attention:
            real = trained.network(reals, texts, batch.lr)
        with self.autocast():
            fake = trained.network(fakes, texts, batch.lr)
        terms = real_or_fake_terms(real, fake, head_weights, batch.is_mismatched)
        if is_penalised:
            terms["r1"] = losses.r1(real[0], reals, head_weights) * self.train.r1_every
        return terms

    def vision(self, batch: Batch, weights: LossConfig, fakes: Pyramid) -> Terms:
        """Compute the terms of the vision-aided discriminator.

        fakes: the generated pyramid, without gradients
        """
        trained = required(self.networks.vision, "vision")
        texts = _captions(batch, bool(weights.matching))
        real = trained.network(batch.hr, texts)
        fake = trained.network(fakes[-1], texts)
        return real_or_fake_terms(real, fake, trained.module.head_weights(), batch.is_mismatched)

    def real_pyramid(self, hr: Tensor) -> Pyramid:
        """Reduce real images to the sizes of the discriminator's levels.

        hr: [B, 3, H, W] -> antialiased reductions, smallest first
        """
        return downsampled_pyramid(hr, self.networks.discriminator.module.config.num_levels)

    def autocast(self, enabled: bool = True) -> torch.autocast:
        """Compute in the precision of the config."""
        return mixed_precision(self.train, self.device, enabled)


def _captions(batch: Batch, with_mismatched: bool) -> list[TokenFeatures]:
    """List the captions of a discriminator's predictions.

    The images' own captions come first, then the mismatched captions of the matching loss.
    """
    if with_mismatched:
        return [batch.tokens, batch.mismatched]
    return [batch.tokens]


def _mean_over_pairs(loss: Callable[[Tensor, Tensor], Tensor], pairs: Pairs) -> Tensor:
    """Average a loss over pairs of generated and real images."""
    return torch.stack([loss(fake, real) for fake, real in pairs]).mean()


def downsampled_pyramid(hr: Tensor, count: int) -> Pyramid:
    """Reduce images by powers of two, antialiased, smallest first.

    hr: [B, 3, H, W] -> [B, 3, H / 2^(count - 1), ...], ..., a copy of hr
    """
    smaller = [downsample_bicubic(hr, 2**i) for i in reversed(range(1, count))]
    return [*smaller, hr.clone()]


def real_or_fake_terms(
    real: Sequence[losses.Logits], fake: Sequence[losses.Logits], weights: Sequence[float], is_mismatched: Tensor
) -> Terms:
    """Compute a discriminator's own terms from its logits.

    real, fake:    the logit maps with the images' own captions and, for the matching loss, with mismatched ones
    weights:       one per map
    is_mismatched: [B] bool  False where the other caption is the same
    """
    real_term = losses.adversarial(real[0], True, weights)
    fake_term = losses.adversarial(fake[0], False, weights)
    terms = {"adversarial": real_term + fake_term}
    mismatched = [losses.matching(maps, weights, is_mismatched) for maps in (*real[1:], *fake[1:])]
    if mismatched:
        terms["matching"] = torch.stack(mismatched).sum()
    return terms
