"""A run that is killed at any moment leaves whole files only, and the next one ends where it would have ended."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from picture_files import statuses
from PIL import Image

from gigasr.folders.job_runner import JobState
from gigasr.folders.local_runner import LocalRunner
from gigasr.folders.plan import Job, Outputs, find_images, plan_jobs
from gigasr.folders.report import REPORT
from gigasr.options import UpscaleOptions

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")


def make_folder(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.{('png', 'bmp', 'gif')[number % 3]}")
    return folder


def plan(folder: Path, output: Path) -> list[Job]:
    return plan_jobs(find_images([folder]), Outputs(output))


def run_here(folder: Path, output: Path, weights: Path) -> list[str]:
    results: list[JobState] = []
    LocalRunner(plan(folder, output), UpscaleOptions(model=str(weights)), results.append).start()
    return statuses(results)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != REPORT}


def start_upscale(folder: Path, output: Path, weights: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "gigasr", "upscale", folder, "-o", output, "-n", weights]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def kill_a_run(folder: Path, output: Path, weights: Path, rng: random.Random) -> None:
    """Start the command, and kill it some moments after it has begun to write."""
    before = {path for path in output.glob("*") if path.suffix != ".tmp"} if output.exists() else set()
    with start_upscale(folder, output, weights) as process:
        while process.poll() is None and not (output.exists() and set(output.glob("*")) - before):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.5))
        process.kill()


def assert_survives_kills(tmp_path: Path, weights: Path, count: int, kills: int) -> None:
    folder, output, rng = make_folder(tmp_path / "in", count), tmp_path / "killed", random.Random(0)
    assert run_here(folder, tmp_path / "whole", weights) == ["done"] * count
    expected = contents(tmp_path / "whole")
    for _ in range(kills):
        kill_a_run(folder, output, weights, rng)
        left = {name: data for name, data in contents(output).items() if not name.endswith(".tmp")}
        assert left.items() <= expected.items()
    statuses = run_here(folder, output, weights)
    assert set(statuses) <= {"done", "skipped"}
    assert contents(output) == expected
    assert run_here(folder, output, weights) == ["skipped"] * count


def test_a_run_that_is_told_to_terminate_leaves_nothing_half_written(tiny_weights: Path, tmp_path: Path) -> None:
    folder, output = make_folder(tmp_path / "in", 200), tmp_path / "out"
    with start_upscale(folder, output, tiny_weights) as process:
        while process.poll() is None and not any(output.glob("*.png")):
            time.sleep(0.001)
        process.terminate()
        _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert said.startswith(b"interrupted: ")
    assert not any(output.glob("*.tmp"))


def test_a_run_of_12_files_survives_2_kills(tiny_weights: Path, tmp_path: Path) -> None:
    assert_survives_kills(tmp_path, tiny_weights, count=12, kills=2)


@pytest.mark.slow
def test_a_run_of_40_files_survives_25_kills(tiny_weights: Path, tmp_path: Path) -> None:
    assert_survives_kills(tmp_path, tiny_weights, count=40, kills=25)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".gif"])
def test_an_output_whose_line_was_lost_is_known_by_its_own_words(
    tiny_weights: Path, tmp_path: Path, suffix: str
) -> None:
    """As after a kill between the output and its line."""
    make_folder(tmp_path / "in", 1)
    settings, results = UpscaleOptions(model=str(tiny_weights)), list[JobState]()
    for _ in range(2):
        jobs = plan_jobs(find_images([tmp_path / "in"]), Outputs(tmp_path / "out", suffix=suffix))
        LocalRunner(jobs, settings, results.append).start()
        lost, _ = (tmp_path / "out" / REPORT).read_bytes(), os.remove(tmp_path / "out" / REPORT)
    assert sorted(statuses(results)) == ["done", "skipped"]
    assert b'"status": "done"' in lost
