"""The cost of a training before it begins: parameters, FLOPs, memory, days.

The step runs on torch's fake tensors, with a shape, a type and a device but no storage. A config of any size is
measured in seconds. A multiplication with an addition counts as two operations, in matrix products, convolutions and
attention. Counted is the work as executed: fused attention computes its scores again in the backward pass, and
checkpointed levels repeat their forward pass. The cost of one image in a training step includes:

- the generator's forward pass, once, or once per network where gradients are accumulated;
- the discriminator's forward and backward passes over real and generated images; the matching loss runs the heads, but
  not the trunk, for a second caption; R1 adds second derivatives, shared among the steps between two penalties;
- the discriminator's forward pass for the generator, and the backward pass through both networks.

Memory includes the networks, gradients, averages, optimiser states, the buffers of the exchange between processes, and
the tensors that autograd keeps for the backward passes. Workspaces of kernels are not included.

The frozen networks (text tower, LPIPS, CLIP) and the vision-aided discriminator, which needs CLIP, are left out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from gigasr.config.networks import UpsamplerConfig
from gigasr.config.training import PhaseConfig
from gigasr.networks.discriminator import Discriminator
from gigasr.networks.text import CONTEXT_LENGTH, TokenFeatures
from gigasr.networks.upsampler import Level
from gigasr.training.adversarial import AdversarialTask
from gigasr.training.batches import Batch, Pyramid
from gigasr.training.flop_counter import FlopMemoryCounter, ModuleCost, per_module
from gigasr.training.networks import TaskNetworks
from gigasr.training.trained_network import Terms, TrainedNetwork

_FLOAT_BYTES = 4  # of a parameter, a gradient, an average and each of AdamW's two moments
_SMALL_BATCH, _LARGE_BATCH = 2, 3  # images of the measured batches; the cost grows linearly with the batch


def bare_task(kind: type[AdversarialTask], config: Any) -> AdversarialTask:
    """Build a task of generator and discriminator alone.

    An L1 term, almost free of cost, replaces the terms of frozen networks.
    """
    own_terms = {"l1": 1.0, "root": 0.0, "lpips": 0.0, "clip": 0.0, "vision": 0.0}
    phases = []
    for phase in config.train.phases:
        loss = phase.loss.model_copy(update=own_terms)
        phases.append(phase.model_copy(update={"loss": loss}))
    train = config.train.model_copy(update={"phases": tuple(phases)})
    device = torch.device("cpu")
    networks = TaskNetworks(
        TrainedNetwork("g", kind.build_generator(config), train, device),
        kind.build_generator(config),
        TrainedNetwork("d", Discriminator(config.discriminator), train, device),
    )
    return kind(config.model_copy(update={"train": train}), device, networks)


def _blank_batch(task: AdversarialTask, crop: int, size: int) -> Batch:
    """Make a batch with the shapes of training and captions of the maximum length."""
    config = task.generator_config
    is_mismatched = torch.ones(size, dtype=torch.bool)
    features = torch.empty(size, CONTEXT_LENGTH, config.text.tower_width)
    tokens = TokenFeatures(features, torch.zeros(size).long(), is_mismatched[:, None].expand(-1, CONTEXT_LENGTH))
    lr = None
    if isinstance(config, UpsamplerConfig):
        lr = torch.empty(size, 3, crop // config.scale, crop // config.scale)
    hr, z, shift = torch.empty(size, 3, crop, crop), torch.empty(size, config.z_dim), torch.zeros(size, 2).long()
    return Batch(hr, lr, lr, z, [""] * size, tokens, tokens, is_mismatched, shift, task.scale)


class StepCost(NamedTuple):
    """The cost of one step by pass: fake, d, r1 (d with the penalty), g."""

    parts: dict[str, int]  # FLOPs of forward passes, by part of a network
    flops: dict[str, int]
    saved_bytes: dict[str, int]  # bytes; `level` is the maximum of the generator's levels


def extrapolate_step(task: AdversarialTask, phase: PhaseConfig, size: int) -> StepCost:
    """Measure one step on a batch of any size; large batches are extrapolated."""
    if size <= _LARGE_BATCH:
        return measure_step(task, phase, size)
    small, large = (measure_step(task, phase, images) for images in (_SMALL_BATCH, _LARGE_BATCH))
    extrapolated = []
    for a, b in zip(small, large, strict=True):
        extrapolated.append({name: a[name] + (size - _SMALL_BATCH) * (b[name] - a[name]) for name in a})
    return StepCost(*extrapolated)


def measure_step(task: AdversarialTask, phase: PhaseConfig, size: int) -> StepCost:
    """Run one step and measure the cost."""
    batch = _blank_batch(task, phase.crop, size)
    plain, part_costs, pyramid = _synthesize(task, batch, gradient_checkpointing=False)
    parts = _sum_parts("generator", plain, part_costs)
    counters = {"fake": plain}
    if task.train.gradient_checkpointing:
        counters["fake"], _, pyramid = _synthesize(task, batch, gradient_checkpointing=True)
    if phase.is_adversarial:
        with (
            torch.no_grad(),
            FlopMemoryCounter() as counter,
            per_module(task.discriminator, counter) as discriminator_costs,
        ):
            task.discriminator(pyramid, [batch.tokens], batch.lr)
        parts |= _sum_parts("discriminator", counter, discriminator_costs)
        counters["d"] = _update(task, lambda: task.discriminator_terms(batch, phase, pyramid, is_penalised=False))
        if phase.loss.r1:
            counters["r1"] = _update(task, lambda: task.discriminator_terms(batch, phase, pyramid, is_penalised=True))
    counters["g"] = _update(task, lambda: task.generator_terms(batch, phase, pyramid))
    flops = {name: counter.flops for name, counter in counters.items()}
    saved_bytes = {name: counter.saved_bytes for name, counter in counters.items()}
    saved_bytes["level"] = max(level.saved_bytes for level in part_costs["levels"])
    return StepCost(parts, flops, saved_bytes)


def _synthesize(
    task: AdversarialTask, batch: Batch, gradient_checkpointing: bool
) -> tuple[FlopMemoryCounter, dict[str, list[ModuleCost]], Pyramid]:
    """Run the generator -> counter, cost of each part, pyramid"""
    for level in task.generator.modules():
        if isinstance(level, Level):
            level.gradient_checkpointing = gradient_checkpointing
    with (
        FlopMemoryCounter(task.generator) as counter,
        per_module(task.generator, counter) as costs,
        counter.track_saved_tensors(),
    ):
        return counter, costs, task.fake_pyramid(batch)


def _sum_parts(name: str, counter: FlopMemoryCounter, costs: dict[str, list[ModuleCost]]) -> dict[str, int]:
    """Sum the FLOPs of every part of a network, and of the whole."""
    sums = {f"{name}.{part}": sum(cost.flops for cost in part_costs) for part, part_costs in costs.items()}
    return sums | {name: counter.flops}


def _update(task: AdversarialTask, make_terms: Callable[[], Terms]) -> FlopMemoryCounter:
    """Measure a network's loss terms and gradients."""
    with FlopMemoryCounter(task.generator, task.discriminator) as counter:
        with counter.track_saved_tensors():
            terms = make_terms()
        torch.stack(list(terms.values())).sum().backward()
    return counter


