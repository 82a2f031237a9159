"""Threads beside the network's, and items handed to them, a few at a time; the failure of either side ends both."""

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

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


class ClosedError(Exception):
    """The reader is gone; nobody wants more items."""


class Handoff(Generic[T]):
    """What one thread puts, another iterates over."""

    def __init__(self, limit: int = 1) -> None:
        """limit: items that wait at a time, at most"""
        self.limit = limit
        self.items: deque[T] = deque()
        self.is_finished = self.is_closed = False
        self.error: BaseException | None = None
        self.changed = threading.Condition()

    def put(self, item: T) -> None:
        """Add an item, once there is room; ClosedError where the reader is gone."""
        with self.changed:
            self.changed.wait_for(lambda: self.is_closed or len(self.items) < self.limit)
            if self.is_closed:
                raise ClosedError
            self.items.append(item)
            self.changed.notify_all()

    def feed(self, items: Iterable[T], errors: tuple[type[Exception], ...]) -> Iterator[T]:
        """Put items as they are made and give each back, until the reader is gone.

        errors: of making an item; they end the items and are the reader's to handle
        """
        try:
            for item in items:
                self.put(item)
                yield item
                del item
        except ClosedError:
            return
        except errors as error:
            self.finish(error)

    def finish(self, error: BaseException | None = None) -> None:
        """No more items come; the reader meets the error, where there is one. Of several calls the first counts."""
        with self.changed:
            if not self.is_finished:
                self.is_finished, self.error = True, error
            self.changed.notify_all()

    @contextmanager
    def ended(self) -> Iterator[None]:
        """Finish with the block, and with the error that ends it: the reader never waits for ever."""
        try:
            yield
        except BaseException as error:
            self.finish(error)
            raise
        self.finish()

    def close(self, _: object = None) -> None:
        """No more items are wanted; may be the callback of the reader's Future."""
        with self.changed:
            self.is_closed = True
            self.items.clear()
            self.changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        while (item := self._take()) is not None:
            yield item
            del item

    def _take(self) -> T | None:
        with self.changed:
            self.changed.wait_for(lambda: self.items or self.is_finished)
            if self.error is not None:
                raise self.error
            item = self.items.popleft() if self.items else None
            self.changed.notify_all()
            return item
