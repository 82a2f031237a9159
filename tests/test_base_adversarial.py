"""The base generator is trained by the same adversarial task, from captions alone."""

import copy
from pathlib import Path

import pytest
import torch

from gigasr.config.training import DegradationConfig, LossConfig
from gigasr.data.loader import LoadedBatch
from gigasr.networks.text import TextFeatureCache
from gigasr.training.batches import Batch
from gigasr_base.adversarial import BaseAdversarialTask
from gigasr_base.config import load_base_config

ROOT = Path(__file__).parents[1]


@pytest.fixture
def task() -> BaseAdversarialTask:
    return BaseAdversarialTask.from_config(load_base_config(ROOT / "configs" / "base_tiny.toml"), torch.device("cpu"))


def make_batch(task: BaseAdversarialTask, count: int = 4, size: int = 16) -> Batch:
    hr = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    loaded = LoadedBatch(torch.arange(count), hr, ["a dog", "a cat", "snow", "rain"][:count])
    return task.make_batch(loaded, 1, DegradationConfig())


def test_there_is_no_low_res_image(task: BaseAdversarialTask) -> None:
    batch = make_batch(task)
    assert batch.lr is None and batch.noise is None


def test_the_generator_gives_the_pyramid_the_discriminator_reads(task: BaseAdversarialTask) -> None:
    batch = make_batch(task)
    fake, real = task.synthesize(task.generator_ema, batch), task.terms.real_pyramid(batch.hr)
    assert [x.shape for x in fake] == [x.shape for x in real]


def test_gradients_reach_every_parameter_of_both_networks(task: BaseAdversarialTask) -> None:
    batch, phase = make_batch(task), task.train.phases[0]
    sum(task.generator_terms(batch, phase, None).values()).backward()
    sum(task.discriminator_terms(batch, phase, None, is_penalised=True).values()).backward()
    for network in (task.generator, task.discriminator):
        missing = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
        assert not missing


def test_a_step_moves_both_networks_the_average_and_the_mean_of_w(task: BaseAdversarialTask) -> None:
    networks = (task.generator, task.discriminator, task.generator_ema)
    before = [torch.cat([p.flatten() for p in network.parameters()]).clone() for network in networks]
    log = task.step([make_batch(task)], task.train.phases[0], number=0)
    task.average(images_seen=4, batch_size=4)
    assert {"d/adversarial", "d/matching", "d/r1", "g/adversarial"} <= set(log)
    after = [torch.cat([p.flatten() for p in network.parameters()]) for network in networks]
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert task.generator.w_mean.any() and torch.equal(task.generator.w_mean, task.generator_ema.w_mean)


def test_scores_are_the_weighted_sums_over_heads_of_means_over_levels(task: BaseAdversarialTask) -> None:
    batch = make_batch(task)
    (maps,) = task.discriminator(task.terms.real_pyramid(batch.hr), [batch.tokens])
    expected = torch.zeros(4)
    for logits, weight in zip(maps, task.discriminator.head_weights(), strict=True):
        for row, logit in enumerate(logits):
            expected[row % 4] += weight * logit.mean() * 4 / len(logits)
    torch.testing.assert_close(task.scores(maps), expected)


def test_metrics_are_a_distance_and_in_adversarial_phases_shares(task: BaseAdversarialTask) -> None:
    metrics = task.metrics(make_batch(task))
    assert set(metrics) == {"psnr_y", "real_caption_preferred", "fake_caption_preferred"}
    assert all(0 <= metrics[name] <= 1 for name in metrics if name != "psnr_y")
    assert set(task.metrics(make_batch(task, size=8))) == {"psnr_y"}


def test_a_crop_below_the_size_trains_the_levels_up_to_it_alone(task: BaseAdversarialTask) -> None:
    phase = task.train.phases[0].model_copy(update={"crop": 8, "loss": LossConfig(l1=1.0, lpips=0.0, adversarial=0.0)})
    batch = make_batch(task, size=8)
    sum(task.generator_terms(batch, phase, None).values()).backward()
    for level, to_rgb, is_trained in zip(
        task.generator.levels, task.generator.to_rgb, (True, True, False), strict=True
    ):
        parameters = [*level.parameters(), *to_rgb.parameters()]
        assert all((p.grad is not None) == is_trained for p in parameters)


def test_l1_is_the_mean_over_the_levels(task: BaseAdversarialTask) -> None:
    phase = task.train.phases[0].model_copy(update={"loss": LossConfig(l1=1.0, lpips=0.0, adversarial=0.0)})
    batch = make_batch(task)
    pyramid = [torch.zeros_like(image) for image in task.terms.real_pyramid(batch.hr)]
    expected = sum(image.abs().mean() for image in task.terms.real_pyramid(batch.hr)) / 3
    torch.testing.assert_close(task.generator_terms(batch, phase, pyramid)["l1"], expected)


def test_kept_texts_are_what_the_tower_says(task: BaseAdversarialTask) -> None:
    memory, captions = TextFeatureCache(task.networks.text_tower), ["a dog", "a small green pear on a table", "a dog"]
    for texts in (captions, captions[::-1]):
        kept, said = memory.encode(texts), task.networks.text_tower.encode(texts)
        assert torch.equal(kept.eot, said.eot) and torch.equal(kept.mask, said.mask)
        torch.testing.assert_close(kept.features[kept.mask], said.features[said.mask], atol=1e-5, rtol=1e-5)


def test_levels_that_no_step_has_moved_resume_exactly(task: BaseAdversarialTask) -> None:
    phase = task.train.phases[0].model_copy(
        update={"loss": LossConfig(l1=1.0, lpips=0.0, adversarial=0.0, matching=0.0)}
    )
    task.step([make_batch(task, size=8)], phase, number=0)
    other = BaseAdversarialTask.from_config(task.config, torch.device("cpu"))
    other.networks.generator.load(copy.deepcopy(task.networks.generator.state()))
    for each in (task, other):
        each.step([make_batch(each)], phase, number=1)
    pairs = zip(task.generator.parameters(), other.generator.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