@dataclass(frozen=True)
class PhaseCost:
    """The cost of one phase."""

    phase: PhaseConfig
    size: int  # images of one process's micro-batch
    parts: dict[str, float]  # FLOPs of one image's forward pass; the discriminator's only where it learns
    flops: float  # of one image in training
    memory: dict[str, float]  # bytes of one process


@dataclass(frozen=True)
class TrainingCost:
    """The cost of a training."""

    parameters: dict[str, int]  # of every part
    phases: list[PhaseCost]
    gpus: int

    @property
    def images(self) -> int:
        """Images of all phases."""
        return sum(cost.phase.images for cost in self.phases)

    @property
    def flops(self) -> float:
        """FLOPs of all phases."""
        return sum(cost.phase.images * cost.flops for cost in self.phases)


def estimate_cost(kind: type[AdversarialTask], config: Any, gpus: int = 1) -> TrainingCost:
    """Measure all phases of a config.

    kind: AdversarialTask for gigasr's Config, BaseAdversarialTask for gigasr_base's
    """
    with FakeTensorMode():
        task = bare_task(kind, config)
        parameters = count_parameters({"generator": task.generator, "discriminator": task.discriminator})
        phases = [cost_of_phase(task, phase, gpus) for phase in task.train.phases]
    return TrainingCost(parameters, phases, gpus)


