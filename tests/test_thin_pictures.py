"""Pictures of any size are right in bf16 too: no network is given maps on which torch errs."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from test_aurasr import CONFIG as AURA_CONFIG
from test_aurasr import aura_sr
from test_onnx_model import nearest
from test_spandrel_backend import NETWORKS, save_network
from torch import Tensor, nn

from gigasr.config.model import Config
from gigasr.config.networks import UpsamplerConfig
from gigasr.files.picture import Picture
from gigasr.inference.devices import ExecutionPlan
from gigasr.inference.engine import BlendedTileEngine, BodyTailEngine
from gigasr.inference.row_stream import RowStream
from gigasr.models.aurasr import AuraConfig, AuraModel, AuraWeights
from gigasr.models.native import PromptedUpsampler
from gigasr.models.zoo import load_model, load_upsampler
from gigasr.networks.upsampler import Upsampler
from gigasr.pipeline import SuperResolver

CPU = torch.device("cpu")
THIN = [
    (4, 500),
    (500, 4),
    (1, 3000),
    (3000, 1),
    (3, 40),
    (40, 3),
    (1, 1),
    (2, 2),
    (1, 33),
    (65, 2),
    (15, 17),
    (5, 200),
]
CUTS = [(0, 0), (8, 1), (16, 7), (24, 1000)]  # tile, strip


@torch.inference_mode()
def run(engine: BodyTailEngine | BlendedTileEngine, lr: Tensor) -> Tensor:
    return torch.cat(list(engine.strips(RowStream.from_tensor(lr), 3)), dim=2)


@pytest.mark.parametrize("height", range(1, 21))
def test_every_small_size_is_finite_the_same_twice_and_near_fp32_in_bf16(height: int, tiny_weights: Path) -> None:
    model = PromptedUpsampler(load_upsampler(str(tiny_weights)))
    exact, rounded = (model.engine("", 0, ExecutionPlan(dtype=dtype)) for dtype in (torch.float32, torch.bfloat16))
    for width in range(1, 21):
        lr = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(width)) * 2 - 1
        first, again, expected = run(rounded, lr), run(rounded, lr), run(exact, lr)
        assert first.shape[2:] == (8 * height, 8 * width)
        assert torch.equal(first, again)
        torch.testing.assert_close(first, expected, atol=0.05, rtol=0)  # 6 of 255; their std is 72


@pytest.fixture(scope="module")
def resolvers() -> tuple[SuperResolver, SuperResolver]:
    """The bundled model in fp32 and in bf16."""
    model = load_model("upsampler_lite")
    return SuperResolver(model, "cpu", "fp32"), SuperResolver(model, "cpu", "bf16")


@pytest.mark.parametrize("size", THIN, ids=lambda size: f"{size[1]}x{size[0]}")
def test_a_thin_picture_is_the_same_twice_and_near_fp32_in_bf16(
    size: tuple[int, int], resolvers: tuple[SuperResolver, SuperResolver]
) -> None:
    texture = torch.randn(3, *size, generator=torch.Generator().manual_seed(0))
    grey = Picture((0.5 + 0.02 * texture).clamp(0, 1))
    expected, first, again = (resolver.upscale(grey, seed=1).rgb for resolver in (*resolvers, resolvers[1]))
    assert torch.equal(first, again)
    assert (first - expected).abs().mean() < 0.3 / 255
    torch.testing.assert_close(first, expected, atol=4 / 255, rtol=0)


def noted(sides: list[int]) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    """A hook that notes the sides of a module's maps."""
    return lambda module, inputs, output: sides.extend(output.shape[2:])


@pytest.fixture(params=["tiny_weights", "global_weights"])
def tiny(request: pytest.FixtureRequest) -> PromptedUpsampler:
    """The tiny upsampler with attention in windows, and with global attention."""
    return PromptedUpsampler(load_upsampler(str(request.getfixturevalue(request.param))))


@pytest.mark.parametrize("size", [(1, 1), (2, 50), (50, 3), (17, 23)])
def test_the_coarsest_map_of_an_upsampler_has_at_least_four_px_a_side(
    size: tuple[int, int], tiny: PromptedUpsampler
) -> None:
    engine, sides = tiny.engine("", 0, ExecutionPlan(tile=8)), list[int]()
    engine.networks[CPU].network.encoder[-1].register_forward_hook(noted(sides))  # type: ignore[union-attr]
    run(engine, torch.rand(1, 3, *size))
    assert min(sides) >= 4


