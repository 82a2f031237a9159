"""The command does what it says, and bad input ends in one clear line that loses nothing."""

import io
import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import load_file
from tqdm import tqdm

import gigasr.models.zoo
import gigasr_base.zoo
from gigasr.cli import main
from gigasr.cli.train import splits
from gigasr.cli.upscale import Reporter
from gigasr.files.images import Frames, read_frames, read_image, read_metadata
from gigasr.folders.job_runner import JobState
from gigasr.folders.plan import InputImage, Job
from gigasr.models.checkpoint import load_weights, save_weights

TINY_CONFIG = Path(__file__).parents[1] / "configs" / "upsampler_tiny.toml"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (10, 14, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def upscale(tiny_weights: Path):  # noqa: ANN201
    def run(*arguments: object) -> Result:
        return CliRunner().invoke(main, ["upscale", "-n", str(tiny_weights), *map(str, arguments)])

    return run


def assert_fails(result: Result, text: str, code: int = 1) -> None:
    """One clear line (after click's usage where the arguments are at fault), no traceback."""
    assert result.exit_code == code, result.output
    assert text in result.output
    assert "Traceback" not in result.output
    assert result.output.count("Error:") == 1


def test_restore_says_how_much_of_the_damage_goes_and_stands_in_the_file(
    photo: Path, restoring_weights: Path, tmp_path: Path
) -> None:
    """At 0 the result is that of the network without its root layer, whose weights are the others."""
    tensors, (_, config, _) = load_file(restoring_weights), load_weights(restoring_weights, "upsampler")
    rootless = {name: tensor for name, tensor in tensors.items() if not name.startswith("to_root")}
    save_weights(tmp_path / "m.safetensors", rootless, "upsampler", config | {"restores": False}, torch.float32)
    files = {}
    for model, options in ((restoring_weights, ()), (restoring_weights, (0.5,)), (restoring_weights, (0,)), ("m", ())):
        target = tmp_path / f"{len(files)}.png"
        name = tmp_path / "m.safetensors" if model == "m" else model
        strength = [word for value in options for word in ("--restore", value)]
        arguments = ["upscale", photo, "-o", target, "-n", name, "--fp32", *strength]
        assert CliRunner().invoke(main, list(map(str, arguments))).exit_code == 0
        files[model == "m", options] = read_image(target).rgb, read_metadata(target).get("Restore")
    (whole, half, none, without), notes = zip(*files.values(), strict=True)
    assert notes == (None, "0.5", "0.0", None)
    assert torch.equal(none, without)
    assert len({tuple(image.flatten().tolist()) for image in (whole, half, none)}) == 3


def test_a_model_without_a_root_gives_the_same_pixels_whatever_restore_says(upscale, photo: Path) -> None:  # noqa: ANN001
    targets = [photo.with_name(name) for name in ("a.png", "b.png")]
    for target, strength in zip(targets, ("0", "1"), strict=True):
        assert upscale(photo, "-o", target, "--restore", strength).exit_code == 0
    assert torch.equal(*(read_image(target).rgb for target in targets))
    assert_fails(upscale(photo, "--restore", 1.5), "Invalid value for '--restore': 1.5 is not in the range", code=2)


def test_a_photo_is_upscaled_eight_times_with_its_options_in_the_file(upscale, photo: Path) -> None:  # noqa: ANN001
    result = upscale(photo, "-p", "a dog", "--seed", 3)
    assert result.exit_code == 0, result.output
    output = photo.with_name("photo_8x.png")
    assert Image.open(output).size == (112, 80)
    metadata = read_metadata(output)
    assert (metadata["Prompt"], metadata["Seed"], metadata["Model"]) == ("a dog", "3", "tiny.safetensors")
    assert metadata["Software"].startswith("gigasr ")


def test_tiles_that_run_together_give_the_file_of_each_alone(global_weights: Path, photo: Path) -> None:
    names = [photo.with_name(f"{batch}.png") for batch in (1, 2)]
    for batch, name in enumerate(names, start=1):
        options = ("-n", str(global_weights), "-o", str(name), "--fp32", "--batch", str(batch))
        result = CliRunner().invoke(main, ["upscale", str(photo), *options])
        assert result.exit_code == 0, result.output
    one, two = (np.array(Image.open(name)).astype(int) for name in names)
    assert abs(two - one).max() <= 1
    assert read_metadata(names[0]) == read_metadata(names[1])


def test_a_scale_a_size_and_an_output_name_are_honoured(upscale, photo: Path, tmp_path: Path) -> None:  # noqa: ANN001
    assert upscale(photo, "-s", "2.5", "-o", tmp_path / "a.jpg").exit_code == 0
    assert Image.open(tmp_path / "a.jpg").size == (35, 25)
    assert upscale(photo, "--size", "100x100", "-o", tmp_path / "b.webp").exit_code == 0
    assert Image.open(tmp_path / "b.webp").size == (100, 71)


def test_a_folder_goes_into_a_folder(upscale, photo: Path, tmp_path: Path) -> None:  # noqa: ANN001
    Image.new("L", (5, 5)).save(tmp_path / "gray.png")
    result = upscale(tmp_path, "-o", tmp_path / "out", "--format", "jpg")
    assert result.exit_code == 0, result.output
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["gigasr-report.jsonl", "gray_8x.jpg", "photo_8x.jpg"]


def test_one_bad_file_is_told_with_a_line_and_does_not_stop_the_rest(upscale, photo: Path, tmp_path: Path) -> None:  # noqa: ANN001
    (tmp_path / "broken.png").write_bytes(b"")
    result = upscale(tmp_path, "-o", tmp_path / "out")
    assert result.exit_code == 1
    assert result.stderr == f"{tmp_path / 'broken.png'}: failed: expected an image, got an empty file; replace it\n"
    assert result.stdout.splitlines() == [
        f"{tmp_path / 'out' / 'photo_8x.png'}  112x80 px",
        "1 done, 0 skipped, 1 failed",
    ]


def test_the_same_command_goes_on_where_it_was_stopped(upscale, photo: Path, tmp_path: Path) -> None:  # noqa: ANN001
    arguments = (tmp_path / "in", "-r", "-o", tmp_path / "out")
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "a.png").write_bytes(photo.read_bytes())
    assert upscale(*arguments).stdout.endswith("1 done, 0 skipped, 0 failed\n")
    (tmp_path / "in" / "sub" / "b.png").write_bytes(photo.read_bytes())
    assert upscale(*arguments).stdout.splitlines() == [
        f"{tmp_path / 'out' / 'a_8x.png'}  done before",
        f"{tmp_path / 'out' / 'sub' / 'b_8x.png'}  112x80 px",
        "1 done, 1 skipped, 0 failed",
    ]
    assert upscale(*arguments, "--overwrite").stdout.endswith("2 done, 0 skipped, 0 failed\n")


