"""The page and the report of an evaluation in a real browser."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from gigasr.cli import main
from gigasr.cli.ui import make_page
from gigasr.evaluation.report import Report, to_html
from gigasr.evaluation.worst_cases import WorstCase
from gigasr.files.image_writer import write_image
from gigasr.files.picture import Picture
from gigasr.ui.page import launch_options
from gigasr.ui.upscaler import RequestLimits

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
pytest.importorskip("gradio", reason="pip install 'gigasr[ui]'")
CHROME = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROME is None, reason="no Chromium or Chrome on the path")]
Page = Any  # of playwright
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        chrome = driver.chromium.launch(executable_path=CHROME, args=["--no-sandbox"])
        yield chrome
        chrome.close()


@pytest.fixture
def page(browser: Any, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A window; an error of a script, or a request to another host, fails the test."""
    window = browser.new_page(viewport=WIDE)
    window.set_default_timeout(60_000)
    wrong: list[str] = []
    own = ("http://127.0.0.1", "http://localhost", "file:", "data:", "blob:")
    window.on("request", lambda sent: wrong.append(sent.url) if not sent.url.startswith(own) else None)
    window.on("pageerror", lambda error: wrong.append(str(error)))
    yield window
    window.close()
    assert wrong == []


@pytest.fixture(scope="module")
def address(tiny_weights: Path, base_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        app = make_page([str(tiny_weights)], str(base_weights), RequestLimits(), "cpu", "fp32")
        yield app.launch(prevent_thread_lock=True, quiet=True, **launch_options(RequestLimits()))[1]
        app.close()


@pytest.fixture(scope="module")
def large_photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that takes minutes at 64 times."""
    path = tmp_path_factory.mktemp("photo") / "meadow.png"
    write_image(path, Picture(torch.rand(3, 240, 240)))
    return path


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "leaf.png"
    write_image(path, Picture(torch.rand(3, 20, 24), torch.rand(1, 20, 24), bit_depth=16))
    return path


def download(page: Page, target: Path, name: str) -> bytes:
    """What a click on the link of a file gives."""
    with page.expect_download() as waiting:
        page.get_by_role("link", name=name).or_(page.locator(f"a[download='{name}']")).first.click()
    waiting.value.save_as(target)
    return target.read_bytes()


def test_a_photo_is_upscaled_and_its_download_is_the_command_lines_file(
    page: Page, address: str, photo: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    page.goto(address)
    page.set_input_files("input[type=file]", photo)
    page.get_by_label("Prompt").first.fill("a leaf")
    page.get_by_label("or size").fill("96x80")
    page.get_by_role("button", name="Upscale").click()
    page.wait_for_selector("text=/96×80 px, .* MB/")
    options = ["-p", "a leaf", "--size", "96x80", "-n", str(tiny_weights), "-g", "cpu", "-o", str(tmp_path / "b.png")]
    assert CliRunner().invoke(main, ["upscale", str(photo), *options, "--fp32"]).exit_code == 0
    assert download(page, tmp_path / "a.png", "leaf_96x80.png") == (tmp_path / "b.png").read_bytes()


def test_the_slider_moves_the_border_between_before_and_after(page: Page, address: str, photo: Path) -> None:
    page.goto(address)
    page.set_input_files("input[type=file]", photo)
    page.get_by_role("button", name="Upscale").click()
    page.wait_for_selector("text=/192×160 px, .* MB/")
    handle = page.locator("[role=none].outer, .outer").first
    before = handle.bounding_box()
    page.mouse.move(before["x"] + before["width"] / 2, before["y"] + before["height"] / 2)
    page.mouse.down()
    page.mouse.move(before["x"] + 120, before["y"] + before["height"] / 2, steps=5)
    page.mouse.up()
    assert handle.bounding_box()["x"] > before["x"] + 60


def test_a_broken_upload_shows_a_clear_message(page: Page, address: str, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
    page.goto(address)
    page.set_input_files("input[type=file]", tmp_path / "broken.png")
    page.wait_for_selector("text=broken.png: expected an intact image")


def test_the_text_tab_generates_a_picture(page: Page, address: str, tmp_path: Path) -> None:
    page.set_viewport_size(NARROW)
    page.goto(address)
    page.get_by_role("tab", name="Text to image").click()
    page.get_by_label("Prompt").last.fill("an apple")
    page.get_by_label("Size", exact=False).last.fill("16")
    page.get_by_role("button", name="Generate").click()
    assert download(page, tmp_path / "a.png", "an-apple.png").startswith(b"\x89PNG")


def test_two_windows_at_once_both_finish(page: Page, browser: Any, address: str, photo: Path) -> None:
    other = browser.new_page(viewport=WIDE)
    other.set_default_timeout(60_000)
    for window in (page, other):
        window.goto(address)
        window.set_input_files("input[type=file]", photo)
    for window in (page, other):
        window.get_by_role("button", name="Upscale").click()
    for window in (page, other):
        window.wait_for_selector("text=/192×160 px, .* MB/")
    other.close()


def start_long_work(page: Page, address: str, photo: Path) -> None:
    """Ask for more than anyone would wait for, and wait until it runs."""
    page.goto(address)
    page.set_input_files("input[type=file]", photo)
    page.get_by_label("or size").fill("8192x8192")
    page.wait_for_selector("text=8192×8192 px")
    page.get_by_role("button", name="Upscale").click()
    page.wait_for_selector("text=s left")


def finish_short_work(page: Page, address: str, photo: Path) -> None:
    """Work that comes to its end only when nothing else is running."""
    page.goto(address)
    page.set_input_files("input[type=file]", photo)
    page.get_by_text("2×", exact=True).click()
    page.wait_for_selector("text=48×40 px")
    page.get_by_role("button", name="Upscale").click()
    page.wait_for_selector("text=/48×40 px, .* MB/", timeout=60_000)


def test_cancel_frees_the_network_for_the_next(page: Page, address: str, photo: Path, large_photo: Path) -> None:
    start_long_work(page, address, large_photo)
    page.get_by_role("button", name="Cancel").first.click()
    page.wait_for_selector("text=s left", state="hidden")
    finish_short_work(page, address, photo)


def test_a_closed_window_stops_its_work(page: Page, browser: Any, address: str, photo: Path, large_photo: Path) -> None:
    other = browser.new_page(viewport=WIDE)
    start_long_work(other, address, large_photo)
    other.close()
    finish_short_work(page, address, photo)


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_the_report_sorts_compares_and_zooms_offline(page: Page, tmp_path: Path, size: dict[str, int]) -> None:
    table = {"lite": {"psnr_y": 25.0, "lpips": 0.2}, "lanczos": {"psnr_y": 26.0, "lpips": 0.7}}
    crops = {
        name: torch.full((3, 64, 64), 50 * i, dtype=torch.uint8) for i, name in enumerate(("input", "truth", *table))
    }
    worse = {model: {"psnr_y": row["psnr_y"] - 9, "lpips": row["lpips"] - 0.1} for model, row in table.items()}
    images = {model: {"a.png": table[model], "b.png": worse[model]} for model in table}
    cases = [WorstCase(name, "", 0.0, (0, 0), crops) for name in ("b.png", "a.png")]
    (tmp_path / "report.html").write_text(to_html(Report("t", {}, table, images=images, cases=cases)), encoding="utf-8")
    page.set_viewport_size(size)
    page.goto((tmp_path / "report.html").as_uri())
    page.context.set_offline(True)
    assert page.locator(".case h3").all_inner_texts() == ["a.png", "b.png"]  # worst LPIPS first
    page.select_option("#by", "psnr_y")
    assert page.locator(".case h3").all_inner_texts() == ["b.png", "a.png"]
    page.get_by_role("button", name="PSNR-Y").click()
    assert page.locator("#metrics tbody tr td:first-child").all_inner_texts() == ["lanczos", "lite"]
    width = page.locator(".frame").first.bounding_box()["width"]
    zoom = float(page.input_value("#zoom"))
    page.select_option("#zoom", "2")
    assert page.locator(".frame").first.bounding_box()["width"] == 2 / zoom * width
    page.locator("input[type=range]").first.fill("80")
    assert page.locator(".frame").first.evaluate("frame => frame.style.getPropertyValue('--cut')") == "80%"
    page.select_option("#zoom", "0.5")
    box = page.locator(".frame").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 9)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 9)
    page.mouse.up()
    assert page.locator("input[type=range]").first.input_value() == "25"
    page.locator(".strip img[data-name=lanczos]").first.click()
    assert page.locator("#right").input_value() == page.locator(".frame .right").first.inner_text() == "lanczos"
