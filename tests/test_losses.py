import math

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from gigasr.config.training import MIN_CROPS
from gigasr.data.captions import mismatch_mask, shuffle_captions
from gigasr.metrics import spectrum_error, ssim_y
from gigasr.metrics.ops import SSIM_WINDOW
from gigasr.training.losses import (
    MAX_SHIFT,
    SPECTRUM_SIDE,
    adversarial,
    charbonnier,
    clip_contrastive,
    l1,
    matching,
    r1,
    spectrum,
    ssim,
    weighted_sum,
)

pytestmark = pytest.mark.numerics


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


def test_charbonnier_is_the_mean_root_of_the_squared_difference_plus_eps_squared() -> None:
    fake, real = torch.tensor([0.5, 0.0]).view(1, 1, 1, 2), torch.tensor([0.1, 0.0]).view(1, 1, 1, 2)
    assert charbonnier(fake, real, eps=0.3).item() == pytest.approx((0.5 + 0.3) / 2)
    assert charbonnier(fake, real).item() == pytest.approx((math.hypot(0.4, 1e-3) + 1e-3) / 2)


def test_charbonnier_is_smooth_where_the_images_agree() -> None:
    fake = torch.zeros(1, 3, 4, 4, requires_grad=True)
    charbonnier(fake, fake.detach()).backward()
    assert fake.grad.eq(0).all()


def test_ssim_is_1_less_the_metric() -> None:
    real, fake = (torch.rand(1, 3, 40, 32).mul(255).round() / 255 for _ in range(2))
    fake = ((fake + real) * 127.5).round() / 255
    assert ssim(fake * 2 - 1, real * 2 - 1).item() == pytest.approx(1 - ssim_y(fake[0], real[0], border=0), abs=1e-4)
    assert ssim(real, real).item() == pytest.approx(0, abs=1e-5)


def test_crops_are_as_large_as_the_losses_need() -> None:
    assert MIN_CROPS == {"ssim": SSIM_WINDOW, "lpips": MAX_SHIFT + 1, "spectrum": SPECTRUM_SIDE}


def test_the_spectrum_of_half_the_contrast_is_6_db_off() -> None:
    real = torch.rand(2, 3, 128, 96) * 2 - 1
    assert spectrum(real / 2, real).item() == pytest.approx((20 * math.log10(2) / 10) ** 2, rel=1e-3)


def test_the_spectrum_sees_detail_in_the_wrong_place() -> None:
    real = torch.rand(1, 3, 64, 192) * 2 - 1
    real[..., :96] *= 0.1
    moved = real.roll(96, dims=-1)
    assert spectrum_error((moved[0] + 1) / 2, (real[0] + 1) / 2) < 6
    assert spectrum(moved, real) > 1


def test_a_step_down_the_spectrum_sharpens_a_blurred_image() -> None:
    real = torch.rand(2, 3, 64, 64) * 2 - 1
    fake = gaussian_blur(real, 5, 0.8).requires_grad_()
    before = spectrum(fake, real)
    (gradient,) = torch.autograd.grad(before, fake)
    sharper = fake.detach() - gradient / gradient.norm()
    assert spectrum(sharper, real) < before
    assert sharper.var() > fake.var()


def test_the_spectrum_of_flat_images_has_finite_gradients() -> None:
    flat = torch.full((1, 3, 64, 64), 0.5, requires_grad=True)
    loss = spectrum(flat, torch.full_like(flat, -0.5))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert flat.grad.isfinite().all()


def test_maps_of_any_size_are_averaged_and_summed_with_one_weight_each() -> None:
    maps = [torch.full((2, 1, 4, 6), 3.0), logit_map(1.0, 2.0, 6.0)]
    expected = 0.5 * softplus(3) + 2 * sum(softplus(x) for x in (1, 2, 6)) / 3
    assert adversarial(maps, False, [0.5, 2.0]).item() == pytest.approx(expected)


def test_a_map_without_a_weight_is_an_error() -> None:
    with pytest.raises(ValueError):
        weighted_sum([torch.tensor(1.0), torch.tensor(2.0)], [1.0])


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


