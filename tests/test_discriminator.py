import re
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from gigasr.config.model import Config
from gigasr.config.networks import DiscriminatorConfig, StageConfig
from gigasr.networks.discriminator import Discriminator, Predictor, Stage, minibatch_std
from gigasr.networks.text import TokenFeatures
from gigasr.training import losses

LEVELS = 3
KEYS = (
    "text_transformer.from_tower.weight text_transformer.from_tower.bias from_rgb.*.weight from_rgb.*.bias "
    "stages.*.attention.*.self_norm.weight stages.*.attention.*.self_attention.to_qk.weight "
    "stages.*.attention.*.self_attention.to_v.weight stages.*.attention.*.self_attention.to_out.weight "
    "stages.*.attention.*.self_attention.to_out.bias stages.*.attention.*.feed_norm.weight "
    "stages.*.attention.*.feed_forward.expand.weight stages.*.attention.*.feed_forward.expand.bias "
    "stages.*.attention.*.feed_forward.contract.weight stages.*.attention.*.feed_forward.contract.bias "
    "stages.*.blocks.*.weight stages.*.blocks.*.bias stages.*.down.weight stages.*.down.bias "
    "stages.*.skip.weight stages.*.skip.bias epilogue.weight epilogue.bias "
    "predictors.*.psi.*.bank predictors.*.psi.*.bias "
    "predictors.*.psi.*.to_styles.weight predictors.*.psi.*.to_styles.bias "
    "predictors.*.to_logit.bank predictors.*.to_logit.bias "
    "predictors.*.to_logit.to_styles.weight predictors.*.to_logit.to_styles.bias "
    "predictors.*.unconditional.weight predictors.*.unconditional.bias"
)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def config(tiny_config: Config) -> DiscriminatorConfig:
    return tiny_config.discriminator


@pytest.fixture(scope="module")
def network(config: DiscriminatorConfig) -> Discriminator:
    """The tiny discriminator without minibatch statistics: no sample sees another."""
    return Discriminator(config.model_copy(update={"minibatch_std": 0}))


def predict(
    network: Discriminator, pyramid: list[Tensor], tokens: TokenFeatures, lr: Tensor | None = None
) -> list[Tensor]:
    """The logit maps for one text per image."""
    return network(pyramid, [tokens], lr)[0]


def random_pyramid(batch: int, height: int = 64, width: int = 64, levels: int = LEVELS) -> list[Tensor]:
    """Random images, the largest of the given size, smallest first."""
    return [2 * torch.rand(batch, 3, height >> i, width >> i) - 1 for i in reversed(range(levels))]


def random_lr(batch: int) -> Tensor:
    return 2 * torch.rand(batch, 3, 8, 8) - 1


def random_tokens(batch: int) -> TokenFeatures:
    mask = torch.ones(batch, 5, dtype=torch.bool)
    return TokenFeatures(torch.randn(batch, 5, 256), torch.full((batch,), 4), mask)


def rows_of_level(logits: Tensor, level: int, batch: int) -> Tensor:
    """Rows of one head's map that judge a level of the pyramid, empty where it has not entered yet."""
    place = LEVELS - 1 - level  # the largest level enters first
    return logits[place * batch : (place + 1) * batch]


# predictions


@pytest.mark.parametrize(("height", "width"), [(64, 64), (32, 48), (16, 16)])
def test_each_head_evaluates_every_level_that_has_entered(network: Discriminator, height: int, width: int) -> None:
    logits = predict(network, random_pyramid(2, height, width), random_tokens(2), random_lr(2))
    expected = [(2 * min(j, LEVELS), 1, height >> j, width >> j) for j in (1, 2, 3, 4)]
    assert [tuple(m.shape) for m in logits] == expected


