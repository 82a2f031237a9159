"""The documentation is true: its links lead somewhere, its Python runs."""

import re
import runpy
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch

from gigasr.files.image_writer import write_image
from gigasr.files.picture import Picture

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("gigasr*/weights/*.md"), *ROOT.glob("examples/*.md")]
)
CODE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.+)$", CODE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_internal_links_lead_to_files_and_headings(page: Path) -> None:
    text = re.sub(r"`[^`\n]*`", "", CODE.sub("", page.read_text(encoding="utf-8")))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", link):
            name, _, anchor = unquote(link).partition("#")
            target = (page.parent / name).resolve() if name else page
            assert target.exists(), f"{link}: no such file"
            assert not anchor or anchor in anchors(target), f"{link}: no such heading"


@pytest.mark.parametrize("name", ["README.md", "docs/quickstart.md", "docs/api.md"])
def test_the_python_of_a_page_runs_from_top_to_bottom(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_image(Path("photo.jpg"), Picture(torch.rand(3, 16, 16)))
    blocks = CODE.findall((ROOT / name).read_text(encoding="utf-8"))
    code = "\n".join(text for language, text in blocks if language == "python")
    Path("page.py").write_text(code, encoding="utf-8")
    runpy.run_path("page.py")
    assert list(tmp_path.glob("photo_*.png"))


def test_the_page_of_commands_is_up_to_date() -> None:
    made = runpy.run_path(str(ROOT / "scripts" / "make_cli_docs.py"))
    assert made["TARGET"].read_text(encoding="utf-8") == made["render"](), "run python scripts/make_cli_docs.py"