def test_r1_weighs_stacked_levels_as_the_adversarial_loss_does() -> None:
    a, b = torch.randn(1, 3, 4, 4), torch.randn(1, 3, 4, 4)
    pyramid = [torch.randn(2, 3, 4, 4).requires_grad_() for _ in range(2)]
    stacked = torch.cat([(a * pyramid[1]).sum(dim=(1, 2, 3)), (b * pyramid[0]).sum(dim=(1, 2, 3))]).view(4, 1, 1, 1)
    expected = 0.5 * ((a / 2).square().sum() + (b / 2).square().sum())  # each level is half of the map's mean
    torch.testing.assert_close(r1([stacked], pyramid, [1.0]), expected)


def test_r1_averages_over_the_samples() -> None:
    x = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1).requires_grad_()
    assert r1([x.square()], [x], [1.0]).item() == (0.5 * 2**2 + 0.5 * 6**2) / 2


def test_r1_reaches_the_discriminators_parameters() -> None:
    a, x = torch.randn(1, 3, 4, 4).requires_grad_(), torch.randn(2, 3, 4, 4).requires_grad_()
    r1([(a * x).sum(dim=(1, 2, 3), keepdim=True)], [x], [1.0]).backward()
    torch.testing.assert_close(a.grad, a.detach())


def cyclic_lengths(order: list[int]) -> list[int]:
    """Lengths of a permutation's cycles."""
    seen: set[int] = set()
    lengths = []
    for start in range(len(order)):
        length, i = 0, start
        while i not in seen:
            seen.add(i)
            length, i = length + 1, order[i]
        lengths += [length] if length else []
    return lengths


@pytest.mark.parametrize("batch", range(2, 10))
@pytest.mark.parametrize("kinds", [1, 2, 3, 99])
def test_a_shuffle_is_a_permutation_without_a_fixed_point(batch: int, kinds: int) -> None:
    for seed in range(50):
        captions = [f"caption {i % kinds}" for i in range(batch)]
        order = shuffle_captions(captions, torch.Generator().manual_seed(seed)).tolist()
        assert sorted(order) == list(range(batch)) and all(i != other for i, other in enumerate(order))


def test_distinct_captions_go_round_in_one_circle_that_every_seed_draws_anew() -> None:
    captions = list("abcd")
    orders = [tuple(shuffle_captions(captions, torch.Generator().manual_seed(s)).tolist()) for s in range(200)]
    assert all(cyclic_lengths(list(order)) == [4] for order in orders)
    assert len(set(orders)) == 6  # all circles of four


def test_a_single_sample_keeps_its_caption_and_is_masked() -> None:
    order = shuffle_captions(["a"], torch.Generator())
    assert order.tolist() == [0] and mismatch_mask(["a"], order).tolist() == [False]


@pytest.mark.parametrize("captions", ["aab", "aabb", "aabbc", "aaabbc", "aaabbbc"])
def test_only_a_caption_of_more_than_half_the_batch_meets_itself(captions: str) -> None:
    inevitable = max(0, 2 * max(captions.count(c) for c in captions) - len(captions))
    for seed in range(50):
        order = shuffle_captions(captions, torch.Generator().manual_seed(seed))
        assert mismatch_mask(captions, order).logical_not().sum() == inevitable


def test_differs_is_false_where_the_swapped_in_caption_is_the_samples_own() -> None:
    assert mismatch_mask(["a", "b", "a", "c"], torch.tensor([2, 0, 3, 1])).tolist() == [False, True, True, True]


def test_an_empty_caption_is_a_wrong_one_for_no_sample() -> None:
    assert mismatch_mask(["", "b", "a"], torch.tensor([1, 2, 0])).tolist() == [True, True, False]


def test_the_matching_loss_is_the_mean_over_unmasked_samples_at_every_level() -> None:
    levels, batch, mask = 2, 3, torch.tensor([True, False, True])
    logits = [torch.randn(levels * batch, 1, 2, 2), torch.randn(batch, 1, 1, 1)]
    for is_real, sign in ((False, 1), (True, -1)):
        expected = 0.0
        for m, weight in zip(logits, (0.1, 1.0), strict=True):
            kept = [m[i] for i in range(len(m)) if mask[i % batch]]
            expected += (
                weight
                * sum(softplus(sign * x) for x in torch.cat(kept).flatten().tolist())
                / (len(kept) * m[0].numel())
            )
        assert matching(logits, [0.1, 1.0], mask, is_real).item() == pytest.approx(expected, rel=1e-5)


