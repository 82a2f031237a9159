from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gigasr.config.model import load_config
from gigasr.config.networks import LevelConfig, UpsamplerConfig
from gigasr.inference.folding import fold
from gigasr.inference.tiling import Margin
from gigasr.networks.blocks import AdaptiveConv2d, EqualizedConv2d, EqualizedLinear, MappingNetwork
from gigasr.networks.text import TextFeatures, TextTransformer, TokenFeatures
from gigasr.networks.upsampler import Upsampler

CONFIGS = Path(__file__).parents[1] / "configs"


def small_paper_config() -> UpsamplerConfig:
    """upsampler_64_512 with every width divided by 16 or more: filters, global attention, seven levels."""
    config = load_config(CONFIGS / "upsampler_64_512.toml").upsampler
    levels = [
        LevelConfig(channels=max(level.channels // 16, 8), **level.model_dump(exclude={"channels"}))
        for level in config.levels
    ]
    text = config.text.model_copy(update={"tower_width": 32, "dim": 16, "num_heads": 2})
    update = {"levels": tuple(levels), "lr_size": 8, "z_dim": 8, "w_dim": 32, "head_dim": 8, "text": text}
    return config.model_copy(update=update)


NETWORKS = {  # config, and the size of the low-res image to try it on
    "tiny": (load_config(CONFIGS / "upsampler_tiny.toml").upsampler, (20, 12)),
    "lite": (load_config(CONFIGS / "upsampler_lite.toml").upsampler, (12, 36)),
    "paper": (small_paper_config(), (24, 16)),
}


def build(name: str, upsample: str = "") -> tuple[Upsampler, Tensor, TextFeatures]:
    """A network with every parameter moved, so that no bias is 0, and its conditions for one prompt."""
    torch.manual_seed(0)
    config, _ = NETWORKS[name]
    network = Upsampler(config.model_copy(update={"upsample": upsample or config.upsample})).requires_grad_(False)
    for parameter in network.parameters():
        parameter += 0.05 * torch.randn_like(parameter)
    mask = torch.arange(6)[None] < 5
    tokens = TokenFeatures(torch.randn(1, 6, config.text.tower_width), torch.tensor([4]), mask)
    return network, *network.condition(torch.randn(1, config.z_dim), tokens)


def random_lr(name: str, batch: int = 1) -> Tensor:
    return 2 * torch.rand(batch, 3, *NETWORKS[name][1]) - 1


def error(actual: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the scale of what is expected."""
    return ((actual - expected).abs().max() / expected.abs().max()).item()


def modules_of(network: nn.Module, *kinds: type[nn.Module]) -> list[str]:
    return [name for name, module in network.named_modules() if isinstance(module, kinds)]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_folded_network_equals_the_unfolded_one(name: str) -> None:
    network, w, text = build(name)
    folded, lr = fold(network, w, text), random_lr(name)
    features = network.body(lr, w, text)
    result = network.tail(features, lr, w, text)[-1]
    assert error(folded.body(lr), features) < 1e-5
    assert error(folded.tail(features, lr), result) < 1e-5
    assert error(folded(lr), result) < 1e-5


@pytest.mark.numerics
@pytest.mark.parametrize("name", ["tiny", "paper"])
def test_a_batch_of_tiles_shares_one_fold(name: str) -> None:
    network, w, text = build(name)
    lr = random_lr(name, batch=3)
    shared = TextFeatures(text.t_local.repeat(3, 1, 1), text.t_global.repeat(3, 1), text.mask.repeat(3, 1))
    features = network.body(lr, w.repeat(3, 1), shared)
    result = network.tail(features, lr, w.repeat(3, 1), shared)[-1]
    assert error(fold(network, w, text)(lr), result) < 1e-5


def test_each_w_and_text_gives_its_own_folded_network() -> None:
    network, w, text = build("tiny")
    lr, other = random_lr("tiny"), TextFeatures(text.t_local.flip(2), text.t_global, text.mask)
    result = fold(network, w, text)(lr)
    assert (fold(network, w.flip(1), text)(lr) - result).abs().max() > 0.01
    assert (fold(network, w, other)(lr) - result).abs().max() > 0.001


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_folding_does_not_change_the_network(dtype: torch.dtype) -> None:
    network, w, text = build("tiny")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    children, lr = [type(module) for module in network.modules()], random_lr("tiny")
    result = network.tail(network.body(lr, w, text), lr, w, text)[-1]
    fold(network, w, text, dtype)(lr.to(dtype))
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], value) and after[key].dtype == value.dtype for key, value in before.items())
    assert [type(module) for module in network.modules()] == children
    assert torch.equal(network.tail(network.body(lr, w, text), lr, w, text)[-1], result)


def test_the_folded_network_shares_no_memory_with_the_unfolded_one() -> None:
    network, w, text = build("tiny")
    folded, lr = fold(network, w, text), random_lr("tiny")
    result = folded(lr)
    for tensor in (*network.parameters(), w, text.t_local, text.t_global):
        tensor.zero_()
    assert torch.equal(folded(lr), result)


@pytest.mark.parametrize("name", NETWORKS)
def test_no_adaptive_or_equalised_layer_is_left(name: str) -> None:
    folded = fold(*build(name))
    kinds = (AdaptiveConv2d, EqualizedConv2d, EqualizedLinear, MappingNetwork, TextTransformer)
    assert modules_of(folded, *kinds) == []
    assert not any(p.requires_grad for p in folded.parameters())


def test_a_network_folded_to_bf16_is_bf16_all_through_and_close() -> None:
    network, w, text = build("tiny")
    lr = random_lr("tiny")
    folded = fold(network, w, text, torch.bfloat16)
    result = folded(lr.bfloat16())
    assert {p.dtype for p in folded.parameters()} == {result.dtype} == {torch.bfloat16}
    assert error(result.float(), fold(network, w, text)(lr)) < 0.05


def test_the_folded_network_knows_how_it_may_be_cut() -> None:
    lite, paper = (fold(*build(name)) for name in ("lite", "paper"))
    assert (lite.scale, lite.halo, lite.receptive_radius, lite.tiling.align, lite.tiling.multiple) == (8, 6, 48, 32, 4)
    assert paper.receptive_radius == 0
    assert (paper.tiling.side, paper.tiling.minimum, paper.tiling.overlap) == (8, 32, 2)


@pytest.mark.parametrize("upsample", ["shuffle", "filter"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_part_of_the_tail_with_its_halo_is_that_part_of_the_whole(name: str, upsample: str) -> None:
    folded, lr = fold(*build(name, upsample)), random_lr(name)
    features = folded.body(lr)
    whole, halo, (height, width) = folded.tail(features, lr), folded.halo, NETWORKS[name][1]
    for top, left in [(0, 3), (4, 0), (height - 4, width - 3)]:
        margin = Margin(min(top, halo), min(height - top - 4, halo), min(left, halo), min(width - left - 3, halo))
        rows = slice(top - margin.top, top + 4 + margin.bottom)
        columns = slice(left - margin.left, left + 3 + margin.right)
        part = folded.tail(features[:, :, rows, columns], lr[:, :, rows, columns], margin)
        scale = folded.scale
        expected = whole[:, :, top * scale : (top + 4) * scale, left * scale : (left + 3) * scale]
        assert error(part, expected) < 1e-5


@pytest.mark.parametrize("upsample", ["shuffle", "filter"])
@pytest.mark.parametrize("name", ["tiny", "lite"])
def test_a_part_of_a_windowed_body_with_its_halo_is_that_part_of_the_whole(name: str, upsample: str) -> None:
    network, w, text = build(name, upsample)
    folded = fold(network, w, text)
    align, halo = folded.tiling.align, folded.receptive_radius
    lr = 2 * torch.rand(1, 3, 4 * align + 8, 5 * align) - 1
    whole = folded.body(lr)
    for rows, columns in [((0, 1), (2, 3)), ((2, 3), (1, 2)), ((3, 4), (0, 2)), ((4, 5), (4, 5)), ((2, 4), (2, 5))]:
        (top, bottom), (left, right) = ([align * side for side in sides] for sides in (rows, columns))
        bottom, first, start = min(bottom, lr.shape[2]), max(top - halo, 0), max(left - halo, 0)
        part = lr[:, :, first : bottom + halo, start : right + halo]
        below, beside = part.shape[2] - (bottom - first), part.shape[3] - (right - start)
        result = folded.body(part, Margin(top - first, below, left - start, beside))
        assert error(result, whole[:, :, top:bottom, left:right]) < 1e-5


def test_the_folded_lite_model_has_at_most_8_million_parameters() -> None:
    assert sum(p.numel() for p in fold(*build("lite")).parameters()) <= 8e6


def test_every_attention_of_a_folded_network_is_one_fused_call() -> None:
    network, w, text = build("lite")
    body, lr = fold(network, w, text), torch.randn(1, 3, 64, 64)
    with torch.no_grad(), torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        body.body(lr)
    names = [event.name for event in profile.events()]
    assert names.count("aten::_scaled_dot_product_flash_attention_for_cpu") == 2 * network.config.levels[0].attention
    assert "aten::_scaled_dot_product_attention_math" not in names
