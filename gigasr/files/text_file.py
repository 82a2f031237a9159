"""Files of text."""

from pathlib import Path

from gigasr.files.atomic import replacing


def read_text(path: Path) -> str:
    """Read UTF-8, with or without a byte order mark. Raises ValueError, naming the file, for anything else."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: expected text in UTF-8, got something else; save it as UTF-8") from None


def write_text(path: Path, text: str) -> None:
    """Write UTF-8, whole or not at all; of a file name what is no UTF-8 stands as in Python, such as \\udcff."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
