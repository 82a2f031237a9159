"""Prompts of files: from a list, from texts beside the files, or a common prompt."""

import csv
import difflib
import io
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from gigasr.data.captions import read_rows
from gigasr.files.text_file import read_text
from gigasr.networks.text import CONTEXT_LENGTH, count_tokens

_SIDECAR = "sidecar"


def assign_prompts(files: Mapping[Path, Path], origin: str | None, default: str) -> dict[Path, str]:
    """Return the prompt of every file, all checked by check_prompts.

    files:   inputs, and their paths below the input folder
    origin:  a .csv or .jsonl list; "sidecar" for the .txt file beside each input; or None
    default: prompt of files without a prompt from the origin
    """
    if origin is None:
        found: dict[Path, str] = {}
    elif origin == _SIDECAR:
        found = _read_sidecars(files)
    else:
        found = _match(files, Path(origin))
    paths_by_prompt = {prompt: path for path, prompt in found.items()}  # a common prompt is checked once
    for prompt, path in paths_by_prompt.items():
        try:
            check_prompts([prompt])
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    if len(found) < len(files):
        check_prompts([default])
    return {path: found.get(path, default) for path in files}


def _read_sidecars(paths: Iterable[Path]) -> dict[Path, str]:
    """Read the .txt files beside the inputs; ValueError if there are none."""
    found = {}
    for path in paths:
        sidecar = path.with_suffix(".txt")
        if sidecar.is_file():
            found[path] = read_text(sidecar).strip()
    if not found:
        raise ValueError("prompts: expected a .txt file beside at least one input, got none; see --prompts")
    return found


def check_prompts(prompts: Iterable[str]) -> None:
    """Raise ValueError for prompts too long for the network or not in UTF-8."""
    for prompt in set(prompts):
        try:
            prompt.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"prompt: expected text in UTF-8, got {ascii(prompt[:30])}; check the terminal's encoding"
            ) from None
        num_marks = 2  # for start and end
        num_tokens = count_tokens(prompt) - num_marks
        max_tokens = CONTEXT_LENGTH - num_marks
        if num_tokens > max_tokens:
            raise ValueError(
                f"prompt: expected at most {max_tokens} tokens, got {num_tokens}; shorten '{prompt[:30]}...'"
            )


def _read_list(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the file names and prompts of a list.

    A .csv has the columns file and prompt. Each line of a .jsonl has file and prompt, or file and captions; the first
    caption counts.
    """
    if path.suffix.lower() == ".csv":
        return _csv_rows(path, read_text(path))
    if path.suffix.lower() == ".jsonl":
        return ((row.file, row.captions[0]) for row in read_rows(path))
    raise ValueError(f"{path}: expected a name that ends in .csv or .jsonl, or the word sidecar; rename it")


def _csv_rows(path: Path, text: str) -> Iterator[tuple[str, str]]:
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        if not {"file", "prompt"} <= set(rows.fieldnames or ()):
            raise ValueError(f"{path}: expected the columns file and prompt, got {rows.fieldnames}; name them so")
        for row in rows:
            has_other_columns = None in row
            if not row["file"] or row["prompt"] is None or has_other_columns:
                raise ValueError(
                    f"{path}: expected a file and a prompt in line {rows.line_num}; quote a prompt with commas in it"
                )
            yield row["file"], row["prompt"]
    except csv.Error as error:
        raise ValueError(f"{path}: expected a table, got {error} in line {rows.line_num}; correct it") from None


def _match(files: Mapping[Path, Path], origin: Path) -> dict[Path, str]:
    """Find the files of a list's rows.

    A name is a path from the list's folder or from an input folder.

    Raises ValueError for names that are not inputs, and for files with two prompts.
    """
    by_location = {_key(os.path.abspath(path)): path for path in files}
    below: dict[str, list[Path]] = {}
    for path, below_input in files.items():
        key = _key(below_input.as_posix())
        below.setdefault(key, []).append(path)
    found: dict[Path, str] = {}
    for name, prompt in _read_list(origin):
        located = by_location.get(_key(os.path.abspath(origin.parent / name)))
        named = below.get(_key(Path(name).as_posix()), [])
        matches = named if located is None else [located]
        if not matches:
            raise ValueError(f"{origin}: expected names of inputs, got '{name}'{_nearest(name, below)}; correct it")
        for match in matches:
            if found.setdefault(match, prompt) != prompt:
                raise ValueError(f"{origin}: expected one prompt per file, got two for '{name}'; keep one")
    return found


def _key(name: str) -> str:
    """Normalise a name for comparison.

    macOS stores accents apart from the letters, and Windows ignores case.
    """
    return unicodedata.normalize("NFC", os.path.normcase(name))


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; nearest input: {near[0]}" if near else ""
