"""The exponential moving average of the generator."""

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

from gigasr.training.distributed import local


@torch.no_grad()
def update_ema(ema: nn.Module, module: nn.Module, decay: float) -> None:
    """Move the averaged parameters towards the trained parameters; buffers are copied."""
    if isinstance(ema, FSDPModule):
        ema.reshard()  # a forward pass without a backward one leaves its own parameters whole
    for a, b in zip(ema.parameters(), module.parameters(), strict=True):
        local(a).lerp_(local(b), 1.0 - decay)
    for mean, value in zip(ema.buffers(), module.buffers(), strict=True):
        mean.copy_(value)
