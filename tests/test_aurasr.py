"""AuraSR's network on small random weights, against the package itself."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from gigasr.inference.devices import ExecutionPlan
from gigasr.inference.row_stream import RowStream
from gigasr.inference.tiling import Margin
from gigasr.models.aurasr import AuraConfig, AuraModel, AuraWeights
from gigasr.models.aurasr_layers import AuraChannelNorm, FoldedDoubling, TransformerLayer, doubling_kernel, plan_windows
from gigasr.models.checkpoint import CheckpointError
from gigasr.models.zoo import load_model

aura_sr = pytest.importorskip("aura_sr", reason="the package to compare with is not installed")
CONFIG = {
    "dim": 4,
    "image_size": 256,
    "input_image_size": 64,
    "style_network": {"dim_in": 128, "dim_out": 16, "depth": 4},
    "self_attn_heads": 2,
    "self_attn_dim_head": 4,
    "skip_connect_scale": 0.4,
    "unconditional": True,
}


@pytest.fixture(scope="module")
def package() -> Any:  # untyped
    torch.manual_seed(0)
    package = aura_sr.AuraSR(CONFIG, device="cpu")
    package.upsampler.eval().requires_grad_(False)
    package.upsampler.final_to_rgb.weight.mul_(3)
    package.upsampler.final_to_rgb.bias.fill_(0.5)
    for name, parameter in package.upsampler.named_parameters():
        if name.startswith("style_to_conv"):
            parameter.mul_(3)  # so that z has its say
    return package


@pytest.fixture(scope="module")
def weights(package: Any) -> AuraWeights:
    return AuraWeights(package.upsampler.state_dict(), AuraConfig.model_validate(CONFIG), "memory")


@pytest.fixture(scope="module")
def image() -> Image.Image:
    small = Image.fromarray(np.random.default_rng(0).integers(0, 256, (15, 20, 3), dtype=np.uint8))
    return small.resize((200, 150), Image.Resampling.BICUBIC)


@torch.inference_mode()
def test_the_folded_network_equals_the_packages_for_the_same_z_and_noise(package: Any, weights: AuraWeights) -> None:
    lr, z = torch.rand(1, 3, 64, 64), torch.randn(1, 128)
    torch.manual_seed(3)
    expected = package.upsampler(lowres_image=lr, noise=z)
    torch.manual_seed(3)
    noisy = lr + 0.001 * torch.randn_like(lr)
    network = weights.fold(z)
    torch.testing.assert_close(network(noisy * 2 - 1) / 2 + 0.5, expected, atol=1e-5, rtol=0)
    other = weights.fold(torch.randn(1, 128))(noisy * 2 - 1) / 2 + 0.5
    assert (other - expected).abs().max() > 1e-3


@torch.inference_mode()
def test_the_packages_tiles_are_those_of_the_network(package: Any, weights: AuraWeights, image: Image.Image) -> None:
    torch.manual_seed(5)
    expected = np.array(package.upscale_4x(image)).astype(int)
    lr = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    padded = F.pad(lr, (0, 256 - 200, 0, 192 - 150), mode="reflect")
    tiles = [padded[:, :, top : top + 64, left : left + 64] for top in (0, 64, 128) for left in (0, 64, 128, 192)]
    torch.manual_seed(
        5
    )  # the package's random stream: a z, noise, and a z that it leaves unused, for 8 tiles at a time
    results = []
    for batch in torch.cat(tiles).split(8):
        z, noise, _ = torch.randn(len(batch), 128), torch.randn_like(batch), torch.randn(len(batch), 128)
        noisy = (batch + 0.001 * noise) * 2 - 1
        results += [weights.fold(z[i : i + 1])(noisy[i : i + 1])[0] / 2 + 0.5 for i in range(len(batch))]
    rows = [torch.cat(results[i : i + 4], dim=2) for i in (0, 4, 8)]
    result = (torch.cat(rows, dim=1).clamp(0, 1) * 255).byte()[:, :600, :800].permute(1, 2, 0).numpy().astype(int)
    difference = abs(result - expected)
    assert difference.max() <= 1  # both cut values to bytes
    assert (difference > 0).mean() < 1e-3


@torch.inference_mode()
def test_the_tail_of_a_part_equals_that_part_of_the_whole(weights: AuraWeights) -> None:
    network = weights.fold(torch.randn(1, 128))
    features, halo = torch.randn(1, 8, 40, 50), network.halo
    whole = network.tail(features, features)
    part = network.tail(features[:, :, 15 - halo : 22 + halo, 20 - halo :], features, Margin(halo, halo, halo, 0))
    torch.testing.assert_close(part, whole[:, :, 60:88, 80:], atol=1e-5, rtol=0)


@torch.inference_mode()
def test_the_engine_gives_the_same_picture_in_strips_of_any_height(weights: AuraWeights) -> None:
    lr = torch.rand(1, 3, 50, 70) * 2 - 1
    pictures = [
        torch.cat(
            list(AuraModel(weights).engine("", 1, ExecutionPlan(strip=rows)).strips(RowStream.from_tensor(lr), 1)),
            dim=2,
        )
        for rows in (50, 13)
    ]
    assert pictures[0].shape == (1, 3, 200, 280)
    torch.testing.assert_close(*pictures, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_tiles_that_run_together_give_the_picture_of_each_alone(weights: AuraWeights) -> None:
    lr = torch.rand(1, 3, 70, 180) * 2 - 1
    one, three = (AuraModel(weights).engine("", 1, ExecutionPlan(tile=64, batch=batch)) for batch in (1, 3))
    pictures = [torch.cat(list(engine.strips(RowStream.from_tensor(lr), 1)), dim=2) for engine in (one, three)]
    torch.testing.assert_close(*pictures, atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(1, 1), (32, 5), (33, 9)])
@torch.inference_mode()
def test_pictures_below_33_px_on_which_the_package_fails_are_upscaled(
    weights: AuraWeights, size: tuple[int, int]
) -> None:
    result = torch.cat(
        list(
            AuraModel(weights).engine("", 1, ExecutionPlan()).strips(RowStream.from_tensor(torch.zeros(1, 3, *size)), 1)
        ),
        dim=2,
    )
    assert result.shape == (1, 3, 4 * size[0], 4 * size[1])
    assert bool(result.isfinite().all())


WRAPPERS: list[Callable[[dict[str, Tensor]], Any]] = [
    lambda state: state,
    lambda state: {"G": {}, "G_ema": state, "steps": 3},
    lambda state: {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}},
    lambda state: {"params": state, "params_ema": state},
]


@pytest.mark.parametrize("wrap", WRAPPERS, ids=["flat", "trainer", "parallel", "basicsr"])
def test_a_pickled_checkpoint_is_read_whatever_is_around_it(
    package: Any,
    weights: AuraWeights,
    tmp_path: Path,
    wrap: Callable[[dict[str, Tensor]], Any],
) -> None:
    path = write_config(tmp_path).with_name("model.ckpt")
    torch.save(wrap(package.upsampler.state_dict()), path)
    assert_same(load_model(str(path)), weights)


def test_a_safetensors_file_is_read_with_the_config_beside_it(
    package: Any,
    weights: AuraWeights,
    tmp_path: Path,
) -> None:
    path = write_config(tmp_path).with_name("model.safetensors")
    save_file(package.upsampler.state_dict(), path)
    assert_same(load_model(str(path)), weights)


def damaged(state: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    name = "ups.1.0.2.block1.proj.weights"
    yield {key: tensor for key, tensor in state.items() if key != name}
    yield state | {name: state[name][:, :, :-1]}
    yield state | {"text_tower.weight": torch.zeros(1)}


@pytest.mark.parametrize("number", range(3), ids=["missing", "misshapen", "unknown"])
def test_weights_that_do_not_fit_are_refused_when_they_are_loaded(package: Any, number: int) -> None:
    state = list(damaged(package.upsampler.state_dict()))[number]
    with pytest.raises(CheckpointError, match="m.ckpt: expected the weights of AuraSR that fit its config.json"):
        AuraWeights(state, AuraConfig.model_validate(CONFIG), "m.ckpt")


def write_config(folder: Path) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(CONFIG), encoding="utf-8")
    return path


@torch.inference_mode()
def assert_same(model: Any, weights: AuraWeights) -> None:
    assert isinstance(model, AuraModel)
    assert model.scale == 4
    z, lr = torch.randn(1, 128), torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(model.weights.fold(z)(lr), weights.fold(z)(lr), atol=1e-6, rtol=0)


@torch.inference_mode()
def test_the_folded_doubling_equals_a_convolution_of_the_doubled_map() -> None:
    x, kernel, bias = torch.randn(2, 3, 5, 7), torch.randn(4, 3, 3, 3), torch.randn(4)
    expected = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), kernel, bias, padding=1)
    conv = torch.nn.Conv2d(3, 16, 2, padding=1)
    conv.weight.copy_(doubling_kernel(kernel))
    conv.bias.copy_(bias.repeat(4))  # type: ignore[union-attr]
    torch.testing.assert_close(FoldedDoubling(conv)(x), expected, atol=1e-5, rtol=1e-5)


@torch.inference_mode()
def test_attention_on_a_larger_map_sees_no_farther_than_in_training_and_equals_it_in_the_corners() -> None:
    layer = TransformerLayer(AuraChannelNorm(torch.ones(1)), *[torch.nn.Identity()] * 3, heads=2, window=8)
    qkv, other = torch.randn(1, 12, 19, 22), torch.randn(12)
    y = layer.attend(qkv)
    torch.testing.assert_close(y[:, :, :5, :4], layer.attend(qkv[:, :, :8, :8])[:, :, :5, :4])
    changed = qkv.clone()
    changed[:, :, 0, 0] = other
    reached = (layer.attend(changed) != y).any(dim=1)[0]
    assert reached[:4, :4].all()
    assert not reached[8:].any()
    assert not reached[:, 8:].any()


@pytest.mark.parametrize("length", [3, 8, 9, 20, 33])
def test_windows_cover_a_map_and_overlap_as_told(length: int) -> None:
    lefts = [window.left for window in plan_windows(5, length, side=8, overlap=2)]
    assert lefts[0] == 0
    assert lefts[-1] + min(8, length) == length
    assert all(0 < b - a <= 6 for a, b in zip(lefts, lefts[1:], strict=False))
