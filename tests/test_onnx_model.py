"""ONNX files are models: gigasr's own as the network they were made from, others as they are."""

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner
from onnx import TensorProto, helper
from PIL import Image

from gigasr.cli import main
from gigasr.files.images import read_metadata
from gigasr.files.picture import Picture
from gigasr.models.checkpoint import CheckpointError
from gigasr.models.onnx_model import ExternalOnnxModel, OnnxModel
from gigasr.models.zoo import describe_weights, load_model, load_upsampler, model_scale
from gigasr.pipeline import SuperResolver


def nearest(
    path: Path, side: int | str = "side", scale: float = 2, kind: int = 1, inputs: int = 1, batch: int | str = 1
) -> Path:
    """A file that repeats every pixel."""
    images = [helper.make_tensor_value_info(f"x{i}", kind, [batch, 3, side, side]) for i in range(inputs)]
    scales = helper.make_tensor("scales", TensorProto.FLOAT, [4], [1, 1, scale, scale])
    modes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    node = helper.make_node("Resize", ["x0", "", "scales"], ["y"], **modes)
    result = helper.make_tensor_value_info("y", kind, [batch, 3, None, None])
    graph = helper.make_graph([node], "nearest", images, [result], [scales])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def test_a_file_runs_as_the_network_it_was_made_from_noise_and_correction_included(
    tiny_onnx: Path, tiny_weights: Path
) -> None:
    picture = Picture(torch.rand(3, 41, 53))
    network, file, tiles = (
        SuperResolver(load_model(str(path)), "cpu", "fp32", tile).upscale(picture, prompt, seed=3, fidelity=0.5).rgb
        for path, prompt, tile in ((tiny_weights, "a dog", 0), (tiny_onnx, "", 0), (tiny_onnx, "", 32))
    )
    torch.testing.assert_close(file, network, atol=1e-4, rtol=0)
    assert 0 < (tiles - network).abs().mean() < 2 / 255  # cross-faded


