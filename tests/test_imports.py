"""The shape of the code base: who imports whom, what an import loads, how long files and functions are."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("gigasr", "gigasr_base")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).glob("**/*.py"))

RANKS = {  # folders and modules import from lower ranks of their package; gigasr_base may import all of gigasr but cli
    "gigasr": {
        "errors": -1,
        "pixels": -1,
        "sizes": -1,
        "text_table": -1,
        "config": -1,
        "options": 0,
        "files": 0,
        "metrics": 2,
        "networks": 1,
        "data": 2,
        "inference": 2,
        "models": 3,
        "training": 5,
        "pipeline": 4,
        "folders": 5,
        "evaluation": 5,
        "ui": 6,
        "cli": 7,
        "__init__": 8,
        "__main__": 8,
    },
    "gigasr_base": {
        "config": 0,
        "options": 0,
        "metrics": 0,
        "generator": 1,
        "latents": 2,
        "zoo": 2,
        "pipeline": 3,
        "t2i_job": 4,
        "adversarial": 2,
        "evaluation": 4,
        "__init__": 9,
    },
}


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported_names(tree: ast.Module, package: str) -> Iterator[str]:
    """Dotted names that a module of `package` imports, inside functions too: `from a import b` gives `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = ".".join(filter(None, [package if node.level else "", node.module]))
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def owner(path: Path) -> tuple[str, str]:
    """(package, module) to which a file belongs; a subpackage counts as one module."""
    package, module, *_ = path.relative_to(ROOT).parts
    return package, module.removesuffix(".py")


def imported_modules(path: Path) -> Iterator[tuple[str, str]]:
    """(package, module) of every import of ours in the file; a name of the package itself belongs to `__init__`."""
    for name in imported_names(parse(path), path.parent.name):
        package, _, rest = name.partition(".")
        module = rest.partition(".")[0]
        is_module = (ROOT / package / f"{module}.py").exists() or (ROOT / package / module / "__init__.py").exists()
        if package in PACKAGES and rest != "__version__":
            yield package, module if is_module else "__init__"


def modules_loaded_by(*arguments: str) -> set[str]:
    """Top-level packages that `python ARGUMENTS` imports while it runs."""
    command = [sys.executable, "-X", "importtime", *arguments]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False)
    rows = [line for line in run.stderr.splitlines() if line.startswith("import time:")]
    if run.returncode:
        pytest.fail("\n".join(line for line in run.stderr.splitlines() if line not in rows))
    return {row.rpartition("|")[2].strip().partition(".")[0] for row in rows}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_from_lower_ranks(path: Path) -> None:
    package, module = owner(path)
    ranks = RANKS[package]
    assert module in ranks, f"{package}/{module} has no rank; add it to the table in tests/test_imports.py"
    imported = {other for origin, other in imported_modules(path) if origin == package} - {module}
    too_high = sorted(other for other in imported if ranks[other] >= ranks[module])
    assert not too_high, f"{package}.{module} (rank {ranks[module]}) imports {too_high}"


@pytest.mark.parametrize("folder", sorted(path.parent for path in FILES if path.name == "__init__.py"), ids=str)
def test_no_circle_of_imports_within_a_folder(folder: Path) -> None:
    name = ".".join(folder.relative_to(ROOT).parts)
    modules = {f"{name}.{path.stem}": path for path in folder.glob("*.py")}
    imports = {
        module: {".".join(other.split(".")[: name.count(".") + 2]) for other in imported_names(parse(path), name)}
        for module, path in modules.items()
    }
    TopologicalSorter({module: others & modules.keys() for module, others in imports.items()}).prepare()


def test_only_the_command_line_knows_both_packages() -> None:
    crossings = {
        (owner(path), (package, module))
        for path in FILES
        for package, module in imported_modules(path)
        if owner(path)[1] != "cli" and ((owner(path)[0], package) == ("gigasr", "gigasr_base") or module == "cli")
    }
    assert crossings <= {(("gigasr", "__main__"), ("gigasr", "cli"))}


def test_importing_gigasr_loads_no_heavy_optional_package() -> None:
    assert modules_loaded_by("-c", "import gigasr").isdisjoint(
        {"open_clip", "lpips", "kornia", "torchvision", "basicsr"}
    )


def test_counting_a_prompts_tokens_loads_no_more_than_torch() -> None:
    code = "from gigasr.networks.text import count_tokens; assert count_tokens('a red apple') == 5"
    assert modules_loaded_by("-c", code).isdisjoint({"open_clip", "timm", "torchvision", "sympy", "kornia", "lpips"})


def test_the_benchmarks_peers_need_no_extra() -> None:
    code = "from gigasr.evaluation.bench import ExecutionPlan, peer_cases; assert len(peer_cases(ExecutionPlan())) == 2"
    assert modules_loaded_by("-c", code).isdisjoint({"basicsr", "jinja2", "torch_fidelity"})


def test_help_does_not_load_torch() -> None:
    assert "torch" not in modules_loaded_by("-m", "gigasr", "--help")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_have_at_most_300_lines_and_functions_60(path: Path) -> None:
    functions = [node for node in ast.walk(parse(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    long = [node.name for node in functions if (node.end_lineno or 0) - node.lineno + 1 > 60]
    assert not long, f"split {long}"
    num_lines = len(path.read_text(encoding="utf-8").splitlines())
    assert num_lines <= 300, "split the file"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_packages_do_not_print(path: Path) -> None:
    calls = [node for node in ast.walk(parse(path)) if isinstance(node, ast.Call)]
    lines = [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
    assert not lines, f"print in lines {lines}; use logging, or click.echo in cli"
