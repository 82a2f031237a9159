"""Processes that read training examples ahead of the steps."""

import signal
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset


class LoadedBatch(NamedTuple):
    """A batch of training examples from the workers."""

    numbers: Tensor  # [B] of the crops in the whole run
    hr: Tensor  # [B, 3, crop, crop] in [-1, 1]
    captions: list[str]
    lr: Tensor | None = None  # [B, 3, crop / scale, ...] in [-1, 1]; None if the training step makes it
    root: Tensor | None = None  # lr without the damage that is to be removed


def load(
    dataset: Dataset[Any], num_workers: int, batch_size: int = 1, parts: Iterable[list[int]] | None = None
) -> Iterator[LoadedBatch]:
    """Yield the batches of a torch DataLoader with worker processes.

    The DataLoader gets its own generator, because starting workers draws from torch's global one. A worker's ValueError
    is raised with its own message.
    """
    loader = DataLoader(
        dataset,
        batch_size,
        batch_sampler=parts,
        num_workers=num_workers,
        generator=torch.Generator(),
        worker_init_fn=leave_signals_to_the_trainer,
    )
    batches: Any = iter(loader)
    try:
        for numbers, hr, captions, lr, root in batches:
            yield LoadedBatch(numbers, hr, list(captions), lr if lr.numel() else None, root if root.numel() else None)
    except ValueError as error:  # torch puts a reader's traceback before its message
        raise ValueError(str(error).strip().rsplit("\nValueError: ", 1)[-1]) from None
    finally:
        if num_workers:
            batches._shutdown_workers()  # workers ignore SIGTERM, so Python would wait for them at exit for ever


def leave_signals_to_the_trainer(worker: int) -> None:
    """Ignore SIGINT and SIGTERM in a worker.

    Terminals and schedulers signal every process; workers must read on until the trainer has saved its step.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
