"""Names: one word per thing (docs/glossary.md), and no public name in two modules."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(path for package in ("gigasr", "gigasr_base") for path in (ROOT / package).rglob("*.py"))
OTHERS = sorted(path for folder in ("scripts", "tests") for path in (ROOT / folder).rglob("*.py"))

RETIRED = {  # word of an identifier -> the glossary's
    **dict.fromkeys(("game", "games"), "adversarial task"),
    **dict.fromkeys(("player", "players"), "trained network"),
    **dict.fromkeys(("figure", "figures"), "metric"),
    **dict.fromkeys(("judge", "judges", "judged", "verdict"), "metric models, predict, evaluate"),
    **dict.fromkeys(("paint", "paints", "painted", "painter", "painters", "painting"), "generate, base model, t2i"),
    **dict.fromkeys(("enlarge", "enlarges", "enlarged", "enlarger", "enlarging"), "upscale, upsample"),
    **dict.fromkeys(("derangement", "derange"), "shuffle_captions"),
    **dict.fromkeys(("region", "regions"), "tile"),
    "reach": "receptive field",
    "foreign": "external, spandrel",
    "ledger": "ReportStore",
    "handoff": "BoundedChannel",
    "raster": "PixelRows",
    "film": "FrameSequence",
    "cutter": "CropSampler",
    "told": "results, events",
}
LIMITS = {**dict.fromkeys(("most", "least", "longest", "shortest", "widest"), "max_, min_"), "wrong": "mismatched"}


def words(identifier: str) -> list[str]:
    """The words of an identifier, lower case: MAX_Tile, max_tile and MaxTile give max, tile."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", identifier).lower().strip("_").split("_")


def given_names(tree: ast.AST) -> Iterator[str]:
    """The names that a module gives: of classes, functions, arguments, variables and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


def public_names(tree: ast.Module) -> Iterator[str]:
    """The public names that a module defines, but its logger and one-letter type variables."""
    for node in tree.body:
        names: list[str] = []
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names = [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]
        yield from (name for name in names if not name.startswith("_") and name != "logger" and len(name) > 1)


def retired_names(path: Path, retired: dict[str, str]) -> list[str]:
    """The names of a module that have a retired word, each with the word to use."""
    names = sorted({path.stem, *given_names(ast.parse(path.read_text(encoding="utf-8")))})
    names = [name for name in names if not name.startswith("test_")]  # sentences, where verbs such as reach are free
    return [f"{name}: say {retired[word]}" for name in names for word in words(name) if word in retired]


@pytest.mark.parametrize("path", PACKAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_identifier_of_the_packages_has_a_retired_word(path: Path) -> None:
    assert not retired_names(path, RETIRED | LIMITS)


@pytest.mark.parametrize("path", OTHERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_identifier_of_scripts_and_tests_has_a_retired_word(path: Path) -> None:
    assert not retired_names(path, RETIRED)


def test_no_public_name_is_defined_in_two_modules() -> None:
    homes: defaultdict[str, list[str]] = defaultdict(list)
    for path in PACKAGES:
        for name in sorted(set(public_names(ast.parse(path.read_text(encoding="utf-8"))))):
            homes[name].append(str(path.relative_to(ROOT)))
    assert not {name: modules for name, modules in homes.items() if len(modules) > 1}


def test_words_of_all_spellings_are_found() -> None:
    assert words("MAX_TILE_BYTES") == words("max_tile_bytes") == words("MaxTileBytes") == ["max", "tile", "bytes"]
