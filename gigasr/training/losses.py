"""Loss terms as pure functions; a high logit means real.

A list of logits holds one [levels * B, 1, H, W] map per head of a discriminator, levels stacked along the batch.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gigasr.metrics.ops import NUM_RINGS, luma, radial_spectrum, structural_similarity

SPECTRUM_SIDE = 2 * NUM_RINGS  # px; side of the squares whose spectra are compared
MAX_SHIFT = 7  # px; shifts up to this put images anywhere on the lattice of SqueezeNet's middle layers, of 8 px


def l1(fake: Tensor, real: Tensor) -> Tensor:
    """fake, real: [B, 3, H, W] in [-1, 1] -> mean absolute difference"""
    return (fake - real).abs().mean()


def charbonnier(fake: Tensor, real: Tensor, eps: float = 1e-3) -> Tensor:
    """fake, real: [B, 3, H, W] in [-1, 1] -> mean of sqrt(difference^2 + eps^2), an L1 that is smooth at zero"""
    return ((fake - real).square() + eps**2).sqrt().mean()


def ssim(fake: Tensor, real: Tensor) -> Tensor:
    """fake, real: [B, 3, H, W] in [-1, 1] -> 1 less the mean structural similarity of their luma"""
    return 1 - structural_similarity(luma((fake + 1) / 2), luma((real + 1) / 2)).mean()


def spectrum(fake: Tensor, real: Tensor) -> Tensor:
    """Mean squared difference of local radial power spectra, in units of (10 dB)^2: as much detail of each fineness.

    fake, real: [B, 3, H, W] in [-1, 1], at least 64x64 px; the luma of squares of that size that overlap by half
                is compared. Both are taken to hold the noise of rounding to 8 bit: flat squares have a spectrum too.

    Source: ours; the metric of `metrics` at every place. Watch your Up-Convolution (arXiv:2003.01826) compares the
    spectra of whole images, which leaves open where the detail belongs.
    """
    # mid gray is subtracted first: windows let the zero frequency leak into others
    lumas = (luma((images + 1) / 2) - 125.5 for images in (fake, real))
    squares = (
        x.unfold(1, SPECTRUM_SIDE, SPECTRUM_SIDE // 2).unfold(2, SPECTRUM_SIDE, SPECTRUM_SIDE // 2) for x in lumas
    )
    ours, theirs = (radial_spectrum(square, noise=1 / 12) for square in squares)
    return ((ours - theirs) / 10).square().mean()


def shift_images(images: Tensor, shift: Tensor) -> Tensor:
    """Move images down and right, mirrored at the edges, as LPIPS is to see them.

    SqueezeNet looks at a fixed lattice of pixels, and a generator learns to please it there by a checkerboard;
    a lattice that changes with every image leaves nothing to please but the picture (E-LPIPS, arXiv:1906.03973).

    images:  [B, 3, H, W]
    shift:   [B, 2] of each, 0 to MOST_SHIFT px
    returns: [B, 3, H + MOST_SHIFT, W + MOST_SHIFT]
    """
    height, width = (side + MAX_SHIFT for side in images.shape[2:])
    padded = F.pad(images, (MAX_SHIFT,) * 4, mode="reflect")
    corners = (MAX_SHIFT - shift).tolist()
    pairs = zip(padded, corners, strict=True)
    return torch.stack([image[:, top : top + height, left : left + width] for image, (top, left) in pairs])


def weighted_sum(values: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """values: scalars, weights: one each -> scalar"""
    return torch.stack([weight * value for value, weight in zip(values, weights, strict=True)]).sum()


def per_sample(maps: Tensor) -> Tensor:
    """maps: [n, 1, H, W] -> [n] mean over space"""
    return maps.mean(dim=(1, 2, 3))


def logistic(logits: Tensor, is_real: bool) -> Tensor:
    """logits: [n, 1, H, W], is_real: the label to be reached -> [n] logistic loss, mean over space"""
    sign = -1.0 if is_real else 1.0
    return per_sample(F.softplus(sign * logits))


def adversarial(logits: Sequence[Tensor], is_real: bool, weights: Sequence[float]) -> Tensor:
    """Logistic loss of every prediction of the discriminator (paper, Eq. 6; non-saturating for the generator).

    logits:  one [levels * B, 1, H, W] map per head
    is_real: the label to be reached
    weights: one per map
    """
    return weighted_sum([logistic(m, is_real).mean() for m in logits], weights)


def matching(logits: Sequence[Tensor], weights: Sequence[float], mask: Tensor, is_real: bool = False) -> Tensor:
    """Logistic loss of images with another image's caption, a pair the discriminator is to call fake.

    logits:  one [levels * B, 1, H, W] map per head
    weights: one per map
    mask:    [B] bool  True = the caption is mismatched (see `mismatch_mask`); all other samples are left out
    is_real: the label to be reached; True for the generator's side
    returns: mean over the samples of the mask; 0 where it has none

    Source: GigaGAN (arXiv:2303.05511), Eq. 8, one of its two expectations per call: real images, then fake ones.
    """
    keep = mask.to(logits[0].device)
    means = []
    for m in logits:
        losses = logistic(m, is_real).view(-1, len(keep))  # [levels, B]
        means.append(losses.masked_fill(~keep, 0.0).mean(dim=0).sum() / keep.sum().clamp(min=1))
    return weighted_sum(means, weights)


def clip_contrastive(
    image: Tensor, text: Tensor, scale: float | Tensor, offset: int = 0, has_caption: Tensor | None = None
) -> Tensor:
    """Cross-entropy of finding each image's own caption among all captions, by their cosine similarity.

    image:   [B, D]  embeddings of the generated images
    text:    [N, D]  embeddings of the captions, N >= offset + B; more than the batch's own are further negatives
    scale:   of the similarities: CLIP's learned one, the inverse of its temperature
    offset:  the caption of image i is text[offset + i]
    has_caption: [N] bool  False = an empty caption, which contradicts no image: no negative, and its image is left out

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
    losses, own = F.cross_entropy(logits.masked_fill(~has_caption, -1e4), target, reduction="none"), has_caption[target]
    return (losses * own).sum() / own.sum().clamp(min=1)


def r1(logits: Sequence[Tensor], inputs: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Gradient penalty on real images: half the squared norm of d(weighted logits)/d(inputs), mean over samples.

    logits:  one [levels * B, 1, H, W] map per head, computed from `inputs`
    inputs:  the real pyramid, [B, 3, H_i, W_i], requiring gradients
    weights: one per map; the penalty covers the sum of all predictions, weighted as in `adversarial`

    Source: Mescheder et al. (arXiv:1801.04406); whether the paper penalises all predictions is not given.
    """
    batch = len(inputs[0])
    total = batch * weighted_sum([m.mean() for m in logits], weights)  # the sum over samples, the mean over levels
    gradients = torch.autograd.grad(total, list(inputs), create_graph=True)
    return 0.5 * torch.stack([g.square().sum() for g in gradients]).sum() / batch
