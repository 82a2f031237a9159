"""Processes that read training examples ahead of the steps."""

import signal
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset


class LoadedBatch(NamedTuple):
    """Training examples as the readers give them."""

    numbers: Tensor  # [B] of the crops in the whole run
    hr: Tensor  # [B, 3, crop, crop] in [-1, 1]
    captions: list[str]
    lr: Tensor | None = None  # [B, 3, crop / scale, ...] in [-1, 1], where the readers make it
    root: Tensor | None = None  # the same without the damage that is to be removed


def load(
    dataset: Dataset[Any], num_workers: int, batch_size: int = 1, parts: Iterable[list[int]] | None = None
) -> Iterator[LoadedBatch]:
    """Yield the batches of a torch DataLoader, read by so many processes; ValueError as a reader raised it.

    Its generator is its own: starting the processes would else move torch's random state.
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
            batches._shutdown_workers()  # at exit Python would wait for them for ever, as they are deaf to SIGTERM


def leave_signals_to_the_trainer(worker: int) -> None:
    """Terminals and schedulers send SIGINT and SIGTERM to every process; readers go on until the step is saved."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
