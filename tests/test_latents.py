"""Truncation, mixing, interpolation and vectors of w do what their formulas say."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from gigasr.networks.attention import CrossAttention
from gigasr.networks.blocks import MappingNetwork
from gigasr.networks.text import TextFeatures
from gigasr_base.generator import Condition
from gigasr_base.latents import draw_z, even_shares, interpolate_text, mix, prompt_mean, slerp, truncate


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def random_text(num_tokens: int, dim: int = 16) -> TextFeatures:
    """One prompt without padding; its last token is end-of-text."""
    mask = torch.arange(num_tokens)[None] < num_tokens - 1
    return TextFeatures(torch.randn(1, num_tokens, dim), torch.randn(1, dim), mask)


def attend(text: TextFeatures) -> Tensor:
    """What a fixed cross-attention reads from a text."""
    torch.manual_seed(1)
    attention = CrossAttention(16, 16, 8)
    return attention(torch.randn(1, 3, 3, 16), *attention.keys_values(text.t_local), text.mask)


# z and w


def test_a_seed_gives_its_z_whatever_stands_beside_it() -> None:
    together, alone = draw_z([3, 7, 5], 8), draw_z([7], 8)
    assert torch.equal(together[1:2], alone)
    assert not torch.equal(together[0], together[1])


def test_z_is_normally_distributed() -> None:
    z = draw_z(range(200), 64)
    assert abs(z.mean().item()) < 0.02
    assert abs(z.std().item() - 1) < 0.02


def test_the_prompts_mean_is_the_mean_of_a_loop_over_z() -> None:
    mapping, t_global = MappingNetwork(8, 6, 10, 2), torch.randn(3, 6)
    for i, mean in enumerate(prompt_mean(mapping, t_global, 8)):
        samples = [mapping(draw_z([seed], 8), t_global[i : i + 1])[0] for seed in range(16)]
        torch.testing.assert_close(mean, torch.stack(samples).mean(dim=0))


def test_truncation_leaves_w_alone_at_1_and_gives_the_prompts_mean_at_0() -> None:
    w, w_mean, w_prompt_mean = torch.randn(2, 8), torch.randn(8), torch.randn(2, 8)
    assert torch.equal(truncate(w, w_mean, w_prompt_mean, 1.0), w)
    assert torch.equal(truncate(w, w_mean, w_prompt_mean, 0.0), w_prompt_mean)


def test_truncation_pulls_to_the_global_mean_and_then_to_the_prompts() -> None:
    w, w_mean, w_prompt_mean = torch.full((1, 1), 8.0), torch.zeros(1), torch.full((1, 1), 4.0)
    assert truncate(w, w_mean, w_prompt_mean, 0.5).item() == 4 + 0.5 * (0.5 * 8 - 4)
    assert truncate(w, w_mean, w_prompt_mean, 0.25).item() == 4 + 0.25 * (0.25 * 8 - 4)


# mixing


@pytest.mark.parametrize(
    ("mix_at", "expected"), [(4, "fffff"), (8, "cffff"), (16, "ccfff"), (64, "ccccf"), (65, "ccccc")]
)
def test_levels_from_mix_at_on_follow_the_fine_condition(mix_at: int, expected: str) -> None:
    coarse, fine = (Condition(torch.randn(1, 8), random_text(4)) for _ in range(2))
    chosen = mix(coarse, fine, 5, mix_at)
    assert "".join("f" if condition is fine else "c" for condition in chosen) == expected


# interpolation


def test_the_ends_of_the_arc_are_the_two_vectors() -> None:
    a, b = torch.randn(2, 4, 8).unbind()
    torch.testing.assert_close(slerp(a, b, 0.0), a)
    torch.testing.assert_close(slerp(a, b, 1.0), b)


def test_on_the_arc_lengths_are_kept_and_angles_grow_evenly() -> None:
    a, b = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    for share in (0.0, 0.2, 0.5, 0.9):
        angle = share * math.pi / 2
        expected = torch.tensor([[2 * math.cos(angle), 2 * math.sin(angle)]])
        torch.testing.assert_close(slerp(a, b, share), expected)


def test_between_vectors_of_one_direction_the_arc_is_a_line() -> None:
    a = torch.randn(2, 8)
    torch.testing.assert_close(slerp(a, a, 0.3), a)
    torch.testing.assert_close(slerp(a, 3 * a, 0.5), 2 * a)


@pytest.mark.parametrize("lengths", [(6, 4), (4, 6), (5, 5)])
def test_the_ends_of_an_interpolation_read_as_the_two_prompts(lengths: tuple[int, int]) -> None:
    a, b = (random_text(length) for length in lengths)
    for share, text in ((0.0, a), (1.0, b)):
        blend = interpolate_text(a, b, share)
        torch.testing.assert_close(blend.t_global, text.t_global)
        torch.testing.assert_close(attend(blend), attend(text))


def test_tokens_of_both_prompts_are_interpolated() -> None:
    a, b = random_text(5), random_text(5)
    blend = interpolate_text(a, b, 0.25)
    torch.testing.assert_close(blend.t_local[:, :4], 0.75 * a.t_local[:, :4] + 0.25 * b.t_local[:, :4])
    torch.testing.assert_close(blend.t_global, 0.75 * a.t_global + 0.25 * b.t_global)
    torch.testing.assert_close(blend.mask.exp(), torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.0]]))


def test_a_token_of_one_prompt_fades() -> None:
    a, b = random_text(6), random_text(4)
    blend = interpolate_text(a, b, 0.25)
    torch.testing.assert_close(blend.t_local[:, 3:5], a.t_local[:, 3:5])
    torch.testing.assert_close(blend.mask.exp(), torch.tensor([[1.0, 1.0, 1.0, 0.75, 0.75, 0.0]]))


def test_a_small_step_between_prompts_of_different_length_is_a_small_change() -> None:
    a, b = random_text(6), random_text(3)
    for share in (0.0, 0.5, 0.999):
        near = attend(interpolate_text(a, b, share)) - attend(interpolate_text(a, b, share + 0.001))
        assert near.abs().max() < 0.02


# frames


def test_stops_lie_equally_far_apart_on_a_way_of_unequal_steps() -> None:
    steps = torch.tensor([1.0, 3.0, 0.0, 4.0])
    gone = torch.tensor([0.0, 1, 4, 4, 8])
    reached = np.interp(even_shares(steps, 5), [0, 0.25, 0.5, 0.75, 1], gone)
    np.testing.assert_allclose(reached, [0, 2, 4, 6, 8])


def test_stops_are_equally_spaced_where_there_is_no_way_to_go() -> None:
    assert even_shares(torch.zeros(7), 3) == [0, 0.5, 1]
