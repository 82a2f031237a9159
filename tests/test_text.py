import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gigasr.networks.text import (
    CONTEXT_LENGTH,
    WEIGHTS,
    LiteTower,
    OpenClipTower,
    TextTransformer,
    TokenFeatures,
    count_tokens,
    load_tower,
    tokenize,
)

PROMPTS = ["a red apple", "an old stone bridge over a quiet river at dawn", ""]


@pytest.fixture(scope="module")
def lite() -> LiteTower:
    return load_tower("text_lite")


@pytest.fixture(scope="module")
def clip_name(tmp_path_factory: pytest.TempPathFactory) -> str:
    import open_clip

    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 3},
    }
    path = tmp_path_factory.mktemp("configs") / "gigasr-test-clip.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    open_clip.add_model_config(path)
    return path.stem


@pytest.fixture(scope="module")
def clip(clip_name: str) -> OpenClipTower:
    return load_tower(clip_name, None)


def token_features(lengths: list[int], padded: int, dim: int, seed: int = 0) -> TokenFeatures:
    """Random features whose real tokens do not depend on the amount of padding."""
    rng = torch.Generator().manual_seed(seed)
    real = torch.randn(len(lengths), max(lengths), dim, generator=rng)
    padding = torch.randn(len(lengths), padded - max(lengths), dim, generator=rng)
    eot = torch.tensor(lengths) - 1
    return TokenFeatures(torch.cat([real, padding], 1), eot, torch.arange(padded) <= eot[:, None])


def parameters_without_gradient(module: torch.nn.Module) -> list[str]:
    return [name for name, value in module.named_parameters() if value.grad is None or not value.grad.any()]


def best(lite: LiteTower, prompt: str, others: list[str]) -> str:
    scores: Tensor = lite.encode_sentences([prompt]) @ lite.encode_sentences(others).T
    return others[int(scores.argmax())]


def test_importing_the_module_does_not_import_open_clip() -> None:
    code = "import sys, gigasr.networks.text; sys.exit('open_clip' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent, check=False).returncode == 0


def test_eot_is_the_last_real_token_of_each_prompt() -> None:
    tokens, eot, mask = tokenize(PROMPTS)
    assert tokens.shape == mask.shape == (3, CONTEXT_LENGTH)
    assert eot.tolist() == [count_tokens(prompt) - 1 for prompt in PROMPTS] == [4, 11, 1]
    assert mask.sum(1).tolist() == [5, 12, 2]
    assert (tokens[torch.arange(3), eot] == 49407).all()


def test_a_prompt_of_ten_thousand_words_is_truncated_and_keeps_its_end_token(lite: LiteTower) -> None:
    prompt = "castle " * 10_000
    tokens, eot, mask = tokenize([prompt])
    assert count_tokens(prompt) == 10_002
    assert eot.tolist() == [CONTEXT_LENGTH - 1] and tokens[0, -1] == 49407 and mask.all()
    assert lite.encode([prompt]).features.isfinite().all()


def test_no_prompt_at_all_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"^texts: expected at least 1 prompt, got 0; pass \[''\]"):
        tokenize([])


@pytest.mark.parametrize("text", ["", "   ", "日本語 🍎", "ÄÖÜ ß", "a\nb\tc", "<end_of_text> and more", "!!!"])
def test_any_text_can_be_encoded(lite: LiteTower, text: str) -> None:
    encoded = lite.encode([text])
    assert encoded.features.isfinite().all()
    assert encoded.mask.sum() == encoded.eot + 1


def test_a_prompt_encodes_alike_alone_and_among_longer_ones(lite: LiteTower) -> None:
    together = lite.encode(PROMPTS)
    for index, prompt in enumerate(PROMPTS):
        alone = lite.encode([prompt])
        length = int(alone.eot) + 1
        torch.testing.assert_close(alone.features[0], together.features[index, :length], atol=1e-5, rtol=1e-4)


def test_trimming_the_batch_changes_no_value(lite: LiteTower) -> None:
    trimmed = lite.encode(PROMPTS)
    tokens, _, mask = tokenize(PROMPTS)
    full = lite(tokens, mask)[:, : trimmed.features.shape[1]]
    assert trimmed.features.shape[1] == 12
    torch.testing.assert_close(trimmed.features[trimmed.mask], full[trimmed.mask], atol=1e-5, rtol=1e-4)


def test_the_bundled_tower_is_small_and_frozen(lite: LiteTower) -> None:
    assert (WEIGHTS / "text_lite.safetensors").stat().st_size <= 12_000_000
    assert lite.width == lite.encode(PROMPTS).features.shape[2] == 256
    assert not lite.training and not any(parameter.requires_grad for parameter in lite.parameters())
    assert not lite.encode(PROMPTS).features.requires_grad


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [("puppy", "dog"), ("automobile", "car"), ("ocean", "sea"), ("physician", "doctor"), ("a red sofa", "couch")],
)
def test_the_bundled_tower_knows_synonyms(lite: LiteTower, prompt: str, expected: str) -> None:
    assert best(lite, prompt, ["dog", "car", "sea", "doctor", "couch", "tree", "bread", "hammer"]) == expected


