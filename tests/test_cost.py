"""What a dry run counts is what is computed and kept."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from gigasr.cli import main
from gigasr.cli.train import format_cost
from gigasr.config.model import Config
from gigasr.config.training import LossConfig, PhaseConfig
from gigasr.networks.ops import conv2d_per_sample
from gigasr.training.adversarial import AdversarialTask
from gigasr.training.cost import (
    PhaseCost,
    StepCost,
    TrainingCost,
    bare_task,
    cost_of_phase,
    extrapolate_step,
    measure_step,
    memory_of_networks,
    peak_activations,
    step_flops,
)
from gigasr.training.flop_counter import FlopMemoryCounter

L1 = LossConfig(l1=1.0, lpips=0.0, adversarial=0.0, matching=0.0, r1=0.0)
CONFIGS = Path(__file__).parents[1] / "configs"


def change(config: Config, phase: dict[str, Any] | None = None, **train: Any) -> Config:
    """The config with other settings of the training, and of all its phases."""
    phases = tuple(p.model_copy(update=phase or {}) for p in config.train.phases)
    return config.model_copy(update={"train": config.train.model_copy(update={"phases": phases, **train})})


def test_a_linear_layer_takes_two_operations_per_weight_and_row() -> None:
    layer, x = nn.Linear(5, 7), torch.randn(3, 5, requires_grad=True)
    with FlopMemoryCounter() as counter:
        y = layer(x)
    assert counter.flops == 2 * 3 * 5 * 7
    with counter:
        y.sum().backward()
    assert counter.flops == 3 * (2 * 3 * 5 * 7)


@pytest.mark.parametrize(("stride", "groups"), [(1, 1), (2, 1), (1, 4)])
def test_a_convolution_takes_two_operations_per_weight_and_position(stride: int, groups: int) -> None:
    layer = nn.Conv2d(8, 12, 3, stride, padding=1, groups=groups)
    forward = 2 * 5 * 12 * (8 // groups) * 9 * (16 // stride) ** 2
    with FlopMemoryCounter() as counter:
        y = layer(torch.randn(5, 8, 16, 16, requires_grad=True))
    assert counter.flops == forward
    with counter:
        y.sum().backward()
    assert counter.flops == 3 * forward


def test_a_transposed_convolution_takes_them_per_position_of_its_input() -> None:
    layer = nn.ConvTranspose2d(8, 12, 4, stride=2, padding=1)
    forward = 2 * 5 * 8 * 12 * 16 * 6 * 6
    with FlopMemoryCounter() as counter:
        layer(torch.randn(5, 8, 6, 6, requires_grad=True)).sum().backward()
    assert counter.flops == 3 * forward


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_kernels_per_sample_cost_each_sample_one_convolution(batch: int) -> None:
    x, kernel = torch.randn(batch, 4, 8, 8, requires_grad=True), torch.randn(batch, 6, 4, 3, 3, requires_grad=True)
    with FlopMemoryCounter() as counter:
        conv2d_per_sample(x, kernel).sum().backward()
    assert counter.flops == 3 * (2 * batch * 6 * 4 * 9 * 64)


def test_attention_takes_two_products_forward_and_five_back() -> None:
    q, k, v = (torch.randn(2, 3, tokens, 16, requires_grad=True) for tokens in (10, 6, 6))
    product = 2 * 2 * 3 * 10 * 6 * 16
    with FlopMemoryCounter() as counter:
        y = F.scaled_dot_product_attention(q, k, v)
    assert counter.flops == 2 * product
    with counter:
        y.sum().backward()
    assert counter.flops == 7 * product


def test_a_small_network_keeps_what_its_backward_pass_needs() -> None:
    network = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))
    x = torch.randn(4, 5)
    with FlopMemoryCounter(network) as counter, counter.track_saved_tensors():
        network(x)
    assert counter.saved_bytes == 4 * (
        4 * 5 + 4 * 7
    )  # the input and the ReLU's result, which the second layer needs too


def test_what_is_kept_twice_or_as_a_view_counts_once() -> None:
    x = torch.randn(6, 6, requires_grad=True)
    with FlopMemoryCounter() as counter, counter.track_saved_tensors():
        (x * x[0]).exp() @ x.T
    assert counter.saved_bytes == 2 * 4 * 36  # x and the exponential


def test_nothing_is_kept_without_gradients() -> None:
    with torch.no_grad(), FlopMemoryCounter() as counter, counter.track_saved_tensors():
        nn.Linear(5, 7)(torch.randn(4, 5))
    assert counter.saved_bytes == 0


@pytest.fixture(scope="module")
def tiny_measures(tiny_config: Config) -> dict[int, StepCost]:
    """One adversarial step of the tiny upsampler, played on 2, 3 and 4 images."""
    with FakeTensorMode():
        task = bare_task(AdversarialTask, tiny_config)
        return {size: measure_step(task, task.train.phases[1], size) for size in (2, 3, 4)}


def test_fake_tensors_cost_what_real_ones_do(tiny_config: Config, tiny_measures: dict[int, StepCost]) -> None:
    task = bare_task(AdversarialTask, tiny_config)
    assert measure_step(task, task.train.phases[1], 3) == tiny_measures[3]


def test_operations_grow_linearly_with_the_batch(tiny_measures: dict[int, StepCost]) -> None:
    for name, two in tiny_measures[2].flops.items():
        three, four = (tiny_measures[size].flops[name] for size in (3, 4))
        assert four - three == three - two > 0


def test_a_large_batch_is_measured_without_playing_it(tiny_config: Config, tiny_measures: dict[int, StepCost]) -> None:
    with FakeTensorMode():
        task = bare_task(AdversarialTask, tiny_config)
        measured = extrapolate_step(task, task.train.phases[1], 4)
    assert measured[:2] == tiny_measures[4][:2]
    assert measured.saved_bytes == pytest.approx(
        tiny_measures[4].saved_bytes, rel=0.01
    )  # the groups of minibatch_std differ


def test_operations_grow_about_quadratically_with_the_crop(
    tiny_config: Config, tiny_measures: dict[int, StepCost]
) -> None:
    config = change(tiny_config, {"crop": 128})
    with FakeTensorMode():
        loss = L1.model_copy(update={"adversarial": 1.0})
        wide = measure_step(
            bare_task(AdversarialTask, config), config.train.phases[1].model_copy(update={"loss": loss}), 3
        )
    for part in ("generator.levels", "generator.to_rgb", "discriminator.stages", "discriminator.from_rgb"):
        assert 3.5 < wide.parts[part] / tiny_measures[3].parts[part] < 5  # small maps are convolved another way
    assert wide.parts["generator.mapping"] == tiny_measures[3].parts["generator.mapping"]


def test_the_parts_make_up_the_whole(tiny_measures: dict[int, StepCost]) -> None:
    parts = tiny_measures[3].parts
    for network in ("generator", "discriminator"):
        assert sum(flops for name, flops in parts.items() if name.startswith(f"{network}.")) == parts[network]
    assert parts["generator"] == tiny_measures[3].flops["fake"]


def test_checkpointing_keeps_less_and_computes_the_levels_twice(
    tiny_config: Config, tiny_measures: dict[int, StepCost]
) -> None:
    with FakeTensorMode():
        task = bare_task(AdversarialTask, change(tiny_config, gradient_checkpointing=True))
        saving = measure_step(task, task.train.phases[1], 3)
    plain = tiny_measures[3]
    assert saving.saved_bytes["fake"] < 0.5 * plain.saved_bytes["fake"]
    assert peak_activations(saving.saved_bytes, 1, True) < peak_activations(plain.saved_bytes, 1, False)
    assert saving.saved_bytes["level"] == plain.saved_bytes["level"] > 0
    assert 0.9 < (saving.flops["g"] - plain.flops["g"]) / plain.parts["generator.levels"] <= 1  # but for what ends them
    assert (saving.flops["fake"], saving.flops["d"]) == (plain.flops["fake"], plain.flops["d"])


def test_half_precision_keeps_less(tiny_config: Config, tiny_measures: dict[int, StepCost]) -> None:
    with FakeTensorMode():
        task = bare_task(AdversarialTask, change(tiny_config, precision="bf16"))
        half = measure_step(task, task.train.phases[1].model_copy(update={"loss": L1}), 3)
    assert half.saved_bytes["fake"] < 0.8 * tiny_measures[3].saved_bytes["fake"]


def test_a_step_is_both_networks_passes_and_a_share_of_the_penalty() -> None:
    flops = {"fake": 1, "d": 10, "r1": 170, "g": 1000}
    assert step_flops(flops, gradient_accumulation_steps=1, r1_every=16) == 1021
    assert step_flops(flops, gradient_accumulation_steps=2, r1_every=16) == 1022  # synthesized for each network
    assert step_flops({"fake": 1, "g": 1000}, gradient_accumulation_steps=2, r1_every=16) == 1001


def test_the_peak_holds_the_generators_tensors_beside_one_pass_of_the_discriminator() -> None:
    saved_bytes = {"fake": 100, "d": 20, "r1": 70, "g": 30, "level": 50}
    assert peak_activations(saved_bytes, gradient_accumulation_steps=1, gradient_checkpointing=False) == 170
    assert peak_activations(saved_bytes, gradient_accumulation_steps=2, gradient_checkpointing=False) == 130
    assert peak_activations(saved_bytes, gradient_accumulation_steps=2, gradient_checkpointing=True) == 150
    assert (
        peak_activations(
            {"fake": 100, "g": 30, "level": 50}, gradient_accumulation_steps=1, gradient_checkpointing=False
        )
        == 130
    )


def test_the_optimiser_takes_eight_bytes_per_parameter_and_less_in_shards(tiny_config: Config) -> None:
    with FakeTensorMode():
        task = bare_task(AdversarialTask, tiny_config)
        sharded = bare_task(AdversarialTask, change(tiny_config, fsdp=True))
    g, d = (sum(p.numel() for p in network.parameters()) for network in (task.generator, task.discriminator))
    assert memory_of_networks(task, 4)["optimiser"] == memory_of_networks(sharded, 1)["optimiser"] == 8 * (g + d)
    assert memory_of_networks(sharded, 4)["optimiser"] == 8 * (g / 4 + d)
    assert memory_of_networks(sharded, 4)["average"] == g
    assert memory_of_networks(task, 1)["exchange"] == 0


def test_a_phase_without_a_discriminator_costs_the_generator_alone(tiny_config: Config) -> None:
    with FakeTensorMode():
        task = bare_task(AdversarialTask, tiny_config)
        assert set(measure_step(task, task.train.phases[0], 2).flops) == {"fake", "g"}


def test_a_batch_that_the_gpus_cannot_share_is_an_error(tiny_config: Config) -> None:
    with FakeTensorMode(), pytest.raises(ValueError, match="expected a multiple of 3"):
        task = bare_task(AdversarialTask, tiny_config)
        cost_of_phase(task, task.train.phases[0], gpus=3)


def test_days_and_rates_follow_from_the_operations() -> None:
    phase = PhaseConfig(images=86_400, crop=64, batch_size=8)
    memory = {"weights": 4e9, "activations": 3e9}
    cost = PhaseCost(phase, 4, {"generator": 5e6}, flops=2e12, memory=memory)
    text = format_cost(TrainingCost({"generator": 1234}, [cost], gpus=2), tflops=1, days=0.5)
    assert "86.4 k images, 172.8 PFLOP on 2 x 1 TFLOP/s: 1 days, 1 images/s" in text
    assert "in 0.5 days: 2 images/s, 2 TFLOP/s per GPU" in text
    rows = [line.split() for line in text.splitlines()]
    assert ["generator", "1,234", "5", "M"] in rows
    assert ["1", "86.4", "k", "64", "8", "4", "2", "T", "1"] in rows
    assert ["sum", "7", "G"] in rows


@pytest.mark.parametrize("name", ["upsampler_tiny", "base_64"])
def test_a_dry_run_prints_operations_memory_and_days(name: str) -> None:
    arguments = ["train", str(CONFIGS / f"{name}.toml"), "--dry-run", "--gpus", "2", "--days", "3"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    for text in ("generator.levels", "FLOP, 64 px", "images/s", "optimiser", "activations", "PFLOP on 2 x 150 TFLOP/s"):
        assert text in result.output
    assert "in 3 days:" in result.output


def test_a_dry_run_takes_phases_at_sizes_that_the_discriminator_does_not_see() -> None:
    small = "{images=8, crop=8, batch_size=2, loss={l1=1.0, lpips=0.0, adversarial=0.0, matching=0.0, r1=0.0}}"
    full = "{images=8, crop=16, batch_size=2, loss={lpips=0.0, r1=0.2}}"
    arguments = ["train", str(CONFIGS / "base_tiny.toml"), "--dry-run", "--set", f"train.phases=[{small}, {full}]"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    rows = [line.split() for line in result.output.splitlines()]
    (discriminator,) = (row for row in rows if row[:1] == ["discriminator"])
    assert discriminator[2] == "0" and float(discriminator[3]) > 0  # FLOP at 8 px and at 16 px


def test_a_dry_run_takes_losses_of_measures() -> None:
    loss = "train.phases.0.loss={l1=1.0, ssim=0.1, spectrum=0.1, lpips=0.0}"
    arguments = ["train", str(CONFIGS / "upsampler_tiny.toml"), "--dry-run"]
    result = CliRunner().invoke(main, [*arguments, "--set", "train.phases.0.crop=64", "--set", loss])
    assert result.exit_code == 0, result.output
