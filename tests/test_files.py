"""A file is replaced whole or not at all."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gigasr.files.atomic import atomic_write, remove_leftovers


def test_the_target_appears_whole(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("whole")
    assert (tmp_path / "a.txt").read_text() == "whole"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes, and links only for administrators")
def test_a_private_file_stays_private_and_what_a_link_leads_to_as_it_is(tmp_path: Path) -> None:
    private, link = tmp_path / "private", tmp_path / "link"
    private.write_bytes(b"old")
    private.chmod(0o600)
    link.symlink_to(private)
    for path in (link, private):
        with atomic_write(path) as temporary:
            temporary.write_bytes(path.name.encode())
    assert (link.read_bytes(), link.is_symlink()) == (b"link", False)
    assert (private.read_bytes(), private.stat().st_mode & 0o777) == (b"private", 0o600)


def test_a_folder_that_takes_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, atomic_write(tmp_path / "none" / "a.png"):
        pass
    assert caught.value.filename == str(tmp_path / "none")


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(OSError, match="full"), atomic_write(target) as temporary:
        temporary.write_text("half")
        raise OSError("disk full")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_process_killed_while_it_writes_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    script = f"""
import os, pathlib, signal
from gigasr.files.atomic import remove_leftovers, atomic_write
with atomic_write(pathlib.Path({str(target)!r})) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[1], check=False)
    assert done.returncode == -signal.SIGKILL
    assert target.read_text() == "old"


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_what_a_killed_process_left_is_removed_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    script = f"""
import os, pathlib, signal
from gigasr.files.atomic import remove_leftovers, atomic_write
with atomic_write(pathlib.Path({str(tmp_path / "a.txt")!r})) as temporary:
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[1], check=False)
    assert len(os.listdir(tmp_path)) == 1
    with atomic_write(tmp_path / "b.txt") as temporary:
        remove_leftovers(tmp_path)
        assert list(tmp_path.iterdir()) == [temporary]
    assert os.listdir(tmp_path) == ["b.txt"]
