"""TOML files as tables, with overrides from the command line."""

import tomllib
from pathlib import Path
from typing import Any


def read_tables(path: Path, overrides: tuple[str, ...] = ()) -> dict[str, Any]:
    """Read a TOML file and apply "dotted.key=value" overrides; nothing is validated."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        for override in overrides:
            set_dotted(data, override)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: expected TOML, got a syntax error: {error}") from None
    return data


def set_dotted(data: dict[str, Any], override: str) -> None:
    """Set one value in nested tables: "train.seed=3"."""
    key, separator, value = override.partition("=")
    if not separator:
        raise ValueError(f"--set: expected dotted.key=value, got '{override}'")
    table: Any = {"": data}
    place: Any = ""  # of the value within its table or list
    for name in key.strip().split("."):
        table = table[place] if isinstance(table, list) else table.setdefault(place, {})
        place = place_in(table, name, key.strip())
    try:
        table[place] = tomllib.loads(f"x = {value}")["x"]
    except tomllib.TOMLDecodeError:
        table[place] = value.strip()  # a string without quotes


def place_in(table: Any, name: str, key: str) -> str | int:
    """One part of a dotted key as a table's key or the number of a list's element."""
    if isinstance(table, dict):
        return name
    if not isinstance(table, list):
        raise ValueError(f"--set: {key}: expected a key, got one that goes on after the value {table!r}")
    if not name.isdecimal() or int(name) >= len(table):
        raise ValueError(f"--set: {key}: expected the number of a list's element, got '{name}'")
    return int(name)
