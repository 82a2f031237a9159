"""An evaluation takes given low-res inputs and given prompts, and gives a row for each."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gigasr.data.captions import Sample
from gigasr.evaluation.evaluate import MetricModels, evaluate_models, folder_names
from gigasr.evaluation.given import load_low_res
from gigasr.evaluation.options import EvalOptions
from gigasr.evaluation.plan import name_inputs, plan_settings
from gigasr.evaluation.settings import EvalSettings, choose_prompts
from gigasr.evaluation.upscalers import load_upscaler
from gigasr.files.image_writer import write_image
from gigasr.files.picture import Picture
from gigasr.metrics import low_res_from, lr_psnr, pooled_psnr, psnr_y
from gigasr.options import UpscaleOptions

SIZES = {"0.png": (64, 96), "1.png": (96, 64)}


def draw(seed: int, height: int, width: int) -> Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed)).mul(255).round() / 255


@pytest.fixture
def samples(tmp_path: Path) -> dict[str, Sample]:
    """Two truths, and the folder `lr` of inputs that are half as large, one of them as TIFF."""
    for seed, (name, (height, width)) in enumerate(SIZES.items()):
        write_image(tmp_path / name, Picture(draw(seed, height, width)))
    (tmp_path / "lr").mkdir()
    write_image(tmp_path / "lr" / "0.png", Picture(draw(2, 32, 48)))
    write_image(tmp_path / "lr" / "1.tif", Picture(draw(3, 48, 32)))
    return {name: Sample(tmp_path / name, ("a caption",)) for name in SIZES}


def evaluate(samples: dict[str, Sample], settings_by_label: dict[str, EvalSettings], **more: Any) -> Any:
    return evaluate_models(
        ["bicubic"], samples, settings_by_label, MetricModels(has_niqe=False), lambda total: None, **more
    )


def test_a_given_input_is_what_the_model_gets_and_what_its_result_is_compared_with(
    samples: dict[str, Sample], tmp_path: Path
) -> None:
    settings = EvalSettings(2, tmp_path / "lr")
    rows = evaluate(samples, {"": settings}).images["bicubic"]
    for seed, (name, (height, width)) in enumerate(SIZES.items()):
        low_res, truth = draw(seed + 2, height // 2, width // 2), draw(seed, height, width)
        result = load_upscaler("bicubic", settings)(name, low_res, "")
        assert rows[name]["psnr_y"] == psnr_y(result, truth, 2)
        assert rows[name]["lr_psnr"] == lr_psnr(result, low_res, 2)


@pytest.mark.parametrize(
    ("scale", "size", "message"),
    [
        (4, (32, 48), r"lr/0.png: expected 24x16 px, 1/4 of its high-res image, got 48x32 px; add --scale 2"),
        (3, (32, 48), r"lr/0.png: expected 32x21 px, 1/3 of its high-res image, got 48x32 px; add --scale 2"),
        (2, (32, 47), r"lr/0.png: expected 48x32 px, 1/2 of its high-res image, got 47x32 px; make it from this image"),
        (2, (64, 96), r"lr/0.png: expected 48x32 px, 1/2 of its high-res image, got 96x64 px; make it from this image"),
    ],
)
def test_an_input_of_another_size_is_named_before_any_model_runs(
    samples: dict[str, Sample], tmp_path: Path, scale: int, size: tuple[int, int], message: str
) -> None:
    write_image(tmp_path / "lr" / "0.png", Picture(draw(2, *size)))
    seen: list[int] = []
    with pytest.raises(ValueError, match=message):
        evaluate_models(
            ["bicubic"], samples, {"": EvalSettings(scale, tmp_path / "lr")}, MetricModels(has_niqe=False), seen.append
        )
    assert seen == []


def test_an_input_that_is_missing_or_double_is_named_before_any_model_runs(
    samples: dict[str, Sample], tmp_path: Path
) -> None:
    write_image(tmp_path / "lr" / "1.webp", Picture(draw(0, 48, 32)))
    with pytest.raises(ValueError, match=r"expected one input for 1.png, got 1.tif and 1.webp"):
        evaluate(samples, {"": EvalSettings(2, tmp_path / "lr")})
    (tmp_path / "lr" / "0.png").unlink()
    with pytest.raises(ValueError, match=r"expected one input for 0.png, got none; name inputs as the high-res"):
        evaluate(samples, {"a": EvalSettings(2), "b": EvalSettings(2, tmp_path / "lr")})


def test_inputs_that_are_made_are_those_of_the_kind(samples: dict[str, Sample]) -> None:
    truth = draw(0, 64, 96)
    assert torch.equal(load_low_res("0.png", truth, EvalSettings(4)), low_res_from(truth, 4))


def test_a_given_prompt_stands_for_the_captions_of_all_images(samples: dict[str, Sample]) -> None:
    for text in ("noisy", ""):
        assert choose_prompts(
            samples, EvalSettings(prompts="given", upscale=UpscaleOptions(prompt=text))
        ) == dict.fromkeys(samples, text)
    assert choose_prompts(samples, EvalSettings()) == dict.fromkeys(samples, "a caption")


def test_every_prompt_has_a_row_for_every_kind_of_input() -> None:
    options = EvalOptions(("m",), Path(), UpscaleOptions(seed=3), scale=4, low_res=("blur", "sets/noise25"))
    given = replace(options, given=("clean, sharp", ""), square=64)
    upscales = [UpscaleOptions(prompt=text, seed=3) for text in given.given]
    assert plan_settings(given) == {
        f"{name}, {words}": EvalSettings(4, low_res, "given", 64, upscale)
        for name, low_res in (("blur", "blur"), ("noise25", Path("sets/noise25")))
        for words, upscale in zip(('"clean, sharp"', "no prompt"), upscales, strict=True)
    }
    assert list(plan_settings(replace(options, prompts=("wrong",)))) == ["blur", "noise25"]
    single = replace(options, low_res=("bicubic",))
    assert list(plan_settings(replace(single, prompts=("right", "none")))) == ["right prompt", "no prompt"]
    assert list(plan_settings(replace(single, given=("a",)))) == [""]


def test_inputs_of_one_name_are_told_apart_by_the_folders_above_or_refused() -> None:
    assert list(name_inputs(["a/noise", "b/noise"])) == ["a-noise", "b-noise"]
    assert name_inputs(["./noise", "blur"]) == {"noise": Path("noise"), "blur": "blur"}
    with pytest.raises(ValueError, match="lr: expected inputs of different names, got 'noise' twice"):
        name_inputs(["./noise", "noise"])


def test_results_of_every_row_are_saved_in_a_folder_whose_name_any_file_system_takes(
    samples: dict[str, Sample], tmp_path: Path
) -> None:
    labels = ["right prompt", "", '"../up"', '"a/b"', '"A:b"', '"?"', '"' + "long " * 30 + '"']
    names = folder_names(labels)
    assert (names["right prompt"], names[""]) == ("right prompt", "")
    assert len({name.casefold() for name in names.values()}) == len(labels)
    assert all(len(name) <= 70 and not set(name) & set('<>:"/\\|?*.') for name in names.values())
    evaluate(samples, {'"../up"': EvalSettings(2), '"?"': EvalSettings(2)}, save=tmp_path / "saved")
    saved = {path.parent.relative_to(tmp_path / "saved").as_posix() for path in (tmp_path / "saved").rglob("*.png")}
    assert saved == {"bicubic/up", "bicubic/2"}


def test_the_tables_lr_psnr_is_that_of_all_images_together(samples: dict[str, Sample], tmp_path: Path) -> None:
    """As of one image that holds all results beside all inputs; infinite rows have no error to add."""
    found = evaluate(samples, {"": EvalSettings(2, tmp_path / "lr")}, save=tmp_path / "saved")
    errors, values = 0.0, 0
    for seed, (name, (height, width)) in enumerate(SIZES.items()):
        low_res = draw(seed + 2, height // 2, width // 2)
        result = load_upscaler("bicubic", EvalSettings(2))(name, low_res, "")
        difference = (low_res_from(result, 2) - low_res).double() * 255
        errors, values = errors + float(difference.square().sum()), values + difference.numel()
    assert found.table()["bicubic"]["lr_psnr"] == pytest.approx(10 * math.log10(255**2 * values / errors), rel=1e-6)


def test_pooled_psnr_weighs_errors_by_pixels_and_an_exact_image_adds_none() -> None:
    assert pooled_psnr([(30.0, 10), (30.0, 1000)]) == pytest.approx(30)
    assert pooled_psnr([(20.0, 100), (math.inf, 300)]) == pytest.approx(20 + 10 * math.log10(4))
    assert pooled_psnr([(math.inf, 5), (math.inf, 7)]) == math.inf
