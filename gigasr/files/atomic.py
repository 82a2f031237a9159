"""Files that appear whole or not at all; what is in them, as a hash."""

import hashlib
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_PREFIX, _SUFFIX = ".gigasr-", ".tmp"


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Make an empty file in the target's folder to be written; when all went well, sync it and move it over the target.

    On an error, or when the process dies, the target is as it was. The new file has its mode, but is
    writable, as Windows moves no other, and takes the place of a link, which may lead to an input.
    """
    with _new_file(path.parent) as temporary:
        mode = (path if path.is_file() and not path.is_symlink() else temporary).stat().st_mode | stat.S_IWUSR
        try:
            yield temporary
        except OSError as error:
            if error.filename is None and error.errno is not None:  # of the disk, as a rule a full one
                raise type(error)(error.errno, error.strerror, str(path)) from error
            raise
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(mode)  # some libraries put a private file in its place
        os.replace(temporary, path)


@contextmanager
def _new_file(folder: Path) -> Iterator[Path]:
    """A file that is locked where that is possible, by which remove_leftovers tells that its process lives."""
    path = folder / f"{_PREFIX}{uuid.uuid4().hex}{_SUFFIX}"
    try:
        file = path.open("xb")
    except OSError as error:  # of the folder: nobody knows the file
        raise type(error)(error.errno, error.strerror, str(folder)) from None
    with file:
        if fcntl is None:
            file.close()  # an open file can't be moved there
        else:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove the half-written files of processes that have died; nothing happens where locks are unknown."""
    for path in folder.glob(f"{_PREFIX}*{_SUFFIX}") if fcntl is not None else ():
        with suppress(OSError), path.open("rb+") as file:  # NFS locks no file open for reading
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def hash_file(path: Path) -> str:
    """16 hex digits that stand for the contents of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
