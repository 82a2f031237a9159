"""What goes wrong in a process that reads ahead is told as anything else, and ends the command."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_an_error_of_a_reader_is_one_clear_line_and_the_command_ends(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("a.png", "b.png"):
        (data / name).write_bytes(b"no image")
    command = [sys.executable, "-m", "gigasr", "train", ROOT / "configs" / "upsampler_tiny.toml", "--data", data]
    command += ["-o", tmp_path / "run", "--set", "train.data.num_workers=1", "--set", "train.data.min_size=0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Error: ")
