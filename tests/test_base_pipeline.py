"""Prompts become pictures: the same seed the same picture, truncated, mixed, interpolated, upscaled to a size."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gigasr.models.checkpoint import CheckpointError, save_weights
from gigasr.pipeline import SuperResolver
from gigasr_base.config import load_base_config
from gigasr_base.generator import Generator
from gigasr_base.pipeline import TextToImage, check_reachable_size, upscale_image, upscale_strips
from gigasr_base.zoo import load_base

CONFIG = load_base_config(Path(__file__).parents[1] / "configs" / "base_tiny.toml").generator
A, B = "a red apple", "a small green pear on a table"


@pytest.fixture(scope="module")
def network() -> Generator:
    torch.manual_seed(0)
    network = Generator(CONFIG).eval().requires_grad_(False)
    network.w_mean.normal_()
    return network


@pytest.fixture(scope="module")
def base_model(network: Generator) -> TextToImage:
    return TextToImage(network, "cpu", "fp32")


def differ(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() > 1e-3)


# weights


def save(path: Path, state: dict[str, Tensor], kind: str = "base") -> str:
    save_weights(path, state, kind, CONFIG.model_dump(mode="json"), torch.float32)
    return str(path)


def test_saved_weights_generate_the_same_picture(base_model: TextToImage, network: Generator, tmp_path: Path) -> None:
    path = save(tmp_path / "base.safetensors", network.state_dict())
    loaded = TextToImage.from_pretrained(path, "cpu", "fp32")
    assert torch.equal(loaded.generate([A], [3], 0.5), base_model.generate([A], [3], 0.5))


def test_an_unknown_name_is_answered_with_the_bundled_ones() -> None:
    with pytest.raises(ValueError, match=r"expected a weights file or one of base_lite, got 'nonsense'"):
        load_base("nonsense")


def test_the_bundled_model_generates_a_red_heart_on_white() -> None:
    image = TextToImage.from_pretrained(device="cpu", precision="fp32").generate(["a red heart, flat style"], [0])[0]
    red, green, blue = image[:, 28:36, 28:36].mean(dim=(1, 2))
    assert red > 0.7 > 0.4 > max(green, blue)
    assert image[:, :4, :4].min() > 0.9


def test_weights_of_another_kind_or_shape_are_refused(network: Generator, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected the weights of a gigasr base, got upsampler"):
        load_base(save(tmp_path / "a.safetensors", network.state_dict(), "upsampler"))
    with pytest.raises(CheckpointError, match="expected weights that fit its config"):
        load_base(save(tmp_path / "b.safetensors", {"constant": torch.zeros(1)}))


# one prompt


def test_images_are_square_and_in_range_one_per_prompt_and_seed(base_model: TextToImage) -> None:
    images = base_model.generate([A, B, A], [0, 0, 1])
    assert images.shape == (3, 3, base_model.size, base_model.size)
    assert 0 <= images.min() < images.max() <= 1
    assert differ(images[0], images[1])
    assert differ(images[0], images[2])


def test_the_same_seed_gives_the_same_image_whatever_else_is_generated(base_model: TextToImage) -> None:
    assert torch.equal(base_model.generate([B, A], [9, 4])[1:], base_model.generate([A], [4]))


def test_images_are_the_networks(base_model: TextToImage, network: Generator) -> None:
    z = torch.randn(1, 8, generator=torch.Generator().manual_seed(5))
    rgb = network(z, base_model.tower.encode([A]))[-1]
    torch.testing.assert_close(base_model.generate([A], [5]), (rgb / 2 + 0.5).clamp(0, 1))


def test_bf16_generates_nearly_the_same(base_model: TextToImage, network: Generator) -> None:
    images = TextToImage(network, "cpu", "bf16").interpolate(A, B, 3)
    torch.testing.assert_close(images, base_model.interpolate(A, B, 3), atol=0.1, rtol=0)


def test_at_truncation_0_the_seed_changes_nothing_and_the_prompt_does(base_model: TextToImage) -> None:
    images = base_model.generate([A, A, B], [0, 1, 0], truncation=0)
    assert torch.equal(images[0], images[1])
    assert differ(images[0], images[2])


def test_truncation_brings_seeds_closer(base_model: TextToImage) -> None:
    spread = [base_model.generate([A] * 6, range(6), psi).std(dim=0).mean().item() for psi in (0.0, 0.3, 0.7, 1.0)]
    assert spread == sorted(spread)
    assert spread[0] < 1e-6 < spread[1]


@pytest.mark.parametrize("truncation", [-0.1, 1.5, float("nan")])
def test_a_truncation_out_of_range_is_refused(base_model: TextToImage, truncation: float) -> None:
    with pytest.raises(ValueError, match=r"truncation: expected 0..1"):
        base_model.generate([A], [0], truncation)


# two prompts


def test_mixing_at_4_px_is_all_style_and_above_the_size_none(base_model: TextToImage) -> None:
    assert torch.equal(base_model.mix(A, B, [2, 3], 4), base_model.generate([B, B], [2, 3]))
    for mix_at in (0, 2 * base_model.size):
        with pytest.raises(ValueError, match=f"mix_at: expected 1..{base_model.size} px, got {mix_at}"):
            base_model.mix(A, B, [2], mix_at)


def test_mixing_between_is_neither(base_model: TextToImage) -> None:
    for mix_at in (8, 16):
        mixed = base_model.mix(A, B, [2], mix_at)
        assert differ(mixed, base_model.generate([A], [2]))
        assert differ(mixed, base_model.generate([B], [2]))


def test_styles_of_one_prompt_are_mixed_by_seeds(base_model: TextToImage) -> None:
    assert torch.equal(base_model.mix(A, A, [2], 4, style_seeds=[5]), base_model.generate([A], [5]))
    assert differ(base_model.mix(A, A, [2], 8, style_seeds=[5]), base_model.generate([A], [2]))


@pytest.mark.parametrize("truncation", [1.0, 0.4])
def test_an_interpolation_starts_and_ends_with_the_two_prompts(base_model: TextToImage, truncation: float) -> None:
    reported: list[tuple[int, int]] = []
    frames = base_model.interpolate(
        A, B, 5, 1, 2, truncation, progress=lambda done, total: reported.append((done, total))
    )
    assert reported == [(i, 10) for i in range(1, 11)]
    ends = base_model.generate([A, B], [1, 2], truncation)
    torch.testing.assert_close(frames[[0, -1]], ends, atol=1e-5, rtol=0)
    assert all(differ(a, b) for a, b in zip(frames[:-1], frames[1:], strict=True))


def test_between_equal_ends_nothing_moves(base_model: TextToImage) -> None:
    frames = base_model.interpolate(A, A, 3, seed=1)
    torch.testing.assert_close(frames, frames[:1].expand(3, -1, -1, -1), atol=1e-5, rtol=0)


# sizes


def test_a_size_up_to_the_models_own_needs_no_upsampler(base_model: TextToImage) -> None:
    image = base_model.generate([A], [0])[0]
    assert torch.equal(upscale_image(image, (16, 16), None).rgb, image)
    assert upscale_image(image, (5, 9), None).size == (5, 9)
    with pytest.raises(ValueError, match="resolver: expected an upsampler for 17 px"):
        upscale_image(image, (17, 3), None)


def test_a_larger_size_is_the_middle_of_the_square_that_covers_it(base_model: TextToImage, tiny_weights: Path) -> None:
    resolver = SuperResolver.from_pretrained(str(tiny_weights), "cpu", "fp32")
    image = base_model.generate([A], [0])[0]
    square = upscale_image(image, (150, 150), resolver, A, seed=3).rgb
    assert square.shape == (3, 150, 150)
    assert torch.equal(upscale_image(image, (60, 150), resolver, A, seed=3).rgb, square[:, 45:105])
    strips = list(upscale_strips(image, (60, 150), resolver, A, seed=3).strips)
    assert torch.equal(torch.cat([strip.rgb for strip in strips], dim=1), square[:, 45:105])
    assert len(strips) > 1
    assert torch.equal(upscale_image(image, (150, 61), resolver, A, seed=3).rgb, square[:, :, 44:105])


def test_lists_that_do_not_pair_are_one_clear_error(base_model: TextToImage) -> None:
    for prompts, seeds, message in (
        (A, [0], "prompts: expected a list of one or more, got 'a red apple'"),
        ([], [], r"prompts: expected a list of one or more, got \[\]"),
        ([A], [], r"seeds: expected a list of one or more, got \[\]"),
        ([A, B], [0], "prompts and seeds: expected as many of each, got 2 and 1"),
    ):
        with pytest.raises(ValueError, match=message):
            base_model.generate(prompts, seeds)
    assert torch.equal(base_model.generate([A], np.arange(1)), base_model.generate([A], [0]))  # type: ignore[arg-type]


def test_a_prompt_that_is_cut_is_told(base_model: TextToImage, caplog: pytest.LogCaptureFixture) -> None:
    base_model.generate(["word " * 100], [0])
    assert [record.getMessage()[:37] for record in caplog.records] == ["prompt: cut to 75 of 100 tokens: 'wor"]


@pytest.mark.parametrize(("side", "size", "message"), [(8, (0, 4), "got 4x0"), (4, (4, 4), "expected a square one")])
def test_only_squares_are_upscaled_and_to_some_size(side: int, size: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        upscale_image(torch.rand(3, 8, side), size, None)


def test_what_the_upsampler_cannot_reach_is_refused_beforehand() -> None:
    check_reachable_size((1024, 1024), 16)
    check_reachable_size((1, 16), 16)
    with pytest.raises(ValueError, match="expected at most 64 times 16x16 px, got 1025x1025"):
        check_reachable_size((10, 1025), 16)
