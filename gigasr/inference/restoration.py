"""Make the root of the pyramid, the restored low-res image, strip by strip."""

from collections.abc import Iterator

from torch import Tensor

from gigasr.inference.row_stream import RowStream, block_rows
from gigasr.networks.upsampler import ROOT_RADIUS, remove_low_frequencies


def restore_rows(lr: RowStream, residual: RowStream, restore: float) -> RowStream:
    """Add a share of the root layer's residual to the low-res image.

    Only the residual's high frequencies are added: the low frequencies remain the image's.

    lr:       [B, 3, H, W] in [-1, 1]
    residual: [B, 3, H, W]  output of the root layer, all frequencies
    restore:  0..1, the share
    returns:  [B, 3, H, W]  the root
    """
    return RowStream(lr.size, _add_residual(lr, residual, restore))


def _add_residual(lr: RowStream, residual: RowStream, restore: float) -> Iterator[Tensor]:
    height, block = residual.size[0], block_rows(residual.size[1])
    for top in range(0, height, block):
        bottom = min(top + block, height)
        first, last = max(top - ROOT_RADIUS, 0), min(bottom + ROOT_RADIUS, height)
        details = remove_low_frequencies(residual.read(first, last))[:, :, top - first : bottom - first]
        yield lr.read(top, bottom) + restore * details
