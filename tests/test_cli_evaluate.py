"""gigasr eval: the table, the files it writes, and the errors it ends in before any work."""

import base64
import json
import os
import re
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from gigasr.cli import main
from gigasr.cli.evaluate import is_base_model
from gigasr.files.image_writer import write_image
from gigasr.files.picture import Picture
from gigasr.models.zoo import convert_weights
from gigasr_base.zoo import load_base


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["eval", "-g", "cpu", *map(str, arguments)])


def assert_fails(result: Result, text: str, code: int = 1) -> None:
    assert result.exit_code == code, result.output
    assert text in result.output and "Traceback" not in result.output


def test_a_split_is_compared_in_a_table_in_json_and_on_a_page(
    photo_folder: Path, tiny_weights: Path, lpips_features: Path, tmp_path: Path
) -> None:
    files = ["--json", tmp_path / "f.json", "--report", tmp_path / "r.html", "--lpips-features", lpips_features]
    result = evaluate(tiny_weights, "lanczos", "--data", photo_folder, "--split", "val", "-s", 2, *files)
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.output.splitlines()[1:3]] == [str(tiny_weights), "lanczos"]
    content = json.loads((tmp_path / "f.json").read_text(encoding="utf-8"))
    assert list(content["images"]["lanczos"]) == ["4.png"]
    assert list(content["table"]["lanczos"]) == ["psnr_y", "ssim_y", "lpips", "lr_psnr", "seconds"]
    assert "picture 4" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_the_metrics_that_are_asked_for_are_the_columns(photo_folder: Path, tmp_path: Path) -> None:
    options = ["--data", photo_folder, "-s", 2, "--json", tmp_path / "f.json", "--metrics"]
    for words, names in {
        "peak_mb,psnr_y": ["psnr_y", "peak_mb"],
        "niqe,spectrum_error,ssim_y": ["ssim_y", "spectrum_error"],  # NIQE needs larger images
    }.items():
        result = evaluate("lanczos", *options, words)
        assert result.exit_code == 0, result.output
        content = json.loads((tmp_path / "f.json").read_text(encoding="utf-8"))
        assert list(content["table"]["lanczos"]) == names
        assert {tuple(row) for row in content["images"]["lanczos"].values()} == {tuple(names)}
    assert_fails(evaluate("lanczos", *options, "psnr"), "expected psnr_y, ssim_y", code=2)


def test_a_base_model_is_evaluated_over_its_truncations(
    photo_folder: Path, base_weights: Path, lpips_features: Path, tmp_path: Path
) -> None:
    more = ["--fid", lpips_features, "--truncations", "1,0.5", "--report", tmp_path / "r.html"]
    result = evaluate(base_weights, "--data", photo_folder, *more)
    assert result.exit_code == 0, result.output
    assert [line.count("truncation") for line in result.output.splitlines()] == [1, 1, 1, 0]
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    plots = map(base64.b64decode, re.findall(r'"data:image/svg\+xml;base64,(.*?)"', page))
    assert [plot.count(b'id="curve"') for plot in plots] == [1, 1]


def test_what_cannot_be_evaluated_is_one_clear_line(photo_folder: Path, base_weights: Path, tmp_path: Path) -> None:
    data = ["--data", photo_folder, "--metrics", "psnr_y,ssim_y"]
    assert_fails(evaluate("lanczos", base_weights, *data), "evaluate them separately", code=2)
    assert_fails(evaluate("nonsense", *data), "got 'nonsense'")
    assert_fails(evaluate("lanczos", *data, "--split", "dev"), "got none of 5 listed")
    assert_fails(evaluate("lanczos", *data, "--fid", tmp_path / "absent.pth"), "absent.pth: No such file")
    assert_fails(evaluate("lanczos", *data, "--clip", "nonsense"), "clip: expected MODEL:WEIGHTS")
    assert_fails(evaluate("lanczos", *data, "--report", tmp_path / "no" / "r.html"), "expected a file in a folder")
    assert_fails(evaluate(base_weights, "--data", photo_folder, "--truncations", "1,x"), "expected numbers", code=2)
    assert_fails(evaluate(base_weights, *data[:2], "--save", tmp_path), "Option '--save' does not apply", code=2)
    assert_fails(evaluate("lanczos", *data, "--truncations", "1"), "Option '--truncations' does not apply", code=2)
    assert_fails(evaluate(base_weights, *data[:2], "--truncations", "1,5"), "expected numbers of 0 to 1", code=2)
    assert_fails(evaluate(base_weights, *data[:2], "--square", 64), "Option '--square' does not apply", code=2)
    assert_fails(evaluate("lanczos", *data, "--lpips", "vgg"), "Option '--lpips' needs 'lpips' in '--metrics'", code=2)
    assert_fails(evaluate("lanczos", *data, "--cases", 3), "Option '--cases' needs '--report'", code=2)
    (tmp_path / "junk.safetensors").write_bytes(b"no weights")
    assert_fails(evaluate(tmp_path / "junk.safetensors", *data), "expected a safetensors file")
    (tmp_path / "photos").mkdir()
    write_image(tmp_path / "photos" / "a.png", Picture(torch.rand(3, 64, 64)))
    assert_fails(
        evaluate("lanczos", "--data", tmp_path / "photos", *data[2:], "--split", "val"), "expected captions.jsonl"
    )


