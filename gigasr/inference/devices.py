"""Choose devices and precision, measure free memory, and spread work over devices."""

import copy
import os
import queue
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import nn

T = TypeVar("T")
R = TypeVar("R")
M = TypeVar("M", bound=nn.Module)

OOM_MESSAGES = (  # in the texts of RuntimeErrors
    "out of memory",
    "can't allocate memory",
    "Failed to allocate memory",
    "not enough memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)

WITHOUT_BF16 = ("sse41", "avx", "avx2", "avx2_vnni", "avx2_vnni_2", "avx512_core", "avx512_core_vnni")  # oneDNN's names


@dataclass(frozen=True)
class ExecutionPlan:
    """Devices, precision, tile and batch sizes of an engine."""

    devices: tuple[torch.device, ...] = (torch.device("cpu"),)
    dtype: torch.dtype = torch.float32
    tile: int = 0  # low-res px; side of the tiles, 0 = as memory allows
    strip: int = 0  # low-res rows per strip, 0 = as memory allows
    batch: int = 0  # tiles at a time on each device, 0 = one on a CPU, elsewhere as memory allows

    @property
    def main_device(self) -> torch.device:
        """The device that puts the results together."""
        return self.devices[0]


def choose_devices(names: str) -> tuple[torch.device, ...]:
    """Parse a comma-separated list of device names.

    names:   each "auto" or a name of torch's; a device named twice works on two pieces at a time
    returns: the devices, in the order of the names
    """
    return tuple(choose_device(name.strip()) for name in names.split(","))


def choose_device(name: str) -> torch.device:
    """Choose a device by name: "auto", or a name of torch's.

    "auto" is CUDA, else Apple's GPU, else the CPU. Raises ValueError for a device that this machine lacks.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise ValueError(
            f"device: expected auto, cpu, cuda, cuda:N or mps, got '{name}'; is it on this machine?"
        ) from None
    return device


def choose_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Choose the number format for a precision: "auto", "fp32" or "bf16".

    "auto" is bf16 if the hardware multiplies bf16, else fp32. On a GPU "fp32" turns TF32 off for the whole process.
    Raises ValueError for other precisions.
    """
    if precision == "fp32" and device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False  # torch's default for matrix products is off already
    names = {"fp32": torch.float32, "bf16": torch.bfloat16}
    if precision in names:
        return names[precision]
    if precision != "auto":
        raise ValueError(f"precision: expected auto, fp32 or bf16, got '{precision}'")
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        fast = device.type == "cpu" and cpu_multiplies_bf16()
    return torch.bfloat16 if fast else torch.float32


def cpu_multiplies_bf16() -> bool:
    """Tell whether the processor has bf16 and the environment lets torch use it.

    ATEN_CPU_CAPABILITY limits torch's own kernels. ONEDNN_MAX_CPU_ISA (earlier: DNNL_MAX_CPU_ISA) limits oneDNN's.
    """
    capabilities = torch.cpu.get_capabilities()
    has_bf16 = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    allowed = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or ""
    return has_bf16 and torch.backends.cpu.get_cpu_capability() == "AVX512" and allowed.lower() not in WITHOUT_BF16


def free_memory(device: torch.device) -> int:
    """Return the bytes that can still be allocated on a device."""
    if device.type == "cuda":
        reusable = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reusable
    import psutil

    return psutil.virtual_memory().available


def run_or_none_if_oom(run: Callable[[], R]) -> R | None:
    """Return run's result, or None if memory runs out; other errors pass."""
    try:
        return run()
    except (MemoryError, RuntimeError) as error:
        is_known = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not is_known and not any(text in str(error) for text in OOM_MESSAGES):
            raise
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    return None


def copy_to_devices(network: M, devices: Sequence[torch.device]) -> dict[torch.device, M]:
    """Copy a network to each device; move the network itself to the first."""
    copies = {devices[0]: network.to(devices[0])}
    for device in devices[1:]:
        if device not in copies:
            copies[device] = copy.deepcopy(network).to(device)
    return copies


def map_on_devices(
    work: Callable[[T, torch.device], R], items: Iterable[T], devices: Sequence[torch.device]
) -> Iterator[R]:
    """Map work over items, one item at a time on each device.

    items:   taken one by one in the caller's thread; at most one more than the devices is in memory
    returns: the results of work, in the order of the items
    """
    if len(devices) == 1:
        for item in items:
            results = [work(item, devices[0])]
            del item  # frees the memory before the next item is made; `pop` frees the result likewise
            yield results.pop()
        return
    idle: queue.SimpleQueue[torch.device] = queue.SimpleQueue()
    for device in devices:
        idle.put(device)

    def run(item: T) -> R:
        device = idle.get()
        try:
            with torch.inference_mode():
                return work(item, device)
        finally:
            idle.put(device)

    with ThreadPoolExecutor(len(devices)) as pool:
        pending: deque[Future[R]] = deque()
        for item in items:
            pending.append(pool.submit(run, item))
            del item
            if len(pending) > len(devices):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
