"""Training in several processes: replicas (DDP), shards (FSDP), whole states."""

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

FULL_STATE = StateDictOptions(full_state_dict=True, cpu_offload=True)  # for any number of processes


def join_processes(name: str) -> torch.device:
    """Join the processes that a launcher has started; return this process's device.

    torchrun and `accelerate launch` set the environment variables WORLD_SIZE, RANK, LOCAL_RANK, MASTER_ADDR and
    MASTER_PORT. Without WORLD_SIZE the process trains alone.

    name: auto, cpu, cuda or mps. Raises ValueError for a missing device
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
    """Leave the group of processes.

    After an error the group stays: other processes may still wait for this process.
    """
    if dist.is_initialized():
        dist.destroy_process_group()


def num_processes() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def process_index() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def wait_for_all() -> None:
    """Wait until every process has made this call."""
    if num_processes() > 1:
        dist.barrier()


def wrap_ddp(module: nn.Module, device: torch.device, in_part: bool = False) -> nn.Module:
    """Wrap a module to average gradients over processes; one process needs no wrapper.

    in_part: some passes use only a part of the module; the search for unused parameters costs time
    """
    if num_processes() == 1:
        return module
    devices = [device] if device.type == "cuda" else None
    return DistributedDataParallel(  # two forwards may share one backward
        module, devices, broadcast_buffers=False, find_unused_parameters=in_part
    )


def shard_fsdp(module: nn.Module, blocks: Sequence[nn.Module], device: torch.device) -> None:
    """Spread parameters, gradients and optimiser states over the processes (FSDP).

    In place, block by block.
    """
    mesh = dist.device_mesh.init_device_mesh(device.type, (num_processes(),))
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)


@contextmanager
def _fsdp_sync(network: FSDPModule, enabled: bool) -> Iterator[None]:
    """Reduce gradients over the processes in this backward pass, or in a later pass."""
    network.set_requires_gradient_sync(enabled)
    yield
    network.set_requires_gradient_sync(True)


def syncing(network: nn.Module, enabled: bool) -> AbstractContextManager[None]:
    """Wrap forward and backward pass of one micro-batch.

    enabled: reduce gradients over the processes; only the last micro-batch of a step needs the reduction
    """
    if isinstance(network, FSDPModule):
        return _fsdp_sync(network, enabled)
    if isinstance(network, DistributedDataParallel) and not enabled:
        return network.no_sync()
    return nullcontext()


def local(parameter: Tensor) -> Tensor:
    """Return this process's part of a parameter."""
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter


def whole(x: Tensor) -> Tensor:
    """Join a value from the parts in the processes; every process must call."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def module_state(module: nn.Module) -> dict[str, Any]:
    """Return the whole state on the CPU of the first process; every process must call."""
    return get_model_state_dict(module, options=FULL_STATE)


def optimizer_state(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the whole state by parameter names; every process must call.

    The state is empty before the first step.
    """
    return get_optimizer_state_dict(module, optimizer, options=FULL_STATE) if optimizer.state else {}


def load_module_state(module: nn.Module, state: dict[str, Any]) -> None:
    """Load a state from module_state, with any number of processes.

    Every process passes the whole state. Raises RuntimeError if module and state do not fit.
    """
    missing = sorted(module.state_dict().keys() - state.keys())
    if missing:  # torch would leave missing parameters unchanged
        others = ""
        if len(missing) > 1:
            others = f" and {len(missing) - 1} more"
        raise RuntimeError(f"missing: {missing[0]}{others}")
    set_model_state_dict(module, state, options=StateDictOptions(full_state_dict=True))


def load_optimizer_state(module: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a state from optimizer_state, with any number of processes.

    Every process passes the whole state. Parameters without a state, in levels above a phase's crop, start from zero.
    The optimiser keeps the weight decay of the config.
    """
    if not state:
        return
    decays = [group["weight_decay"] for group in optimizer.param_groups]
    options = StateDictOptions(full_state_dict=True, strict=False)
    set_optimizer_state_dict(module, optimizer, state, options=options)
    for group, decay in zip(optimizer.param_groups, decays, strict=True):
        group["weight_decay"] = decay
    for name, parameter in module.named_parameters():
        if name not in state["state"]:
            optimizer.state.pop(parameter, None)


def any_process(flag: bool, device: torch.device) -> bool:
    """Return True on all processes if the flag is True on any process."""
    if num_processes() == 1:
        return flag
    flags = torch.tensor([float(flag)], device=device)
    dist.all_reduce(flags, op=dist.ReduceOp.MAX)
    return bool(flags.item())


def mean_over_processes(values: dict[str, float], device: torch.device) -> dict[str, float]:
    """Average each value over the processes; all processes must pass the same keys."""
    if num_processes() == 1:
        return values
    stacked = torch.tensor(list(values.values()), dtype=torch.float64, device=device)
    dist.all_reduce(stacked)
    return dict(zip(values, (stacked / num_processes()).tolist(), strict=True))


def gather(x: Tensor) -> tuple[Tensor, int]:
    """Gather rows from all processes, without gradient.

    x: [B, D] -> [processes * B, D] in the order of the processes, and the index of this process's first row
    """
    if num_processes() == 1:
        return x, 0
    parts = [torch.empty_like(x) for _ in range(num_processes())]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts), process_index() * len(x)
