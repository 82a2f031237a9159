"""Pure tensor functions of the networks.

Tensor letters, used everywhere: B batch, C/I/O channels (any/in/out), H W, K kernel size, N bank size,
T tokens, D features.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

FILTER_TAPS = (1.0, 3.0, 3.0, 1.0)  # StyleGAN2's resampling filter
EPS = 1e-8  # keeps norms above zero
MIN_MAP_SIDE = 4  # px; of a network's coarsest map: torch 2.14.1 errs with AMX where one is a px wide, see docs/api.md


def select_kernel(bank: Tensor, logits: Tensor) -> Tensor:
    """Mix the kernel bank into one kernel per sample, each laid out in channels_last.

    bank:    [N, O, I, K, K]  learned kernels, shared by all samples
    logits:  [B, N]           one score per kernel
    returns: [B, O, I, K, K]  softmax-weighted sum over N

    Source: GigaGAN (arXiv:2303.05511), sample-adaptive kernel selection.
    """
    rows = bank.permute(0, 1, 3, 4, 2)  # [N, O, K, K, I]
    return (logits.softmax(dim=1) @ rows.flatten(1)).view(-1, *rows.shape[1:]).permute(0, 1, 4, 2, 3)


def modulate(kernel: Tensor, styles: Tensor) -> Tensor:
    """Scale the input channels of each sample's kernel.

    kernel:  [B or 1, O, I, K, K]
    styles:  [B, I]  unbounded, 1 = unchanged
    returns: [B, O, I, K, K]

    Source: StyleGAN2 (arXiv:1912.04958), weight modulation.
    """
    return kernel * styles[:, None, :, None, None]


def demodulate(kernel: Tensor, gain: float = 1.0) -> Tensor:
    """Give every output channel of every kernel the same norm.

    kernel:  [B, O, I, K, K]
    returns: [B, O, I, K, K]  the root of the sum of squares over (I, K, K) is gain

    Source: StyleGAN2 (arXiv:1912.04958), weight demodulation.
    """
    norm = torch.linalg.vector_norm(kernel, dim=(2, 3, 4), keepdim=True)
    return kernel * (gain * torch.rsqrt(norm.square() + EPS)).to(kernel.dtype)


def conv2d_per_sample(x: Tensor, kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve each sample with its own kernel, at the same size.

    CPUs convolve sample by sample: their grouped convolutions are slower by half or more, backwards by a factor of
    three. Kernels and maps in channels_last are fastest there.

    x:       [B, I, H, W]
    kernel:  [B, O, I, K, K]  K odd
    bias:    [O]
    returns: [B, O, H, W]     zero padding of K // 2
    """
    batch, out_channels, in_channels, size, _ = kernel.shape
    if size == 1:  # matrix products: a grouped convolution would run sample by sample
        if x.is_contiguous(memory_format=torch.channels_last):  # the result and its gradient keep this layout
            y = (x.permute(0, 2, 3, 1).flatten(1, 2) @ kernel.flatten(2).mT).unflatten(1, x.shape[2:])
            y = y.permute(0, 3, 1, 2)
        else:
            y = (kernel.flatten(2) @ x.flatten(2)).unflatten(2, x.shape[2:])
        return y if bias is None else y + bias[:, None, None]
    if x.is_cpu:
        pairs = zip(x.split(1), kernel.unbind(), strict=True)
        return torch.cat([F.conv2d(one, own, bias, padding=size // 2) for one, own in pairs])
    grouped = x.reshape(1, batch * in_channels, *x.shape[2:])
    own_bias = None if bias is None else bias.repeat(batch)
    y = F.conv2d(grouped, kernel.reshape(-1, in_channels, size, size), own_bias, padding=size // 2, groups=batch)
    return y.reshape(batch, out_channels, *y.shape[2:])


def conv2d_shared(x: Tensor, bank: Tensor, shares: Tensor, styles: Tensor) -> Tensor:
    """Convolve with mixed and modulated kernels, without making the kernels.

    Modulation moves to the input, the mixture to the output: N dense convolutions replace B small ones. The work is
    less if the map has fewer pixels than the kernel has weights per channel, and no [B, O, I, K, K] is kept.

    x:       [B, I, H, W]
    bank:    [N, O, I, K, K]  K odd
    shares:  [B, N]           of each kernel, sum 1
    styles:  [B, I]
    returns: [B, O, H, W]     zero padding of K // 2
    """
    y = F.conv2d(x * styles[:, :, None, None], bank.flatten(0, 1), padding=bank.shape[-1] // 2)
    y = y.unflatten(1, bank.shape[:2])
    return y[:, 0] if len(bank) == 1 else (y * shares[:, :, None, None, None]).sum(dim=1)


def mixed_norm(bank: Tensor, shares: Tensor, styles: Tensor) -> Tensor:
    """Compute the norm of each output channel's mixed and modulated kernel.

    The Gram matrices of the bank suffice; the kernels are not made.

    bank:    [N, O, I, K, K]
    shares:  [B, N]
    styles:  [B, I]
    returns: [B, O]
    """
    products = torch.stack([(bank * kernel).sum(dim=(3, 4)) for kernel in bank])  # [N, N, O, I]
    by_pair = torch.einsum("nmoi,bi->bnmo", products, styles.square())
    return torch.einsum("bnmo,bn,bm->bo", by_pair, shares, shares).clamp(min=0).add(EPS).sqrt()


def by_position(parameter: Tensor, positions: int, dim: int = 0) -> Tensor:
    """Order output channels by (position, channel).

    In this order `depth_to_space` moves contiguous runs of channels.

    parameter: [..., C * positions, ...]  along dim by (channel, position), as in pixel_shuffle
    returns:   the same shape
    """
    if positions == 1:
        return parameter
    return parameter.unflatten(dim, (-1, positions)).transpose(dim, dim + 1).flatten(dim, dim + 1)


def depth_to_space(x: Tensor) -> Tensor:
    """x: [B, 4 C, H, W], channels by (row, column, channel) -> [B, C, 2 H, 2 W] in the same memory format"""
    y = x.unflatten(1, (2, 2, -1))  # [B, row, column, C, H, W]
    if x.is_contiguous(memory_format=torch.channels_last):
        return y.permute(0, 4, 1, 5, 2, 3).flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)
    return y.permute(0, 3, 4, 1, 5, 2).flatten(4, 5).flatten(2, 3)


def blur_kernel(device: torch.device | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the separable resampling filter, [4, 4] with sum 1."""
    taps = torch.tensor(FILTER_TAPS, device=device, dtype=dtype)
    return torch.outer(taps, taps) / taps.sum().square()


def upsample2d(x: Tensor) -> Tensor:
    """Double the size with the [1, 3, 3, 1] filter.

    x:       [B, C, H, W]
    returns: [B, C, 2H, 2W]

    Source: StyleGAN2 (arXiv:1912.04958), appendix B; zeros beyond the border.
    """
    channels = x.shape[1]
    kernel = (blur_kernel(x.device, x.dtype) * 4).expand(channels, 1, 4, 4)
    return F.conv_transpose2d(x, kernel, stride=2, padding=1, groups=channels)


def l2_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attend by negative squared distance on the fused dot-product kernel.

    softmax_j(-s |q_i - k_j|^2) = softmax_j(2s q_i.k_j - s |k_j|^2), as |q_i|^2 does not depend on j. The second
    term is one more channel of k against a constant 1 in q, so no [T, T] matrix is made.

    q:       [B, heads, T, D]
    k, v:    [B, heads, S, D]
    mask:    [B or 1, S] bool  True = key takes part
    returns: [B, heads, T, D]

    Source: GigaGAN (arXiv:2303.05511), L2-distance attention. The paper asks for logits of about unit variance at
    initialisation and gives no scale; ours, s = 1 / sqrt(8 D), gives unit variance for unit normal q and k.
    """
    scale = 1.0 / math.sqrt(8 * q.shape[-1])
    k_bias = -scale * k.square().sum(dim=-1, keepdim=True)
    if mask is not None:
        k_bias = k_bias.masked_fill(~mask[:, None, :, None], -1e4)
    width = q.shape[-1] + 8  # a multiple of 8 keeps the fused kernels eligible
    q = F.pad(torch.cat([2 * scale * q, torch.ones_like(q[..., :1])], dim=-1), (0, 7))
    k = F.pad(torch.cat([k, k_bias], dim=-1), (0, 7))
    v = F.pad(v, (0, 8))
    return F.scaled_dot_product_attention(q, k, v, scale=1.0)[..., : width - 8]


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """x: [B, C, H, W] -> [B, C, *size], antialiased bicubic; x itself if it has this size"""
    if x.shape[2:] == size:
        return x
    return F.interpolate(x, size, mode="bicubic", antialias=True, align_corners=False)


def gaussian_taps(sigma: float, radius: int) -> Tensor:
    """Return the taps of a Gaussian filter along one axis, [2 * radius + 1].

    Their sum is 1.
    """
    distance = torch.arange(-radius, radius + 1, dtype=torch.float64)
    taps = torch.exp(-0.5 * (distance / sigma).square())
    return (taps / taps.sum()).float()


def filter_axes(x: Tensor, taps: Tensor, dims: tuple[int, ...] = (2, 3)) -> Tensor:
    """Filter along height and width, with replicated borders.

    x:       [B, C, H, W]
    taps:    [2 * radius + 1]
    dims:    2 = along the height, 3 = along the width
    returns: [B, C, H, W]
    """
    x = x.contiguous()  # in channels_last, oneDNN 3.12's depthwise convolution of bf16 by 1x25 never returns
    radius, channels = len(taps) // 2, x.shape[1]
    for dim in dims:
        pad, shape = ((0, 0, radius, radius), (-1, 1)) if dim == 2 else ((radius, radius, 0, 0), (1, -1))
        kernel = taps.to(x).view(1, 1, *shape).expand(channels, 1, -1, -1)
        x = F.conv2d(F.pad(x, pad, mode="replicate"), kernel, groups=channels)
    return x


def downsample_bicubic(y: Tensor, scale: int) -> Tensor:
    """y: [B, C, H * scale, W * scale] -> [B, C, H, W], antialiased bicubic"""
    return resize(y, (y.shape[2] // scale, y.shape[3] // scale))


def upsample_bicubic(x: Tensor, scale: int) -> Tensor:
    """x: [B, C, H, W] -> [B, C, H * scale, W * scale], bicubic

    On the CPU, without gradients, the axes are upsampled in turn, four times faster than by torch's interpolation.
    """
    if x.is_cpu and x.dtype == torch.float32 and not (torch.is_grad_enabled() and x.requires_grad):
        x = F.pad(x, (2, 2, 2, 2), mode="replicate")
        return _upsample_axis(_upsample_axis(x, scale, 3), scale, 2)
    return F.interpolate(x, scale_factor=scale, mode="bicubic", align_corners=False)


def add_upsampled_(y: Tensor, x: Tensor, scale: int, factor: float = 1.0) -> None:
    """Add some rows of an image, upsampled and scaled, in place.

    Equal to `y += factor * upsample_bicubic(x)` with less memory.

    y: [B, C, H * scale, W * scale]  is changed
    x: [B, C, H + 4, W]              the H rows, with two more rows above and below
    """
    columns = _upsample_axis(F.pad(x, (2, 2, 0, 0), mode="replicate"), scale, 3)
    weights = _upsample_axis(torch.eye(x.shape[2], dtype=x.dtype, device=x.device), scale, 0)
    for image, part in zip(y, columns, strict=True):
        image.baddbmm_(weights.expand(len(part), -1, -1), part, alpha=factor)


def _upsample_axis(x: Tensor, scale: int, dim: int) -> Tensor:
    """Make `scale` samples from each sample of an axis.

    Two samples at either end are margin: they are read, but not upsampled.
    """
    size = x.shape[dim] - 4
    phases = []
    for phase in range(scale):
        offset = (phase + 0.5) / scale - 0.5  # of the new sample from its old sample
        first = math.floor(offset) - 1
        y = x.narrow(dim, first + 2, size) * cubic(offset - first)
        for tap in range(first + 1, first + 4):
            y.add_(x.narrow(dim, tap + 2, size), alpha=cubic(offset - tap))
        phases.append(y)
    return torch.stack(phases, dim + 1).flatten(dim, dim + 1)


def cubic(distance: float) -> float:
    """Compute the weight of a sample at this distance, in samples.

    The kernel is Keys' cubic convolution with a = -0.75, as in torch.
    """
    d, a = abs(distance), -0.75
    if d <= 1:
        return ((a + 2) * d - (a + 3)) * d * d + 1
    return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
