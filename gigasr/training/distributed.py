"""One network in several processes: replicas (DDP), shards (FSDP), and states that fit any number of them."""

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from gigasr.inference.devices import choose_device

FULL_STATE = StateDictOptions(
    full_state_dict=True, cpu_offload=True
)  # states are whole, whatever the number of processes


def join_processes(name: str) -> torch.device:
    """Join the processes that a launcher has started, and return the device of this one.

    torchrun and `accelerate launch` say by environment variables which process this is: WORLD_SIZE, RANK, LOCAL_RANK,
    MASTER_ADDR and MASTER_PORT. Without them it trains alone.

    name: auto, cpu, cuda or mps; ValueError for a device that this machine lacks
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return choose_device(name)
    if name not in ("auto", "cuda") or not torch.cuda.is_available():
        device = choose_device(name)
        dist.init_process_group("gloo")
        return device
    if "LOCAL_RANK" not in os.environ:
        raise ValueError("LOCAL_RANK: expected the process's number on its node, got none; start it with torchrun")
    device = choose_device(f"cuda:{os.environ['LOCAL_RANK']}")
    torch.cuda.set_device(device)
    dist.init_process_group("nccl", device_id=device)
    return device


def leave_processes() -> None:
    """End what join_processes began; not after an error, as others may still wait for this process."""
    if dist.is_initialized():
        dist.destroy_process_group()


def num_processes() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def process_index() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def wait_for_all() -> None:
    """Wait until every process has come here."""
    if num_processes() > 1:
        dist.barrier()


def wrap_ddp(module: nn.Module, device: torch.device, in_part: bool = False) -> nn.Module:
    """The callable whose backward pass averages gradients over processes; the module itself in a single one.

    in_part: some passes use only a part of the module; the search for what they left out costs time
    """
    if num_processes() == 1:
        return module
    devices = [device] if device.type == "cuda" else None
    return DistributedDataParallel(  # two forwards may share one backward
        module, devices, broadcast_buffers=False, find_unused_parameters=in_part
    )


def shard_fsdp(module: nn.Module, blocks: Sequence[nn.Module], device: torch.device) -> None:
    """Spread parameters, gradients and optimiser states over the processes, in place, block by block (FSDP)."""
    mesh = dist.device_mesh.init_device_mesh(device.type, (num_processes(),))
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)


@contextmanager
def fsdp_sync(network: FSDPModule, enabled: bool) -> Iterator[None]:
    """Reduce gradients over the processes in this backward pass, or leave them to a later one."""
    network.set_requires_gradient_sync(enabled)
    yield
    network.set_requires_gradient_sync(True)


def syncing(network: nn.Module, enabled: bool) -> AbstractContextManager[None]:
    """Around forward and backward of one micro-batch; only a step's last one needs the processes to agree."""
    if isinstance(network, FSDPModule):
        return fsdp_sync(network, enabled)
    if isinstance(network, DistributedDataParallel) and not enabled:
        return network.no_sync()
    return nullcontext()


def local(parameter: Tensor) -> Tensor:
    """The part of a parameter that this process holds."""
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


def whole(x: Tensor) -> Tensor:
    """A value that may lie in parts in the processes, put together."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def module_state(module: nn.Module) -> dict[str, Any]:
    """The whole state on the CPU, on the first process; every process must call."""
    return get_model_state_dict(module, options=FULL_STATE)


def optimizer_state(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The whole state by parameter names; empty before the first step; every process must call."""
    return get_optimizer_state_dict(module, optimizer, options=FULL_STATE) if optimizer.state else {}


def load_module_state(module: nn.Module, state: dict[str, Any]) -> None:
    """Load what module_state gave, however many processes there are now; each passes the whole state.

    Raises RuntimeError where the two don't fit.
    """
    missing = sorted(module.state_dict().keys() - state.keys())
    if missing:  # torch would leave those as they are
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise RuntimeError(f"missing: {missing[0]}{others}")
    set_model_state_dict(module, state, options=StateDictOptions(full_state_dict=True))


def load_optimizer_state(module: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load what optimizer_state gave, however many processes there are now; each passes the whole state.

    Parameters that no step had moved yet, of levels above a phase's crop, begin anew. The optimizer keeps its decay.
    """
    if state:
        decays = [group["weight_decay"] for group in optimizer.param_groups]
        options = StateDictOptions(full_state_dict=True, strict=False)
        set_optimizer_state_dict(module, optimizer, state, options=options)
        for group, decay in zip(optimizer.param_groups, decays, strict=True):
            group["weight_decay"] = decay
        for name, parameter in module.named_parameters():
            if name not in state["state"]:
                optimizer.state.pop(parameter, None)


def any_process(flag: bool, device: torch.device) -> bool:
    """True on all processes where it is True on one."""
    if num_processes() == 1:
        return flag
    flags = torch.tensor([float(flag)], device=device)
    dist.all_reduce(flags, op=dist.ReduceOp.MAX)
    return bool(flags.item())


def mean_over_processes(values: dict[str, float], device: torch.device) -> dict[str, float]:
    """Average each value over the processes; all of them must have the same keys."""
    if num_processes() == 1:
        return values
    stacked = torch.tensor(list(values.values()), dtype=torch.float64, device=device)
    dist.all_reduce(stacked)
    return dict(zip(values, (stacked / num_processes()).tolist(), strict=True))


def gather(x: Tensor) -> tuple[Tensor, int]:
    """x: [B, D] without gradient -> [processes * B, D] in their order, and where this process's own rows begin"""
    if num_processes() == 1:
        return x, 0
    parts = [torch.empty_like(x) for _ in range(num_processes())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts), process_index() * len(x)