def test_a_foreign_file_in_the_place_of_an_output_is_told_and_kept(upscale, photo: Path, tmp_path: Path) -> None:  # noqa: ANN001
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "photo_8x.png").write_bytes(b"mine")
    result = upscale(tmp_path, "-o", tmp_path / "out")
    assert (result.exit_code, result.stdout) == (0, "0 done, 1 skipped, 0 failed\n")
    assert result.stderr.startswith("skipped: ")
    assert "exists already" in result.stderr
    assert (tmp_path / "out" / "photo_8x.png").read_bytes() == b"mine"


def test_a_pattern_is_expanded_where_the_shell_does_not(upscale, photo: Path, tmp_path: Path) -> None:  # noqa: ANN001
    assert upscale(tmp_path / "*.p?g", "-o", tmp_path / "out").exit_code == 0
    assert (tmp_path / "out" / "photo_8x.png").exists()
    assert_fails(upscale(tmp_path / "*.webp"), "does not exist", code=2)


def test_files_have_the_prompts_of_a_list(upscale, photo: Path, tmp_path: Path) -> None:  # noqa: ANN001
    (tmp_path / "other.png").write_bytes(photo.read_bytes())
    (tmp_path / "prompts.csv").write_text("file,prompt\nphoto.png,a dog\n")
    assert upscale(tmp_path, "--prompts", tmp_path / "prompts.csv", "-p", "a cat").exit_code == 0
    prompts = [read_metadata(tmp_path / f"{name}_8x.png")["Prompt"] for name in ("photo", "other")]
    assert prompts == ["a dog", "a cat"]


