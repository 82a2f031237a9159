"""From a config to a picture, by the commands a user types; and the trained model on a real photo."""

from pathlib import Path

import pytest
import torch
import torchvision
from click.testing import CliRunner
from PIL import Image

from gigasr.cli import main
from gigasr.files.images import read_image, read_metadata
from gigasr.files.picture import Picture
from gigasr.metrics import lr_psnr
from gigasr.models.zoo import load_model
from gigasr.pipeline import SuperResolver

ROOT = Path(__file__).parents[1]
PHOTO = ROOT / "examples" / "colosseum.png"


def invoke(*arguments: object) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_a_model_is_trained_resumed_and_used(photo_folder: Path, tmp_path: Path) -> None:
    features, run = tmp_path / "features.pth", tmp_path / "run"
    torch.save(torchvision.models.squeezenet1_1(weights=None).features.state_dict(), features)
    config = ROOT / "configs" / "upsampler_tiny.toml"
    options = ["--data", photo_folder, "-o", run, "--lpips-features", features]
    assert "after 8 images" in invoke("train", config, *options, "--set", "train.phases.1.images=4")
    assert "after 12 images" in invoke("train", config, *options, "--resume")
    invoke("upscale", PHOTO, "-n", run / "model.safetensors", "-p", "arches", "-s", 2, "-o", tmp_path / "out.png")
    assert Image.open(tmp_path / "out.png").size == (256, 256)
    assert read_metadata(tmp_path / "out.png")["Prompt"] == "arches"


@pytest.fixture(scope="module")
def photo() -> Picture:
    return Picture(read_image(PHOTO).rgb[:, :80, :96].contiguous())


@pytest.fixture(scope="module")
def whole(photo: Picture) -> torch.Tensor:
    return SuperResolver.from_pretrained(device="cpu", precision="fp32").upscale(photo, "stone arches").rgb


def test_the_bundled_model_sharpens_and_stays_true(photo: Picture, whole: torch.Tensor) -> None:
    smooth = torch.nn.functional.interpolate(photo.rgb[None], scale_factor=8, mode="bicubic")[0]
    assert whole.diff(dim=2).abs().mean() > 1.1 * smooth.diff(dim=2).abs().mean()
    assert lr_psnr(whole, photo.rgb, 8) > 50


@pytest.mark.parametrize("pieces", [{"strip": 17}, {"tile": 64}], ids=["strips", "regions"])
def test_pieces_of_the_bundled_model_join_exactly(photo: Picture, whole: torch.Tensor, pieces: dict[str, int]) -> None:
    joined = SuperResolver(load_model(), "cpu", "fp32", **pieces).upscale(photo, "stone arches").rgb
    torch.testing.assert_close(joined, whole, atol=1e-4, rtol=0)
