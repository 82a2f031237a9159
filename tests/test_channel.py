"""Items pass between two threads in order; whichever side fails, neither waits for ever."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from gigasr.folders.channel import BoundedChannel, ChannelClosedError, background_thread


def test_items_arrive_in_order_and_no_more_wait_than_the_limit() -> None:
    channel = BoundedChannel[int](limit=2)
    max_waiting = 0
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(lambda: list(channel))
        for _ in channel.produce(range(100), ()):
            max_waiting = max(max_waiting, channel.items.qsize())
        channel.finish()
        assert reading.result(20) == list(range(100))
    assert max_waiting <= 2


def test_the_reader_meets_the_error_of_making_an_item() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("no second one")

    channel = BoundedChannel[int]()
    assert list(channel.produce(items(), (ValueError,))) == [1]
    channel.finish()  # too late to hide it
    with pytest.raises(ValueError, match="no second one"):
        list(channel)


def test_other_errors_stay_with_the_maker() -> None:
    def items() -> Iterator[int]:
        raise KeyError
        yield

    with pytest.raises(KeyError):
        list(BoundedChannel[int]().produce(items(), (ValueError,)))


def test_a_maker_that_waits_for_a_reader_that_is_gone_goes_on() -> None:
    channel = BoundedChannel[int](limit=1)
    channel.put(1)
    threading.Timer(0.05, channel.close).start()
    with pytest.raises(ChannelClosedError):
        channel.put(2)
    assert list(channel.produce(range(5), ())) == []


def test_a_reader_meets_what_interrupts_the_maker() -> None:
    channel = BoundedChannel[int]()
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(lambda: list(channel))
        with pytest.raises(KeyboardInterrupt), channel.closing():
            channel.put(1)
            raise KeyboardInterrupt
        assert isinstance(reading.exception(20), KeyboardInterrupt)


def test_threads_that_start_background_threads_at_once_keep_their_own_number() -> None:
    code = """
import threading, torch
from gigasr.folders.channel import background_thread
torch.set_num_threads(2)
found = []
def work():
    for _ in range(100):
        background_thread().shutdown()
    found.append(torch.get_num_threads())
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert [*found, torch.get_num_threads()] == [2] * 5, found
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_background_thread_computes_alone_and_the_others_as_before() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with background_thread() as thread, ThreadPoolExecutor(1) as later:
            assert thread.submit(torch.get_num_threads).result() == 1
            assert later.submit(torch.get_num_threads).result() == torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
