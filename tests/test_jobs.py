"""Work is done one at a time, and stops where its session says so or its request is cancelled."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from gigasr.ui.jobs import Jobs, ReportProgress


def endless(started: threading.Event, ended: threading.Event) -> Callable[[ReportProgress], None]:
    """Work that ends only when it is stopped."""

    def work(notify: ReportProgress) -> None:
        try:
            while True:
                notify(0.5, "at work")
                started.set()
        finally:
            ended.set()

    return work


def ignore(share: float, what: str) -> None:
    """Nobody watches."""


def test_work_gives_its_result_and_tells_of_its_progress() -> None:
    reported: list[tuple[float, str]] = []
    jobs = Jobs()

    def work(notify: ReportProgress) -> int:
        notify(1.0, "ready")
        return 7

    assert asyncio.run(jobs.run("a", work, lambda *words: reported.append(words))) == 7
    assert reported == [(0.0, "preparing"), (1.0, "ready")] and not jobs.stops


def test_a_session_stops_its_own_work_alone() -> None:
    async def scene() -> None:
        jobs, started, ended = Jobs(), threading.Event(), threading.Event()
        running = asyncio.create_task(jobs.run("a", endless(started, ended), ignore))
        await asyncio.to_thread(started.wait, 20)
        jobs.stop("b")
        await asyncio.sleep(0.05)
        assert not ended.is_set()
        jobs.stop("a")
        with pytest.raises(RuntimeError, match="^stopped$"):
            await running
        assert ended.is_set() and not jobs.stops

    asyncio.run(scene())


def test_a_cancelled_request_ends_its_thread_and_the_next_one_gets_its_turn() -> None:
    async def scene() -> None:
        jobs, started, ended = Jobs(), threading.Event(), threading.Event()
        running = asyncio.create_task(jobs.run("a", endless(started, ended), ignore))
        await asyncio.to_thread(started.wait, 20)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert await jobs.run("a", lambda notify: ended.is_set(), ignore)

    asyncio.run(scene())
