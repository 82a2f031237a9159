"""Write docs/config.md from the fields of the configs: python scripts/make_config_docs.py"""

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from gigasr.config.model import Config
from gigasr.config.strict import FrozenModel
from gigasr_base.config import BaseConfig

TARGET = Path(__file__).parents[1] / "docs" / "config.md"
HEAD = """# The configs

Made from the fields of the configs by `python scripts/make_config_docs.py`.

A config is a TOML file with the tables `[upsampler]` (of a base model `[generator]`), `[discriminator]` and `[train]`.
`gigasr train` takes its path, or the name of one in [configs/](../configs): `upsampler_lite`, `ablation/05_matching_d`.
`--set train.seed=3` overrides a value.

A config may state only what it changes in another one:

```toml
extends = "upsampler_lite"       # a name, or a path relative to this file

[train]
seed = 3                         # tables merge key by key

[train.phases.0]                 # a number for a key changes one element of a list
images = 9000

[upsampler]
levels = [ … ]                   # a list replaces the list
```

Checkpoints hold the merged values. Keys without a default are required. An empty string stands for "none".
"""
TYPES = {"integer": "integer", "number": "number", "boolean": "true or false", "string": "text", "object": "table"}
LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def tables_below(model: type[BaseModel], path: str) -> Iterator[tuple[type[BaseModel], str]]:
    """Give a table, the classes that it inherits from and all tables below it, each with its path in the file."""
    parents = [
        parent for parent in reversed(model.__mro__) if issubclass(parent, FrozenModel) and parent is not FrozenModel
    ]
    yield from ((parent, path) for parent in parents)
    for name, field in model.model_fields.items():
        for part in filter(is_table, (field.annotation, *get_args(field.annotation))):
            yield from tables_below(part, f"{path}.{name}".lstrip("."))


def sections() -> dict[type[BaseModel], list[str]]:
    """Return the paths of every table that has keys of its own, in the order of the page."""
    found: dict[type[BaseModel], list[str]] = {}
    for root in (Config, BaseConfig):
        for model, path in tables_below(root, ""):
            if path and own_fields(model):
                found.setdefault(model, []).append(path)
    return {model: list(dict.fromkeys(paths)) for model, paths in found.items()}


def own_fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the keys that a class adds to those it inherits."""
    inherited = {name for parent in model.__mro__[1:] for name in getattr(parent, "model_fields", {})}
    return {name: field for name, field in model.model_fields.items() if name not in inherited}


def is_table(kind: Any) -> bool:
    """Tell whether an annotation stands for a table of its own."""
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def describe_type(schema: dict[str, Any]) -> str:
    """Return the values that a key takes, in words, from its JSON schema."""
    if "enum" in schema:
        return " or ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    if "anyOf" in schema:
        return describe_type(schema["anyOf"][0])
    if "$ref" in schema:
        return "table"
    if schema["type"] == "array":
        items = schema.get("prefixItems") or [schema["items"]]
        kind, _, limits = describe_type(items[0]).partition(" ")
        count = f"{len(items)} " if "prefixItems" in schema else ""
        return f"list of {count}{kind}s {limits}".strip()
    limits = [f"{sign} {schema[key]:g}" for key, sign in LIMITS.items() if key in schema]
    return " ".join([TYPES[schema["type"]], ", ".join(limits)]).strip()


def describe_default(field: FieldInfo) -> str:
    """Return a default as TOML writes it; nothing for a required key or a table."""
    if field.is_required() or is_table(field.annotation):
        return ""
    value = field.default
    return f"`{json.dumps('' if value is None else value)}`"


def section(model: type[BaseModel], paths: list[str]) -> str:
    """Return the part of the page on one table."""
    schemas = model.model_json_schema()["properties"]
    rows = []
    for name, field in own_fields(model).items():
        if not field.description:
            raise ValueError(f"{model.__name__}.{name}: expected a description, got none; give its Field one")
        cells = (f"`{name}`", describe_type(schemas[name]), describe_default(field), field.description)
        rows.append("| " + " | ".join(cells) + " |")
    title = ", ".join(f"[{path}]" for path in paths)
    head = ["| key | value | default | |", "|---|---|---|---|"]
    return "\n\n".join([f"## {title}", inspect.getdoc(model) or "", "\n".join([*head, *rows])])


def render() -> str:
    """Return the whole page."""
    return "\n\n".join([HEAD.rstrip(), *(section(*pair) for pair in sections().items())]) + "\n"


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
