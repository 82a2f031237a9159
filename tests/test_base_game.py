"""The base generator is trained by the same game, from captions alone."""

import copy
from pathlib import Path

import pytest
import torch

from gigasr.config.training import DegradationConfig, LossConfig
from gigasr.data.loader import LoadedBatch
from gigasr.networks.text import TextMemory
from gigasr.training.game import Batch
from gigasr_base.config import load_base_config
from gigasr_base.game import BaseGame

ROOT = Path(__file__).parents[1]


@pytest.fixture
def game() -> BaseGame:
    return BaseGame(load_base_config(ROOT / "configs" / "base_tiny.toml"), torch.device("cpu"))


def make_batch(game: BaseGame, count: int = 4, size: int = 16) -> Batch:
    hr = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    loaded = LoadedBatch(torch.arange(count), hr, ["a dog", "a cat", "snow", "rain"][:count])
    return game.make_batch(loaded, 1, DegradationConfig())


def test_there_is_no_low_res_image(game: BaseGame) -> None:
    batch = make_batch(game)
    assert batch.lr is None and batch.noise is None


def test_the_generator_gives_the_pyramid_the_discriminator_reads(game: BaseGame) -> None:
    batch = make_batch(game)
    fake, real = game.synthesize(game.generator_ema, batch), game.real_pyramid(batch.hr)
    assert [x.shape for x in fake] == [x.shape for x in real]


def test_gradients_reach_every_parameter_of_both_players(game: BaseGame) -> None:
    batch, phase = make_batch(game), game.train.phases[0]
    sum(game.generator_terms(batch, phase, None).values()).backward()
    sum(game.discriminator_terms(batch, phase, None, penalised=True).values()).backward()
    for network in (game.generator, game.discriminator):
        missing = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
        assert not missing


def test_a_step_moves_both_players_the_average_and_the_mean_of_w(game: BaseGame) -> None:
    networks = (game.generator, game.discriminator, game.generator_ema)
    before = [torch.cat([p.flatten() for p in network.parameters()]).clone() for network in networks]
    log = game.step([make_batch(game)], game.train.phases[0], number=0)
    game.average(images_seen=4, batch_size=4)
    assert {"d/adversarial", "d/matching", "d/r1", "g/adversarial"} <= set(log)
    after = [torch.cat([p.flatten() for p in network.parameters()]) for network in networks]
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert game.generator.w_mean.any() and torch.equal(game.generator.w_mean, game.generator_ema.w_mean)


def test_scores_are_the_weighted_sums_over_exits_of_means_over_levels(game: BaseGame) -> None:
    batch = make_batch(game)
    (maps,) = game.discriminator(game.real_pyramid(batch.hr), [batch.tokens])
    expected = torch.zeros(4)
    for logits, weight in zip(maps, game.discriminator.exit_weights(), strict=True):
        for row, logit in enumerate(logits):
            expected[row % 4] += weight * logit.mean() * 4 / len(logits)
    torch.testing.assert_close(game.scores(maps), expected)


def test_figures_are_a_distance_and_where_the_discriminator_plays_shares(game: BaseGame) -> None:
    figures = game.figures(make_batch(game))
    assert set(figures) == {"psnr_y", "real_caption_preferred", "fake_caption_preferred"}
    assert all(0 <= figures[name] <= 1 for name in figures if name != "psnr_y")
    assert set(game.figures(make_batch(game, size=8))) == {"psnr_y"}


def test_a_crop_below_the_size_trains_the_levels_up_to_it_alone(game: BaseGame) -> None:
    phase = game.train.phases[0].model_copy(update={"crop": 8, "loss": LossConfig(l1=1.0, lpips=0.0, adversarial=0.0)})
    batch = make_batch(game, size=8)
    sum(game.generator_terms(batch, phase, None).values()).backward()
    for level, to_rgb, is_trained in zip(
        game.generator.levels, game.generator.to_rgb, (True, True, False), strict=True
    ):
        parameters = [*level.parameters(), *to_rgb.parameters()]
        assert all((p.grad is not None) == is_trained for p in parameters)


def test_l1_is_the_mean_over_the_levels(game: BaseGame) -> None:
    phase = game.train.phases[0].model_copy(update={"loss": LossConfig(l1=1.0, lpips=0.0, adversarial=0.0)})
    batch = make_batch(game)
    pyramid = [torch.zeros_like(image) for image in game.real_pyramid(batch.hr)]
    expected = sum(image.abs().mean() for image in game.real_pyramid(batch.hr)) / 3
    torch.testing.assert_close(game.generator_terms(batch, phase, pyramid)["l1"], expected)


def test_kept_texts_are_what_the_tower_says(game: BaseGame) -> None:
    memory, captions = TextMemory(game.tower), ["a dog", "a small green pear on a table", "a dog"]
    for texts in (captions, captions[::-1]):
        kept, said = memory.encode(texts), game.tower.encode(texts)
        assert torch.equal(kept.eot, said.eot) and torch.equal(kept.mask, said.mask)
        torch.testing.assert_close(kept.features[kept.mask], said.features[said.mask], atol=1e-5, rtol=1e-5)


def test_levels_that_no_step_has_moved_resume_exactly(game: BaseGame) -> None:
    phase = game.train.phases[0].model_copy(
        update={"loss": LossConfig(l1=1.0, lpips=0.0, adversarial=0.0, matching=0.0)}
    )
    game.step([make_batch(game, size=8)], phase, number=0)
    other = BaseGame(game.config, torch.device("cpu"))
    other.players["g"].load(copy.deepcopy(game.players["g"].state()))
    for each in (game, other):
        each.step([make_batch(each)], phase, number=1)
    pairs = zip(game.generator.parameters(), other.generator.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
