"""Time and memory are those of the call."""

import time

import torch

from gigasr.evaluation.meter import ResourceMeter


def test_the_result_comes_back_with_its_time() -> None:
    result, cost = ResourceMeter("cpu").run(lambda: time.sleep(0.05) or 7)
    assert result == 7
    assert cost["seconds"] >= 0.05


def test_memory_that_is_given_back_before_the_end_counts() -> None:
    def use() -> None:
        block = torch.ones(50_000_000)
        time.sleep(0.1)
        del block

    _, cost = ResourceMeter("cpu").run(use)
    assert 150 < cost["peak_mb"] < 400
