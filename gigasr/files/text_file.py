"""Files of text."""

from pathlib import Path


def read_text(path: Path) -> str:
    """Read UTF-8, with or without a byte order mark. Raises ValueError, naming the file, for anything else."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: expected text in UTF-8, got something else; save it as UTF-8") from None
