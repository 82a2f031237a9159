"""Files of text."""

from contextlib import nullcontext
from pathlib import Path

from gigasr.files.atomic import atomic_write


def read_text(path: Path) -> str:
    """Read UTF-8, with or without a byte order mark. Raises ValueError, naming the file, for anything else."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: expected text in UTF-8, got something else; save it as UTF-8") from None


def write_text(path: Path, text: str) -> None:
    """Write UTF-8, whole or not at all; of a file name what is no UTF-8 stands as in Python, such as \\udcff.

    A link or a device, such as /dev/stdout, is written through.
    """
    is_plain = not path.is_symlink() and (path.is_file() or not path.exists())
    with atomic_write(path) if is_plain else nullcontext(path) as target:
        target.write_text(text, encoding="utf-8", errors="backslashreplace")
