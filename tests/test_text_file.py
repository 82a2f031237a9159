"""Text is written whole or not at all, through links and devices."""

import os
import sys
from pathlib import Path

import pytest

from gigasr.files.text_file import read_text, write_text


def test_what_is_written_is_read_and_nothing_else_is_left(tmp_path: Path) -> None:
    for text in ("eins\n", "zwölf \N{HIPPOPOTAMUS}\n"):
        write_text(tmp_path / "a.json", text)
        assert read_text(tmp_path / "a.json") == text
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_name_that_is_no_text_is_written_as_python_shows_it(tmp_path: Path) -> None:
    write_text(tmp_path / "a.json", "b\udcff.png")
    assert read_text(tmp_path / "a.json") == "b\\udcff.png"


def test_text_that_is_no_utf_8_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"a\.txt: expected text in UTF-8"):
        read_text(tmp_path / "a.txt")


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes there need rights")
def test_links_and_pipes_are_written_through(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_text(tmp_path / "link", "a")
    assert (tmp_path / "link").is_symlink() and read_text(tmp_path / "file") == "a"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_text(tmp_path / "pipe", "b")
    assert os.read(reader, 9) == b"b"
    os.close(reader)
