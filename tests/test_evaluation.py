"""Models are compared on the same inputs, and what was measured is kept per image, per set and per model."""

import math
import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from gigasr.data.captions import Sample
from gigasr.evaluation.evaluate import Evaluation, MetricModels, evaluate_models, evaluate_pair, summarise
from gigasr.evaluation.settings import EvalSettings, choose_prompts, load_truth
from gigasr.evaluation.upscalers import interpolate, load_upscaler, read_result, unique_labels
from gigasr.files.image_writer import write_image
from gigasr.files.picture import Picture
from gigasr.metrics import FrozenFeatures, Lpips, low_res_from
from gigasr.options import UpscaleOptions
from gigasr.pipeline import SuperResolver

COSTS = ["seconds", "peak_mb"]
CPU = UpscaleOptions(device="cpu")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Sample]:
    folder, names = tmp_path_factory.mktemp("truths"), ("0.png", "1.png")
    for i, name in enumerate(names):
        write_image(folder / name, Picture(torch.rand(3, 97, 192, generator=torch.Generator().manual_seed(i))))
    return {name: Sample(folder / name, ("noise",)) for name in names}


def run(models: list[str], samples: dict[str, Sample], metric_models: MetricModels, **more: object) -> Evaluation:
    return evaluate_models(
        models, samples, {"": EvalSettings(2, upscale=CPU)}, metric_models, lambda total: None, **more
    )  # type: ignore[arg-type]


def test_a_model_adds_as_much_detail_as_the_settings_says(tiny_weights: Path) -> None:
    low_res = torch.rand(3, 12, 16)
    none, whole = (
        load_upscaler(str(tiny_weights), EvalSettings(8, upscale=replace(CPU, detail=detail)))("a", low_res, "")
        for detail in (0.0, 1.0)
    )
    resolver = SuperResolver.from_pretrained(str(tiny_weights), "cpu")
    torch.testing.assert_close(none, resolver.upscale(Picture(low_res), scale=8, detail=0).rgb)
    torch.testing.assert_close(whole, resolver.upscale(Picture(low_res), scale=8).rgb)
    assert not none.allclose(whole, atol=0.01)


def test_a_model_restores_as_much_as_the_settings_says(restoring_weights: Path) -> None:
    low_res = torch.rand(3, 12, 16)
    none, whole = (
        load_upscaler(str(restoring_weights), EvalSettings(8, upscale=replace(CPU, restore=restore)))("a", low_res, "")
        for restore in (0.0, 1.0)
    )
    resolver = SuperResolver.from_pretrained(str(restoring_weights), "cpu")
    torch.testing.assert_close(none, resolver.upscale(Picture(low_res), scale=8, restore=0).rgb)
    torch.testing.assert_close(whole, resolver.upscale(Picture(low_res), scale=8).rgb)
    assert not none.allclose(whole, atol=0.01)


def test_interpolation_is_pils() -> None:
    low_res = torch.rand(3, 6, 8).mul(255).round() / 255
    assert interpolate(low_res, 4, "LANCZOS").shape == (3, 24, 32)
    flat = torch.full((3, 4, 4), 51 / 255)
    torch.testing.assert_close(interpolate(flat, 8, "BICUBIC"), torch.full((3, 32, 32), 51 / 255))


@pytest.mark.numerics
def test_every_model_is_evaluated_on_every_image_and_its_results_are_saved(
    samples: dict[str, Sample], tiny_weights: Path, tmp_path: Path
) -> None:
    seen: list[int] = []
    models = ("lanczos", str(tiny_weights))
    found = evaluate_models(
        models, samples, {"": EvalSettings(2)}, MetricModels(has_niqe=False), seen.append, save=tmp_path
    )
    assert {model: list(rows) for model, rows in found.images.items()} == dict.fromkeys(models, ["0.png", "1.png"])
    assert list(found.images["lanczos"]["0.png"]) == ["psnr_y", "ssim_y", "spectrum_error", "lr_psnr", *COSTS]
    assert seen == [4, 4, 4, 4]
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.glob("*/*")) == [
        f"{folder}/{name}" for folder in ("lanczos", "tiny") for name in samples
    ]


