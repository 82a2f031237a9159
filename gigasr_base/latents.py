"""Latents and conditions of the base generator: truncation, mixing, interpolation.

Pure functions after GigaGAN (arXiv:2303.05511), called by TextToImage.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gigasr.inference.noise import seeded
from gigasr.networks.text import TextFeatures
from gigasr_base.config import CONST_SIZE
from gigasr_base.generator import Condition

MEAN_SAMPLES = 16  # number of z for a prompt's mean w


def draw_z(seeds: Sequence[int], z_dim: int) -> Tensor:
    """Draw a z for each seed, on the CPU.

    The z of a seed does not depend on the other seeds.

    returns: [B, z_dim]  normally distributed
    """
    rows = [torch.randn(z_dim, generator=seeded(seed)) for seed in seeds]
    return torch.stack(rows)


def prompt_mean(mapping: nn.Module, t_global: Tensor, z_dim: int) -> Tensor:
    """Average w over MEAN_SAMPLES fixed z, for each prompt.

    mapping:  (z, t_global) -> w
    t_global: [B, D]
    returns:  [B, w_dim]
    """
    z = draw_z(range(MEAN_SAMPLES), z_dim).to(t_global)
    w = mapping(z.repeat(len(t_global), 1), t_global.repeat_interleave(MEAN_SAMPLES, dim=0))
    return w.unflatten(0, (-1, MEAN_SAMPLES)).mean(dim=1)


def truncate(w: Tensor, w_mean: Tensor, w_prompt_mean: Tensor, psi: float) -> Tensor:
    """Truncate w: towards the mean of all prompts, then towards the prompt's mean.

    Truncation trades variety for quality.

    w:             [B, w_dim]
    w_mean:        [w_dim]     over z and prompts
    w_prompt_mean: [B, w_dim]  over z, for the prompt of each sample
    psi:           0..1; 1 gives w, 0 gives w_prompt_mean
    returns:       [B, w_dim]

    Source: GigaGAN (arXiv:2303.05511), appendix C.1.
    """
    return torch.lerp(w_prompt_mean, torch.lerp(w_mean.expand_as(w), w, psi), psi)


def mix(coarse: Condition, fine: Condition, num_levels: int, mix_at: int) -> list[Condition]:
    """Give levels below mix_at px the coarse condition and the others the fine one.

    Two prompts with one z mix prompts: w and text change together. One text with two w mixes styles.

    returns: one condition per level

    Source: GigaGAN (arXiv:2303.05511), figures 6 and 8.
    """
    return [fine if CONST_SIZE * 2**i >= mix_at else coarse for i in range(num_levels)]


def pad_tokens(text: TextFeatures, length: int) -> TextFeatures:
    """Pad text features with masked tokens to a length."""
    missing = length - text.mask.shape[1]
    return TextFeatures(F.pad(text.t_local, (0, 0, 0, missing)), text.t_global, F.pad(text.mask, (0, missing)))


def interpolate_text(a: TextFeatures, b: TextFeatures, share: float) -> TextFeatures:
    """Interpolate the text features of two prompts, token by token.

    t_global and the tokens of both prompts are interpolated. A token of only one prompt keeps its value; the mask fades
    the token.

    a, b:    of B samples; the numbers of tokens may differ
    share:   0..1; 0 gives a, 1 gives b
    returns: mask is [B, T] float, the logarithm of each token's share; attention adds it to the logits

    Source: GigaGAN (arXiv:2303.05511), figure 7. The paper does not treat prompts of different lengths; the fading is
    our choice.
    """
    length = max(a.mask.shape[1], b.mask.shape[1])
    a, b = pad_tokens(a, length), pad_tokens(b, length)
    share_a, share_b = (1 - share) * a.mask, share * b.mask
    total = share_a + share_b
    t_local = share_a[..., None] * a.t_local + share_b[..., None] * b.t_local
    t_local = t_local / total.clamp(min=torch.finfo(total.dtype).tiny)[..., None]
    return TextFeatures(t_local, torch.lerp(a.t_global, b.t_global, share), total.log())


def slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Interpolate along the arc from a to b; vectors of equal length keep the length.

    a, b:    [B, D], not opposite
    share:   0..1; 0 gives a, 1 gives b
    returns: [B, D]; linear if a and b point the same way

    Source: Shoemake, "Animating rotation with quaternion curves", 1985.
    """
    angle = F.cosine_similarity(a, b, dim=1).clamp(-1, 1).acos()[:, None]
    sine = angle.sin()
    is_straight = sine < 1e-4
    sine = sine.clamp(min=1e-4)
    to_a = torch.where(is_straight, 1 - share, ((1 - share) * angle).sin() / sine)
    to_b = torch.where(is_straight, share, (share * angle).sin() / sine)
    return to_a * a + to_b * b


def even_shares(steps: Tensor, count: int) -> list[float]:
    """Choose shares of a path with equal changes from frame to frame.

    steps:   [N]  measured lengths of N equal shares of the path, at least 0
    count:   number of shares to choose, both ends included, at least 2
    returns: rising shares from 0 to 1; equally spaced if all lengths are 0
    """
    total = float(steps.sum())
    if not total:
        return [i / (count - 1) for i in range(count)]
    gone = F.pad(steps.double().cumsum(dim=0) / total, (1, 0))
    shares = np.interp(np.linspace(0, 1, count), gone.numpy(), np.linspace(0, 1, len(gone)))
    return [float(share) for share in shares]
