"""gigasr t2i: the files it makes, and the errors it ends in before any work."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from gigasr.cli import main
from gigasr.files.images import read_metadata

Run = Callable[..., Result]


@pytest.fixture
def t2i(base_weights: Path, tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command in an empty folder, with the tiny models, at 16 px where no size is given."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Result:
        models = ["-n", str(base_weights), "--upsampler", str(tiny_weights), "-g", "cpu", "--size", "16"]
        return CliRunner().invoke(main, ["t2i", *models, *map(str, arguments)])

    return run


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def assert_fails(result: Result, text: str, code: int = 1) -> None:
    """One clear line (after click's usage where the arguments are at fault), no traceback, no file."""
    assert result.exit_code == code, result.output
    assert text in result.output
    assert "Traceback" not in result.output
    assert result.output.count("Error:") == 1


def test_a_prompt_becomes_a_file_of_its_name_with_its_options_inside(t2i: Run, tmp_path: Path) -> None:
    result = t2i("A red apple, 3d!", "--seed", 7, "--truncation", 0.5)
    assert result.exit_code == 0, result.output
    assert result.output == "a-red-apple-3d.png  16x16 px\n"
    assert Image.open(tmp_path / "a-red-apple-3d.png").size == (16, 16)
    texts = read_metadata(tmp_path / "a-red-apple-3d.png")
    assert (texts["Prompt"], texts["Seed"], texts["Truncation"]) == ("A red apple, 3d!", "7", "0.5")
    assert texts["Model"] == "base.safetensors"
    assert "Upsampler" not in texts


@pytest.mark.parametrize(("size", "expected"), [("8", (8, 8)), ("150", (150, 150)), ("160x90", (160, 90))])
def test_every_size_is_met_through_the_upsampler_where_needed(t2i: Run, size: str, expected: tuple[int, int]) -> None:
    result = t2i("an apple", "--size", size, "-o", "out/apple.webp")
    assert result.exit_code == 0, result.output
    assert Image.open("out/apple.webp").size == expected
    assert (read_metadata(Path("out/apple.webp")).get("Upsampler") == "tiny.safetensors") == (max(expected) > 16)


def test_the_same_seed_gives_the_same_bytes_alone_and_in_a_set(t2i: Run, tmp_path: Path) -> None:
    for arguments in (("-o", "a.png", "--seed", 1), ("-o", "b.png", "--seed", 1), ("-o", "set.png", "-c", 2)):
        assert t2i("an apple", "--size", 40, *arguments).exit_code == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "set_02.png").read_bytes()
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "set_01.png").read_bytes()


def test_a_count_gives_a_numbered_set_and_a_contact_sheet(t2i: Run, tmp_path: Path) -> None:
    assert t2i("an apple", "-c", 5, "-o", "out").exit_code == 0
    expected = [f"out/an-apple_{label}.png" for label in ("01", "02", "03", "04", "05", "sheet")]
    assert names(tmp_path) == expected
    assert Image.open(tmp_path / expected[-1]).size == (3 * 18 + 2, 2 * 18 + 2)
    assert [read_metadata(tmp_path / name)["Seed"] for name in expected] == ["0", "1", "2", "3", "4", "0-4"]