def test_a_list_with_a_wrong_name_or_a_long_prompt_is_an_error_before_anything_runs(
    upscale: Callable[..., Result], photo: Path, tmp_path: Path
) -> None:
    origin = tmp_path / "prompts.csv"
    for row, text in (("foto.png,a dog", "got 'foto.png'"), ("photo.png," + "word " * 99, "got 99")):
        origin.write_text(f"file,prompt\n{row}\n")
        assert_fails(upscale(tmp_path, "--prompts", origin, "-o", tmp_path / "out"), text)
    assert not (tmp_path / "out").exists()


def test_an_error_of_a_kind_that_nobody_expects_is_one_line_with_the_files_name(
    upscale: Callable[..., Result], photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class EncoderError(Exception):
        pass

    def fail(*_: object, **__: object) -> None:
        raise EncoderError("no such profile")

    monkeypatch.setattr("gigasr.folders.job_runner.write_frames", fail)
    assert_fails(upscale(photo), f"{photo}: no such profile")


def test_a_name_that_the_terminal_cannot_show_ends_no_run(tiny_weights: Path, photo: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.png", "写真.png", "z.png"):
        (tmp_path / "in" / name).write_bytes(photo.read_bytes())
    command = [sys.executable, "-m", "gigasr", "upscale", tmp_path / "in", "-o", tmp_path / "out", "-n", tiny_weights]
    done = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "cp1252"}, check=True)
    assert b"3 done, 0 skipped, 0 failed" in done.stdout


