"""TOML files as tables: merged into the file that they extend, with overrides from the command line."""

import tomllib
from pathlib import Path
from typing import Any

from gigasr.config.renamed import FREE_KEYS, RENAMED_KEYS, rename_keys
from gigasr.config.shipped import find_config


def read_tables(path: Path, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read a TOML file with all that it extends, and apply "dotted.key=value" overrides; nothing is validated."""
    data = read_merged(path)
    for override in overrides:
        set_dotted(data, override)
    return data


def read_merged(path: Path, readers: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a TOML file and merge it into the file that its key `extends` names, by path or as a shipped config.

    readers: the files that extend this one, the first one first
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
    """Merge tables key by key; a table with numbers for keys changes those elements of a list; else the change wins.

    key: names the place in errors
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
    """Set one value in nested tables: "train.seed=3"."""
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
    """Return one part of a dotted key as a table's key or the number of a list's element."""
    if isinstance(table, dict):
        return name
    if not isinstance(table, list):
        raise ValueError(f"{key}: expected a key, got one that goes on after the value {table!r}")
    if not name.isdecimal() or int(name) >= len(table):
        raise ValueError(f"{key}: expected the number of a list's element, got '{name}'")
    return int(name)
