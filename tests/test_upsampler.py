import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gigasr.config.model import Config, load_config
from gigasr.config.networks import UpsamplerConfig
from gigasr.networks.ops import upsample_bicubic
from gigasr.networks.text import TokenFeatures
from gigasr.networks.upsampler import Upsampler

CONFIGS = Path(__file__).parents[1] / "configs"
PARTS = {
    "": "text_transformer mapping stem encoder levels to_rgb",
    "text_transformer": "from_tower.weight from_tower.bias "
    "blocks.*.norm_attention.weight blocks.*.norm_attention.bias blocks.*.to_qkv.weight blocks.*.to_qkv.bias "
    "blocks.*.to_out.weight blocks.*.to_out.bias blocks.*.norm_mlp.weight blocks.*.norm_mlp.bias "
    "blocks.*.mlp_in.weight blocks.*.mlp_in.bias blocks.*.mlp_out.weight blocks.*.mlp_out.bias",
    "mapping": "layers.*.weight layers.*.bias",
    "stem": "weight bias",
    "encoder": "*.conv0.weight *.conv0.bias *.conv1.weight *.conv1.bias *.skip.weight *.skip.bias",
    "to_rgb": "*.bank *.bias *.to_styles.weight *.to_styles.bias",
}
ADAPTIVE = "bank bias to_styles.weight to_styles.bias to_logits.weight to_logits.bias"
ATTENTION = (
    "self_norm.weight self_attention.to_qk.weight self_attention.to_v.weight self_attention.w_to_token.weight "
    "self_attention.w_to_token.bias self_attention.to_out.weight self_attention.to_out.bias "
    "cross_norm.weight cross_attention.to_q.weight cross_attention.to_k.weight cross_attention.to_v.weight "
    "cross_attention.to_out.weight cross_attention.to_out.bias "
    "feed_norm.weight feed_forward.expand.weight feed_forward.expand.bias "
    "feed_forward.contract.weight feed_forward.contract.bias"
)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def config(tiny_config: Config) -> UpsamplerConfig:
    return tiny_config.upsampler.model_copy(update={"input_noise": 0.0})


@pytest.fixture(scope="module")
def network(config: UpsamplerConfig) -> Upsampler:
    return Upsampler(config)


def random_tokens(batch: int, width: int = 256) -> TokenFeatures:
    """Features of six tokens, the last one padding."""
    mask = (torch.arange(6) < 5).repeat(batch, 1)
    return TokenFeatures(torch.randn(batch, 6, width), torch.full((batch,), 4), mask)


def random_lr(batch: int, height: int, width: int) -> Tensor:
    return 2 * torch.rand(batch, 3, height, width) - 1


def keys_under(module: nn.Module, prefix: str) -> set[str]:
    """Keys below a prefix, numbers as stars."""
    keys = (re.sub(r"(^|\.)\d+(?=\.)", r"\1*", key) for key in module.state_dict())
    return {key.removeprefix(prefix) for key in keys if key.startswith(prefix)}


# shapes


@pytest.mark.parametrize(("height", "width"), [(8, 8), (12, 20), (4, 4), (20, 8)])
def test_the_pyramid_doubles_up_to_the_scale(network: Upsampler, height: int, width: int) -> None:
    pyramid = network(random_lr(2, height, width), torch.randn(2, 8), random_tokens(2))
    assert [tuple(rgb.shape) for rgb in pyramid] == [(2, 3, f * height, f * width) for f in (2, 4, 8)]


@pytest.mark.parametrize(("scale", "multiple"), [(2, 16), (4, 8), (8, 4), (16, 2)])
def test_the_levels_above_and_below_the_input_follow_from_the_scale(
    config: UpsamplerConfig, scale: int, multiple: int
) -> None:
    network = Upsampler(config.model_copy(update={"scale": scale}))
    pyramid = network(random_lr(1, 16, 32), torch.randn(1, 8), random_tokens(1))
    assert (network.scale, network.multiple) == (scale, multiple)
    assert pyramid[-1].shape == (1, 3, 16 * scale, 32 * scale)
    assert 2 ** len(pyramid) == scale


def test_bodies_get_four_px_at_the_coarsest_level_and_with_global_attention_the_trained_size(
    config: UpsamplerConfig,
) -> None:
    assert Upsampler(config).min_side == Upsampler(config.model_copy(update={"window": 0})).min_side == 16
    assert Upsampler(config.model_copy(update={"lr_size": 64})).min_side == 16
    assert Upsampler(config.model_copy(update={"window": 0, "lr_size": 64})).min_side == 64


# conditions


def test_equal_inputs_give_equal_outputs(network: Upsampler) -> None:
    lr, z, tokens = random_lr(1, 8, 8), torch.randn(1, 8), random_tokens(1)
    assert all(torch.equal(a, b) for a, b in zip(network(lr, z, tokens), network(lr, z, tokens), strict=True))