def test_several_prompts_and_a_file_of_them_are_numbered_in_order(t2i: Run, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("an apple\n\n  eine Blüte \n", encoding="utf-8")
    result = t2i("an apple", "--prompts", "prompts.txt", "-o", "out", "--format", "jpg")
    assert result.exit_code == 0, result.output
    assert names(tmp_path / "out") == ["1-an-apple.jpg", "2-an-apple.jpg", "3-eine-blüte.jpg"]
    assert read_metadata(tmp_path / "out" / "3-eine-blüte.jpg")["Prompt"] == "eine Blüte"


def test_a_style_prompt_takes_over_from_mix_at_on(t2i: Run, tmp_path: Path) -> None:
    assert t2i("a house", "-o", "house.bmp").exit_code == 0
    assert t2i("a sketch", "-o", "sketch.bmp").exit_code == 0
    for mix_at in (4, 8):
        result = t2i("a house", "--style-prompt", "a sketch", "--mix-at", mix_at, "-o", f"{mix_at}.bmp")
        assert result.exit_code == 0, result.output
    content = {path.stem: path.read_bytes() for path in tmp_path.glob("*.bmp")}
    assert content["4"] == content["sketch"]
    assert_fails(t2i("a house", "--style-prompt", "a sketch", "--mix-at", 32), "mix_at: expected 1..16 px, got 32")
    assert content["8"] not in (content["house"], content["sketch"])


def test_the_way_to_another_prompt_is_numbered_pictures(t2i: Run, tmp_path: Path) -> None:
    assert t2i("an apple", "--to", "a pear", "--frames", 3, "-o", "way.png").exit_code == 0
    assert names(tmp_path) == ["way_01.png", "way_02.png", "way_03.png"]
    assert read_metadata(tmp_path / "way_01.png")["To"] == "a pear"
    assert t2i("an apple", "-o", "apple.bmp").exit_code == 0
    assert Image.open("way_01.png").tobytes() == Image.open("apple.bmp").tobytes()


@pytest.mark.parametrize("suffix", ["webp", "gif", "avif"])
def test_the_way_to_another_prompt_is_an_animation_where_the_name_says_so(
    t2i: Run, tmp_path: Path, suffix: str
) -> None:
    target = tmp_path / f"out/way.{suffix}"
    result = t2i("an apple", "--to", "a pear", "--frames", 4, "-o", target, "--size", 24)
    assert result.exit_code == 0, result.output
    with Image.open(target) as animation:
        assert (animation.n_frames, animation.size) == (4, (24, 24))
        assert (animation.info["loop"] if suffix != "avif" else 0) == 0
    assert read_metadata(target)["Prompt"] == "an apple"
    assert names(tmp_path) == [f"out/way.{suffix}"]


@pytest.mark.parametrize(("option", "needed"), [("--mix-at", "--style-prompt"), ("--frames", "--to")])
def test_an_option_that_needs_another_one_says_so(t2i: Run, option: str, needed: str) -> None:
    result = t2i("an apple", option, 4)
    assert result.exit_code == 2
    assert f"Option '{option}' needs '{needed}'." in result.stderr


@pytest.mark.parametrize("taken", ["an-apple_02.png", "an-apple_sheet.png"])
def test_an_existing_file_of_a_set_is_kept_and_nothing_is_generated(t2i: Run, tmp_path: Path, taken: str) -> None:
    (tmp_path / taken).write_bytes(b"mine")
    assert_fails(t2i("an apple", "-c", 2), "exists already; choose another -o, or add --overwrite")
    assert names(tmp_path) == [taken]
    assert (tmp_path / taken).read_bytes() == b"mine"
    assert t2i("an apple", "-c", 2, "--overwrite").exit_code == 0
    assert Image.open(tmp_path / taken).format == "PNG"


def test_a_set_that_was_stopped_is_made_to_its_end(t2i: Run, tmp_path: Path) -> None:
    assert t2i("an apple", "-c", 4, "--size", 24).exit_code == 0
    whole = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    kept = (tmp_path / "an-apple_01.png").stat().st_mtime_ns
    for label in ("03", "04", "sheet"):
        (tmp_path / f"an-apple_{label}.png").unlink()
    result = t2i("an apple", "-c", 4, "--size", 24)
    assert result.output.count("done before") == 2
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == whole
    assert (tmp_path / "an-apple_01.png").stat().st_mtime_ns == kept
    assert t2i("an apple", "-c", 4, "--size", 24).output.count("done before") == 5
    assert_fails(t2i("an apple", "-c", 4, "--size", 25), "exists already")
    assert_fails(t2i("an apple", "-c", 4, "--size", 24, "--truncation", 0.5), "exists already")


@pytest.mark.parametrize(
    ("special", "plain"),
    [
        (["--truncation", 0.5], []),
        (["--style-prompt", "a pear"], []),
        (["--to", "a pear", "--frames", 3], []),
        (["--to", "a pear", "--frames", 3], ["--truncation", 0.5]),
    ],
)
def test_a_picture_made_with_more_options_is_another_one(t2i: Run, special: list[object], plain: list[object]) -> None:
    assert t2i("an apple", *special, "--size", 24, "-o", "a.webp").exit_code == 0
    assert t2i("an apple", *special, "--size", 24, "-o", "a.webp").output == "a.webp  done before\n"
    assert_fails(t2i("an apple", *plain, "--size", 24, "-o", "a.webp"), "exists already")


def test_an_animation_and_its_frames_say_what_they_are(t2i: Run, tmp_path: Path) -> None:
    assert t2i("an apple", "--to", "a pear", "--frames", 3, "-o", "film.webp").exit_code == 0
    assert read_metadata(tmp_path / "film.webp")["Frames"] == "3"
    assert t2i("an apple", "--to", "a pear", "--frames", 3, "-o", "film.webp").output == "film.webp  done before\n"
    assert t2i("an apple", "--to", "a pear", "--frames", 3, "-o", "way.png").exit_code == 0
    assert [read_metadata(tmp_path / f"way_0{i}.png")["Frame"] for i in (1, 2, 3)] == ["1 of 3", "2 of 3", "3 of 3"]


def test_pictures_of_an_earlier_version_are_left_alone(t2i: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["an apple", "--truncation", 0.7, "-c", 2, "-o", "out"]
    with monkeypatch.context() as patch:
        patch.setattr("gigasr_base.t2i_job.__version__", "0.1.0")
        assert t2i(*options).exit_code == 0
    assert read_metadata(Path("out/an-apple_01.png"))["Software"] == "gigasr 0.1.0"
    assert t2i(*options).output.count("done before") == 3
    assert_fails(t2i(*options, "--seed", 1), "exists already")


def test_a_folder_may_have_a_dot_in_its_name_where_several_files_are_made(t2i: Run, tmp_path: Path) -> None:
    assert t2i("an apple", "-c", 2, "-o", "v1.0").exit_code == 0
    assert t2i("an apple", "a pear", "-o", "v2.0").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "v2.0").iterdir()) == ["1-an-apple.png", "2-a-pear.png"]
    assert len(list((tmp_path / "v1.0").iterdir())) == 3
    assert_fails(t2i("an apple", "-o", "apple.v2"), "expected a name that ends in")


