"""Background threads, and bounded handing of items between threads.

A failure on either side ends both sides.
"""

import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Generic, NamedTuple, TypeVar

import torch

T = TypeVar("T")
_SETTING = threading.Lock()  # held while torch's number of threads differs


def background_thread() -> ThreadPoolExecutor:
    """Start a thread beside the network's; tensor operations in the thread are serial.

    With another OpenMP pool, threads would outnumber cores, and the network's threads would sleep after each operation
    instead of spinning: small images took 1.4 times the time.
    """
    with _SETTING:
        num_threads = torch.get_num_threads()
        thread = ThreadPoolExecutor(1)
        thread.submit(_compute_alone).result()
        torch.set_num_threads(num_threads)  # for threads started later
    return thread


def _compute_alone() -> None:
    """Make tensor operations of the calling thread serial."""
    torch.set_num_threads(1)
    torch.get_num_threads()  # fixes the number for this thread: the first query takes the value set last by any thread


class ChannelClosedError(Exception):
    """Error of writing after the reader has gone."""


class _End(NamedTuple):
    """Mark after the last item."""

    error: BaseException | None


class BoundedChannel(Generic[T]):
    """Bounded queue between two threads; the reading thread iterates over the items."""

    def __init__(self, limit: int = 1) -> None:
        """Make an empty queue.

        limit: maximum number of waiting items
        """
        self.items: SimpleQueue[T | _End] = SimpleQueue()  # unbounded, so that finish() never waits
        self.room = threading.Semaphore(limit)
        self.is_closed = False

    def put(self, item: T) -> None:
        """Add an item once there is room; ClosedError if the reader has gone."""
        self.room.acquire()
        if self.is_closed:
            self.room.release()
            raise ChannelClosedError
        self.items.put(item)

    def produce(self, items: Iterable[T], errors: tuple[type[Exception], ...]) -> Iterator[T]:
        """Put each item and yield the item back, until the reader has gone.

        errors: kinds of errors in making items; such an error ends the items and is raised in the reader
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
        """End the items; an error is raised in the reader.

        Later calls have no effect.
        """
        self.items.put(_End(error))

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Finish at the end of a block, also on an error: the reader never hangs."""
        try:
            yield
        except BaseException as error:
            self.finish(error)
            raise
        self.finish()

    def close(self, _: object = None) -> None:
        """Stop the writer; may be the callback of the reader's Future."""
        self.is_closed = True
        self.room.release()

    def __iter__(self) -> Iterator[T]:
        """Yield the items in order; at the end, raise the writer's error."""
        while True:
            item = self.items.get()
            if isinstance(item, _End):
                break
            self.room.release()
            yield item
            del item
        if item.error is not None:
            raise item.error
