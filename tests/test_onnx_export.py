"""Exported files give what the network gives, for any batch and size, and say what they are."""

from pathlib import Path
from typing import NamedTuple

import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from test_aurasr import CONFIG as AURA_CONFIG
from test_aurasr import aura_sr
from test_folding import CONFIGS
from torch import Tensor, nn

from gigasr.cli import main
from gigasr.config.model import load_config
from gigasr.config.networks import LevelConfig, UpsamplerConfig
from gigasr.inference.devices import ExecutionPlan
from gigasr.inference.engine import BodyTailEngine, Model
from gigasr.models.aurasr import AuraConfig, AuraModel, AuraWeights
from gigasr.models.native import PromptedUpsampler
from gigasr.models.onnx_export import export_onnx
from gigasr.models.zoo import load_model
from gigasr.networks.upsampler import Upsampler


class Exported(NamedTuple):
    model: Model
    file: Path
    sizes: list[tuple[int, int, int]]  # batch, height, width, px

    def torch(self, image: Tensor) -> Tensor:
        """What the network itself makes of images in [0, 1]."""
        engine = self.model.engine("a dog", 3, ExecutionPlan())
        assert isinstance(engine, BodyTailEngine)
        network = engine.networks[engine.execution.main_device]
        assert isinstance(network, nn.Module)
        return network(image * 2 - 1) / 2 + 0.5


def paper_model() -> Model:
    """What the paper's upsamplers have and tiny has not: filters and global attention, at 1x too."""
    level = LevelConfig(channels=8, blocks=1, attention=1)
    tiny = load_config(CONFIGS / "upsampler_tiny.toml").upsampler
    levels = (level, level, LevelConfig(channels=8, blocks=1))
    update = {"levels": levels, "scale": 2, "upsample": "filter", "window": 0}
    network = Upsampler(UpsamplerConfig.model_validate(tiny.model_dump() | update)).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter += 0.05 * torch.randn_like(parameter)
    return PromptedUpsampler(network)


def aura_model() -> Model:
    state = aura_sr.AuraSR(AURA_CONFIG, device="cpu").upsampler.state_dict()
    return AuraModel(AuraWeights(state, AuraConfig.model_validate(AURA_CONFIG), "memory"))


@pytest.fixture(scope="module", params=["tiny", "paper", "aura"])
def exported(request: pytest.FixtureRequest, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    if request.param == "tiny":
        file = request.getfixturevalue("tiny_onnx")
        return Exported(load_model(str(tiny_weights)), file, [(1, 4, 4), (3, 12, 36), (2, 40, 20)])
    torch.manual_seed(0)
    model = {"paper": paper_model, "aura": aura_model}[request.param]()
    file = tmp_path_factory.mktemp("onnx") / f"{request.param}.onnx"
    export_onnx(model, f"{request.param}.safetensors", file, "a dog", 3)
    return Exported(model, file, [(1, 8, 8), (3, 8, 24), (2, 40, 16)])


@torch.inference_mode()
def test_onnxruntime_gives_what_torch_gives_for_any_batch_and_size(exported: Exported) -> None:
    session = onnxruntime.InferenceSession(exported.file)
    for batch, height, width in exported.sizes:
        image = torch.rand(batch, 3, height, width)
        expected = exported.torch(image)
        result = torch.from_numpy(session.run(None, {"image": image.numpy()})[0])
        torch.testing.assert_close(result, expected, atol=1e-4 * max(1, expected.abs().max().item()), rtol=0)


def test_a_file_says_what_it_was_made_for(exported: Exported) -> None:
    notes = onnxruntime.InferenceSession(exported.file).get_modelmeta().custom_metadata_map
    prompt = "a dog" if exported.model.takes_text else ""
    assert (notes["model"], notes["prompt"], notes["seed"]) == (f"{exported.file.stem}.safetensors", prompt, "3")
    assert notes["scale"] == str(exported.model.scale)
    assert int(notes["multiple"]) in (2, 4, 8)


def test_a_file_tells_nothing_of_where_it_was_made(exported: Exported) -> None:
    onnx.checker.check_model(onnx.load(exported.file), full_check=True)
    assert str(Path(__file__).parents[1]).encode() not in exported.file.read_bytes()


def test_networks_of_others_are_not_exported(tmp_path: Path) -> None:
    from spandrel.architectures.Compact import Compact

    torch.save(Compact(num_feat=8, num_conv=2).state_dict(), tmp_path / "compact.pth")
    result = CliRunner().invoke(main, ["export", str(tmp_path / "compact.pth"), str(tmp_path / "compact.onnx")])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: compact.pth: expected weights of gigasr or AuraSR")
    assert not (tmp_path / "compact.onnx").exists()


@pytest.mark.parametrize(
    ("target", "message"),
    [("a.txt", "expected a name in .onnx or .pth"), ("no/a.onnx", "in a folder that exists"), ("b.onnx", "exists")],
)
def test_a_wrong_target_is_told_before_anything_is_made(target: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "b.onnx").write_bytes(b"mine")
    result = CliRunner().invoke(main, ["export", "upsampler_lite", str(tmp_path / target)])
    assert result.exit_code == 1
    assert message in result.stderr
    assert (tmp_path / "b.onnx").read_bytes() == b"mine"
