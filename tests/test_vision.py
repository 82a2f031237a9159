import copy
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from gigasr.config.networks import TextConfig
from gigasr.config.training import VisionConfig
from gigasr.networks.text import TokenFeatures
from gigasr.networks.vision import ImageTower, VisionDiscriminator, create_vit
from gigasr.training.losses import adversarial

SIZE, WIDTH = 32, 32
TEXT = TextConfig(tower_width=24, dim=16, depth=1, num_heads=2)
TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": SIZE, "layers": 3, "width": WIDTH, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def name(tmp_path_factory: pytest.TempPathFactory) -> str:
    import open_clip

    path = tmp_path_factory.mktemp("configs") / "gigasr-test-vision.json"
    path.write_text(json.dumps(TINY), encoding="utf-8")
    open_clip.add_model_config(path)
    return path.stem


@pytest.fixture(scope="module")
def tower(name: str) -> ImageTower:
    return ImageTower(name, None)


@pytest.fixture(scope="module")
def config(name: str) -> VisionConfig:
    return VisionConfig(tower=name, pretrained=None, layers=(1, 3), channels=8, text=TEXT)


@pytest.fixture
def network(config: VisionConfig) -> VisionDiscriminator:
    return VisionDiscriminator(config)


def random_images(batch: int, height: int = SIZE, width: int = SIZE) -> Tensor:
    return torch.rand(batch, 3, height, width) * 2 - 1


def random_tokens(batch: int) -> TokenFeatures:
    eot = torch.arange(batch) + 2
    return TokenFeatures(torch.randn(batch, 9, TEXT.tower_width), eot, torch.arange(9) <= eot[:, None])


def unused(module: torch.nn.Module) -> list[str]:
    return [name for name, value in module.named_parameters() if value.grad is None or not value.grad.any()]


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 64), (20, 20), (48, 24)])
def test_images_of_any_size_give_one_map_of_tiles_per_layer(tower: ImageTower, height: int, width: int) -> None:
    maps = tower.maps(random_images(2, height, width), (1, 2, 3))
    assert [m.shape for m in maps] == [(2, WIDTH, 4, 4)] * 3


def test_a_map_holds_the_patch_tokens_after_its_block_without_the_class_token(tower: ImageTower) -> None:
    caught: list[Tensor] = []
    block = tower.model.visual.transformer.resblocks[1]
    handle = block.register_forward_hook(lambda module, inputs, output: caught.append(output))
    (second,) = tower.maps(random_images(2), (2,))
    handle.remove()
    torch.testing.assert_close(second.flatten(2).transpose(1, 2), caught[0][:, 1:])


def test_a_patch_of_the_image_meets_its_own_place_in_the_first_map(tower: ImageTower) -> None:
    image = random_images(1)
    changed = image.clone()
    changed[:, :, 8:16, 24:32] *= -1  # row 1, column 3 of the grid
    difference = (tower.maps(changed, (1,))[0] - tower.maps(image, (1,))[0]).norm(dim=1)[0]
    assert difference.argmax() == 1 * 4 + 3


