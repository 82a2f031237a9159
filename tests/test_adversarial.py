"""All networks see the same batch, and every part of both learns."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from gigasr.config.model import Config
from gigasr.config.training import DegradationConfig, LossConfig
from gigasr.data.loader import LoadedBatch
from gigasr.training import losses
from gigasr.training.adversarial import AdversarialTask
from gigasr.training.batches import Batch
from gigasr.training.cost import bare_task
from gigasr.training.losses import MAX_SHIFT, shift_images
from gigasr.training.terms import real_or_fake_terms


@pytest.fixture
def task(tiny_config: Config, lpips_features: Path) -> AdversarialTask:
    return AdversarialTask.from_config(tiny_config, torch.device("cpu"), lpips_features)


def make_batch(task: AdversarialTask, captions: list[str], first: int = 0) -> Batch:
    coarse = torch.stack(
        [torch.rand(3, 10, 10, generator=torch.Generator().manual_seed(first + i)) for i in range(len(captions))]
    )
    hr = F.interpolate(coarse, (64, 64), mode="bicubic").clamp(0, 1) * 2 - 1
    indices = torch.arange(first, first + len(captions))
    return task.make_batch(LoadedBatch(indices, hr, captions), task.scale, DegradationConfig(mild=0.5))


def test_a_sample_does_not_depend_on_its_batch(task: AdversarialTask) -> None:
    both, alone = make_batch(task, ["a dog", "a cat"]), make_batch(task, ["a dog"])
    assert torch.equal(both.z[:1], alone.z)
    assert torch.equal(both.noise[:1], alone.noise)
    assert torch.equal(both.shift[:1], alone.shift)
    assert torch.allclose(both.lr[:1], alone.lr, atol=1e-5)


def test_wrong_captions_belong_to_other_images(task: AdversarialTask) -> None:
    batch = make_batch(task, ["a dog", "a red house by the sea", "snow"])
    own, mismatched = batch.tokens.features, batch.mismatched.features
    assert not any(torch.equal(own[i], mismatched[i]) for i in range(3))
    assert sorted(mismatched.sum(dim=(1, 2)).tolist()) == sorted(own.sum(dim=(1, 2)).tolist())
    assert batch.is_mismatched.all()


def test_a_batch_of_one_caption_has_no_wrong_ones(task: AdversarialTask) -> None:
    assert not make_batch(task, ["snow", "snow"]).is_mismatched.any()


def test_swapping_two_captions_changes_the_matching_loss(task: AdversarialTask) -> None:
    phase = task.train.phases[1]
    torch.manual_seed(1)
    for parameter in task.discriminator.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    values = []
    for captions in (["a dog", "a cat", "snow", "a house"], ["a cat", "a dog", "snow", "a house"]):
        terms = task.discriminator_terms(make_batch(task, captions), phase, None, is_penalised=False)
        values.append(terms["matching"].item())
    assert values[0] != values[1]


def test_gradients_reach_every_parameter_of_both_networks(task: AdversarialTask) -> None:
    phase = task.train.phases[1]
    batch = make_batch(task, ["a dog", "a cat"])
    sum(task.generator_terms(batch, phase, None).values()).backward()
    sum(task.discriminator_terms(batch, phase, None, is_penalised=False).values()).backward()
    for network in (task.generator, task.discriminator):
        missing = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
        assert not missing


def test_the_generators_terms_leave_the_discriminator_alone(task: AdversarialTask) -> None:
    sum(task.generator_terms(make_batch(task, ["a dog", "a cat"]), task.train.phases[1], None).values()).backward()
    assert all(p.grad is None and p.requires_grad for p in task.discriminator.parameters())


def test_lpips_sees_every_picture_at_an_offset_of_its_own(task: AdversarialTask) -> None:
    shifts = torch.cat([make_batch(task, ["a dog", "a cat"], first).shift for first in range(0, 80, 2)])
    assert all(set(column) == set(range(MAX_SHIFT + 1)) for column in shifts.T.tolist())
    batch = dataclasses.replace(make_batch(task, ["a dog", "a cat"]), shift=torch.tensor([[3, 6], [0, 7]]))
    pyramid = task.fake_pyramid(batch)
    fake, real = shift_images(pyramid[-1], batch.shift), shift_images(batch.hr, batch.shift)
    assert torch.equal(real[0, :, 3 : 3 + 64, 6 : 6 + 64], batch.hr[0])
    assert torch.equal(real[1, :, :64, 7:], batch.hr[1])
    terms = task.generator_terms(batch, task.train.phases[0], pyramid)
    assert torch.isclose(terms["lpips"], task.networks.lpips(fake, real).mean())


def test_a_missing_network_is_named(task: AdversarialTask, tiny_config: Config) -> None:
    bare, batch = bare_task(AdversarialTask, tiny_config), make_batch(task, ["a dog", "a cat"])
    with pytest.raises(ValueError, match="networks.text_tower: expected a network, got None; build"):
        make_batch(bare, ["a dog", "a cat"])
    with pytest.raises(ValueError, match="networks.lpips: expected a network, got None; build"):
        bare.generator_terms(batch, tiny_config.train.phases[0], None)


@pytest.mark.numerics
def test_repeated_steps_on_one_batch_bring_the_picture_closer(task: AdversarialTask) -> None:
    phase = task.train.phases[0].model_copy(update={"generator_learning_rate": 0.02})
    batch = make_batch(task, ["a dog", "a cat"])
    values = [task.step([batch], phase, number)["g/l1"] for number in range(80)]
    assert values[-1] < 0.7 * values[0]


def test_the_averaged_generator_follows_with_its_half_life(task: AdversarialTask) -> None:
    with torch.no_grad():
        for a, b in zip(task.generator.parameters(), task.generator_ema.parameters(), strict=True):
            a.fill_(1.0)
            b.fill_(0.0)
    task.average(images_seen=1000, batch_size=10)  # the tiny config's half-life
    assert all(torch.allclose(p, torch.tensor(0.5)) for p in task.generator_ema.parameters())


def test_the_real_pyramid_is_the_truth_reduced(task: AdversarialTask) -> None:
    hr = torch.rand(2, 3, 64, 64) * 2 - 1
    pyramid = task.terms.real_pyramid(hr)
    assert [image.shape[-1] for image in pyramid] == [16, 32, 64]
    assert torch.equal(pyramid[-1], hr)


def test_attention_has_a_weight_decay_of_its_own(task: AdversarialTask) -> None:
    plain, attention = task.networks.generator.optimizer.param_groups
    assert (plain["weight_decay"], attention["weight_decay"]) == (1e-5, 0.01)
    names = {id(p): n for n, p in task.generator.named_parameters()}
    assert {".attention." in names[id(p)] for p in attention["params"]} == {True}
    assert {".attention." in names[id(p)] for p in plain["params"]} == {False}


def maps(*values: float) -> list[torch.Tensor]:
    """Logits of two samples at one exit."""
    return [torch.tensor(values).view(2, 1, 1, 1)]


def test_a_discriminator_is_to_call_real_images_real_and_everything_else_fake() -> None:
    matched, mismatched = maps(3.0, 3.0), maps(-3.0, -3.0)
    both = torch.tensor([True, True])
    good = real_or_fake_terms([matched, mismatched], [mismatched, mismatched], [1.0], both)
    assert good["adversarial"].item() == pytest.approx(2 * math.log1p(math.exp(-3)))
    assert good["matching"].item() == pytest.approx(2 * math.log1p(math.exp(-3)))
    assert real_or_fake_terms([matched, mismatched], [matched, mismatched], [1.0], both)["adversarial"] > 3
    assert real_or_fake_terms([matched, matched], [mismatched, mismatched], [1.0], both)["matching"] > 3
    assert real_or_fake_terms([matched, mismatched], [mismatched, matched], [1.0], both)["matching"] > 3


def test_a_generator_is_to_raise_all_logits_of_its_pictures(
    task: AdversarialTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    phase, batch = task.train.phases[1], make_batch(task, ["a dog", "a cat"])
    loss = phase.loss.model_copy(update={"generator_matching": 1.0})
    phase = phase.model_copy(update={"loss": loss})
    pyramid, forward = task.fake_pyramid(batch), task.discriminator.forward
    values = []
    for shift in (0.0, 1.0):
        monkeypatch.setattr(
            task.discriminator, "forward", lambda *a, s=shift: [[m + s for m in exits] for exits in forward(*a)]
        )
        values.append(task.terms.adversarial(batch, phase.loss, pyramid))
    assert set(values[0]) == {"adversarial", "generator_matching"}
    assert all(values[1][name] < values[0][name] for name in values[0])


def test_the_discriminator_learns_in_every_adversarial_phase(task: AdversarialTask) -> None:
    loss = LossConfig(lpips=0.0, adversarial=0.0, matching=0.0, generator_matching=1.0, r1=0.0)
    phase = task.train.phases[1].model_copy(update={"loss": loss})
    before = [p.clone() for p in task.discriminator.parameters()]
    log = task.step([make_batch(task, ["a dog", "a cat"])], phase, 0)
    assert set(log) == {"d/adversarial", "g/generator_matching"}
    assert any(not torch.equal(p, q) for p, q in zip(task.discriminator.parameters(), before, strict=True))


def test_the_lazy_penalty_counts_for_the_steps_without_it(task: AdversarialTask) -> None:
    phase, batch = task.train.phases[1], make_batch(task, ["a dog", "a cat"])
    reals = [image.requires_grad_() for image in task.terms.real_pyramid(batch.hr)]
    logits = task.discriminator(reals, [batch.tokens], batch.lr)[0]
    penalty = losses.r1(logits, reals, task.discriminator.head_weights())
    terms = task.discriminator_terms(batch, phase, None, is_penalised=True)
    torch.testing.assert_close(terms["r1"], task.train.r1_every * penalty)
    assert "r1" not in task.discriminator_terms(batch, phase, None, is_penalised=False)


def test_the_weight_of_the_adversarial_term_is_the_generators_alone(tiny_config: Config, lpips_features: Path) -> None:
    states = []
    for weight in (1.0, 0.01):
        task = AdversarialTask.from_config(tiny_config, torch.device("cpu"), lpips_features)
        loss = task.train.phases[1].loss.model_copy(update={"adversarial": weight})
        phase = task.train.phases[1].model_copy(update={"loss": loss})
        task.step([make_batch(task, ["a dog", "a cat"])], phase, number=1)
        states.append((task.discriminator.state_dict(), task.generator.state_dict()))
    (d, g), (other_d, other_g) = states
    assert all(torch.equal(d[name], other_d[name]) for name in d)
    assert not all(torch.equal(g[name], other_g[name]) for name in g)