def test_without_a_mask_matching_is_the_adversarial_loss() -> None:
    logits = [torch.randn(6, 1, 4, 4), torch.randn(3, 1, 2, 2)]
    for is_real in (True, False):
        loss = matching(logits, [0.1, 1.0], torch.ones(3, dtype=torch.bool), is_real)
        torch.testing.assert_close(loss, adversarial(logits, is_real, [0.1, 1.0]))


def test_swapping_two_captions_changes_the_matching_loss() -> None:
    images, texts = torch.randn(3, 8), torch.randn(3, 8)

    def loss(order: list[int]) -> float:
        logits = (images * texts[order]).sum(dim=1).view(-1, 1, 1, 1)
        return matching([logits], [1.0], torch.ones(3, dtype=torch.bool)).item()

    assert loss([1, 2, 0]) != pytest.approx(loss([2, 1, 0]))


def test_masked_samples_have_no_gradient_whatever_their_logits() -> None:
    logits = torch.tensor([1.0, math.inf, -2.0, 0.5]).view(4, 1, 1, 1).requires_grad_()
    loss = matching([logits], [1.0], torch.tensor([True, False]))
    loss.backward()
    assert loss.isfinite() and logits.grad.flatten().ne(0).tolist() == [True, False, True, False]
    assert logits.grad[[1, 3]].eq(0).all()


def test_a_batch_that_is_masked_altogether_costs_nothing_and_can_be_differentiated() -> None:
    logits = torch.randn(4, 1, 2, 2).requires_grad_()
    loss = matching([logits], [1.0], torch.zeros(2, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0 and logits.grad.eq(0).all()


@pytest.mark.parametrize("offset", [0, 2])
def test_the_contrastive_loss_is_the_cross_entropy_of_cosine_similarities(offset: int) -> None:
    image, text = torch.randn(3, 4, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)
    expected = 0.0
    for i, x in enumerate(image):
        scores = [5.0 * float(x @ t) / float(x.norm() * t.norm()) for t in text]
        expected -= math.log(math.exp(scores[offset + i]) / sum(math.exp(s) for s in scores)) / len(image)
    assert clip_contrastive(image, text, 5.0, offset).item() == pytest.approx(expected)


def test_gathered_negatives_raise_the_contrastive_loss() -> None:
    image, text = torch.randn(4, 8), torch.randn(12, 8)
    own, gathered = clip_contrastive(image, text[4:8], 10.0), clip_contrastive(image, text, 10.0, offset=4)
    assert gathered > own


def test_images_that_agree_with_their_own_caption_cost_least() -> None:
    text = torch.randn(4, 16)
    right, wrong = clip_contrastive(text, text, 100.0), clip_contrastive(text.roll(1, 0), text, 100.0)
    assert right < 1e-3 < 10 < wrong


def test_empty_captions_are_right_and_wrong_of_no_image() -> None:
    image, text = torch.randn(4, 8).requires_grad_(), torch.randn(6, 8)
    has_caption = torch.tensor([True, False, True, True, False, True])
    loss = clip_contrastive(image, text, 10.0, 1, has_caption)  # the captions of the images are 1 to 4
    own, captioned = torch.tensor([1, 2]), text[has_caption]
    expected = clip_contrastive(image[own], captioned[[1, 2, 0, 3]], 10.0)
    torch.testing.assert_close(loss, expected)
    silent = clip_contrastive(image, text, 10.0, 1, torch.zeros(6, dtype=torch.bool))
    silent.backward()
    assert silent.item() == 0 and image.grad is not None and image.grad.eq(0).all()


def test_contrastive_learning_without_the_images_captions_is_an_error() -> None:
    with pytest.raises(
        ValueError, match=r"^text: expected at least offset \+ B = 5 captions, got 4; pass those of all"
    ):
        clip_contrastive(torch.randn(3, 8), torch.randn(4, 8), 1.0, offset=2)
