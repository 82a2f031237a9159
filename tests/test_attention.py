import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gigasr.networks.attention import AttentionUnit, ChannelNorm, CrossAttention, FeedForward, SelfAttention


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def shaken(module: nn.Module) -> nn.Module:
    """The module with every parameter moved, so that no bias is 0 and no gain 1."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return module.requires_grad_(False)


def test_channel_norm_gives_each_pixel_unit_mean_square_and_sees_no_other_pixel() -> None:
    layer, x = ChannelNorm(16).requires_grad_(False), 5 * torch.randn(2, 3, 4, 16)
    y = layer(x)
    torch.testing.assert_close(y.square().mean(dim=-1), torch.ones(2, 3, 4))
    assert torch.equal(layer(x[:, 1:2, 2:3]), y[:, 1:2, 2:3])


# self-attention


def naive_self_attention(layer: SelfAttention, x: Tensor, token: Tensor | None) -> Tensor:
    """x: [T, C], token: [1, C] or None -> [T, C], one head and one pixel at a time"""
    tokens = x if token is None else torch.cat([x, token])
    scale = 1 / math.sqrt(8 * layer.head_dim)
    heads = []
    for head in range(x.shape[1] // layer.head_dim):
        part = slice(head * layer.head_dim, (head + 1) * layer.head_dim)
        q, k, v = layer.to_qk(x)[:, part], layer.to_qk(tokens)[:, part], layer.to_v(tokens)[:, part]
        heads.append(torch.stack([(-scale * (qi - k).square().sum(dim=1)).softmax(dim=0) @ v for qi in q]))
    return layer.to_out(torch.cat(heads, dim=1))


@pytest.fixture
def attention() -> SelfAttention:
    return shaken(SelfAttention(16, w_dim=6, head_dim=8, window=4))


@pytest.fixture
def everywhere(attention: SelfAttention) -> SelfAttention:
    """Attention without windows, of equal weights."""
    layer = SelfAttention(16, w_dim=6, head_dim=8)
    layer.load_state_dict(attention.state_dict())
    return layer.requires_grad_(False)


@pytest.mark.parametrize("styled", [True, False])
def test_self_attention_ties_query_and_key_and_sees_w_as_one_more_token(
    everywhere: SelfAttention, styled: bool
) -> None:
    x, token = torch.randn(2, 3, 5, 16), everywhere.style_token(torch.randn(2, 6))
    y = everywhere(x, token if styled else None)
    for b in range(2):
        expected = naive_self_attention(everywhere, x[b].flatten(0, 1), token[b] if styled else None)
        torch.testing.assert_close(y[b].flatten(0, 1), expected, atol=1e-5, rtol=1e-4)


def test_a_windows_result_does_not_depend_on_the_rest_of_the_map(attention: SelfAttention) -> None:
    x, token = torch.randn(2, 8, 12, 16), attention.style_token(torch.randn(2, 6))
    inside = slice(None), slice(4, 8), slice(4, 8)
    other = torch.randn_like(x)
    other[inside] = x[inside]
    torch.testing.assert_close(attention(other, token)[inside], attention(x, token)[inside])
    torch.testing.assert_close(attention(x[inside], token), attention(x, token)[inside])


@pytest.mark.parametrize(("height", "width"), [(9, 10), (4, 7), (3, 4), (1, 1)])
def test_a_ragged_window_equals_attention_on_that_piece_alone(
    attention: SelfAttention, everywhere: SelfAttention, height: int, width: int
) -> None:
    x, token = torch.randn(2, height, width, 16), attention.style_token(torch.randn(2, 6))
    y = attention(x, token)
    assert y.shape == x.shape
    for top in range(0, height, 4):
        for left in range(0, width, 4):
            piece = slice(None), slice(top, top + 4), slice(left, left + 4)
            torch.testing.assert_close(y[piece], everywhere(x[piece], token), atol=1e-5, rtol=1e-4)


def test_a_window_that_covers_the_whole_map_is_global(attention: SelfAttention, everywhere: SelfAttention) -> None:
    attention.window = 8
    x, token = torch.randn(2, 5, 7, 16), attention.style_token(torch.randn(2, 6))
    torch.testing.assert_close(attention(x, token), everywhere(x, token), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(attention(x, None), everywhere(x, None), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("window", [0, 4])
def test_w_changes_the_attention_of_its_own_sample_only(attention: SelfAttention, window: int) -> None:
    attention.window = window
    x, w = torch.randn(2, 6, 5, 16), torch.randn(2, 6)
    y = attention(x, attention.style_token(w))
    w[1] = torch.randn(6)
    changed = attention(x, attention.style_token(w))
    torch.testing.assert_close(changed[0], y[0])
    assert ((changed[1] - y[1]).abs().amax(dim=2) > 0).all()


# cross-attention, feed-forward and the unit of all three


def test_cross_attention_is_a_dot_product_softmax_over_the_tokens() -> None:
    layer = shaken(CrossAttention(16, text_dim=12, head_dim=8))
    x, t_local = torch.randn(2, 3, 4, 16), torch.randn(2, 5, 12)
    mask = torch.tensor([[True] * 5, [True, False, True, True, False]])
    y = layer(x, *layer.keys_values(t_local), mask)
    for b in range(2):
        q, tokens = layer.to_q(x[b]), t_local[b, mask[b]]
        parts = slice(0, 8), slice(8, 16)
        logits = [q[..., part] @ layer.to_k(tokens)[:, part].T / math.sqrt(8) for part in parts]
        heads = [s.softmax(dim=2) @ layer.to_v(tokens)[:, part] for s, part in zip(logits, parts, strict=True)]
        torch.testing.assert_close(y[b], layer.to_out(torch.cat(heads, dim=2)), atol=1e-5, rtol=1e-4)


def test_cross_attention_ignores_masked_tokens_and_no_others() -> None:
    layer = shaken(CrossAttention(16, text_dim=12, head_dim=8))
    x, t_local, mask = torch.randn(1, 3, 4, 16), torch.randn(1, 5, 12), torch.tensor([[True, True, True, False, False]])
    y = layer(x, *layer.keys_values(t_local), mask)
    for token in range(5):
        changed = t_local.clone()
        changed[:, token] = torch.randn(12)
        is_same = torch.equal(layer(x, *layer.keys_values(changed), mask), y)
        assert is_same == (not mask[0, token])


def test_a_feed_forward_layer_sees_one_pixel_at_a_time() -> None:
    layer, x = shaken(FeedForward(8)), torch.randn(2, 3, 4, 8)
    inner = math.sqrt(2) * F.leaky_relu(layer.expand(x[1, 2, 3]), 0.2)
    assert inner.shape == (32,)
    torch.testing.assert_close(layer(x)[1, 2, 3], layer.contract(inner))


def test_an_attention_unit_adds_its_three_parts_one_after_another() -> None:
    unit = shaken(AttentionUnit(16, w_dim=6, text_dim=12, head_dim=8, gain=0.3))
    x, w, t_local = torch.randn(2, 16, 3, 5), torch.randn(2, 6), torch.randn(2, 4, 12)
    mask = torch.tensor([[True, True, True, False]]).repeat(2, 1)
    y = x.permute(0, 2, 3, 1)
    y = y + 0.3 * unit.self_attention(unit.self_norm(y), unit.self_attention.style_token(w))
    y = y + 0.3 * unit.cross_attention(unit.cross_norm(y), *unit.cross_attention.keys_values(t_local), mask)
    y = y + 0.3 * unit.feed_forward(unit.feed_norm(y))
    torch.testing.assert_close(unit(x, w, t_local, mask), y.permute(0, 3, 1, 2))
