"""Loss terms as pure functions; a high logit means real.

A list of logits holds one [levels * B, 1, H, W] map per prediction head, levels stacked along the batch.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gigasr.metrics.ops import NUM_RINGS, luma, radial_spectrum, structural_similarity

Logits = Sequence[Tensor]  # of a discriminator, one [levels * B, 1, H, W] map per prediction head
SPECTRUM_SIDE = 2 * NUM_RINGS  # px; side of the squares whose spectra are compared
MAX_SHIFT = 7  # px; shifts up to this put images anywhere on the lattice of SqueezeNet's middle layers, of 8 px


def l1(fake: Tensor, real: Tensor) -> Tensor:
    """fake, real: [B, 3, H, W] in [-1, 1] -> mean absolute difference"""
    return (fake - real).abs().mean()


def charbonnier(fake: Tensor, real: Tensor, eps: float = 1e-3) -> Tensor:
    """Return the mean of sqrt(difference^2 + eps^2), an L1 that is smooth at zero.

    fake, real: [B, 3, H, W] in [-1, 1] -> scalar
    """
    return ((fake - real).square() + eps**2).sqrt().mean()


def ssim(fake: Tensor, real: Tensor) -> Tensor:
    """Return 1 less the mean structural similarity of the luma.

    fake, real: [B, 3, H, W] in [-1, 1] -> scalar
    """
    return 1 - structural_similarity(luma((fake + 1) / 2), luma((real + 1) / 2)).mean()


def spectrum(fake: Tensor, real: Tensor) -> Tensor:
    """Compare the local radial power spectra: the amount of detail of each fineness.

    fake, real: [B, 3, H, W] in [-1, 1], at least 64x64 px; the luma is compared in squares of 64 px with half overlap.
                The noise of rounding to 8 bit is added to both spectra, so flat squares have a spectrum too.
    returns:    mean squared difference in units of (10 dB)^2

    Source: ours; the metric of `metrics` at every place. Watch your Up-Convolution (arXiv:2003.01826) compares the
    spectra of whole images and leaves the place of the detail open.
    """
    spectra = []
    for images in (fake, real):
        # subtract mid gray: windows let the zero frequency leak into its neighbours
        centred = luma((images + 1) / 2) - 125.5
        rows = centred.unfold(1, SPECTRUM_SIDE, SPECTRUM_SIDE // 2)
        squares = rows.unfold(2, SPECTRUM_SIDE, SPECTRUM_SIDE // 2)
        spectra.append(radial_spectrum(squares, noise=1 / 12))
    return ((spectra[0] - spectra[1]) / 10).square().mean()


def shift_images(images: Tensor, shift: Tensor) -> Tensor:
    """Move images down and right for LPIPS, mirrored at the edges.

    SqueezeNet samples a fixed lattice of pixels, and a generator learns to please LPIPS at the lattice by a
    checkerboard. A lattice that changes with every image leaves no such shortcut (E-LPIPS, arXiv:1906.03973).

    images:  [B, 3, H, W]
    shift:   [B, 2] down and right, 0 to MAX_SHIFT px
    returns: [B, 3, H + MAX_SHIFT, W + MAX_SHIFT]
    """
    height, width = (side + MAX_SHIFT for side in images.shape[2:])
    padded = F.pad(images, (MAX_SHIFT,) * 4, mode="reflect")
    moved = []
    for image, (top, left) in zip(padded, (MAX_SHIFT - shift).tolist(), strict=True):
        moved.append(image[:, top : top + height, left : left + width])
    return torch.stack(moved)


def weighted_sum(values: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """values: scalars, weights: one each -> scalar"""
    weighted = [weight * value for value, weight in zip(values, weights, strict=True)]
    return torch.stack(weighted).sum()


def per_sample(maps: Tensor) -> Tensor:
    """Average over space: [n, 1, H, W] -> [n]."""
    return maps.mean(dim=(1, 2, 3))


def _logistic(logits: Tensor, is_real: bool) -> Tensor:
    """Return the logistic loss per map, mean over space.

    logits: [n, 1, H, W], is_real: the target label -> [n]
    """
    sign = -1.0 if is_real else 1.0
    return per_sample(F.softplus(sign * logits))


def adversarial(logits: Logits, is_real: bool, weights: Sequence[float]) -> Tensor:
    """Return the logistic loss of all predictions of a discriminator (paper, Eq. 6).

    For the generator the loss is non-saturating: is_real is True for generated images.

    logits:  one [levels * B, 1, H, W] map per head
    is_real: the target label
    weights: one per map
    """
    means = [_logistic(maps, is_real).mean() for maps in logits]
    return weighted_sum(means, weights)


def matching(logits: Logits, weights: Sequence[float], mask: Tensor, is_real: bool = False) -> Tensor:
    """Return the logistic loss of images with mismatched captions.

    The discriminator learns to call such pairs fake.

    logits:  one [levels * B, 1, H, W] map per head
    weights: one per map
    mask:    [B] bool  True = the caption is mismatched (see `mismatch_mask`); all other samples are left out
    is_real: the target label; True for the generator's side
    returns: mean over the samples of the mask; 0 for an empty mask

    Source: GigaGAN (arXiv:2303.05511), Eq. 8, one of the two expectations per call: real images, then fake images.
    """
    keep = mask.to(logits[0].device)
    means = []
    for maps in logits:
        losses = _logistic(maps, is_real).view(-1, len(keep))  # [levels, B]
        per_image = losses.masked_fill(~keep, 0.0).mean(dim=0)
        means.append(per_image.sum() / keep.sum().clamp(min=1))
    return weighted_sum(means, weights)


def clip_contrastive(
    image: Tensor, text: Tensor, scale: float | Tensor, offset: int = 0, has_caption: Tensor | None = None
) -> Tensor:
    """Return the cross-entropy of finding each image's caption by cosine similarity.

    image:       [B, D]  embeddings of the generated images
    text:        [N, D]  embeddings of the captions, N >= offset + B; captions beyond the batch are further negatives
    scale:       factor of the similarities: CLIP's learned factor, the inverse temperature
    offset:      text[offset + i] is the caption of image i
    has_caption: [N] bool  False = an empty caption: never a negative, as no image contradicts an empty caption; images
                 with an empty caption are left out

    Source: GigaGAN (arXiv:2303.05511), Eq. 9; image to text only. The paper has no empty captions.
    """
    if len(text) < offset + len(image):
        raise ValueError(
            f"text: expected at least offset + B = {offset + len(image)} captions, got {len(text)}; "
            "pass those of all processes, in the order of their images"
        )
    logits = scale * F.normalize(image, dim=1) @ F.normalize(text, dim=1).T
    target = torch.arange(offset, offset + len(image), device=image.device)
    if has_caption is None:
        return F.cross_entropy(logits, target)
    logits = logits.masked_fill(~has_caption, -1e4)
    losses = F.cross_entropy(logits, target, reduction="none")
    is_counted = has_caption[target]
    return (losses * is_counted).sum() / is_counted.sum().clamp(min=1)


def r1(logits: Logits, inputs: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Penalise gradients on real images: half the squared norm, mean over samples.

    The gradient is d(weighted logits)/d(inputs).

    logits:  one [levels * B, 1, H, W] map per head, computed from `inputs`
    inputs:  the real pyramid, [B, 3, H_i, W_i], requiring gradients
    weights: one per map; the penalty covers the sum of all predictions, weighted as in `adversarial`

    Source: Mescheder et al. (arXiv:1801.04406). The paper does not say whether the penalty covers all predictions.
    """
    batch = len(inputs[0])
    total = batch * weighted_sum([m.mean() for m in logits], weights)  # the sum over samples, the mean over levels
    gradients = torch.autograd.grad(total, list(inputs), create_graph=True)
    squared_norms = torch.stack([gradient.square().sum() for gradient in gradients])
    return 0.5 * squared_norms.sum() / batch
