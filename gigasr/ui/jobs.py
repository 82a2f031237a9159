"""Work of the page's users in threads, one job at a time.

Work stops when the user presses Cancel, cancels the request or leaves.
"""

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
ReportProgress = Callable[[float, str], None]  # (share done in 0..1, current step); must be called regularly


class StoppedError(BaseException):
    """Unwinds stopped work; only Jobs should catch it."""


class Jobs:
    """Runs and stops the work of sessions.

    Stopped work ends at the next report of progress.
    """

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self.stops: defaultdict[str, set[threading.Event]] = defaultdict(set)

    async def run(self, session: str, work: Callable[[ReportProgress], T], notify: ReportProgress) -> T:
        """Run work(notify) in a thread and return the result.

        Raises the errors of the work, and RuntimeError after a stop.
        """
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
            stop.set()  # the thread of a cancelled request still runs
            self.stops[session].discard(stop)
            if not self.stops[session]:
                del self.stops[session]

    def stop(self, session: str) -> None:
        """Stop all work of a session."""
        for stop in self.stops.get(session, ()):
            stop.set()
