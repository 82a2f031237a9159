"""Programs that use spandrel read what gigasr exports, once its plug-in is registered."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from spandrel import MAIN_REGISTRY, ImageModelDescriptor, ModelLoader

from gigasr.cli import main
from gigasr.files.picture import Picture
from gigasr.inference.devices import ExecutionPlan
from gigasr.inference.row_stream import RowStream
from gigasr.models.spandrel_backend import load_spandrel
from gigasr.models.spandrel_plugin import register, save
from gigasr.models.zoo import load_model
from gigasr.pipeline import SuperResolver


@pytest.fixture
def exported(tiny_weights: Path, tmp_path: Path) -> Path:
    target = tmp_path / "tiny.pth"
    run = CliRunner().invoke(main, ["export", str(tiny_weights), str(target), "-p", "a dog", "--seed", "3"])
    assert run.exit_code == 0, run.output
    return target


@torch.inference_mode()
def test_spandrels_loader_gives_what_the_engine_gives(exported: Path, tiny_weights: Path) -> None:
    register()
    found = ModelLoader().load_from_file(exported)
    assert isinstance(found, ImageModelDescriptor)
    assert (found.scale, found.size_requirements.multiple_of) == (8, 4)
    assert found.tags == ["tiny.safetensors", "seed 3", "a dog"]
    image = torch.rand(1, 3, 41, 54)
    engine = load_model(str(tiny_weights)).engine("a dog", 3, ExecutionPlan())
    engine.input_noise = 0
    expected = torch.cat(list(engine.strips(RowStream.from_tensor(image * 2 - 1), 3)), dim=2) / 2 + 0.5
    inner = (
        -engine.tail.receptive_field.halo * engine.scale
    )  # spandrel pads the image, gigasr no more of it than the body needs
    result, expected = found(image)[:, :, :inner, :inner], expected.clamp(0, 1)[:, :, :inner, :inner]
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


def test_registering_twice_is_registering_once() -> None:
    register()
    before = len(MAIN_REGISTRY)
    register()
    assert len(MAIN_REGISTRY) == before


def test_gigasr_reads_its_export_itself(exported: Path) -> None:
    result = SuperResolver(load_model(str(exported)), "cpu", "fp32").upscale(Picture(torch.rand(3, 9, 13)))
    assert result.size == (72, 104)


def test_what_spandrel_reads_already_is_not_exported(tmp_path: Path) -> None:
    from spandrel.architectures.Compact import Compact

    model = load_spandrel(Compact(num_feat=8, num_conv=2).state_dict(), "compact.pth")
    with pytest.raises(ValueError, match=r"compact.pth: expected weights of gigasr, got others; spandrel reads them"):
        save(model, "compact.pth", tmp_path / "a.pth")