def count_parameters(networks: dict[str, nn.Module]) -> dict[str, int]:
    """Count the parameters of every part of each network, and of each network."""
    counts: dict[str, int] = {}
    for name, network in networks.items():
        for part, child in network.named_children():
            counts[f"{name}.{part}"] = _num_parameters(child)
        counts[name] = _num_parameters(network)
    return counts


def _num_parameters(module: nn.Module) -> int:
    """Count the parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def cost_of_phase(task: AdversarialTask, phase: PhaseConfig, gpus: int) -> PhaseCost:
    """Measure one phase. Raises ValueError where the GPUs cannot share a batch."""
    train = task.train
    size = phase.micro_batch_size(gpus * train.gradient_accumulation_steps)
    step = extrapolate_step(task, phase, size)
    parts = {name: count / size for name, count in step.parts.items()}
    flops = step_flops(step.flops, train.gradient_accumulation_steps, train.r1_every) / size
    memory = memory_of_networks(task, gpus)
    memory["activations"] = peak_activations(
        step.saved_bytes, train.gradient_accumulation_steps, train.gradient_checkpointing
    )
    return PhaseCost(phase, size, parts, flops, memory)


def step_flops(flops: dict[str, int], gradient_accumulation_steps: int, r1_every: int) -> float:
    """Sum the FLOPs of a step's passes; the penalty is shared among r1_every steps."""
    discriminator = flops.get("d", 0)
    syntheses = 2 if discriminator and gradient_accumulation_steps > 1 else 1
    penalty = flops.get("r1", discriminator) - discriminator
    return syntheses * flops["fake"] + discriminator + penalty / r1_every + flops["g"]


def peak_activations(
    saved_bytes: dict[str, int], gradient_accumulation_steps: int, gradient_checkpointing: bool
) -> float:
    """Return the maximum of the bytes kept at one time, from the bytes of each pass.

    The generator's activations stay in memory during the passes of the discriminator.
    """
    discriminator = max(saved_bytes.get("d", 0), saved_bytes.get("r1", 0))
    if gradient_accumulation_steps == 1:
        discriminator += saved_bytes["fake"]
    recomputed = saved_bytes["level"] if gradient_checkpointing else 0
    generator = saved_bytes["fake"] + max(saved_bytes["g"], recomputed)
    return max(generator, discriminator)


def memory_of_networks(task: AdversarialTask, gpus: int) -> dict[str, float]:
    """Return the bytes in one process without activations.

    Only the generator and the average are ever sharded. The exchange of replicas takes a second copy of the gradients
    (DDP's buckets). The exchange of a sharded generator takes weights and gradients of the largest level and of the
    layers outside all levels, gathered for each use.
    """
    g, d = _num_parameters(task.generator), _num_parameters(task.discriminator)
    levels = [_num_parameters(module) for module in task.generator.modules() if isinstance(module, Level)]
    shards = gpus if task.train.fsdp else 1
    exchanged = g + d
    if shards > 1:
        exchanged = 2 * (g - sum(levels) + max(levels)) + d
    if gpus == 1:
        exchanged = 0
    own = g / shards + d
    return {
        "weights": _FLOAT_BYTES * own,
        "gradients": _FLOAT_BYTES * own,
        "optimiser": 2 * _FLOAT_BYTES * own,
        "average": _FLOAT_BYTES * g / shards,
        "exchange": _FLOAT_BYTES * exchanged,
    }
