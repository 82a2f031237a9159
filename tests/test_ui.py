"""The page's HTTP API: what it gives equals what the command line writes, and what it refuses it refuses clearly."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from gigasr.cli import main
from gigasr.cli.ui import make_page
from gigasr.files.image_writer import write_image
from gigasr.files.images import read_image
from gigasr.files.picture import Picture
from gigasr.options import STRENGTHS
from gigasr.ui.page import launch_options
from gigasr.ui.parts import own_folder
from gigasr.ui.upscaler import RequestLimits

gradio = pytest.importorskip("gradio", reason="pip install 'gigasr[ui]'")
client = pytest.importorskip("gradio_client")

Client = Any  # of gradio_client
LIMITS = RequestLimits(upload_mb=1, megapixels=1)


@pytest.fixture(scope="module")
def address(
    tiny_weights: Path, restoring_weights: Path, base_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        page = make_page([str(tiny_weights), str(restoring_weights)], str(base_weights), LIMITS, "cpu", "fp32")
        yield page.launch(prevent_thread_lock=True, quiet=True, **launch_options(LIMITS))[1]
        page.close()


@pytest.fixture(scope="module")
def user(address: str) -> Client:
    return client.Client(address, verbose=False)


@pytest.fixture(scope="module")
def deep_photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 bit, with alpha."""
    path = tmp_path_factory.mktemp("photo") / "leaf.png"
    write_image(path, Picture(torch.rand(3, 20, 24), torch.rand(1, 20, 24), bit_depth=16))
    return path


def upscale(user: Client, path: Path, **options: object) -> tuple[list[str], str, str]:
    return user.predict(client.handle_file(str(path)), api_name="/upscale", **options)


def test_the_result_is_the_command_lines_file(
    user: Client, deep_photo: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    (before, after), facts, result = upscale(user, deep_photo, prompt="a leaf", scale=3, seed=5, fidelity=0, detail=1.5)
    expected = tmp_path / "leaf.png"
    options = ["-n", str(tiny_weights), "-p", "a leaf", "-s", "3", "--seed", "5", "--fp32"]
    options += ["--fidelity", "0", "--detail", "1.5"]
    assert CliRunner().invoke(main, ["upscale", str(deep_photo), "-o", str(expected), *options]).exit_code == 0
    assert Path(result).read_bytes() == expected.read_bytes()
    assert Path(result).name == "leaf_3x.png" and facts.startswith("72×60 px")
    assert [read_image(Path(preview)).size for preview in (before, after)] == [(60, 72)] * 2


def test_the_damage_is_restored_as_the_command_line_does(
    user: Client, deep_photo: Path, restoring_weights: Path, tmp_path: Path
) -> None:
    whole, kept = (
        upscale(user, deep_photo, scale=2, model=str(restoring_weights), **more)[2] for more in ({}, {"restore": 0})
    )
    expected = tmp_path / "leaf.png"
    options = ["-n", str(restoring_weights), "-s", "2", "--fp32", "--restore", "0"]
    assert CliRunner().invoke(main, ["upscale", str(deep_photo), "-o", str(expected), *options]).exit_code == 0
    assert Path(kept).read_bytes() == expected.read_bytes()
    assert not torch.equal(read_image(Path(whole)).rgb, read_image(expected).rgb)


def test_arguments_without_names_have_the_order_of_version_0_1(
    user: Client, deep_photo: Path, tiny_weights: Path
) -> None:
    named = {"prompt": "a leaf", "scale": 2, "seed": 5, "fidelity": 0, "suffix": "tif", "detail": 1.5}
    values = [client.handle_file(str(deep_photo)), "a leaf", 2, "", str(tiny_weights), 5, 0, "tif", 1.5]
    expected = upscale(user, deep_photo, **named)[2]
    assert Path(user.predict(*values, api_name="/upscale")[2]).read_bytes() == Path(expected).read_bytes()


def test_the_page_has_a_slider_for_every_strength_within_its_limits(user: Client, deep_photo: Path) -> None:
    endpoint = user.view_api(return_format="dict", print_info=False)["named_endpoints"]["/upscale"]
    defaults = {each["parameter_name"]: each["parameter_default"] for each in endpoint["parameters"]}
    assert list(defaults)[:9] == ["image", "prompt", "scale", "size", "model", "seed", "fidelity", "suffix", "detail"]
    for name in STRENGTHS:
        assert defaults[name] == 1
        with pytest.raises(Exception, match=r"2\.5"):
            upscale(user, deep_photo, **{name: 2.5})


def test_a_size_goes_before_the_factor(user: Client, deep_photo: Path) -> None:
    (_, facts, result) = upscale(user, deep_photo, size=" 48x48 ", suffix="tif")
    assert Path(result).name == "leaf_48x48.tif" and facts.startswith("48×40 px")


def test_a_generated_image_is_the_command_lines_file(user: Client, base_weights: Path, tmp_path: Path) -> None:
    previews, files = user.predict("an apple", size="16", count=2, seed=3, truncation=0.5, api_name="/paint")
    options = ["-n", str(base_weights), "--size", "16", "-c", "2", "--seed", "3", "--truncation", "0.5", "-g", "cpu"]
    arguments = ["t2i", "an apple", *options, "--precision", "fp32", "-o", str(tmp_path)]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    assert [Path(file).read_bytes() for file in files] == [
        (tmp_path / f"an-apple_{i}.png").read_bytes() for i in ("01", "02")
    ]
    assert len(previews) == 2


def test_a_generated_image_can_mix_and_lead_to_another_prompt(user: Client) -> None:
    plain, mixed, led = (
        [Path(file).read_bytes() for file in user.predict("an apple", size="16", api_name="/paint", **more)[1]]
        for more in ({}, {"style_prompt": "a pear", "mix_at": 8}, {"to": "a pear", "frames": 3})
    )
    assert (len(plain), len(mixed), len(led)) == (1, 1, 3)
    assert len({*plain, *mixed, *led}) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "big"}, "size: expected a side in px, 1k, 2k, 4k"),
        ({"scale": 64}, "size: expected at most 1 megapixels on this page, got 1536x1280 px"),
        ({"prompt": "word " * 100}, "prompt: expected at most 75 tokens"),
        ({"model": "/etc/hosts"}, "not in the list of choices"),
        ({"suffix": "exe"}, "not in the list of choices"),
    ],
)
def test_what_cannot_be_done_is_said_clearly(
    user: Client, deep_photo: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(Exception, match=message):
        upscale(user, deep_photo, **options)


def test_a_broken_upload_is_said_clearly_without_the_servers_path(user: Client, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
    with pytest.raises(Exception, match=r"^broken.png: expected an intact image"):
        upscale(user, tmp_path / "broken.png")


def test_an_upload_above_the_limit_is_refused(user: Client, tmp_path: Path) -> None:
    write_image(tmp_path / "large.bmp", Picture(torch.rand(3, 700, 700)))
    with pytest.raises(Exception, match=r"413|maximum allowed size|exceeds"):
        upscale(user, tmp_path / "large.bmp")


def test_an_animation_stays_one_and_its_frames_count_together(user: Client, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (16, 12), (80 * i, 0, 0)) for i in range(3)]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:], duration=40)
    result = upscale(user, tmp_path / "film.gif", scale=2, suffix="webp")[2]
    with Image.open(result) as animation:
        assert (animation.n_frames, animation.size) == (3, (32, 24))
    with pytest.raises(Exception, match="at most 1 megapixels on this page, got 3 pictures of 800x600 px"):
        upscale(user, tmp_path / "film.gif", scale=50)