@pytest.mark.parametrize("trained", [16, 64])
def test_the_coarsest_map_of_aurasr_has_at_least_four_px_a_side(trained: int) -> None:
    config = AURA_CONFIG | {"input_image_size": trained, "image_size": 4 * trained}
    state = aura_sr.AuraSR(config, device="cpu").upsampler.state_dict()
    model = AuraModel(AuraWeights(state, AuraConfig.model_validate(config), "memory"))
    engine, sides = model.engine("", 0, ExecutionPlan()), list[int]()
    engine.networks[CPU].downs[-1].register_forward_hook(noted(sides))  # type: ignore[union-attr]
    run(engine, torch.rand(1, 3, 3, 70))
    assert min(sides) >= 4


@pytest.mark.parametrize("kind", ["spandrel", "onnx"])
def test_a_network_of_which_nothing_is_known_is_given_at_least_64_px_a_side(kind: str, tmp_path: Path) -> None:
    path = save_network(tmp_path / "a.pth", *NETWORKS[1]) if kind == "spandrel" else nearest(tmp_path / "a.onnx")
    engine, sides = load_model(str(path)).engine("", 0, ExecutionPlan()), list[int]()
    assert isinstance(engine, BlendedTileEngine)
    network = engine.networks[CPU]
    engine.networks = {CPU: lambda x: sides.extend(x.shape[2:]) or network(x)}  # type: ignore[func-returns-value]
    assert run(engine, torch.rand(1, 3, 3, 70)).shape[2:] == (3 * engine.scale, 70 * engine.scale)
    assert sides == ([64, 70] if kind == "spandrel" else [64, 80])


def small_windows(config: UpsamplerConfig) -> PromptedUpsampler:
    """The tiny upsampler with windows of 8 px: images of less than 16 px are cut too."""
    torch.manual_seed(0)
    return PromptedUpsampler(Upsampler(config.model_copy(update={"window": 2})).eval().requires_grad_(False))


@pytest.mark.parametrize("size", [(1, 70), (70, 1), (3, 40), (15, 17), (12, 12)])
def test_a_thin_picture_is_the_same_for_every_way_of_cutting_it(size: tuple[int, int], tiny_config: Config) -> None:
    model, lr = small_windows(tiny_config.upsampler), torch.rand(1, 3, *size) * 2 - 1
    whole, *parts = (run(model.engine("", 0, ExecutionPlan(tile=tile, strip=strip)), lr) for tile, strip in CUTS)
    for result in parts:
        torch.testing.assert_close(result, whole, atol=1e-5, rtol=0)


def test_a_thin_picture_is_cut_by_what_it_takes_when_it_is_extended() -> None:
    engine = PromptedUpsampler(load_upsampler()).engine("", 0, ExecutionPlan())
    pixels = 64 * 1000
    assert engine.body.cut((1, 4000), pixels) == (1, 4000)
    assert engine.body.cut((1, 4001), pixels) != (1, 4001)


def amx_is_in_force() -> bool:
    """Whether torch's oneDNN multiplies bf16 by AMX; names that it does not know limit nothing."""
    limit = (os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or "all").lower()
    is_lower = limit.startswith(("sse", "avx2", "avx512_core")) or limit == "avx"
    return bool(torch.cpu.get_capabilities().get("amx_bf16")) and (not is_lower or "amx" in limit)


@pytest.mark.xfail(
    amx_is_in_force(),
    reason="oneDNN with AMX reads memory that nobody wrote; gigasr.networks.ops.MIN_MAP_SIDE keeps networks from it",
    strict=torch.__version__ >= (2, 14, 1),  # it passes with a later torch? Then LEAST_SIDE is no longer needed
)
@pytest.mark.parametrize(("width", "padding"), [(1, 1), (2, 1), (3, 0), (4, 0)])
def test_a_convolution_with_a_stride_whose_result_is_one_px_wide_is_right_in_bf16(width: int, padding: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x, kernel = (torch.randn(size, generator=generator).bfloat16() for size in ((1, 128, 250, width), (160, 128, 3, 3)))
    x, kernel = (each.to(memory_format=torch.channels_last) for each in (x, kernel / 34))
    expected = F.conv2d(x.float(), kernel.float(), stride=2, padding=padding)
    for _ in range(3):
        dirty = [torch.full((n,), 1e4, dtype=torch.bfloat16) for n in (1 << 12, 1 << 16, 1 << 20)]
        del dirty  # what is allocated next is not zero
        result = F.conv2d(x, kernel, stride=2, padding=padding).float()
        torch.testing.assert_close(result, expected, atol=0.02, rtol=2**-7)