def test_images_elsewhere_are_refused_as_results_would_take_their_place(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", Picture(torch.rand(3, 64, 64)))
    original = (tmp_path / "a.png").read_bytes()
    (tmp_path / "data").mkdir()
    for name in ("../a.png", (tmp_path / "a.png").as_posix()):
        (tmp_path / "data" / "captions.jsonl").write_text(json.dumps({"file": name, "captions": ["a"]}))
        result = evaluate(
            "lanczos", "--data", tmp_path / "data", "--metrics", "psnr_y", "--save", tmp_path / "out" / "in"
        )
        assert_fails(result, "got one elsewhere; move captions.jsonl")
    assert (tmp_path / "a.png").read_bytes() == original


@pytest.mark.skipif(sys.platform != "linux", reason="names there are text")
def test_a_name_that_is_no_text_costs_no_metrics(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_image(tmp_path / "data" / "a.png", Picture(torch.rand(3, 64, 64)))
    os.rename(tmp_path / "data" / "a.png", os.fsencode(tmp_path / "data") + b"/\xff.png")
    files = ["--json", tmp_path / "f.json", "--report", tmp_path / "r.html"]
    result = evaluate("lanczos", "--data", tmp_path / "data", "-s", 2, "--metrics", "psnr_y,lr_psnr", *files)
    assert result.exit_code == 0, result.output
    assert list(json.loads((tmp_path / "f.json").read_text(encoding="utf-8"))["images"]["lanczos"]) == ["\udcff.png"]
    assert "\\udcff.png" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_a_base_model_is_known_in_every_kind_of_file(base_weights: Path, tmp_path: Path) -> None:
    for target in (tmp_path / "base.pth", tmp_path / "base"):
        convert_weights(base_weights, target)
        assert is_base_model(str(target))
        assert load_base(str(target)).config == load_base(str(base_weights)).config
    assert "pipeline_tag: text-to-image" in (tmp_path / "base" / "README.md").read_text()


def test_given_inputs_and_prompts_have_a_row_each(photo_folder: Path, tiny_weights: Path, tmp_path: Path) -> None:
    for kind, level in (("dark", 0.1), ("bright", 0.9)):
        (tmp_path / kind).mkdir()
        for i in range(5):
            write_image(tmp_path / kind / f"{i}.png", Picture(torch.full((3, 20, 24), level)))
    quick = ["--metrics", "psnr_y", "-s", 4, "--json", tmp_path / "f.json"]
    inputs = ["--data", photo_folder, "--lr", f"{tmp_path / 'dark'},{tmp_path / 'bright'}"]
    result = evaluate(tiny_weights, *inputs, "-p", "clean, sharp", "--prompt", "", *quick)
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "f.json").read_text(encoding="utf-8"))
    rows = [
        f"{tiny_weights}, {kind}, {words}" for kind in ("dark", "bright") for words in ('"clean, sharp"', "no prompt")
    ]
    assert list(content["table"]) == rows and [line in result.output for line in rows] == [True] * 4
    assert content["facts"]["low-res inputs"] == "dark, bright"
    assert content["facts"]["prompts"] == '"clean, sharp", no prompt'
    metrics = [content["images"][row]["0.png"]["psnr_y"] for row in rows]
    assert len(set(metrics)) == 4


def test_inputs_and_prompts_that_do_not_fit_are_one_clear_line(photo_folder: Path, tmp_path: Path) -> None:
    data = ["--data", photo_folder, "--metrics", "psnr_y"]
    assert_fails(evaluate("lanczos", *data, "--lr", tmp_path / "absent"), "expected bicubic, matlab", code=2)
    assert_fails(evaluate("lanczos", *data, "--lr", ""), "got ''", code=2)
    assert_fails(evaluate("lanczos", *data, "--lr", tmp_path), "expected one input for 0.png, got none")
    write_image(tmp_path / "0.png", Picture(torch.rand(3, 20, 24)))
    assert_fails(evaluate("lanczos", *data, "--lr", tmp_path), "got 24x20 px; add --scale 4")
    prompts = ["--prompt", "a", "--prompts", "none"]
    assert_fails(evaluate("lanczos", *data, *prompts), "Option '--prompts' excludes '--prompt'", code=2)
    assert_fails(evaluate("lanczos", *data, "-p", "word " * 100), "prompt: expected at most 75 tokens")
