"""A run's log holds means, and grids show what they say."""

import json
import os
import signal
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from gigasr.training.run_log import CAPTION_HEIGHT, RunLog, draw_grid, stop_requests


def test_rare_terms_are_logged_with_the_mean_of_the_steps_that_had_them(tmp_path: Path) -> None:
    log = RunLog(tmp_path, "none")
    for values in ({"l1": 1.0, "r1": 5.0}, {"l1": 2.0}, {"l1": 6.0}):
        log.add(values)
    log.write(3, 12, log.means())
    assert json.loads((tmp_path / "log.jsonl").read_text()) == {"step": 3, "images": 12, "l1": 3.0, "r1": 5.0}
    assert log.means() == {}


def test_a_grid_has_a_row_per_caption_and_its_pixels_in_place() -> None:
    small, large = -torch.ones(2, 3, 4, 4), torch.rand(2, 3, 8, 8) * 2 - 1
    grid = draw_grid([small, large], ["a dog", "日本"])
    assert grid.size == (16, 2 * (8 + CAPTION_HEIGHT))
    assert grid.getpixel((0, 0)) == (0, 0, 0)
    expected = ((large[1, :, 7, 7] + 1) * 127.5).round().int().tolist()
    assert list(grid.getpixel((15, 8 + CAPTION_HEIGHT + 7))) == expected


@pytest.mark.skipif(find_spec("wandb") is not None, reason="wandb is installed")
def test_a_tracker_that_is_not_installed_is_named_before_training(tmp_path: Path) -> None:
    with pytest.raises(ImportError, match="wandb: not installed; run pip install wandb"):
        RunLog(tmp_path, "wandb")


def test_signals_become_an_event_while_the_block_runs_and_are_given_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_requests() as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(5)
    assert signal.getsignal(signal.SIGTERM) is before