def test_an_animation_of_a_kind_that_libvips_does_not_read_is_shown_too(user: Client, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (16, 12), (80 * i, 0, 0)) for i in range(3)]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:], duration=40)
    (before, shown), _, result = upscale(user, tmp_path / "film.gif", scale=2, suffix="avif")
    assert Path(before).name != Path(shown).name
    with Image.open(result) as animation, Image.open(shown) as preview:
        assert (animation.n_frames, animation.size) == (3, (32, 24))
        assert preview.size == (32, 24)


def test_texts_and_seeds_may_be_null(user: Client, deep_photo: Path) -> None:
    assert upscale(user, deep_photo, scale=2, prompt=None, size=None, seed=None)[1].startswith("48×40 px")
    assert len(user.predict("an apple", size="64", style_prompt=None, to=None, seed=None, api_name="/paint")[1]) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "512", "count": 4}, "at most 1 megapixels on this page, got 4 pictures of 512x512 px"),
        ({"size": "64", "to": "a pear", "style_prompt": "a cat"}, "to: expected one prompt to lead to"),
    ],
)
def test_what_cannot_be_generated_is_said_clearly(user: Client, options: dict[str, Any], message: str) -> None:
    with pytest.raises(Exception, match=message):
        user.predict("an apple", **options, api_name="/paint")


def test_two_users_at_once_both_finish(address: str, deep_photo: Path) -> None:
    def work(seed: int) -> bytes:
        return Path(upscale(client.Client(address, verbose=False), deep_photo, seed=seed)[2]).read_bytes()

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(work, (1, 2))
    assert first != second
    assert [work(1), work(2)] == [first, second]


def test_a_request_that_is_stopped_says_so_and_frees_the_network(user: Client, deep_photo: Path) -> None:
    user.predict(api_name="/stop")  # nothing runs
    job = user.submit("a stopped apple", size="256", count=15, api_name="/paint")
    while "picture" not in str(job.status().progress_data) and not job.done():
        time.sleep(0.02)
    user.predict(api_name="/stop")
    with pytest.raises(Exception, match="stopped"):
        job.result(timeout=60)
    assert not list(own_folder(gradio.utils.get_upload_folder()).glob("*/a-stopped-apple*"))
    assert upscale(user, deep_photo, scale=2)[1].startswith("48×40 px")


def test_without_a_base_model_the_page_says_how_to_get_one(tiny_weights: Path) -> None:
    page = make_page([str(tiny_weights)], "nonsense", LIMITS, "cpu", "fp32")
    texts = [block["props"].get("value") for block in page.get_config_file()["components"]]
    assert any("No text to image here: model: expected" in str(text) and "--base FILE" in str(text) for text in texts)


def test_an_unknown_model_is_one_clear_line_before_anything_is_served() -> None:
    result = CliRunner().invoke(main, ["ui", "-n", "nonsense"])
    assert result.exit_code == 1
    assert "got 'nonsense'" in result.output and "Traceback" not in result.output
