"""What is installed is whole, from a checkout and from a wheel; its versions and extras agree wherever they stand."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest
from click.testing import CliRunner
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import gigasr
from gigasr.cli import main
from gigasr.config.shipped import config_folder, config_names, find_config

ROOT = Path(__file__).parents[1]
INSTALLED = {"gigasr": "gigasr", "gigasr_base": "gigasr_base", "configs": "gigasr/configs"}


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def project() -> dict[str, dict[str, list[str]]]:
    """Return the table [project] of pyproject.toml."""
    table: dict[str, dict[str, list[str]]] = tomllib.loads(read("pyproject.toml"))["project"]
    return table


def copy_without_weights(source: str, target: str) -> None:
    """Copy a file; of weights only the name, as compressing them takes seconds."""
    if source.endswith(".safetensors"):
        Path(target).touch()
    else:
        shutil.copyfile(source, target)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack a wheel built from a copy of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "NOTICE"):
        shutil.copyfile(ROOT / name, folder / name)
    ignored = shutil.ignore_patterns("__pycache__")
    for name in INSTALLED:
        shutil.copytree(ROOT / name, folder / name, ignore=ignored, copy_function=copy_without_weights)
    code = "from setuptools.build_meta import build_wheel; build_wheel('dist')"
    build = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert build.returncode == 0, build.stderr
    with ZipFile(next((folder / "dist").glob("*.whl"))) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.mark.parametrize("name", INSTALLED)
def test_a_wheel_holds_every_file_of_the_packages_and_of_the_configs(wheel: Path, name: str) -> None:
    paths = [path for path in (ROOT / name).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    missing = [path for path in paths if not (wheel / INSTALLED[name] / path.relative_to(ROOT / name)).is_file()]
    assert paths and not missing


def test_an_installed_package_knows_its_configs_by_name(wheel: Path, tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(wheel)!r})\n"
        "from gigasr.config.model import load_config\n"
        "from gigasr.config.shipped import find_config\n"
        "path = find_config('upsampler_128_1024')\n"
        "print(path, load_config(path).upsampler.lr_size)"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.stdout.split() == [str(wheel / "gigasr" / "configs" / "upsampler_128_1024.toml"), "128"], run.stderr


def test_the_names_are_those_of_the_files() -> None:
    assert config_folder() == ROOT / "configs"
    assert "ablation/05_matching_d" in config_names()
    assert {find_config(name) for name in config_names()} == set((ROOT / "configs").rglob("*.toml"))


def test_a_file_wins_over_a_name_and_a_folder_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("base_tiny").mkdir()
    Path("upsampler_tiny").write_text("", encoding="utf-8")
    assert find_config("upsampler_tiny") == Path("upsampler_tiny")
    assert find_config("base_tiny") == ROOT / "configs" / "base_tiny.toml"


def test_the_command_line_takes_a_name_as_it_takes_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    named, given = (
        CliRunner().invoke(main, ["train", config, "--set", "train.sed=1"])
        for config in ("upsampler_tiny", str(ROOT / "configs" / "upsampler_tiny.toml"))
    )
    assert "upsampler_tiny.toml: train.sed: unknown key" in named.output
    assert named.output == given.output


@pytest.mark.parametrize("command", [["train", "upsampler_tinny"], ["bench", "--config", "upsampler_tinny"]])
def test_an_unknown_config_lists_the_known_ones(command: list[str]) -> None:
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1
    assert "config: expected a TOML file or one of ablation/01_stylegan2, " in result.output
    assert "upsampler_tiny, got 'upsampler_tinny'; check the spelling" in result.output


def test_the_workflow_installs_the_extras_of_the_makefile_and_those_are_all() -> None:
    extras = [
        re.findall(r"--editable \"?\.\[([\w,-]+)\]", read(name)) for name in ("Makefile", ".github/workflows/ci.yml")
    ]
    assert extras[0] == extras[1]
    assert [set(names.split(",")) for names in extras[0]] == [project()["optional-dependencies"].keys()]


def test_every_requirement_is_pinned_at_a_version_that_it_allows() -> None:
    lines = [line for line in read("constraints.txt").splitlines() if not line.startswith("#")]
    pins = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    texts = [
        *project()["dependencies"],
        *(text for extra in project()["optional-dependencies"].values() for text in extra),
    ]
    assert texts
    for requirement in map(Requirement, texts):
        pinned = pins.get(canonicalize_name(requirement.name))
        assert pinned and requirement.specifier.contains(pinned), f"{requirement}: pinned at {pinned}"


def test_one_version_stands_everywhere() -> None:
    assert f"\nversion: {gigasr.__version__}\n" in read("CITATION.cff")
    assert re.findall(r"^## (\S+)", read("CHANGELOG.md"), re.MULTILINE)[0] == gigasr.__version__


def test_completion_offers_the_public_names_and_nothing_else() -> None:
    assert set(dir(gigasr)) == {"Picture", "SuperResolver", "read_image", "write_image", "__version__"}
    assert all(getattr(gigasr, name) for name in dir(gigasr))
