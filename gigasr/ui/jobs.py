"""Users' work in threads: one at a time, and stopped when they ask for it, cancel the request or leave."""

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
ReportProgress = Callable[
    [float, str], None
]  # share done in 0..1, what is being done; must be called every now and then


class StoppedError(BaseException):
    """The work is wanted no more; nobody but Jobs should catch it."""


class Jobs:
    """Runs work and stops it, by its user's session: where it next tells of its progress."""

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self.stops: defaultdict[str, set[threading.Event]] = defaultdict(set)

    async def run(self, session: str, work: Callable[[ReportProgress], T], notify: ReportProgress) -> T:
        """Give what work(notify) returns; what it raises is raised, RuntimeError where it was stopped."""
        stop = threading.Event()
        self.stops[session].add(stop)

        def tell(share: float, what: str) -> None:
            if stop.is_set():
                raise StoppedError
            notify(share, what)

        def start() -> T:
            with self.turn:
                tell(0.0, "preparing")
                return work(tell)

        try:
            return await asyncio.to_thread(start)
        except StoppedError:
            raise RuntimeError("stopped") from None
        finally:
            stop.set()  # a cancelled request leaves its thread at work
            self.stops[session].discard(stop)
            if not self.stops[session]:
                del self.stops[session]

    def stop(self, session: str) -> None:
        """Stop all work of a session."""
        for stop in self.stops.get(session, ()):
            stop.set()
