"""Threads beside the network's, and items handed to them, a few at a time; the failure of either side ends both."""

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Generic, NamedTuple, TypeVar

import torch

T = TypeVar("T")
_SETTING = threading.Lock()  # while the number of threads that later ones take is another


def background_thread() -> ThreadPoolExecutor:
    """One thread that works beside the network: its tensor operations run in itself alone.

    With a team of its own the processor would have more of OpenMP's threads than cores, and those of the network would
    be put to sleep after every operation instead of waiting for the next one: small pictures took 1.4 times as long.
    """
    with _SETTING:
        threads = torch.get_num_threads()
        thread = ThreadPoolExecutor(1)
        thread.submit(_compute_alone).result()
        torch.set_num_threads(threads)  # of threads that begin to compute later
    return thread


def _compute_alone() -> None:
    """Let the thread that runs this have no others to help it."""
    torch.set_num_threads(1)
    torch.get_num_threads()  # settles it: the first to ask takes what was set last, whichever thread set it


class ChannelClosedError(Exception):
    """The reader is gone; nobody wants more items."""


class _End(NamedTuple):
    """Marks the end of the items."""

    error: BaseException | None


class BoundedChannel(Generic[T]):
    """Hand items from one thread to another, which iterates over them."""

    def __init__(self, limit: int = 1) -> None:
        """limit: items that wait at a time, at most"""
        self.items: SimpleQueue[T | _End] = SimpleQueue()  # unbounded, so that the end is told without waiting
        self.room = threading.Semaphore(limit)
        self.is_closed = False

    def put(self, item: T) -> None:
        """Add an item, once there is room; ClosedError where the reader is gone."""
        self.room.acquire()
        if self.is_closed:
            self.room.release()
            raise ChannelClosedError
        self.items.put(item)

    def produce(self, items: Iterable[T], errors: tuple[type[Exception], ...]) -> Iterator[T]:
        """Put items as they are made and give each back, until the reader is gone.

        errors: of making an item; they end the items and are the reader's to handle
        """
        try:
            for item in items:
                self.put(item)
                yield item
                del item
        except ChannelClosedError:
            return
        except errors as error:
            self.finish(error)

    def finish(self, error: BaseException | None = None) -> None:
        """End the items; the reader meets the error, where there is one. Of several calls the first counts."""
        self.items.put(_End(error))

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Finish with the block, and with the error that ends it: the reader never waits for ever."""
        try:
            yield
        except BaseException as error:
            self.finish(error)
            raise
        self.finish()

    def close(self, _: object = None) -> None:
        """Tell that no more items are wanted; may be the callback of the reader's Future."""
        self.is_closed = True
        self.room.release()

    def __iter__(self) -> Iterator[T]:
        while not isinstance(item := self.items.get(), _End):
            self.room.release()
            yield item
            del item
        if item.error is not None:
            raise item.error