def test_an_interrupt_before_the_work_exits_with_130_too(
    upscale: Callable[..., Result], photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("gigasr.folders.plan.find_images", interrupt)
    result = upscale(photo)
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")


def test_results_without_words_of_their_own_are_replaced_as_the_report_knows_them(
    upscale: Callable[..., Result], photo: Path, tmp_path: Path
) -> None:
    assert upscale(tmp_path, "--format", "bmp").exit_code == 0
    result = upscale(tmp_path, "--format", "bmp", "--overwrite", "--seed", 1)
    assert result.stdout.endswith("1 done, 0 skipped, 0 failed\n"), result.output
    (tmp_path / "photo_8x.bmp").write_bytes(b"mine")
    assert_fails(upscale(tmp_path, "--format", "bmp", "--overwrite"), "photo_8x.bmp: expected a result of gigasr")


def test_an_input_is_not_replaced_by_a_result_unless_gigasr_made_it(
    upscale: Callable[..., Result], photo: Path, tmp_path: Path
) -> None:
    own = tmp_path / "photo_8x.png"
    own.write_bytes(photo.read_bytes())
    assert_fails(upscale(tmp_path, "--overwrite"), "photo_8x.png: expected a result of gigasr to replace, got an input")
    assert own.read_bytes() == photo.read_bytes()
    assert upscale(photo, "--overwrite").exit_code == 0
    result = upscale(tmp_path, "--overwrite", "--seed", 1)
    assert result.exit_code == 0, result.output
    assert "left out 1 files that were, or will now be, made from other inputs (" in result.stderr
    assert read_metadata(own)["Seed"] == "1"


def test_the_splits_of_a_folder_are_read_line_by_line_whatever_the_captions_hold(tmp_path: Path) -> None:
    rows = ['{"file": "a.png", "captions": ["one\u2028two"]}', '{"file": "b.png", "captions": [""], "split": "val"}']
    (tmp_path / "captions.jsonl").write_text("\n".join(rows), encoding="utf-8")
    assert splits(tmp_path) == {"train", "val"}
    assert splits(tmp_path / "none") == set()


def test_a_seed_that_torch_cannot_take_is_a_wrong_option(upscale: Callable[..., Result], photo: Path) -> None:
    assert_fails(upscale(photo, "--seed", 2**63), "Invalid value for '--seed'", code=2)


@pytest.mark.skipif(sys.platform == "win32", reason="a signal to oneself ends the process there")
def test_an_interrupt_exits_with_130_and_leaves_whole_files_only(
    upscale: Callable[..., Result], photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub.png").write_bytes(photo.read_bytes())

    def interrupt(path: Path) -> Frames:
        if path.name == "sub.png":
            os.kill(os.getpid(), signal.SIGINT)
        return read_frames(path)

    monkeypatch.setattr("gigasr.folders.job_runner.read_frames", interrupt)
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background starts deaf to it
    try:
        result = upscale(tmp_path, "-o", tmp_path / "out")
    finally:
        signal.signal(signal.SIGINT, previous)
    assert result.exit_code == 130
    assert "interrupted: " in result.stderr
    assert {path.name for path in tmp_path.glob("out/*")} <= {"photo_8x.png", "gigasr-report.jsonl"}
    assert "Traceback" not in result.output


def test_the_bar_tells_of_files_megapixels_and_the_time_left(tmp_path: Path) -> None:
    job = Job(InputImage(tmp_path / "a.png", tmp_path), tmp_path / "a_8x.png")
    screen = io.StringIO()
    with tqdm(total=4, desc="upscale", file=screen, ncols=100, mininterval=0, miniters=0) as bar:
        reporter = Reporter(bar, is_single=False, is_debug=False)
        for status in ("running", "done", "skipped"):
            reporter(JobState(job, status, fraction=0.5, pixels=2_000_000 if status == "done" else 0))
        bar.refresh()
    last = screen.getvalue().split("\r")[-2]
    assert re.search(r"upscale:  33%.* 1/3 files \[[0-9:]+, [0-9:]+ left, [0-9.]+ MP/s\]", last), last
    assert reporter.summary() == "1 done, 1 skipped, 0 failed"


def test_an_existing_output_is_kept_unless_told_otherwise(upscale, photo: Path, tmp_path: Path) -> None:  # noqa: ANN001
    target = tmp_path / "kept.png"
    target.write_bytes(b"mine")
    assert_fails(upscale(photo, "-o", target), "exists already")
    assert target.read_bytes() == b"mine"
    assert upscale(photo, "-o", target, "--overwrite").exit_code == 0
    assert Image.open(target).size == (112, 80)


def test_two_inputs_for_one_output_are_an_error_before_anything_runs(upscale, photo: Path, tmp_path: Path) -> None:  # noqa: ANN001
    photo.with_suffix(".bmp").write_bytes(photo.read_bytes())
    assert_fails(upscale(photo, photo.with_suffix(".bmp"), "-o", tmp_path / "out"), "expected one output per input")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"no image at all", None], ids=["empty", "text", "truncated"])
def test_a_file_that_is_no_image_is_one_clear_line(upscale, photo: Path, content: bytes | None) -> None:  # noqa: ANN001
    bad = photo.with_name("bad.png")
    bad.write_bytes(photo.read_bytes()[:150] if content is None else content)
    assert_fails(upscale(bad), "bad.png")
    assert not photo.with_name("bad_8x.png").exists()


