"""Models are compared on the same inputs, and the table says what was measured."""

import math
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torchvision

from gigasr.evaluation import evaluate_models, evaluate_pair, format_table, interpolate
from gigasr.image_writer import write_image
from gigasr.images import Picture
from gigasr.metrics import Lpips, low_res_from


def test_interpolation_is_pils() -> None:
    low_res = torch.rand(3, 6, 8).mul(255).round() / 255
    assert interpolate(low_res, 4, "LANCZOS").shape == (3, 24, 32)
    flat = torch.full((3, 4, 4), 51 / 255)
    torch.testing.assert_close(interpolate(flat, 8, "BICUBIC"), torch.full((3, 32, 32), 51 / 255))


def test_figures_are_means_over_the_images(basicsr: ModuleType, tiny_weights: Path, tmp_path: Path) -> None:
    features = tmp_path / "features.pth"
    torch.save(torchvision.models.squeezenet1_1(weights=None).features.state_dict(), features)
    paths = [tmp_path / "0.png", tmp_path / "1.png"]
    for i, path in enumerate(paths):
        write_image(path, Picture(torch.rand(3, 96, 192, generator=torch.Generator().manual_seed(i))))
    seen: list[int] = []

    def run(chosen: list[Path]) -> dict[str, dict[str, float]]:
        models = ("lanczos", str(tiny_weights))
        return evaluate_models(models, chosen, 2, features, "cpu", tmp_path / "out", seen.append)

    both, first, second = run(paths), run(paths[:1]), run(paths[1:])
    assert both["lanczos"]["psnr_y"] == pytest.approx((first["lanczos"]["psnr_y"] + second["lanczos"]["psnr_y"]) / 2)
    assert seen == [4, 4, 4, 4, 2, 2, 2, 2]
    assert (tmp_path / "out" / "tiny" / "0.png").exists()


def test_a_pair_is_evaluated_by_every_figure(basicsr: ModuleType, tmp_path: Path) -> None:
    features = tmp_path / "features.pth"
    torch.save(torchvision.models.squeezenet1_1(weights=None).features.state_dict(), features)
    truth = torch.rand(3, 96, 192)
    low_res = low_res_from(truth, 4)
    figures = evaluate_pair(interpolate(low_res, 4, "BICUBIC"), truth, low_res, 4, Lpips(features=features))
    assert list(figures) == ["psnr_y", "ssim_y", "lpips", "niqe", "spectrum_error", "lr_psnr"]
    assert all(math.isfinite(value) for value in figures.values())


def test_low_res_inputs_are_cropped_to_the_scale() -> None:
    assert low_res_from(torch.rand(3, 33, 50), 8).shape == (3, 4, 6)


def test_the_table_has_a_row_per_model_and_a_column_per_figure() -> None:
    table = format_table({"a": {"psnr_y": 25.0}, "longer": {"psnr_y": 1.5}}).splitlines()
    assert [line.split() for line in table] == [["psnr_y"], ["a", "25.0000"], ["longer", "1.5000"]]
    assert len({len(line) for line in table}) == 1