def test_the_seed_of_a_run_is_that_of_the_noise(tiny_onnx: Path) -> None:
    resolver, picture = SuperResolver(load_model(str(tiny_onnx)), "cpu", "fp32"), Picture(torch.rand(3, 16, 16))
    first, again, other = (resolver.upscale(picture, seed=seed).rgb for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert 0 < (first - other).abs().max() < 0.2


def test_upscale_takes_a_file_as_its_model(tiny_onnx: Path, tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (10, 14, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    result = CliRunner().invoke(main, ["upscale", str(tmp_path), "-o", str(tmp_path / "out"), "-n", str(tiny_onnx)])
    assert result.exit_code == 0, result.output
    assert Image.open(tmp_path / "out" / "a_8x.png").size == (112, 80)


def test_a_prompt_that_has_no_say_is_not_said_of_the_result(tiny_onnx: Path, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    target = tmp_path / "b.png"
    arguments = ["upscale", str(tmp_path / "a.png"), "-n", str(tiny_onnx), "-p", "a cat", "-o", str(target)]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    assert read_metadata(target)["Prompt"] == ""


def test_a_file_is_described(tiny_onnx: Path) -> None:
    shown = describe_weights(tiny_onnx)
    assert (shown["kind"], shown["scale"], shown["prompt"], shown["seed"]) == ("ONNX, by gigasr", "8", "a dog", "3")


@pytest.mark.parametrize(("side", "kind"), [("side", TensorProto.FLOAT), (48, TensorProto.FLOAT16)])
def test_another_file_is_run_at_its_own_size_and_precision(side: int | str, kind: int, tmp_path: Path) -> None:
    path = nearest(tmp_path / "nearest.onnx", side, 3, kind)
    assert isinstance(load_model(str(path)), ExternalOnnxModel)
    assert model_scale(str(path)) == 3
    picture = Picture(torch.rand(3, 61, 70))
    result = SuperResolver(load_model(str(path)), "cpu", "fp32", tile=96).upscale(picture, fidelity=0).rgb
    expected = picture.rgb.repeat_interleave(3, dim=1).repeat_interleave(3, dim=2)
    torch.testing.assert_close(result, expected, atol=1e-3, rtol=0)


def test_tiles_that_run_together_give_the_picture_of_each_alone(tiny_onnx: Path) -> None:
    picture, model = Picture(torch.rand(3, 41, 75)), load_model(str(tiny_onnx))
    one, three = (SuperResolver(model, "cpu", "fp32", 32, batch=batch).upscale(picture).rgb for batch in (1, 3))
    torch.testing.assert_close(three, one, atol=1e-5, rtol=0)


def test_another_file_gets_as_many_images_at_a_time_as_it_takes(tmp_path: Path) -> None:
    one, any_number, claimed = (
        nearest(tmp_path / f"{i}.onnx", 48, batch=batch) for i, batch in enumerate((1, "batch", "batch"))
    )
    model = onnx.load(claimed)  # its batch is free by its own words, and is made 1 within
    model.graph.initializer.append(helper.make_tensor("shape", TensorProto.INT64, [4], [1, 3, 48, 48]))
    model.graph.node.insert(0, helper.make_node("Reshape", ["x0", "shape"], ["x"]))
    model.graph.node[1].input[0] = "x"
    onnx.save(model, claimed)
    picture = Picture(torch.rand(3, 61, 150))
    for path, batch in ((one, 1), (any_number, 3), (claimed, 1)):
        resolver = SuperResolver(load_model(str(path)), "cpu", "fp32", batch=3)
        assert resolver.engine("", 0).batch == batch
        expected = picture.rgb.repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
        torch.testing.assert_close(resolver.upscale(picture, fidelity=0).rgb, expected, atol=1e-3, rtol=0)


def test_a_file_that_is_no_upscaler_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"expected a network from images .*, got inputs .*, tensor"):
        load_model(str(nearest(tmp_path / "two.onnx", inputs=2)))
    with pytest.raises(CheckpointError, match=r"got \[1, 3, 32, 48\] for 64x96 px"):
        load_model(str(nearest(tmp_path / "half.onnx", scale=0.5)))


@pytest.mark.parametrize("content", [b"", b"no ONNX at all"])
def test_what_is_no_onnx_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(CheckpointError, match="a.onnx: expected an ONNX file, got"):
        load_model(str(tmp_path / "a.onnx"))


def test_a_file_that_onnxruntime_cannot_run_ends_in_one_line(tmp_path: Path) -> None:
    path = nearest(tmp_path / "odd.onnx")
    model = onnx.load(path)
    model.graph.node[0].op_type = "Upscale"
    onnx.save(model, path)
    result = CliRunner().invoke(main, ["models", "info", str(path)])
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert result.stderr.startswith("Error: onnxruntime: ")


def test_a_file_with_a_damaged_header_is_refused(tiny_onnx: Path, tmp_path: Path) -> None:
    model = onnx.load(tiny_onnx)
    onnx.helper.set_model_props(model, {"gigasr": "2", "scale": "8"})
    onnx.save(model, tmp_path / "new.onnx")
    with pytest.raises(CheckpointError, match="new.onnx: gigasr: .* update gigasr"):
        load_model(str(tmp_path / "new.onnx"))


def test_a_file_is_no_weights(tiny_onnx: Path) -> None:
    with pytest.raises(CheckpointError, match="expected a file of weights, got an ONNX file"):
        load_upsampler(str(tiny_onnx))


def test_without_the_packages_a_line_says_what_to_install(tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    result = CliRunner().invoke(main, ["models", "info", str(tiny_onnx)])
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "pip install 'gigasr[export]'" in result.stderr


def test_a_device_that_onnxruntime_lacks_is_told(tiny_onnx: Path) -> None:
    model = load_model(str(tiny_onnx))
    assert isinstance(model, OnnxModel)
    with pytest.raises(ValueError, match="device: expected one that onnxruntime has here"):
        SuperResolver(model, "meta").upscale(Picture(torch.rand(3, 8, 8)))
