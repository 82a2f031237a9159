"""Time and peak memory of calls."""

import ctypes
import gc
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import psutil
import torch

T = TypeVar("T")
WATCH_EVERY = 0.005  # seconds


class ResourceMeter:
    """A meter for the time and peak memory of calls.

    Memory counts on all GPUs, or for the process on a CPU, above the amount at the meter's construction.
    """

    def __init__(self, device: str) -> None:
        release_free_memory()
        self.process = psutil.Process()
        self.gpus = range(torch.cuda.device_count() if device not in ("cpu", "mps") else 0)
        if self.gpus:
            torch.cuda.init()  # memory_allocated needs CUDA initialised
        self.base = sum(map(torch.cuda.memory_allocated, self.gpus)) if self.gpus else self.resident()

    def resident(self) -> int:
        """Return the resident memory of the process, in bytes."""
        return int(self.process.memory_info().rss)

    def run(self, call: Callable[[], T]) -> tuple[T, dict[str, float]]:
        """Run a call; return its result and its cost, seconds and peak_mb (10^6 bytes)."""
        peak, is_done = self.base, threading.Event()

        def watch() -> None:
            nonlocal peak
            while not self.gpus and not is_done.wait(WATCH_EVERY):
                peak = max(peak, self.resident())

        for gpu in self.gpus:
            torch.cuda.reset_peak_memory_stats(gpu)
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        began = time.perf_counter()
        try:
            result = call()
        finally:
            seconds = time.perf_counter() - began
            is_done.set()
            watcher.join()
        peak = sum(map(torch.cuda.max_memory_allocated, self.gpus)) if self.gpus else max(peak, self.resident())
        return result, {"seconds": seconds, "peak_mb": (peak - self.base) / 1e6}


def release_free_memory() -> None:
    """Make glibc return free memory to the system.

    The next call would otherwise reuse free memory and seem to need too little.
    """
    gc.collect()
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
    if trim is not None:
        trim(0)
