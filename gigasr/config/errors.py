"""Explain the errors of a config, in one line each."""

import difflib

from pydantic import BaseModel
from pydantic_core import ErrorDetails


def explain(model: type[BaseModel], error: ErrorDetails) -> str:
    """Explain an error of pydantic in a line.

    For an unknown key the line names the nearest known key.
    """
    path = ".".join(str(part) for part in error["loc"])
    if error["type"] == "value_error":  # from the validators here, whose texts name key and value
        return error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        return f"{path}: expected a value or a table, got none"
    if error["type"] != "extra_forbidden":
        return f"{path}: {error['msg'].lower()}, got {error['input']!r}"
    known = fields_at(model, error["loc"][:-1])
    nearest = difflib.get_close_matches(str(error["loc"][-1]), known, n=1, cutoff=0.0)
    return f"{path}: unknown key; nearest known: {', '.join(nearest)}"


def fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """List the keys of a table. location: for example ("train", "phases", 0)."""
    for part in location:
        if isinstance(part, str):
            annotation = model.model_fields[part].annotation
            candidates = (annotation, *getattr(annotation, "__args__", ()))  # a table, or a tuple of tables
            model = next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
    return list(model.model_fields)
