"""The base generator: shapes, conditions per level, the running mean of w, the paper's size."""

import re
from pathlib import Path

import pytest
import torch

from gigasr.networks.discriminator import Discriminator
from gigasr.networks.ops import upsample2d
from gigasr.networks.text import TextFeatures, TokenFeatures
from gigasr_base.config import BaseConfig, GeneratorConfig, load_base_config
from gigasr_base.generator import Condition, Generator

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def config() -> BaseConfig:
    return load_base_config(CONFIGS / "base_tiny.toml")


@pytest.fixture(scope="module")
def network(config: BaseConfig) -> Generator:
    torch.manual_seed(0)
    return Generator(config.generator).eval()


def random_tokens(batch: int, width: int = 256) -> TokenFeatures:
    """Features of six tokens, the last one padding."""
    mask = (torch.arange(6) < 5).repeat(batch, 1)
    return TokenFeatures(torch.randn(batch, 6, width), torch.full((batch,), 4), mask)


def random_condition(network: Generator) -> Condition:
    return network.condition(torch.randn(1, 8), random_tokens(1))


def num_parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# shapes and sizes


@pytest.mark.parametrize("num_levels", [1, 2, 3])
def test_the_pyramid_doubles_from_4_px_to_the_configs_size(config: BaseConfig, num_levels: int) -> None:
    settings = config.generator.model_copy(update={"levels": config.generator.levels[:num_levels]})
    pyramid = Generator(settings)(torch.randn(2, 8), random_tokens(2))
    assert [tuple(rgb.shape) for rgb in pyramid] == [(2, 3, 4 * 2**i, 4 * 2**i) for i in range(num_levels)]
    assert pyramid[-1].shape[2] == settings.size


def test_the_tiny_model_has_every_part_and_the_discriminator_takes_its_pyramid(config: BaseConfig) -> None:
    generator, discriminator = Generator(config.generator), Discriminator(config.discriminator)
    tokens = random_tokens(2)
    (logits,) = discriminator(generator(torch.randn(2, 8), tokens), [tokens])
    assert logits[-1].shape == (6, 1, 1, 1)
    assert num_parameters(generator) < 300_000
    assert all(phase.crop == config.generator.size for phase in config.train.phases)


def test_the_papers_model_has_the_papers_size() -> None:
    config = load_base_config(CONFIGS / "base_64.toml")
    with torch.device("meta"):
        generator, discriminator = Generator(config.generator), Discriminator(config.discriminator)
    assert config.generator.size == 64
    assert num_parameters(generator) == pytest.approx(652.5e6, rel=0.05)
    assert num_parameters(discriminator) == pytest.approx(381.4e6, rel=0.05)


def test_the_keys_of_a_checkpoint_stay_what_they_are(network: Generator) -> None:
    keys = {re.sub(r"\.\d+(?=\.)", ".*", key) for key in network.state_dict()}
    assert {"constant", "w_mean", "mapping.layers.*.weight", "to_rgb.*.bank", "levels.*.up.conv0.bank"} <= keys
    parts = {key.partition(".")[0] for key in keys}
    assert parts == {"text_transformer", "mapping", "constant", "levels", "to_rgb", "w_mean"}


# conditions


def test_z_and_the_text_each_change_every_image_of_the_pyramid(network: Generator) -> None:
    z, tokens = torch.randn(1, 8), random_tokens(1)
    pyramid = network(z, tokens)
    for other in (network(torch.randn(1, 8), tokens), network(z, random_tokens(1))):
        assert all((a - b).abs().mean() > 1e-3 for a, b in zip(pyramid, other, strict=True))


def test_the_text_acts_through_w_and_through_cross_attention(network: Generator) -> None:
    (w, text), (other_w, other_text) = (random_condition(network) for _ in range(2))
    image = network.synthesize([Condition(w, text)] * 3)[-1]
    for condition in (Condition(other_w, text), Condition(w, other_text)):
        assert (network.synthesize([condition] * 3)[-1] - image).abs().mean() > 1e-3


def test_forward_tells_all_levels_the_same(network: Generator) -> None:
    z, tokens = torch.randn(2, 8), random_tokens(2)
    expected = network.synthesize([network.condition(z, tokens)] * 3)
    assert all(torch.equal(a, b) for a, b in zip(network(z, tokens), expected, strict=True))


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_levels_condition_changes_its_image_and_the_larger_ones_only(network: Generator, level: int) -> None:
    one, other = random_condition(network), random_condition(network)
    pyramid = network.synthesize([one] * 3)
    changed = network.synthesize([other if i == level else one for i in range(3)])
    differs = [not torch.equal(a, b) for a, b in zip(pyramid, changed, strict=True)]
    assert differs == [i >= level for i in range(3)]


