import math

import pytest
import torch
from torch import Tensor

from gigasr.losses import adversarial, l1, r1, weighted_mean


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def logit_map(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_l1_is_the_mean_absolute_difference() -> None:
    fake, real = torch.tensor([0.5, -1.0, 0.25, 0.0]), torch.tensor([0.0, 1.0, 0.25, -0.5])
    assert l1(fake.view(1, 1, 2, 2), real.view(1, 1, 2, 2)).item() == 0.75


def test_maps_of_any_size_are_averaged_and_summed_with_one_weight_each() -> None:
    maps = [torch.full((2, 1, 4, 6), 3.0), logit_map(1.0, 2.0, 6.0)]
    assert weighted_mean(maps, [0.5, 2.0]).item() == 0.5 * 3 + 2 * 3


def test_a_map_without_a_weight_is_an_error() -> None:
    with pytest.raises(ValueError):
        weighted_mean([logit_map(1.0), logit_map(2.0)], [1.0])


@pytest.mark.parametrize(("is_real", "sign"), [(True, -1), (False, 1)])
def test_the_adversarial_loss_of_known_logits_is_their_logistic_loss(is_real: bool, sign: int) -> None:
    logits = [logit_map(0.0, 2.0), logit_map(-3.0)]
    expected = 1.0 * (softplus(0) + softplus(sign * 2)) / 2 + 0.1 * softplus(sign * -3)
    assert adversarial(logits, is_real, [1.0, 0.1]).item() == pytest.approx(expected)


def test_undecided_logits_cost_the_logarithm_of_two() -> None:
    for is_real in (True, False):
        assert adversarial([logit_map(0.0)], is_real, [1.0]).item() == pytest.approx(math.log(2))


def test_a_better_discriminator_has_a_lower_loss() -> None:
    def loss(real: float, fake: float) -> float:
        terms = adversarial([logit_map(real)], True, [1.0]) + adversarial([logit_map(fake)], False, [1.0])
        return terms.item()

    assert loss(real=2, fake=-2) < loss(real=1, fake=-2) < loss(real=0, fake=0) < loss(real=-2, fake=2)


def test_a_generator_that_fools_the_discriminator_has_a_lower_loss() -> None:
    assert adversarial([logit_map(2.0)], True, [1.0]) < adversarial([logit_map(-2.0)], True, [1.0])


def test_extreme_logits_give_a_finite_loss_and_gradient() -> None:
    logits = logit_map(-1e4, 1e4).requires_grad_()
    loss = adversarial([logits], True, [1.0])
    loss.backward()
    assert loss.item() == pytest.approx(5e3) and logits.grad.isfinite().all()


@pytest.mark.parametrize("batch", [1, 3])
def test_r1_of_a_linear_discriminator_is_half_its_squared_norm(batch: int) -> None:
    small, large = torch.randn(1, 3, 4, 5), torch.randn(1, 3, 8, 10)
    pyramid = [torch.randn(batch, *a.shape[1:]).requires_grad_() for a in (small, large)]
    logits = [(a * x).sum(dim=(1, 2, 3), keepdim=True) for a, x in zip((small, large), pyramid, strict=True)]
    penalty = r1(logits, pyramid, [0.3, 2.0])
    expected = 0.5 * (0.3**2 * small.square().sum() + 2.0**2 * large.square().sum())
    torch.testing.assert_close(penalty, expected)


def test_r1_covers_the_weighted_sum_of_all_predictions() -> None:
    a, b, x = torch.randn(1, 3, 4, 4), torch.randn(1, 3, 4, 4), torch.randn(2, 3, 4, 4).requires_grad_()
    logits = [(a * x).sum(dim=(1, 2, 3), keepdim=True), (b * x).sum(dim=1, keepdim=True)]  # the second has 16 pixels
    torch.testing.assert_close(r1(logits, [x], [0.5, 2.0]), 0.5 * (0.5 * a + 2.0 * b / 16).square().sum())


def test_r1_averages_over_the_samples() -> None:
    x = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1).requires_grad_()
    assert r1([x.square()], [x], [1.0]).item() == (0.5 * 2**2 + 0.5 * 6**2) / 2


def test_r1_reaches_the_discriminators_parameters() -> None:
    a, x = torch.randn(1, 3, 4, 4).requires_grad_(), torch.randn(2, 3, 4, 4).requires_grad_()
    r1([(a * x).sum(dim=(1, 2, 3), keepdim=True)], [x], [1.0]).backward()
    torch.testing.assert_close(a.grad, a.detach())
