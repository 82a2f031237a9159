"""Operations and saved tensors of networks, counted while they run."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


def convolution_backward_flops(grad: Tensor, x: Tensor, kernel: Tensor, *settings: Any, **_: object) -> int:
    """Operations of a convolution's backward pass: each of both gradients costs what the forward pass does.

    differs: torch's own formula counts the gradient of a grouped kernel once per group.
    """
    *_settings, transposed, _padding, _groups, needed = settings
    positions = math.prod((x if transposed else grad).shape[2:])
    return 2 * len(x) * positions * kernel.numel() * sum(needed[:2])


ATEN, FLASH = torch.ops.aten, "_scaled_dot_product_flash_attention"

FORMULAS: dict[Any, Callable[..., int]] = flop_registry | {ATEN.convolution_backward: convolution_backward_flops}
for end in ("", "_backward"):  # torch knows those of GPUs alone
    FORMULAS[getattr(ATEN, f"{FLASH}_for_cpu{end}")] = flop_registry[getattr(ATEN, FLASH + end)]


class FlopMemoryCounter(TorchDispatchMode):
    """Counts operations while it is entered, and the bytes that autograd keeps within `track_saved_tensors`.

    >>> with FlopMemoryCounter() as counter, counter.track_saved_tensors():
    ...     y = network(x)
    """

    def __init__(self, *networks: nn.Module) -> None:
        """networks: whose parameters are no activations"""
        super().__init__()
        self.flops = self.saved_bytes = 0
        own = [parameter.untyped_storage() for network in networks for parameter in network.parameters()]
        self.storages = {storage._cdata: storage for storage in own}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it."""
        if func is torch.ops.prim.device.default:
            return args[0].device
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        formula = FORMULAS.get(func.overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=result)
        return result

    def track_saved_tensors(self) -> saved_tensors_hooks:
        """Watch what autograd keeps."""
        return saved_tensors_hooks(self._count_saved, lambda tensor: tensor)

    def _count_saved(self, tensor: Tensor) -> Tensor:
        """Count each storage once; a reference is kept so that its address is not reused."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self.storages:
            self.storages[storage._cdata] = storage
            self.saved_bytes += storage.nbytes()
        return tensor


@contextmanager
def per_module(network: nn.Module, counter: FlopMemoryCounter) -> Iterator[dict[str, list[tuple[int, int]]]]:
    """Note (FLOPs, kept bytes) of each part of a network, by its name, for each of its elements where it is a list."""
    notes: dict[str, list[tuple[int, int]]] = {name: [] for name, _ in network.named_children()}
    begun: list[tuple[int, int]] = []

    def begin(*_: object) -> None:
        begun.append((counter.flops, counter.saved_bytes))

    def end(name: str) -> None:
        flops, saved_bytes = begun.pop()
        notes[name].append((counter.flops - flops, counter.saved_bytes - saved_bytes))

    hooks = []
    for name, part in network.named_children():
        for module in part if isinstance(part, nn.ModuleList) else [part]:
            hooks.append(module.register_forward_pre_hook(begin))
            hooks.append(module.register_forward_hook(lambda *_, name=name: end(name)))
    yield notes
    for hook in hooks:
        hook.remove()