@pytest.mark.numerics
def test_a_folder_of_results_stands_for_the_model_that_made_them(samples: dict[str, Sample], tmp_path: Path) -> None:
    first = run(["lanczos"], samples, MetricModels(has_niqe=False), save=tmp_path)
    again = run([str(tmp_path / "lanczos")], samples, MetricModels(has_niqe=False))
    metrics = ("psnr_y", "ssim_y", "spectrum_error", "lr_psnr")
    for name in samples:
        made, read = first.images["lanczos"][name], again.images[str(tmp_path / "lanczos")][name]
        for metric in metrics:  # the same pixels lie differently in memory, and sums are rounded in another order
            assert read[metric] == pytest.approx(made[metric], rel=1e-6)
    (tmp_path / "lanczos" / "0.png").unlink()
    with pytest.raises(ValueError, match="expected one result for 0.png, got none"):
        run([str(tmp_path / "lanczos")], samples, MetricModels(has_niqe=False))


def test_a_folder_with_weights_is_a_model_though_samples_lie_beside_them(
    samples: dict[str, Sample], tiny_weights: Path, tmp_path: Path
) -> None:
    shutil.copy(tiny_weights, tmp_path / "model.safetensors")
    write_image(tmp_path / "samples-00000100.png", Picture(torch.rand(3, 8, 8)))
    assert len(run([str(tmp_path)], samples, MetricModels(has_niqe=False)).table()) == 1


def test_a_result_is_found_by_its_whole_name_and_must_be_the_only_one(tmp_path: Path) -> None:
    right, other = torch.full((3, 8, 8), 1.0), torch.zeros(3, 8, 8)
    for name, pixels in {"a.1.png": other, "a.png": right, "a.b.png": other}.items():
        write_image(tmp_path / name, Picture(pixels))
    assert torch.equal(read_result(tmp_path, "a.webp", other, ""), right)
    write_image(tmp_path / "a.webp", Picture(other))
    assert torch.equal(read_result(tmp_path, "a.webp", other, ""), other)
    (tmp_path / "a.webp").rename(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"expected one result for a.webp, got a.png and a.tif"):
        read_result(tmp_path, "a.webp", other, "")


def test_models_of_one_name_have_folders_of_their_own(
    samples: dict[str, Sample], tiny_weights: Path, tmp_path: Path
) -> None:
    models = []
    for run_name in ("a", "b"):
        (tmp_path / run_name / "run").mkdir(parents=True)
        models.append(str(shutil.copyfile(tiny_weights, tmp_path / run_name / "run" / "last.safetensors")))
    run(models, samples, MetricModels(has_niqe=False), save=tmp_path / "saved")
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == ["a-run-last", "b-run-last"]
    assert unique_labels(["x/m.pth", "lanczos", "owner/m"]) == {
        "x/m.pth": "x-m",
        "lanczos": "lanczos",
        "owner/m": "owner-m",
    }
    assert unique_labels(["/m.pth", "m.pth"]) == {"/m.pth": "-m", "m.pth": "m"}
    assert unique_labels(["."]) == {".": Path.cwd().stem}
    assert unique_labels([".."]) == {"..": Path.cwd().parent.stem}
    assert unique_labels(["m.pth", "m.safetensors"]) == {"m.pth": "m.pth", "m.safetensors": "m.safetensors"}


