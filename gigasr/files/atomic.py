"""Atomic replacement of files, and hashes of their contents."""

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
    """Yield an empty file beside the target; after the block, move it over the target.

    If anything fails, or the process dies, the target is unchanged. The new file is synced to the disk before the move.
    The new file keeps the old permissions (plus write, which Windows needs to rename) and replaces a symlink instead of
    following it, since the link may point to an input.
    """
    with _new_file(path.parent) as temporary:
        is_plain_file = path.is_file() and not path.is_symlink()
        model = path if is_plain_file else temporary
        mode = model.stat().st_mode | stat.S_IWUSR
        try:
            yield temporary
        except OSError as error:
            if error.filename is None and error.errno is not None:  # from writing, usually a full disk
                raise type(error)(error.errno, error.strerror, str(path)) from error
            raise
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(mode)  # some libraries replace the file by a private one
        os.replace(temporary, path)


@contextmanager
def _new_file(folder: Path) -> Iterator[Path]:
    """Create an empty file for the block; if it was not moved, remove it afterwards.

    The file stays locked where the system can lock: the lock tells remove_leftovers that the process lives.
    """
    path = folder / f"{_PREFIX}{uuid.uuid4().hex}{_SUFFIX}"
    try:
        file = path.open("xb")
    except OSError as error:  # names the folder, as the user does not know the file
        raise type(error)(error.errno, error.strerror, str(folder)) from None
    with file:
        if fcntl is None:
            file.close()  # Windows does not move open files
        else:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove the half-written files of dead processes.

    Nothing is removed on systems without locks.
    """
    if fcntl is None:
        return
    for path in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        with suppress(OSError), path.open("rb+") as file:  # NFS locks only files open for writing
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


def hash_file(path: Path) -> str:
    """Hash the contents of a file (SHA-256) to 16 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