def test_the_order_of_the_words_matters(lite: LiteTower) -> None:
    one, other = lite.encode_sentences(["a red car and a blue house", "a blue car and a red house"])
    assert one @ other < 0.9999


def test_clip_features_are_what_enters_the_last_block(clip_name: str) -> None:
    import open_clip

    torch.manual_seed(0)
    model = open_clip.create_model(clip_name, pretrained=None).eval()
    caught: list[Tensor] = []
    model.transformer.resblocks[-1].register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0]))
    model.encode_text(tokenize(PROMPTS)[0])
    torch.manual_seed(0)
    encoded = OpenClipTower(clip_name, None).encode(PROMPTS)
    torch.testing.assert_close(encoded.features, caught[0])
    assert encoded.mask.sum(1).tolist() == [5, 12, 2]


def test_a_local_clip_checkpoint_serves_as_tag(clip_name: str, tmp_path: Path) -> None:
    import open_clip

    model = open_clip.create_model(clip_name, pretrained=None)
    torch.save(model.state_dict(), tmp_path / "clip.pt")
    tower = load_tower(clip_name, str(tmp_path / "clip.pt"))
    assert torch.equal(tower.positions, model.positional_embedding)


def test_a_clip_tower_is_frozen(clip: OpenClipTower) -> None:
    assert clip.width == clip.encode(PROMPTS).features.shape[2] == 64
    assert not any(parameter.requires_grad for parameter in clip.parameters())


@pytest.mark.parametrize("name", ["no-such-model", "ViT-B-16-SigLIP", "coca_ViT-B-32"])
def test_a_tower_without_clip_tokens_is_an_error_that_names_it(name: str) -> None:
    with pytest.raises(ValueError, match=f"^text.name: expected .* got '{name}'; choose another"):
        load_tower(name)


@pytest.mark.parametrize("dim", [16, 32])
def test_the_text_transformer_maps_to_its_width(dim: int) -> None:
    text = TextTransformer(16, dim, depth=2, num_heads=4)(token_features([3, 7], 9, 16))
    assert text.t_local.shape == (2, 9, dim) and text.t_global.shape == (2, dim)


def test_t_global_is_the_element_at_each_prompts_own_end_token() -> None:
    text = TextTransformer(16, 16, depth=2, num_heads=4)(token_features([3, 7], 9, 16))
    assert torch.equal(text.t_global, torch.stack([text.t_local[0, 2], text.t_local[1, 6]]))


def test_the_mask_hides_the_end_token_and_the_padding() -> None:
    text = TextTransformer(16, 16, depth=1, num_heads=4)(token_features([3, 7], 9, 16))
    assert text.mask.sum(1).tolist() == [2, 6]
    assert text.mask[0, :2].all() and text.mask[1, :6].all()


@pytest.mark.parametrize("padded", [8, 20, 77])
def test_padding_changes_nothing_whatever_it_holds(padded: int) -> None:
    module = TextTransformer(16, 32, depth=2, num_heads=4, learning_rate_multiplier=1.0)
    short, long = (module(token_features([3, 7], length, 16)) for length in (7, padded))
    torch.testing.assert_close(short.t_global, long.t_global, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(short.t_local[short.mask], long.t_local[long.mask], atol=1e-5, rtol=1e-4)


def test_depth_zero_passes_the_towers_features_through() -> None:
    tokens = token_features([3, 7], 9, 16)
    text = TextTransformer(16, 16, depth=0, num_heads=4)(tokens)
    assert torch.equal(text.t_local, tokens.features)


def test_every_parameter_of_the_text_transformer_gets_a_gradient() -> None:
    module = TextTransformer(16, 32, depth=2, num_heads=4)
    text = module(token_features([3, 7], 9, 16))
    (text.t_local[text.mask].square().sum() + text.t_global.square().sum()).backward()
    assert parameters_without_gradient(module) == []


def test_other_tokens_reach_t_global_only_through_attention() -> None:
    tokens = token_features([3, 7], 9, 16)
    changed = dataclasses.replace(tokens, features=tokens.features.index_fill(1, torch.tensor([0]), 3.0))
    without, with_attention = (TextTransformer(16, 16, depth, 4, learning_rate_multiplier=1.0) for depth in (0, 1))
    assert torch.equal(without(tokens).t_global, without(changed).t_global)
    assert not torch.allclose(with_attention(tokens).t_global, with_attention(changed).t_global)


def test_heads_that_do_not_divide_the_width_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"^num_heads: expected a divisor of dim 16, got 3; change one of them$"):
        TextTransformer(16, 16, depth=1, num_heads=3)


def test_the_text_transformer_keeps_its_state_dict_keys() -> None:
    keys = set(TextTransformer(16, 32, depth=1, num_heads=4).state_dict())
    linears = ("to_qkv", "to_out", "mlp_in", "mlp_out", "norm_attention", "norm_mlp")
    names = ["from_tower", *(f"blocks.0.{name}" for name in linears)]
    assert keys == {f"{name}.{kind}" for name in names for kind in ("weight", "bias")}
