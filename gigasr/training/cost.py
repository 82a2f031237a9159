"""What a training costs, before it begins: parameters, floating-point operations, memory, days.

The step runs on torch's fake tensors, which have a shape, a type and a device but no storage: a config of any size is
measured in seconds. Two operations per multiplication and addition are counted for matrix products, convolutions and
attention, as they are executed: fused attention computes its scores once more in the backward pass, checkpointed levels
all of theirs. One image of a training step stands for

- the generator's forward pass, once, or once per network where gradients are accumulated;
- the discriminator's forward and backward passes over real and generated images; with the matching loss, its heads but
  not its trunk run for a second caption; R1 adds its second derivatives, shared among the steps between two of them;
- the discriminator's forward pass for the generator, and back through it and through the generator.

Memory is what a step holds for long: the networks, their gradients, averages and optimiser states, what the processes
exchange, and the tensors that autograd keeps for the backward passes. Workspaces of kernels come on top.

Left out are the frozen networks (text tower, LPIPS, CLIP) and the vision-aided discriminator, which rests on one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from gigasr.config.networks import UpsamplerConfig
from gigasr.config.training import PhaseConfig
from gigasr.networks.discriminator import Discriminator
from gigasr.networks.text import CONTEXT_LENGTH, TokenFeatures
from gigasr.networks.upsampler import Level
from gigasr.training.adversarial import AdversarialTask
from gigasr.training.batches import Batch
from gigasr.training.flop_counter import FlopMemoryCounter, per_module
from gigasr.training.networks import TaskNetworks
from gigasr.training.trained_network import TrainedNetwork

FLOAT = 4  # bytes of a parameter, of its gradient, its average and each of AdamW's two moments
SMALL_BATCH, LARGE_BATCH = 2, 3  # images of the measured batches; cost grows linearly with the batch


def bare_task(kind: type[AdversarialTask], config: Any) -> AdversarialTask:
    """Build a task of generator and discriminator alone; an L1 term, which costs nothing, replaces frozen networks."""
    alone = {"l1": 1.0, "root": 0.0, "lpips": 0.0, "clip": 0.0, "vision": 0.0}
    phases = tuple(p.model_copy(update={"loss": p.loss.model_copy(update=alone)}) for p in config.train.phases)
    train = config.train.model_copy(update={"phases": phases})
    device = torch.device("cpu")
    generator, average = kind.build_generator(config), kind.build_generator(config)
    networks = TaskNetworks(
        TrainedNetwork("g", generator, train, device),
        average,
        TrainedNetwork("d", Discriminator(config.discriminator), train, device),
    )
    return kind(config.model_copy(update={"train": train}), device, networks)


def make_batch(task: AdversarialTask, crop: int, size: int) -> Batch:
    """A batch of the shapes of a training batch; its captions are as long as can be."""
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
    """What one step takes, by pass: fake, d, r1 (d with the penalty), g. Parts are those of forward passes."""

    parts: dict[str, int]  # FLOPs
    flops: dict[str, int]
    saved_bytes: dict[str, int]  # bytes; `level` is the most that one level of the generator keeps


def extrapolate_step(task: AdversarialTask, phase: PhaseConfig, size: int) -> StepCost:
    """Measure one step on a batch of any size; large ones are extrapolated."""
    if size <= LARGE_BATCH:
        return measure_step(task, phase, size)
    pairs = zip(measure_step(task, phase, SMALL_BATCH), measure_step(task, phase, LARGE_BATCH), strict=True)
    return StepCost(*({key: a[key] + (size - SMALL_BATCH) * (b[key] - a[key]) for key in a} for a, b in pairs))


def measure_step(task: AdversarialTask, phase: PhaseConfig, size: int) -> StepCost:
    """Play one step."""
    batch = make_batch(task, phase.crop, size)
    plain, notes, pyramid = synthesize(task, batch, gradient_checkpointing=False)
    parts = sum_parts("generator", plain, notes)
    counters = {"fake": plain}
    if task.train.gradient_checkpointing:
        counters["fake"], _, pyramid = synthesize(task, batch, gradient_checkpointing=True)
    if phase.is_adversarial:
        with torch.no_grad(), FlopMemoryCounter() as counter, per_module(task.discriminator, counter) as noted:
            task.discriminator(pyramid, [batch.tokens], batch.lr)
        parts |= sum_parts("discriminator", counter, noted)
        counters["d"] = update(task, lambda: task.discriminator_terms(batch, phase, pyramid, is_penalised=False))
        if phase.loss.r1:
            counters["r1"] = update(task, lambda: task.discriminator_terms(batch, phase, pyramid, is_penalised=True))
    counters["g"] = update(task, lambda: task.generator_terms(batch, phase, pyramid))
    saved_bytes = {name: counter.saved_bytes for name, counter in counters.items()}
    saved_bytes["level"] = max(bytes_ for _, bytes_ in notes["levels"])
    return StepCost(parts, {name: counter.flops for name, counter in counters.items()}, saved_bytes)


def synthesize(
    task: AdversarialTask, batch: Batch, gradient_checkpointing: bool
) -> tuple[Any, dict[str, Any], list[Tensor]]:
    """Run the generator -> its counter, what its parts took, the pyramid"""
    for level in task.generator.modules():
        if isinstance(level, Level):
            level.gradient_checkpointing = gradient_checkpointing
    counter = FlopMemoryCounter(task.generator)
    with counter, per_module(task.generator, counter) as notes, counter.track_saved_tensors():
        return counter, notes, task.fake_pyramid(batch)


def sum_parts(name: str, counter: FlopMemoryCounter, notes: dict[str, list[tuple[int, int]]]) -> dict[str, int]:
    """FLOPs of every part of a network, and of it as a whole."""
    return {f"{name}.{part}": sum(flops for flops, _ in taken) for part, taken in notes.items()} | {name: counter.flops}


def update(task: AdversarialTask, make_terms: Callable[[], dict[str, Tensor]]) -> FlopMemoryCounter:
    """Compute a network's terms and their gradients."""
    with FlopMemoryCounter(task.generator, task.discriminator) as counter:
        with counter.track_saved_tensors():
            terms = make_terms()
        torch.stack(list(terms.values())).sum().backward()
    return counter