def test_z_the_text_and_the_input_each_change_every_image_of_the_pyramid(network: Upsampler) -> None:
    lr, z, tokens = random_lr(1, 8, 8), torch.randn(1, 8), random_tokens(1)
    pyramid = network(lr, z, tokens)
    others = [
        network(lr, torch.randn(1, 8), tokens),
        network(lr, z, random_tokens(1)),
        network(random_lr(1, 8, 8), z, tokens),
    ]
    for other in others:
        assert all((a - b).abs().mean() > 1e-3 for a, b in zip(pyramid, other, strict=True))


def test_the_text_acts_through_w_and_through_cross_attention(network: Upsampler) -> None:
    lr, z = random_lr(1, 8, 8), torch.randn(1, 8)
    (w, text), (other_w, other_text) = (network.condition(z, random_tokens(1)) for _ in range(2))
    features = network.body(lr, w, text)
    assert (network.body(lr, other_w, text) - features).abs().mean() > 1e-3
    assert (network.body(lr, w, other_text) - features).abs().mean() > 1e-3


def test_what_is_padded_behind_the_text_changes_nothing(network: Upsampler) -> None:
    lr, z, tokens = random_lr(1, 8, 8), torch.randn(1, 8), random_tokens(1)
    result = network(lr, z, tokens)[-1]
    tokens.features[:, 5] = 7.0
    torch.testing.assert_close(network(lr, z, tokens)[-1], result)


def test_samples_of_a_batch_do_not_see_each_other(network: Upsampler) -> None:
    lr, z, tokens = random_lr(3, 8, 8), torch.randn(3, 8), random_tokens(3)
    alone = TokenFeatures(tokens.features[1:2], tokens.eot[1:2], tokens.mask[1:2])
    together = network(lr, z, tokens)[-1][1:2]
    torch.testing.assert_close(network(lr[1:2], z[1:2], alone)[-1], together, atol=1e-5, rtol=1e-5)


def test_input_noise_varies_the_result_a_little(config: UpsamplerConfig) -> None:
    network = Upsampler(config.model_copy(update={"input_noise": 0.05}))
    lr, z, tokens = random_lr(1, 8, 8), torch.randn(1, 8), random_tokens(1)
    change = (network(lr, z, tokens)[-1] - network(lr, z, tokens, torch.randn_like(lr))[-1]).abs().mean().item()
    assert 0 < change < 0.1


def test_an_untrained_network_starts_close_to_the_upscaled_input(network: Upsampler) -> None:
    lr = random_lr(1, 16, 16)
    result = network(lr, torch.randn(1, 8), random_tokens(1))[-1]
    assert (result - upsample_bicubic(upsample_bicubic(upsample_bicubic(lr, 2), 2), 2)).square().mean().sqrt() < 0.5


def test_gradients_reach_every_parameter(config: UpsamplerConfig) -> None:
    network = Upsampler(config)
    pyramid = network(random_lr(2, 8, 8), torch.randn(2, 8), random_tokens(2))
    pyramid[-1].square().mean().backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


# body and tail


def test_forward_is_the_body_then_the_tail(network: Upsampler) -> None:
    lr, z, tokens = random_lr(1, 8, 12), torch.randn(1, 8), random_tokens(1)
    w, text = network.condition(z, tokens)
    features = network.body(lr, w, text)
    assert features.shape == (1, 8, 8, 12)
    assert torch.equal(network.tail(features, lr, w, text)[-1], network(lr, z, tokens)[-1])


# names and sizes


@pytest.mark.parametrize("part", PARTS)
def test_state_dict_keys_are_public_names(network: Upsampler, part: str) -> None:
    if part:
        assert keys_under(network, f"{part}.") == set(PARTS[part].split())
    else:
        assert [name for name, _ in network.named_children()] == PARTS[part].split()


def test_state_dict_keys_of_the_levels_are_public_names(network: Upsampler) -> None:
    adaptive = [f"{conv}.{key}" for conv in ("conv0", "conv1") for key in ADAPTIVE.split()]
    expected = {f"*.up.{key}" for key in [*adaptive, "skip.weight", "skip.bias"]}
    expected |= {f"*.blocks.*.{key}" for key in adaptive}
    expected |= {f"*.attention.*.{key}" for key in ATTENTION.split()}
    assert keys_under(network, "levels.") == expected
    assert len(network.state_dict()) == 172


@pytest.mark.parametrize(("name", "millions"), [("upsampler_64_512", 359.1), ("upsampler_128_1024", 693)])
def test_the_papers_models_have_the_papers_size(name: str, millions: float) -> None:
    with torch.device("meta"):
        network = Upsampler(load_config(CONFIGS / f"{name}.toml").upsampler)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, rel=0.02)
