"""A counter of floating-point operations and of the bytes that autograd saves."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


def _convolution_backward_flops(grad: Tensor, x: Tensor, kernel: Tensor, *settings: Any, **_: object) -> int:
    """Count a convolution's backward pass: each gradient costs a forward pass.

    Differs from torch's own formula: torch counts the gradient of a grouped kernel once per group.
    """
    *_settings, transposed, _padding, _groups, needed = settings
    output = x if transposed else grad
    positions = math.prod(output.shape[2:])
    num_gradients = sum(needed[:2])
    return 2 * len(x) * positions * kernel.numel() * num_gradients


def _flop_formulas() -> dict[Any, Callable[..., int]]:
    """Return a formula per operation, as in torch, with two changes.

    Convolutions are corrected, and fused attention on CPUs is added.
    """
    aten, flash = torch.ops.aten, "_scaled_dot_product_flash_attention"
    formulas: dict[Any, Callable[..., int]] = dict(flop_registry)
    formulas[aten.convolution_backward] = _convolution_backward_flops
    for end in ("", "_backward"):
        on_cpu = getattr(aten, f"{flash}_for_cpu{end}")
        formulas[on_cpu] = flop_registry[getattr(aten, flash + end)]
    return formulas


_FORMULAS = _flop_formulas()


class FlopMemoryCounter(TorchDispatchMode):
    """A counter of operations in a `with` block, and of saved bytes.

    Bytes that autograd saves are counted within `track_saved_tensors`.

    >>> with FlopMemoryCounter() as counter, counter.track_saved_tensors():
    ...     y = network(x)
    """

    def __init__(self, *networks: nn.Module) -> None:
        """Start at zero. networks: their parameters are no activations"""
        super().__init__()
        self.flops = self.saved_bytes = 0
        parameters = [parameter for network in networks for parameter in network.parameters()]
        storages = [parameter.untyped_storage() for parameter in parameters]
        self._storages = {storage._cdata: storage for storage in storages}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it."""
        if func is torch.ops.prim.device.default:
            return args[0].device
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        formula = _FORMULAS.get(func.overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=result)
        return result

    def track_saved_tensors(self) -> saved_tensors_hooks:
        """Count the tensors that autograd saves."""
        return saved_tensors_hooks(self._count_saved, lambda tensor: tensor)

    def _count_saved(self, tensor: Tensor) -> Tensor:
        """Count each storage once. A reference protects the address from reuse."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self._storages:
            self._storages[storage._cdata] = storage
            self.saved_bytes += storage.nbytes()
        return tensor


class ModuleCost(NamedTuple):
    """The cost of one forward pass of a module."""

    flops: int
    saved_bytes: int


@contextmanager
def per_module(network: nn.Module, counter: FlopMemoryCounter) -> Iterator[dict[str, list[ModuleCost]]]:
    """Measure each part of a network: by name, one entry per element of a list."""
    costs: dict[str, list[ModuleCost]] = {name: [] for name, _ in network.named_children()}
    started: list[ModuleCost] = []

    def begin(*_: object) -> None:
        started.append(ModuleCost(counter.flops, counter.saved_bytes))

    def end(name: str) -> None:
        start = started.pop()
        costs[name].append(ModuleCost(counter.flops - start.flops, counter.saved_bytes - start.saved_bytes))

    hooks = []
    for name, part in network.named_children():
        for module in part if isinstance(part, nn.ModuleList) else [part]:
            hooks.append(module.register_forward_pre_hook(begin))
            hooks.append(module.register_forward_hook(lambda *_, name=name: end(name)))
    yield costs
    for hook in hooks:
        hook.remove()
