"""The page of the configs is that of the code, and explains every key."""

import runpy
import tomllib
from pathlib import Path

import pytest

from gigasr.config.shipped import config_names, find_config

ROOT = Path(__file__).parents[1]
MADE = runpy.run_path(str(ROOT / "scripts" / "make_config_docs.py"))


def documented() -> set[str]:
    """Return the dotted paths of all keys on the page; elements of a list stand for themselves."""
    return {
        f"{path}.{key}"
        for model, paths in MADE["sections"]().items()
        for path in paths
        for key in MADE["own_fields"](model)
    }


def keys(table: dict[str, object], path: str = "") -> set[str]:
    """Return the dotted paths of all keys of a TOML file, without the numbers of elements."""
    found: set[str] = set()
    for name, value in table.items():
        place = path if name.isdecimal() else f"{path}.{name}".lstrip(".")
        found |= {place}
        for below in value if isinstance(value, list) else [value]:
            found |= keys(below, place) if isinstance(below, dict) else set()
    return found


def test_the_page_of_configs_is_up_to_date() -> None:
    assert MADE["TARGET"].read_text(encoding="utf-8") == MADE["render"](), "run python scripts/make_config_docs.py"


@pytest.mark.parametrize("name", config_names())
def test_every_key_of_a_config_is_on_the_page(name: str) -> None:
    stated = keys(tomllib.loads(find_config(name).read_text("utf-8")))
    assert {key for key in stated if "." in key} <= documented()
