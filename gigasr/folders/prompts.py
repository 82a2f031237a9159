"""A prompt for each file: from a list, from the texts beside the files, or one for all."""

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

SIDECAR = "sidecar"


def assign_prompts(files: Mapping[Path, Path], origin: str | None, default: str) -> dict[Path, str]:
    """Give every file its prompt; those of which the origin says nothing get the default; all are checked.

    files:  each input and its path below the input folder
    origin: a .csv or .jsonl list; "sidecar" for the .txt file beside each input; or None
    """
    if origin is None:
        found: dict[Path, str] = {}
    elif origin == SIDECAR:
        found = {
            path: read_text(path.with_suffix(".txt")).strip() for path in files if path.with_suffix(".txt").is_file()
        }
        if not found:
            raise ValueError("prompts: expected a .txt file beside at least one input, got none; see --prompts")
    else:
        found = _match(files, Path(origin))
    for prompt, path in {prompt: path for path, prompt in found.items()}.items():
        try:
            check_prompts([prompt])
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    if len(found) < len(files):
        check_prompts([default])
    return {path: found.get(path, default) for path in files}


def check_prompts(prompts: Iterable[str]) -> None:
    """Raise ValueError for a prompt that would be cut, and for one that is no text."""
    for prompt in set(prompts):
        try:
            prompt.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"prompt: expected text in UTF-8, got {ascii(prompt[:30])}; check the terminal's encoding"
            ) from None
        if (count := count_tokens(prompt)) > CONTEXT_LENGTH:
            raise ValueError(
                f"prompt: expected at most {CONTEXT_LENGTH - 2} tokens, got {count - 2}; shorten '{prompt[:30]}...'"
            )


def read_list(path: Path) -> Iterator[tuple[str, str]]:
    """The file names and prompts of a list.

    A .csv has the columns file and prompt; each line of a .jsonl has file and prompt, or file and captions, of which
    the first counts.
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
            if not row["file"] or row["prompt"] is None or None in row:
                raise ValueError(
                    f"{path}: expected a file and a prompt in line {rows.line_num}; quote a prompt with commas in it"
                )
            yield row["file"], row["prompt"]
    except csv.Error as error:
        raise ValueError(f"{path}: expected a table, got {error} in line {rows.line_num}; correct it") from None


def _match(files: Mapping[Path, Path], origin: Path) -> dict[Path, str]:
    """Find the file of every row: named below the input folder, or as seen from the list's own folder."""
    places = {_key(os.path.abspath(path)): path for path in files}
    below: dict[str, list[Path]] = {}
    for path, below_input in files.items():
        below.setdefault(_key(below_input.as_posix()), []).append(path)
    found: dict[Path, str] = {}
    for name, prompt in read_list(origin):
        place = places.get(_key(os.path.abspath(origin.parent / name)))
        matches = below.get(_key(Path(name).as_posix()), []) if place is None else [place]
        if not matches:
            raise ValueError(f"{origin}: expected names of inputs, got '{name}'{_nearest(name, below)}; correct it")
        for match in matches:
            if found.setdefault(match, prompt) != prompt:
                raise ValueError(f"{origin}: expected one prompt per file, got two for '{name}'; keep one")
    return found


def _key(name: str) -> str:
    """A name by which files are told to be the same: macOS splits accents off, Windows ignores case."""
    return unicodedata.normalize("NFC", os.path.normcase(name))


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; nearest input: {near[0]}" if near else ""
