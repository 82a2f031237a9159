"""Files that appear whole or not at all; what is in them, as a hash."""

import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY = ".gigasr-*.tmp"  # what is still being written


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the name of a new file in the target's folder; when all went well, sync it and move it over the target.

    On an error, or when the process dies, the target is as it was.
    """
    temporary = path.with_name(TEMPORARY.replace("*", uuid.uuid4().hex))
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def hash_file(path: Path) -> str:
    """16 hex digits that stand for the contents of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def remove_leftovers(folder: Path) -> None:
    """Delete what killed processes left half written; only for folders in which nobody is writing."""
    for path in folder.glob(TEMPORARY):
        path.unlink(missing_ok=True)