def test_samples_of_a_batch_do_not_see_each_other(network: Generator) -> None:
    z, tokens = torch.randn(3, 8), random_tokens(3)
    alone = TokenFeatures(tokens.features[1:2], tokens.eot[1:2], tokens.mask[1:2])
    torch.testing.assert_close(network(z[1:2], alone)[-1], network(z, tokens)[-1][1:2], atol=1e-5, rtol=1e-5)


def test_what_is_padded_behind_the_text_changes_nothing(network: Generator) -> None:
    z, tokens = torch.randn(1, 8), random_tokens(1)
    image = network(z, tokens)[-1]
    tokens.features[:, 5] = 7.0
    torch.testing.assert_close(network(z, tokens)[-1], image)


def test_the_pyramid_is_the_sum_of_what_the_levels_generate(config: BaseConfig) -> None:
    network = Generator(config.generator).requires_grad_(False)
    for to_rgb in list(network.to_rgb)[1:]:
        to_rgb.bank.zero_()
    small, middle, large = network(torch.randn(1, 8), random_tokens(1))
    torch.testing.assert_close(middle, upsample2d(small))
    torch.testing.assert_close(large, upsample2d(upsample2d(small)))


# training


def test_gradients_reach_every_parameter(config: BaseConfig) -> None:
    network = Generator(config.generator)
    network(torch.randn(2, 8), random_tokens(2))[-1].square().mean().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_mean_of_w_moves_by_what_training_passes_have_seen(config: BaseConfig) -> None:
    network = Generator(config.generator)
    passes = [(torch.randn(2, 8), random_tokens(2)) for _ in range(2)]
    mean = torch.cat([network.condition(*inputs).w for inputs in passes]).mean(dim=0)
    for inputs in passes:
        network.train()(*inputs)
        with torch.no_grad():
            network(torch.randn(2, 8), random_tokens(2))
        network.eval()(torch.randn(2, 8), random_tokens(2))
    assert not network.w_mean.any()
    network.move_w_mean(network.take_w())
    torch.testing.assert_close(network.w_mean, 0.005 * mean)
    assert not network.recent_w


def test_the_images_are_fp32_where_the_trunk_is_in_bf16(network: Generator) -> None:
    condition = random_condition(network)
    with torch.autocast("cpu", torch.bfloat16):
        *_, smaller, image = network.synthesize([condition] * 3)
    assert image.dtype == torch.float32
    torch.testing.assert_close(image, network.synthesize([condition] * 3)[-1], atol=0.1, rtol=0.1)
    own = image - upsample2d(smaller)  # what the last level adds is in bf16, the rest is not rounded
    torch.testing.assert_close(own, own.bfloat16().float(), atol=1e-6, rtol=0)


def test_a_config_knows_its_size() -> None:
    levels = [{"channels": 8, "blocks": 1}] * 5
    assert GeneratorConfig(levels=levels, head_dim=8).size == 64


def test_the_pyramid_ends_where_it_is_told(network: Generator) -> None:
    z, tokens = torch.randn(1, 8), random_tokens(1)
    pairs = zip(network(z, tokens, size=8), network(z, tokens), strict=False)
    assert [tuple(a.shape[2:]) for a, b in pairs if torch.equal(a, b)] == [(4, 4), (8, 8)]


@pytest.mark.parametrize(("crop", "adversarial"), [(12, 0.0), (32, 0.0), (8, 1.0)])
def test_a_crop_is_a_levels_and_in_adversarial_phases_the_last_levels(crop: int, adversarial: float) -> None:
    overrides = [f"train.phases.0.crop={crop}", f"train.phases.0.loss.adversarial={adversarial}"]
    with pytest.raises(ValueError, match=rf"train.phases.crop: expected (4 or 8 or )?16 px, got {crop}"):
        load_base_config(
            CONFIGS / "base_tiny.toml", (*overrides, "train.phases.0.loss.matching=0", "train.phases.0.loss.l1=1")
        )


def test_a_text_of_one_token_is_enough(network: Generator) -> None:
    w, text = random_condition(network)
    short = TextFeatures(text.t_local[:, :1], text.t_global, text.mask[:, :1])
    assert network.synthesize([Condition(w, short)] * 3)[-1].isfinite().all()