def test_usage_errors_exit_with_2(upscale, photo: Path) -> None:  # noqa: ANN001
    assert_fails(upscale(photo.with_name("absent.png")), "does not exist", code=2)
    assert_fails(upscale(photo, "--scale", "0"), "--scale", code=2)
    assert_fails(upscale(photo, "--fidelity", "2"), "--fidelity", code=2)
    assert_fails(upscale(photo, "--quality", "0"), "--quality", code=2)
    assert_fails(upscale(photo, "--shard", "3/2"), "expected i/n with i from 1 to n, got '3/2'", code=2)
    assert_fails(upscale(photo, "--workers", "2"), "needs '--ray'", code=2)
    assert_fails(upscale(photo, "--scale", "2", "--size", "4k"), "exclude each other", code=2)


def test_a_format_a_quality_and_a_bit_depth_are_honoured(upscale, photo: Path, tmp_path: Path) -> None:  # noqa: ANN001
    assert upscale(photo, "--format", "TIF", "--bit-depth", 16).exit_code == 0
    assert read_image(photo.with_name("photo_8x.tif")).bit_depth == 16
    for name, quality in (("low", 10), ("high", 95)):
        assert upscale(photo, "-o", tmp_path / f"{name}.avif", "--quality", quality).exit_code == 0
    assert (tmp_path / "low.avif").stat().st_size < (tmp_path / "high.avif").stat().st_size
    assert_fails(upscale(photo, "--format", "jpg", "--bit-depth", 16), "for 16 bit, got .jpg; choose another format")


def test_the_shards_of_a_folder_do_it_all_and_each_keeps_a_report(upscale, tmp_path: Path) -> None:  # noqa: ANN001
    (tmp_path / "in").mkdir()
    for number in range(8):
        Image.new("L", (3, 2)).save(tmp_path / "in" / f"{number}.png")
    for shard in ("1/2", "2/2"):
        assert upscale(tmp_path / "in", "-o", tmp_path / "out", "--shard", shard).exit_code == 0
    assert len(list((tmp_path / "out").glob("*.png"))) == 8
    assert len(list((tmp_path / "out").glob("gigasr-report-?-of-2.jsonl"))) == 2
    assert upscale(tmp_path / "in", "-o", tmp_path / "out").stdout.endswith("0 done, 8 skipped, 0 failed\n")


@pytest.mark.parametrize("origin", ["list.csv", "sidecar"])
def test_a_shard_finds_its_prompts_among_those_of_all_files(upscale, tmp_path: Path, origin: str) -> None:  # noqa: ANN001
    (tmp_path / "in").mkdir()
    for number in range(4):
        Image.new("L", (3, 2)).save(tmp_path / "in" / f"{number}.png")
    (tmp_path / "list.csv").write_text(
        "file,prompt\n" + "".join(f"{number}.png,photo {number}\n" for number in range(4))
    )
    (tmp_path / "in" / "0.txt").write_text("photo 0")
    for shard in ("1/2", "2/2"):
        given = origin if origin == "sidecar" else tmp_path / origin
        assert upscale(tmp_path / "in", "-o", tmp_path / "out", "--prompts", given, "--shard", shard).exit_code == 0
    prompts = {path.name: read_metadata(path).get("Prompt", "") for path in (tmp_path / "out").glob("*.png")}
    listed = range(4) if origin == "list.csv" else range(1)
    assert prompts == {f"{number}_8x.png": f"photo {number}" if number in listed else "" for number in range(4)}


def test_an_empty_folder_is_one_clear_line(upscale, tmp_path: Path) -> None:  # noqa: ANN001
    (tmp_path / "empty").mkdir()
    assert_fails(upscale(tmp_path / "empty"), "expected a folder with images, got none")


def test_an_unknown_model_and_format_are_one_clear_line(upscale, photo: Path) -> None:  # noqa: ANN001
    assert_fails(upscale(photo, "-n", "nonsense"), "got 'nonsense'")
    assert_fails(upscale(photo, "--format", "xyz"), "expected a name that ends in")


