"""The report of a folder: a line of JSON for every file that was made, kept or failed."""

import errno
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

REPORT = "gigasr-report.jsonl"  # in the output folder


def report_name(shard: tuple[int, int] = (1, 1)) -> str:
    """The name of a report; shards, which may run at the same time, have one each."""
    stem, suffix = REPORT.split(".")
    return REPORT if shard[1] == 1 else f"{stem}-{shard[0]}-of-{shard[1]}.{suffix}"


def normalised_path(path: Path) -> Path:
    """A name by which two paths to one file are told to be the same; links are left as they are."""
    return Path(os.path.normcase(os.path.abspath(path)))


def name_from(folder: Path, path: Path) -> str:
    """A file's name in the folder's report: below the folder relative, so that both may be moved, else absolute."""
    folder, path = folder.absolute(), path.absolute()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def read_reports(folder: Path) -> dict[Path, dict[str, Any]]:
    """The latest record of each output that the folder's reports call finished; cut and foreign lines are left out."""
    found: dict[Path, dict[str, Any]] = {}
    for report in sorted(folder.glob(report_name().replace(".", "*."))):
        for line in report.read_bytes().splitlines() if report.is_file() else []:
            with suppress(ValueError, LookupError, TypeError):
                record = json.loads(line)
                output = normalised_path(folder / record["output"])
                known = found.get(output)
                if record["status"] == "done" and (known is None or known["time"] <= record["time"]):
                    found[output] = record | {"input": normalised_path(folder / record["input"])}
    return found


def append_record(path: Path, record: dict[str, Any]) -> None:
    """Add a line to a report, on the disk when this returns; a line cut by a crash is ended first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as file:
        file.seek(max(file.seek(0, os.SEEK_END) - 1, 0))
        is_cut = file.read() not in (b"", b"\n")
        line = json.dumps(record | {"time": time.time()}).encode() + b"\n"
        if is_cut:
            line = b"\n" + line
        if file.write(line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(file.fileno())
