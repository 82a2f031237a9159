"""Text files in UTF-8."""

from contextlib import nullcontext
from pathlib import Path

from gigasr.files.atomic import atomic_write


def read_text(path: Path) -> str:
    """Read UTF-8, with or without a byte order mark.

    Raises ValueError with the file's name for other encodings.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: expected text in UTF-8, got something else; save it as UTF-8") from None


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 atomically.

    Bytes of file names outside UTF-8 are escaped (`\\udcff`). Links and devices, such as /dev/stdout, are written
    through.
    """
    is_file_or_new = path.is_file() or not path.exists()
    is_plain = is_file_or_new and not path.is_symlink()
    destination = atomic_write(path) if is_plain else nullcontext(path)
    with destination as target:
        target.write_text(text, encoding="utf-8", errors="backslashreplace")