def test_a_bundled_name_is_never_a_folder_of_results(
    samples: dict[str, Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(["lanczos"], samples, MetricModels(has_niqe=False), save=tmp_path)
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "lanczos" / "0.png", Picture(torch.zeros(3, 96, 192)))
    again = run(["lanczos", "./lanczos"], samples, MetricModels(has_niqe=False))
    psnr = {row: images["0.png"]["psnr_y"] for row, images in again.images.items()}
    assert psnr["lanczos"] == first.images["lanczos"]["0.png"]["psnr_y"] > psnr["./lanczos"]


def test_a_model_given_twice_is_evaluated_once(samples: dict[str, Sample], lpips_features: Path) -> None:
    metric_models = MetricModels(features=FrozenFeatures(lpips_features), has_niqe=False)
    once, twice = (run(models, samples, metric_models) for models in (["lanczos"], ["lanczos", "lanczos"]))
    assert once.sets == twice.sets


def test_names_that_would_clash_are_refused_before_any_work(samples: dict[str, Sample], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="truth: expected another name for a model"):
        run(["truth"], samples, MetricModels())
    alike = samples | {"0.jpg": samples["0.png"]}
    with pytest.raises(
        ValueError, match="save: expected images that differ in more than their endings, got 0.png and 0"
    ):
        run(["lanczos"], alike, MetricModels(), save=tmp_path)


def test_what_is_transparent_is_evaluated_as_white(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", Picture(torch.zeros(3, 32, 32), torch.zeros(1, 32, 32)))
    assert torch.equal(load_truth(tmp_path / "a.png", EvalSettings(2)), torch.ones(3, 32, 32))
    assert torch.equal(read_result(tmp_path, "a.png", torch.zeros(()), ""), torch.ones(3, 32, 32))


def test_images_that_cannot_be_evaluated_are_left_out_and_told_by_their_names(
    samples: dict[str, Sample], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_image(tmp_path / "tiny.png", Picture(torch.rand(3, 31, 48)))
    (tmp_path / "broken.png").write_bytes(samples["0.png"].path.read_bytes()[:300])
    unusable = {name: Sample(tmp_path / name, ("",)) for name in ("tiny.png", "broken.png", "absent.png")}
    found = run(["lanczos"], samples | unusable, MetricModels(has_niqe=False))
    assert list(found.images["lanczos"]) == list(samples)
    assert "tiny.png: expected sides of at least 32 px, got 48x30" in caplog.messages[0]
    assert all(name in message for name, message in zip(unusable, caplog.messages, strict=True))
    with pytest.raises(ValueError, match="expected images that can be evaluated, got none"):
        run(["lanczos"], unusable, MetricModels(has_niqe=False))


def test_a_metric_for_which_an_image_is_too_small_is_left_out(tmp_path: Path) -> None:
    write_image(tmp_path / "small.png", Picture(torch.rand(3, 48, 48)))
    found = run(["lanczos"], {"small.png": Sample(tmp_path / "small.png", ("",))}, MetricModels())
    assert list(found.images["lanczos"]["small.png"]) == ["psnr_y", "ssim_y", "lr_psnr", *COSTS]


def test_a_model_or_result_that_is_not_there_is_told_before_the_first_one_runs(
    samples: dict[str, Sample], tmp_path: Path
) -> None:
    seen: list[int] = []
    shutil.copy(samples["0.png"].path, tmp_path / "0.png")
    for wrong, message in (("nonsense", "got 'nonsense'"), (str(tmp_path), "expected one result for 1.png, got none")):
        with pytest.raises(ValueError, match=message):
            evaluate_models(
                ["lanczos", wrong], samples, {"": EvalSettings(2)}, MetricModels(has_niqe=False), seen.append
            )
    assert seen == []


def test_the_table_holds_means_the_median_time_and_the_peak_of_memory() -> None:
    rows = [{"niqe": math.nan, "seconds": s, "peak_mb": s, "lpips": s} for s in (9.0, 1.0)]
    assert summarise([*rows, {"seconds": 2.0, "niqe": 4.0}]) == {"lpips": 5, "seconds": 2, "peak_mb": 9, "niqe": 4}


def test_a_pair_is_evaluated_by_every_metric(basicsr: ModuleType, lpips_features: Path) -> None:
    truth = torch.rand(3, 96, 192)
    low_res = low_res_from(truth, 4)
    metric_models = MetricModels(lpips=Lpips(features=lpips_features))
    metrics = evaluate_pair(interpolate(low_res, 4, "BICUBIC"), truth, low_res, EvalSettings(4), metric_models)
    assert list(metrics) == ["psnr_y", "ssim_y", "lpips", "niqe", "spectrum_error", "lr_psnr"]
    assert all(math.isfinite(value) for value in metrics.values())


def test_what_has_no_meaning_for_an_image_is_left_out() -> None:
    truth = torch.rand(3, 64, 64)
    metrics = evaluate_pair(truth, truth, low_res_from(truth, 2), EvalSettings(2, "blind"), MetricModels())
    assert list(metrics) == ["psnr_y", "ssim_y", "spectrum_error"]


def test_the_distance_of_sets_is_measured_for_every_model(samples: dict[str, Sample], lpips_features: Path) -> None:
    metric_models = MetricModels(features=FrozenFeatures(lpips_features), has_niqe=False)
    table = run(["lanczos", "bicubic"], samples, metric_models).table()
    assert list(table["bicubic"])[-3:] == [*COSTS, "fid_squeeze"]
    assert 0 < table["lanczos"]["fid_squeeze"] != table["bicubic"]["fid_squeeze"] > 0


def test_the_worst_image_of_the_first_model_is_kept_as_crops_of_all(samples: dict[str, Sample]) -> None:
    found = run(["lanczos", "bicubic"], samples, MetricModels(has_niqe=False), num_cases=1)
    (case,) = found.cases
    assert case.image == min(samples, key=lambda name: found.images["lanczos"][name]["psnr_y"])
    assert {name: tuple(crop.shape) for name, crop in case.crops.items()} == dict.fromkeys(
        ("input", "truth", "lanczos", "bicubic"), (3, 96, 192)
    )


def test_settings_have_rows_side_by_side_and_an_input_each(samples: dict[str, Sample]) -> None:
    settings_by_label = {kind: EvalSettings(2, kind, upscale=CPU) for kind in ("jpeg", "noise")}
    models, metric_models = ["lanczos", "bicubic"], MetricModels(has_niqe=False)
    found = evaluate_models(models, samples, settings_by_label, metric_models, lambda total: None, num_cases=1)
    names = ["lanczos, jpeg", "bicubic, jpeg", "lanczos, noise", "bicubic, noise"]
    assert list(found.table()) == names
    assert set(found.cases[0].crops) == {"input, jpeg", "input, noise", "truth", *names}
    assert found.table()["lanczos, jpeg"]["psnr_y"] > found.table()["lanczos, noise"]["psnr_y"]


def test_a_wrong_prompt_is_the_caption_of_another_image() -> None:
    samples = {str(i): Sample(Path(), (f"caption {i % 3}",)) for i in range(9)}
    chosen = {kind: choose_prompts(samples, EvalSettings(prompts=kind)) for kind in ("right", "none", "wrong")}
    assert chosen["right"] == {name: sample.captions[0] for name, sample in samples.items()}
    assert set(chosen["none"].values()) == {""}
    assert sorted(chosen["wrong"].values()) == sorted(chosen["right"].values())
    assert all(chosen["wrong"][name] != chosen["right"][name] for name in samples)
    with pytest.raises(ValueError, match="prompts: expected captions that differ"):
        choose_prompts({"a": samples["0"]}, EvalSettings(prompts="wrong"))


def test_the_truth_may_be_the_middle_square(samples: dict[str, Sample]) -> None:
    path = samples["0.png"].path
    assert load_truth(path, EvalSettings(8)).shape == (3, 96, 192)
    assert load_truth(path, EvalSettings(8, square=66)).shape == (3, 64, 64)