def test_a_prompt_of_ten_thousand_words_is_one_clear_line(upscale, photo: Path) -> None:  # noqa: ANN001
    assert_fails(upscale(photo, "-p", "word " * 10_000), "prompt: expected at most 75 tokens, got 10000")


def test_an_output_in_a_file_as_folder_is_one_clear_line(upscale, photo: Path) -> None:  # noqa: ANN001
    assert_fails(upscale(photo, "-o", photo / "out.png"), "expected a writable folder")


def test_debug_shows_where_an_error_came_from(photo: Path) -> None:
    result = CliRunner().invoke(main, ["--debug", "upscale", str(photo), "-n", "nonsense"])
    assert isinstance(result.exception, ValueError)


@pytest.mark.parametrize("command", ["upscale", "train", "eval", "bench", "models"])
def test_every_command_has_help(command: str) -> None:
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_the_help_of_upscale_shows_ten_options_first_and_every_one_once() -> None:
    output = CliRunner().invoke(main, ["upscale", "--help"]).output
    first, advanced = (re.findall(r"^  (?:-\w, )?(--[\w-]+)", part, re.MULTILINE) for part in output.split("Advanced:"))
    assert len(first) == 10 + 1  # and --help
    names = [option.opts[-1] for option in main.commands["upscale"].params if isinstance(option, click.Option)]
    assert sorted(first + advanced) == sorted([*names, "--help"])


def test_models_are_the_bundled_ones_of_both_kinds() -> None:
    lines = CliRunner().invoke(main, ["models"]).output.splitlines()
    assert [line.split()[0] for line in lines] == [
        *gigasr.models.zoo.bundled_models(),
        *gigasr_base.zoo.bundled_base_models(),
    ]


def test_a_dry_run_prints_the_parameters_of_every_part() -> None:
    result = CliRunner().invoke(main, ["train", str(TINY_CONFIG), "--dry-run"])
    assert result.exit_code == 0
    for part in ("generator.mapping", "generator.text_transformer", "generator.levels", "discriminator.predictors"):
        assert part in result.output


def test_a_mistyped_setting_is_one_clear_line() -> None:
    result = CliRunner().invoke(main, ["train", str(TINY_CONFIG), "--dry-run", "--set", "train.sed=1"])
    assert_fails(result, "train.sed: unknown key; nearest known: seed")


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_training_on_a_gpu_that_is_not_there_is_one_clear_line(photo_folder: Path, tmp_path: Path) -> None:
    options = ["--data", str(photo_folder), "--device", "cuda", "-o", str(tmp_path / "run")]
    result = CliRunner().invoke(main, ["train", str(TINY_CONFIG), *options])
    assert_fails(result, "device: expected auto, cpu, cuda, cuda:N or mps, got 'cuda'")


def test_training_into_its_own_data_or_over_a_model_is_refused(photo_folder: Path, tmp_path: Path) -> None:
    def train(output: Path, *more: str) -> Result:
        options = ["--data", str(photo_folder), "--device", "cpu", "-o", str(output), *more]
        return CliRunner().invoke(main, ["train", str(TINY_CONFIG), *options])

    assert_fails(train(photo_folder / "run"), "expected a folder outside the data")
    assert_fails(train(photo_folder / "run", "--gpus", "4"), "Option '--gpus' needs '--dry-run'", code=2)
    (tmp_path / "model.safetensors").touch()
    assert_fails(train(tmp_path), "holds a run; choose another -o")


def test_training_without_data_is_a_usage_error() -> None:
    assert_fails(CliRunner().invoke(main, ["train", str(TINY_CONFIG)]), "--data", code=2)


PAGE_FAULTS = """
import resource
from gigasr.cli import keep_freed_memory
keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(48 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults(), faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no mallopt")
def test_freed_memory_is_kept_for_reuse() -> None:
    done = subprocess.run([sys.executable, "-c", PAGE_FAULTS], capture_output=True, text=True, check=True)
    first, second = map(int, done.stdout.split())
    assert second < first / 10