def test_what_a_killed_command_left_is_removed(t2i: Run, tmp_path: Path) -> None:
    (tmp_path / ".gigasr-0123.tmp").write_bytes(b"half")
    assert t2i("an apple").exit_code == 0
    assert names(tmp_path) == ["an-apple.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["apple", "-c", "2", "--seed", str(2**63 - 1)], "seed: expected 0..2**63 - 1, got 9223372036854775808"),
        (["apple", "--size", "big"], "size: expected a side in px, 1k, 2k, 4k"),
        (["apple", "--size", "2k"], "expected at most 64 times 16x16 px, got 2048x2048"),
        (["apple", "-n", "nonsense"], "model: expected a weights file or one of base_lite"),
        (
            ["apple", "--size", "32", "--upsampler", "nonsense"],
            "model: expected a file, a folder, a Hugging Face id or one of",
        ),
        (["apple", "--format", "xyz"], "expected a name that ends in"),
        (["apple", "pear", "-o", "one.png"], "expected a folder for several prompts"),
        (["word " * 100], "prompt: expected at most 75 tokens, got 100"),
        (["apple", "--style-prompt", "word " * 100], "prompt: expected at most 75 tokens, got 100"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(t2i: Run, tmp_path: Path, arguments: list[str], message: str) -> None:
    assert_fails(t2i(*arguments), message)
    assert names(tmp_path) == []


def test_usage_errors_exit_with_2(t2i: Run, tmp_path: Path) -> None:
    assert_fails(t2i(), "Missing argument 'PROMPTS'", code=2)
    assert_fails(t2i("apple", "--to", "pear", "-c", 2), "'--to' takes one prompt", code=2)
    assert_fails(t2i("apple", "--truncation", 2), "--truncation", code=2)
    assert_fails(t2i("apple", "-o", "a.png", "--format", "jpg"), "'--format' is for a folder", code=2)
    assert_fails(t2i("apple", "--prompts", tmp_path / "absent.txt"), "does not exist", code=2)


def test_a_bad_file_of_prompts_is_one_clear_line(t2i: Run, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n \n")
    assert_fails(t2i("--prompts", "empty.txt"), "empty.txt: expected a prompt per line")
    (tmp_path / "latin.txt").write_bytes("Blüte".encode("latin-1"))
    assert_fails(t2i("--prompts", "latin.txt"), "latin.txt: expected text in UTF-8")


def test_help_says_how_a_size_that_is_not_square_is_made() -> None:
    result = CliRunner().invoke(main, ["t2i", "--help"])
    assert result.exit_code == 0
    assert "cut from the middle of a square one" in " ".join(result.output.split())
