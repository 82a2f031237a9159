"""Every table of the paper gets a row of a model, from tiny models and few images, and says what is missing."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from scripts.paper_tables import main


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def last_row(result: Result) -> tuple[str, dict[str, str]]:
    """The name and the metrics of the row that was measured."""
    assert result.exit_code == 0, result.output
    _, headings, *_, row = [line.split("  ") for line in result.output.splitlines()]
    name, *cells = [cell.strip() for cell in row if cell.strip()]
    return name, dict(zip([cell.strip() for cell in headings if cell.strip()], cells, strict=True))


@pytest.mark.parametrize("table", ["table1", "table2", "table3"])
def test_a_row_of_text_to_image(
    table: str,
    base_weights: Path,
    tiny_weights: Path,
    photo_folder: Path,
    lpips_features: Path,
    tiny_clip: str,
    tmp_path: Path,
) -> None:
    models = [base_weights] if table == "table1" else [base_weights, tiny_weights]
    more = {"table1": ["--clip", tiny_clip], "table2": [], "table3": ["--clip", tiny_clip, "--size", 64]}[table]
    images = ["--data", photo_folder, "--images", tmp_path / "generated", "--count", 5]
    arguments = [table, *models, *images, "--fid", lpips_features, "-g", "cpu", *more]
    name, metrics = last_row(run(*arguments))
    assert name == " + ".join(path.stem for path in models) + ", 5 images"
    assert metrics["FID"] == "-" and float(metrics["FID (squeeze)"]) > 0
    assert ("CLIP score" in metrics) == bool(more) and ("seconds" in metrics) == (table != "table1")
    assert len(list((tmp_path / "generated").glob("*.png"))) == 5
    assert "choose another --images" in run(*arguments, "--seed", 1).output
    assert last_row(run(*arguments))[1]["FID (squeeze)"] == metrics["FID (squeeze)"]


def test_a_row_of_captioned_photographs(
    tiny_weights: Path, large_photos: Path, lpips_features: Path, tiny_clip: str
) -> None:
    files = ["--fid", lpips_features, "--clip", tiny_clip, "--lpips", "squeeze", "--lpips-features", lpips_features]
    name, metrics = last_row(run("table4", tiny_weights, "--data", large_photos, "--count", 2, *files))
    assert name == "tiny, 2 images"
    assert all(float(metrics[column]) for column in ("CLIP score", "LPIPS", "seconds", "patch-FID (squeeze)"))


def test_a_row_of_imagenet(tiny_weights: Path, large_photos: Path, lpips_features: Path) -> None:
    arguments = ["table5", tiny_weights, "--data", large_photos, "--fid", lpips_features]
    metrics = last_row(run(*arguments, "--count", 2))[1]
    assert float(metrics["PSNR, dB"]) > 0 and metrics["IS"] == "-"
    assert "expected 50000 images of at least 256 px, got 2" in run(*arguments).output


def test_two_folders_have_a_distance(photo_folder: Path, large_photos: Path, lpips_features: Path) -> None:
    result = run("fid", photo_folder, large_photos, "--size", 64, "--fid", lpips_features)
    assert result.exit_code == 0 and "(5 and 2 images, 64 px)" in result.output


def test_cocos_annotations_become_captions(photo_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "000.jpg").write_bytes((photo_folder / "0.png").read_bytes())
    rows = [{"id": 7, "file_name": "000.jpg"}, {"id": 8, "file_name": "absent.jpg"}]
    captions = [{"image_id": 7, "caption": text} for text in ("a dog \n runs", "a dog")]
    (tmp_path / "c.json").write_text(json.dumps({"images": rows, "annotations": captions}), encoding="utf-8")
    assert run("coco", tmp_path / "c.json", tmp_path).output.endswith("captions.jsonl  1 images\n")
    row = json.loads((tmp_path / "captions.jsonl").read_text(encoding="utf-8"))
    assert row == {"file": "000.jpg", "captions": ["a dog runs", "a dog"]}
    (tmp_path / "000.jpg").unlink()
    assert "unpack COCO's images there" in run("coco", tmp_path / "c.json", tmp_path).output


def test_what_is_missing_is_one_clear_line(base_weights: Path, large_photos: Path, tmp_path: Path) -> None:
    more = ["--images", tmp_path / "generated", "--fid", tmp_path / "absent.pth"]
    assert "expected 10000 images, got 2" in run("table1", base_weights, "--data", large_photos, *more).output
    for caption in large_photos.glob("*.txt"):
        caption.unlink()
    assert "expected a caption for" in run("table1", base_weights, "--data", large_photos, *more, "--count", 2).output


@pytest.fixture
def large_photos(tmp_path: Path, photo_folder: Path) -> Path:
    """Two pictures of 1024 px with captions beside them."""
    from PIL import Image

    for i in range(2):
        with Image.open(photo_folder / f"{i}.png") as image:
            image.resize((1280, 1024)).save(tmp_path / f"large{i}.png")
        (tmp_path / f"large{i}.txt").write_text(f"picture {i}", encoding="utf-8")
    return tmp_path
