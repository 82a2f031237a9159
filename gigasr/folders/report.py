"""Report of a folder: a line of JSON for every file made, kept or failed."""

import errno
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

REPORT = "gigasr-report.jsonl"  # in the output folder


def report_name(shard: tuple[int, int] = (1, 1)) -> str:
    """Return the file name of a report.

    shard: (i, n), the i-th of n; every shard has a separate report, since shards may run at the same time
    """
    index, count = shard
    if count == 1:
        return REPORT
    stem, suffix = REPORT.split(".")
    return f"{stem}-{index}-of-{count}.{suffix}"


def normalised_path(path: Path) -> Path:
    """Normalise a path for comparison; symlinks are not resolved."""
    return Path(os.path.normcase(os.path.abspath(path)))


def name_from(folder: Path, path: Path) -> str:
    """Return the name of a file in a folder's report.

    Relative below the folder, so that the folder can be moved as a whole; absolute elsewhere.
    """
    folder, path = folder.absolute(), path.absolute()
    if path.is_relative_to(folder):
        return path.relative_to(folder).as_posix()
    return str(path)


def read_reports(folder: Path) -> dict[Path, dict[str, Any]]:
    """Read the latest record of each finished output from a folder's reports.

    Lines that were cut off or are not records are ignored.

    returns: records by output; output and input are normalised by `normalised_path`
    """
    found: dict[Path, dict[str, Any]] = {}
    pattern = REPORT.replace(".", "*.")
    for report in sorted(folder.glob(pattern)):
        if not report.is_file():
            continue
        for line in report.read_bytes().splitlines():
            with suppress(ValueError, LookupError, TypeError):
                record = json.loads(line)
                output = normalised_path(folder / record["output"])
                known = found.get(output)
                is_latest = known is None or known["time"] <= record["time"]
                if record["status"] == "done" and is_latest:
                    found[output] = record | {"input": normalised_path(folder / record["input"])}
    return found


def append_record(path: Path, record: dict[str, Any]) -> None:
    """Append a line to a report and sync the file to the disk.

    A last line without a line break, cut off by a crash, is ended first. Raises OSError if the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as file:
        num_bytes = file.seek(0, os.SEEK_END)
        file.seek(max(num_bytes - 1, 0))
        last = file.read()
        is_cut = last not in (b"", b"\n")
        timed = record | {"time": time.time()}
        line = json.dumps(timed).encode() + b"\n"
        if is_cut:
            line = b"\n" + line
        if file.write(line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(file.fileno())