def test_an_image_of_the_towers_size_is_not_resampled(tower: ImageTower) -> None:
    image = random_images(2)
    expected = ((image + 1) / 2 - tower.mean) / tower.std
    torch.testing.assert_close(tower.prepare(image), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("side", [20, 80])
def test_the_preparation_agrees_with_that_of_open_clip(tower: ImageTower, side: int) -> None:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    preprocess = image_transform_v2(PreprocessCfg(**tower.model.visual.preprocess_cfg), is_train=False)
    smooth = torch.nn.functional.interpolate(random_images(1, 5, 5) * 0.8, (side, side), mode="bilinear")
    pixels = (smooth[0] * 127.5 + 127.5).round().byte()
    expected = preprocess(Image.fromarray(pixels.permute(1, 2, 0).numpy()))
    images = pixels[None].float() / 127.5 - 1
    step = 1 / 255 / tower.std.min().item()  # one grey level: pillow rounds once per axis
    torch.testing.assert_close(tower.prepare(images)[0], expected, atol=1.1 * step, rtol=0)


def test_gradients_reach_every_pixel_and_no_parameter_of_the_tower(tower: ImageTower) -> None:
    images = random_images(2, 40, 24).requires_grad_()
    (tower.maps(images, (1, 3))[1].square().mean() + tower.embed_images(images).square()[:, 0].sum()).backward()
    assert images.grad.ne(0).all()
    assert all(value.grad is None and not value.requires_grad for value in tower.parameters())


def test_embeddings_are_unit_vectors_of_one_space(tower: ImageTower) -> None:
    image, text = tower.embed_images(random_images(2)), tower.embed_texts(["a red apple", "a bridge", ""])
    assert image.shape == (2, 16) and text.shape == (3, 16)
    for embedding in (image, text):
        torch.testing.assert_close(embedding.norm(dim=1), torch.ones(len(embedding)))
    assert not text.requires_grad


def test_the_scale_is_the_towers_learned_one(tower: ImageTower) -> None:
    assert tower.scale.item() == pytest.approx(1 / 0.07) and not tower.scale.requires_grad


def test_a_local_file_serves_as_tag(tower: ImageTower, name: str, tmp_path: Path) -> None:
    torch.save(tower.model.state_dict(), tmp_path / "clip.pt")
    other, images = ImageTower(name, str(tmp_path / "clip.pt")), random_images(2)
    assert torch.equal(other.embed_images(images), tower.embed_images(images))


@pytest.mark.parametrize("wrong", ["no-such-model", "RN50", "ViT-B-16-SigLIP", "coca_ViT-B-32"])
def test_a_model_without_a_clip_vision_transformer_is_an_error_that_names_it(wrong: str) -> None:
    with pytest.raises(ValueError, match=f"^tower: expected an open_clip model .* got '{wrong}'; choose another"):
        create_vit(wrong, None)


@pytest.mark.parametrize("layers", [(), (0, 1), (2, 4), (3, 1), (1, 1)])
def test_layers_that_the_tower_does_not_have_are_an_error(config: VisionConfig, layers: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^vision.layers: expected increasing numbers from 1 to 3, got \("):
        VisionDiscriminator(config.model_copy(update={"layers": layers}))


def test_the_discriminator_gives_one_logit_map_per_layer(network: VisionDiscriminator) -> None:
    logits = network(random_images(3, 64, 64), [random_tokens(3)])[0]
    assert [m.shape for m in logits] == [(3, 1, 4, 4)] * 2
    assert len(network.head_weights()) == 2 and sum(network.head_weights()) == 1


def test_projections_are_equal_in_all_instances_and_differ_between_layers(config: VisionConfig) -> None:
    one, other = VisionDiscriminator(config), VisionDiscriminator(config)
    for a, b in zip(one.projections, other.projections, strict=True):
        assert torch.equal(a.matrix, b.matrix)
    assert not torch.equal(one.projections[0].matrix, one.projections[1].matrix)
    assert not torch.equal(one.heads[0].conv.weight, other.heads[0].conv.weight)


def test_projected_features_have_about_unit_variance(network: VisionDiscriminator) -> None:
    for features in network.features(random_images(8)):
        assert features.square().mean().sqrt() == pytest.approx(1, abs=0.3)


def test_the_text_changes_the_logits_of_its_own_sample_alone(network: VisionDiscriminator) -> None:
    images, tokens = random_images(2), random_tokens(2)
    changed = copy.deepcopy(tokens)
    changed.features[0] = torch.randn(9, TEXT.tower_width)
    for before, after in zip(network(images, [tokens])[0], network(images, [changed])[0], strict=True):
        torch.testing.assert_close(before[1], after[1])
        assert not torch.allclose(before[0], after[0])


def test_features_are_evaluated_as_in_one_pass(network: VisionDiscriminator) -> None:
    images, tokens = random_images(2), random_tokens(2)
    for a, b in zip(network.predict(network.features(images), tokens), network(images, [tokens])[0], strict=True):
        assert torch.equal(a, b)


def test_gradients_reach_the_image_and_every_trained_parameter(network: VisionDiscriminator) -> None:
    images = random_images(2).requires_grad_()
    adversarial(network(images, [random_tokens(2)])[0], True, network.head_weights()).backward()
    assert images.grad.ne(0).all() and unused(network) == []
    assert all(value.grad is None for value in network.tower.parameters())


def test_a_few_steps_lower_its_own_loss(network: VisionDiscriminator) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.0025, betas=(0.0, 0.99))
    tokens, losses = random_tokens(4), []
    real, fake = torch.nn.functional.interpolate(random_images(4, 4, 4), SIZE, mode="bilinear"), random_images(4)
    for _ in range(10):
        terms = [adversarial(network(x, [tokens])[0], x is real, network.head_weights()) for x in (real, fake)]
        losses.append(sum(terms))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.95 * losses[0]


def test_the_state_holds_the_trained_parts_and_the_projections_alone(network: VisionDiscriminator) -> None:
    trained = {name for name, _ in network.named_parameters()}
    assert {name.split(".")[0] for name in trained} == {"heads", "text_transformer"}
    assert set(network.state_dict()) - trained == {"projections.0.matrix", "projections.1.matrix"}


def test_thawing_the_discriminator_leaves_the_tower_frozen(network: VisionDiscriminator) -> None:
    network.requires_grad_(True).train()
    assert not any(value.requires_grad for value in network.tower.parameters()) and not network.tower.training


def test_the_tower_moves_with_the_discriminator(network: VisionDiscriminator) -> None:
    network.double()
    assert {value.dtype for value in network.tower.parameters()} == {torch.float64}
    tokens = random_tokens(2)
    tokens = TokenFeatures(tokens.features.double(), tokens.eot, tokens.mask)
    assert network(random_images(2).double(), [tokens])[0][0].dtype == torch.float64


def test_a_saved_state_restores_the_logits(config: VisionConfig, network: VisionDiscriminator) -> None:
    other = copy.deepcopy(network)
    for value in other.parameters():
        value.data.normal_()
    images, tokens = random_images(2), random_tokens(2)
    other.load_state_dict(network.state_dict())
    for a, b in zip(network(images, [tokens])[0], other(images, [tokens])[0], strict=True):
        assert torch.equal(a, b)
