"""Read TOML files, with extended files and overrides."""

import tomllib
from pathlib import Path
from typing import Any

from gigasr.config.renamed import FREE_KEYS, RENAMED_KEYS, rename_keys
from gigasr.config.shipped import find_config


def read_tables(path: Path, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read a TOML file, merge the files that it extends, and apply overrides.

    The result is not validated.

    overrides: "dotted.key=value" each
    """
    data = read_merged(path)
    for override in overrides:
        set_dotted(data, override)
    return data


def read_merged(path: Path, readers: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a TOML file and merge it into the file under the key `extends`.

    `extends` is the path of a file or the name of a shipped config. Raises ValueError for a circle of files.

    readers: the chain of files that extend this file, the first reader first
    """
    if path.resolve() in [reader.resolve() for reader in readers]:
        circle = " -> ".join(map(str, (*readers, path)))
        raise ValueError(f"{readers[0]}: extends: expected files that end, got the circle {circle}; remove one extends")
    try:
        data = rename_keys(tomllib.loads(path.read_text(encoding="utf-8")))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: expected TOML, got a syntax error: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    extended = data.pop("extends", None)
    if extended is None:
        return data
    if not isinstance(extended, str):
        raise ValueError(f"{path}: extends: expected the path of a TOML file, got {extended!r}; write it as a string")
    base = read_merged(find_config(extended, path.parent, f"{path}: extends"), (*readers, path))
    return {**base, **{name: merge(base.get(name), data[name], f"{path}: {name}") for name in data}}


def merge(base: Any, change: Any, key: str) -> Any:
    """Merge a change into a base: tables key by key, other values replaced.

    The keys of a table that changes a list are indices of elements.

    key: dotted name of the base in errors
    """
    if not isinstance(change, dict) or not isinstance(base, dict | list):
        return change
    merged: Any = base.copy()
    for name, value in change.items():
        place: Any = place_in(base, name, key)
        old = base[place] if isinstance(base, list) else base.get(name)
        merged[place] = merge(old, value, f"{key}.{name}")
    return merged


def set_dotted(data: dict[str, Any], override: str) -> None:
    """Set a value in nested tables, in place.

    override: dotted.key=value, for example "train.seed=3"
    """
    key, separator, value = override.partition("=")
    if not separator:
        raise ValueError(f"--set: expected dotted.key=value, got '{override}'")
    table: Any = {"": data}
    place: Any = ""  # of the value within its table or list
    parts = key.strip().split(".")
    if FREE_KEYS not in parts:
        parts = [RENAMED_KEYS.get(part, part) for part in parts]
    for name in parts:
        table = table[place] if isinstance(table, list) else table.setdefault(place, {})
        place = place_in(table, name, f"--set: {key.strip()}")
    try:
        table[place] = tomllib.loads(f"x = {value}")["x"]
    except tomllib.TOMLDecodeError:
        table[place] = value.strip()  # a string without quotes


def place_in(table: Any, name: str, key: str) -> str | int:
    """Convert one part of a dotted key: the key of a table, or the index of a list.

    Raises ValueError if the table has no such place.

    key: dotted name in errors
    """
    if isinstance(table, dict):
        return name
    if not isinstance(table, list):
        raise ValueError(f"{key}: expected a key, got one that goes on after the value {table!r}")
    if not name.isdecimal() or int(name) >= len(table):
        raise ValueError(f"{key}: expected the number of a list's element, got '{name}'")
    return int(name)