@dataclass(frozen=True)
class PhaseCost:
    """What a phase of the training costs."""

    phase: PhaseConfig
    size: int  # images of one process's micro-batch
    parts: dict[str, float]  # FLOPs of one image's forward pass; the discriminator's only where it learns
    flops: float  # of one image in training
    memory: dict[str, float]  # bytes of one process


@dataclass(frozen=True)
class TrainingCost:
    """What a training costs."""

    parameters: dict[str, int]  # of every part
    phases: list[PhaseCost]
    gpus: int

    @property
    def images(self) -> int:
        """Of all phases."""
        return sum(cost.phase.images for cost in self.phases)

    @property
    def flops(self) -> float:
        """Of all phases."""
        return sum(cost.phase.images * cost.flops for cost in self.phases)


def estimate_cost(kind: type[AdversarialTask], config: Any, gpus: int = 1) -> TrainingCost:
    """Measure all phases of a config: gigasr's with AdversarialTask, gigasr_base's with BaseAdversarialTask."""
    with FakeTensorMode():
        task = bare_task(kind, config)
        parameters = count_parameters({"generator": task.generator, "discriminator": task.discriminator})
        return TrainingCost(parameters, [cost_of_phase(task, phase, gpus) for phase in task.train.phases], gpus)


def count_parameters(networks: dict[str, nn.Module]) -> dict[str, int]:
    """Parameters of every part of each network, and of each as a whole."""
    counts: dict[str, int] = {}
    for name, network in networks.items():
        parts = {f"{name}.{part}": child for part, child in network.named_children()} | {name: network}
        counts |= {part: sum(p.numel() for p in module.parameters()) for part, module in parts.items()}
    return counts


def cost_of_phase(task: AdversarialTask, phase: PhaseConfig, gpus: int) -> PhaseCost:
    """Measure one phase."""
    train = task.train
    size = phase.micro_batch_size(gpus * train.gradient_accumulation_steps)
    parts, flops, saved_bytes = extrapolate_step(task, phase, size)
    forward = {name: count / size for name, count in parts.items()}
    activations = peak_activations(saved_bytes, train.gradient_accumulation_steps, train.gradient_checkpointing)
    memory = memory_of_networks(task, gpus) | {"activations": activations}
    total = step_flops(flops, train.gradient_accumulation_steps, train.r1_every)
    return PhaseCost(phase, size, forward, total / size, memory)


def step_flops(flops: dict[str, int], gradient_accumulation_steps: int, r1_every: int) -> float:
    """FLOPs of a step, given those of its passes; the penalty is shared among r1_every steps."""
    plain = flops.get("d", 0)
    syntheses = 2 if plain and gradient_accumulation_steps > 1 else 1
    return syntheses * flops["fake"] + plain + (flops.get("r1", plain) - plain) / r1_every + flops["g"]


def peak_activations(
    saved_bytes: dict[str, int], gradient_accumulation_steps: int, gradient_checkpointing: bool
) -> float:
    """Most bytes kept at one time, given those of each pass: the generator's are held while the others come and go."""
    discriminator_step = max(saved_bytes.get("d", 0), saved_bytes.get("r1", 0))
    generator_step = saved_bytes["fake"] + max(saved_bytes["g"], saved_bytes["level"] if gradient_checkpointing else 0)
    return max(generator_step, discriminator_step + (saved_bytes["fake"] if gradient_accumulation_steps == 1 else 0))


def memory_of_networks(task: AdversarialTask, gpus: int) -> dict[str, float]:
    """Bytes in one process beside activations. Only the generator and its average are ever sharded.

    The exchange takes a second copy of the gradients (DDP's buckets); for a sharded generator, weights and gradients of
    its largest level and of what is in no level, gathered while they are needed.
    """
    g, d = (sum(p.numel() for p in network.parameters()) for network in (task.generator, task.discriminator))
    blocks = [module for module in task.generator.modules() if isinstance(module, Level)]
    levels = [sum(p.numel() for p in block.parameters()) for block in blocks]
    shards = gpus if task.train.fsdp else 1
    exchange = 2 * (g - sum(levels) + max(levels)) + d if shards > 1 else g + d
    return {
        "weights": FLOAT * (g / shards + d),
        "gradients": FLOAT * (g / shards + d),
        "optimiser": 2 * FLOAT * (g / shards + d),
        "average": FLOAT * g / shards,
        "exchange": FLOAT * exchange if gpus > 1 else 0,
    }