@pytest.mark.parametrize(("num_stages", "num_levels", "num_predictions"), [(3, 3, 6), (5, 3, 12), (4, 1, 4), (1, 1, 1)])
def test_levels_and_stages_give_the_papers_number_of_predictions(
    config: DiscriminatorConfig, num_stages: int, num_levels: int, num_predictions: int
) -> None:
    stages = (StageConfig(channels=8),) * num_stages
    network = Discriminator(config.model_copy(update={"stages": stages, "num_levels": num_levels, "minibatch_std": 0}))
    logits = predict(network, random_pyramid(2, 32, 32, num_levels), random_tokens(2), random_lr(2))
    assert sum(len(m) // 2 for m in logits) == num_predictions
    assert len(network.head_weights()) == len(logits) == num_stages


def test_every_level_has_one_share_at_the_last_head_and_less_at_early_ones(config: DiscriminatorConfig) -> None:
    network = Discriminator(config.model_copy(update={"head_weight": 0.25}))
    logits = [
        m.detach().zero_().requires_grad_() for m in predict(network, random_pyramid(2), random_tokens(2), random_lr(2))
    ]
    losses.adversarial(logits, False, network.head_weights()).backward()
    shares = [m.grad.sum(dim=(1, 2, 3)).view(-1, 2).sum(dim=1) / 0.5 for m in logits]  # softplus has slope 1/2 at 0
    assert [len(levels) for levels in shares] == [1, 2, 3, 3]
    for levels, share in zip(shares, [0.25 / 3, 0.25 / 3, 0.25 / 3, 1 / 3], strict=True):
        torch.testing.assert_close(levels, torch.full_like(levels, share))


@pytest.mark.parametrize("level", range(LEVELS))
def test_a_level_changes_its_own_predictions_only(network: Discriminator, level: int) -> None:
    pyramid, tokens, lr = random_pyramid(2), random_tokens(2), random_lr(2)
    before = predict(network, pyramid, tokens, lr)
    pyramid[level] = torch.rand_like(pyramid[level])
    after = predict(network, pyramid, tokens, lr)
    for other in range(LEVELS):
        for a, b in zip(before, after, strict=True):
            mine = [rows_of_level(m, other, 2) for m in (a, b)]
            if other != level:
                torch.testing.assert_close(*mine, atol=1e-6, rtol=1e-5)
            elif len(mine[0]):
                assert (mine[0] - mine[1]).abs().mean() > 1e-3


def test_a_sample_changes_its_own_predictions_only(network: Discriminator) -> None:
    pyramid, tokens, lr = random_pyramid(2), random_tokens(2), random_lr(2)
    before = predict(network, pyramid, tokens, lr)
    for image in pyramid:
        image[1] = torch.rand_like(image[1])
    for a, b in zip(before, predict(network, pyramid, tokens, lr), strict=True):
        torch.testing.assert_close(b[::2], a[::2], atol=1e-6, rtol=1e-5)
        assert ((b[1::2] - a[1::2]).abs().mean(dim=(1, 2, 3)) > 1e-3).all()


def test_one_level_twice_as_often_is_evaluated_by_the_same_trunk(network: Discriminator) -> None:
    pyramid, tokens, lr = random_pyramid(1), random_tokens(1), random_lr(1)
    doubled = [image.repeat(2, 1, 1, 1) for image in pyramid]
    twice = TokenFeatures(*(x.repeat(2, *[1] * (x.ndim - 1)) for x in (tokens.features, tokens.eot, tokens.mask)))
    for a, b in zip(
        predict(network, pyramid, tokens, lr), predict(network, doubled, twice, lr.repeat(2, 1, 1, 1)), strict=True
    ):
        torch.testing.assert_close(b, a.repeat_interleave(2, dim=0), atol=1e-5, rtol=1e-5)


# conditions


def smallest_change(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """The mean change of the (level, head) prediction that changes least."""
    return min((x - y).abs().mean(dim=(1, 2, 3)).min().item() for x, y in zip(a, b, strict=True))


def test_the_text_changes_every_prediction(network: Discriminator) -> None:
    pyramid, lr = random_pyramid(2), random_lr(2)
    assert (
        smallest_change(
            predict(network, pyramid, random_tokens(2), lr), predict(network, pyramid, random_tokens(2), lr)
        )
        > 1e-3
    )


def test_each_level_of_a_sample_is_evaluated_with_its_own_text(network: Discriminator) -> None:
    pyramid, tokens, lr = random_pyramid(2), random_tokens(2), random_lr(2)
    before = predict(network, pyramid, tokens, lr)
    tokens.features[1] = torch.randn_like(tokens.features[1])
    after = predict(network, pyramid, tokens, lr)
    for a, b in zip(before, after, strict=True):
        torch.testing.assert_close(b[::2], a[::2], atol=1e-6, rtol=1e-5)
    assert smallest_change([m[1::2] for m in before], [m[1::2] for m in after]) > 1e-3


def test_the_low_res_image_changes_every_prediction_where_the_config_shows_it(network: Discriminator) -> None:
    pyramid, tokens = random_pyramid(2), random_tokens(2)
    assert (
        smallest_change(
            predict(network, pyramid, tokens, random_lr(2)), predict(network, pyramid, tokens, random_lr(2))
        )
        > 1e-3
    )


def test_the_low_res_image_is_ignored_where_the_config_hides_it(config: DiscriminatorConfig) -> None:
    network = Discriminator(config.model_copy(update={"condition_on_lr": False}))
    pyramid, tokens = random_pyramid(2), random_tokens(2)
    for a, b in zip(predict(network, pyramid, tokens, random_lr(2)), predict(network, pyramid, tokens), strict=True):
        assert torch.equal(a, b)


def test_one_run_of_the_trunk_serves_several_texts(network: Discriminator) -> None:
    pyramid, lr = random_pyramid(2), random_lr(2)
    features = network.features(pyramid, lr)
    for tokens in (random_tokens(2), random_tokens(2)):
        for a, b in zip(network.predict(features, tokens), predict(network, pyramid, tokens, lr), strict=True):
            assert torch.equal(a, b)


def test_a_prediction_is_a_conditional_plus_an_unconditional_logit() -> None:
    predictor = Predictor(channels=8, text_dim=12, num_layers=3)
    x, t_global = torch.randn(2, 8, 3, 5), torch.randn(2, 12)
    logits = predictor(x, t_global)
    torch.testing.assert_close(predictor(x[:, :, 1:2, 2:3], t_global), logits[:, :, 1:2, 2:3])  # each pixel by itself
    with torch.no_grad():
        predictor.to_logit.bank.zero_()
    torch.testing.assert_close(predictor(x, t_global), predictor.unconditional(x))


# training


def test_gradients_reach_every_parameter(config: DiscriminatorConfig) -> None:
    network = Discriminator(config)
    logits = predict(network, random_pyramid(2), random_tokens(2), random_lr(2))
    losses.adversarial(logits, True, network.head_weights()).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_gradients_reach_every_image(network: Discriminator) -> None:
    pyramid = [image.requires_grad_() for image in random_pyramid(2)]
    logits = predict(network, pyramid, random_tokens(2), random_lr(2))
    losses.adversarial(logits, True, network.head_weights()).backward()
    assert all((image.grad.abs().amax(dim=(1, 2, 3)) > 0).all() for image in pyramid)


@pytest.mark.parametrize("group_size", [0, 2])
def test_the_gradient_penalty_is_differentiable_through_attention(config: DiscriminatorConfig, group_size: int) -> None:
    network = Discriminator(config.model_copy(update={"minibatch_std": group_size}))
    pyramid = [image.requires_grad_() for image in random_pyramid(2)]
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no second derivative
        penalty = losses.r1(predict(network, pyramid, random_tokens(2), random_lr(2)), pyramid, network.head_weights())
        penalty.backward()
    assert penalty > 0
    weights = [(name, p) for name, p in network.named_parameters() if not name.endswith("bias")]
    without = [name for name, p in weights if p.grad is None or not p.grad.any() or not p.grad.isfinite().all()]
    assert without == []


def test_the_gradient_of_the_penalty_is_its_slope(config: DiscriminatorConfig) -> None:
    network = Discriminator(config).double()
    pyramid = [image.double().requires_grad_() for image in random_pyramid(2, 16, 16)]
    tokens = TokenFeatures(torch.randn(2, 1, 256).double(), torch.tensor([0, 0]), torch.ones(2, 1, dtype=torch.bool))
    weight, lr = network.stages[3].attention[0].self_attention.to_qk.weight, random_lr(2).double()

    def penalty(step: Tensor) -> Tensor:
        weight.data += step
        with sdpa_kernel(SDPBackend.MATH):
            return losses.r1(predict(network, pyramid, tokens, lr), pyramid, network.head_weights())

    (gradient,) = torch.autograd.grad(penalty(torch.zeros(())), weight)
    step = 1e-5 * gradient / gradient.norm()
    slope = (penalty(step) - penalty(-2 * step)) / 2e-5
    torch.testing.assert_close(slope, gradient.norm(), atol=0, rtol=1e-4)


# parts


def test_a_stage_roughly_keeps_the_mean_square_and_halves_the_size() -> None:
    y = Stage(StageConfig(channels=32, blocks=2, attention=1), 48, head_dim=8, attention_gain=0.3)(
        torch.randn(2, 32, 16, 24)
    )
    assert y.shape == (2, 48, 8, 12)
    assert 0.3 < y.square().mean() < 2


@pytest.mark.parametrize(
    ("batch", "group_size", "group"), [(4, 2, 2), (6, 4, 3), (5, 4, 5), (9, 4, 3), (8, 8, 8), (2, 4, 2)]
)
def test_minibatch_std_is_the_mean_deviation_within_each_group(batch: int, group_size: int, group: int) -> None:
    x = torch.randn(batch, 3, 4, 5)
    y = minibatch_std(x, group_size)
    assert torch.equal(y[:, :3], x)
    num_groups = batch // group
    for i in range(batch):
        members = x[i % num_groups :: num_groups]
        assert len(members) == group
        deviation = (members - members.mean(dim=0)).square().mean(dim=0).sqrt().mean()
        torch.testing.assert_close(y[i, 3], deviation.expand(4, 5), atol=2e-4, rtol=1e-5)


def test_minibatch_std_of_equal_samples_is_nearly_0() -> None:
    assert minibatch_std(torch.randn(1, 3, 4, 5).repeat(4, 1, 1, 1), 4)[:, 3].abs().max() < 1e-3


def test_state_dict_keys_are_public_names(network: Discriminator) -> None:
    keys = list(network.state_dict())
    assert {re.sub(r"\.\d+(?=\.)", ".*", key) for key in keys} == set(KEYS.split())
    assert len(keys) == 116
