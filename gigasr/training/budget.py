"""What a training costs, before it begins: parameters, floating-point operations, memory, days.

The step runs on torch's fake tensors, which have a shape, a type and a device but no storage: a config of any size is
measured in seconds. Two operations per multiplication and addition are counted for matrix products, convolutions and
attention, as they are executed: fused attention computes its scores once more in the backward pass, checkpointed levels
all of theirs. One image of a training step stands for

- the generator's forward pass, once, or once per network where gradients are accumulated;
- the discriminator's forward and backward passes over real and generated images; with the matching loss, its exits but
  not its trunk run for a second caption; R1 adds its second derivatives, shared among the steps between two of them;
- the discriminator's forward pass for the generator, and back through it and through the generator.

Memory is what a step holds for long: the networks, their gradients, averages and optimiser states, what the processes
exchange, and the tensors that autograd keeps for the backward passes. Workspaces of kernels come on top.

Left out are the frozen networks (text tower, LPIPS, CLIP) and the vision-aided discriminator, which rests on one.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from gigasr.config.networks import UpsamplerConfig
from gigasr.config.training import PhaseConfig
from gigasr.networks.discriminator import Discriminator
from gigasr.networks.text import CONTEXT_LENGTH, TokenFeatures
from gigasr.networks.upsampler import Level
from gigasr.training.adversarial import AdversarialTask, Batch
from gigasr.training.trained_network import TrainedNetwork

FLOAT = 4  # bytes of a parameter, of its gradient, its average and each of AdamW's two moments
SMALL, LARGE = 2, 3  # images of the measured batches; cost grows linearly with the batch


def convolution_backward_flops(grad: Tensor, x: Tensor, kernel: Tensor, *settings: Any, **_: object) -> int:
    """Operations of a convolution's backward pass: each of both gradients costs what the forward pass does.

    differs: torch's own formula counts the gradient of a grouped kernel once per group.
    """
    *_settings, transposed, _padding, _groups, needed = settings
    positions = math.prod((x if transposed else grad).shape[2:])
    return 2 * len(x) * positions * kernel.numel() * sum(needed[:2])


ATEN, FLASH = torch.ops.aten, "_scaled_dot_product_flash_attention"
FORMULAS: dict[Any, Callable[..., int]] = flop_registry | {ATEN.convolution_backward: convolution_backward_flops}
for end in ("", "_backward"):  # torch knows those of GPUs alone
    FORMULAS[getattr(ATEN, f"{FLASH}_for_cpu{end}")] = flop_registry[getattr(ATEN, FLASH + end)]


class Meter(TorchDispatchMode):
    """Counts operations while it is entered, and the bytes that autograd keeps within `keeping`.

    >>> with Meter() as meter, meter.keeping():
    ...     y = network(x)
    """

    def __init__(self, *networks: nn.Module) -> None:
        """networks: whose parameters are no activations"""
        super().__init__()
        self.flops = self.kept = 0
        own = [parameter.untyped_storage() for network in networks for parameter in network.parameters()]
        self.storages = {storage._cdata: storage for storage in own}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it."""
        if func is torch.ops.prim.device.default:
            return args[0].device
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        formula = FORMULAS.get(func.overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=result)
        return result

    def keeping(self) -> saved_tensors_hooks:
        """Watch what autograd keeps."""
        return saved_tensors_hooks(self.keep, lambda tensor: tensor)

    def keep(self, tensor: Tensor) -> Tensor:
        """Count a tensor's storage where it is a new one; it is held, so that none takes its place."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self.storages:
            self.storages[storage._cdata] = storage
            self.kept += storage.nbytes()
        return tensor


@contextmanager
def watching(network: nn.Module, meter: Meter) -> Iterator[dict[str, list[tuple[int, int]]]]:
    """Note (FLOPs, kept bytes) of each part of a network, by its name, for each of its elements where it is a list."""
    notes: dict[str, list[tuple[int, int]]] = {name: [] for name, _ in network.named_children()}
    begun: list[tuple[int, int]] = []

    def begin(*_: object) -> None:
        begun.append((meter.flops, meter.kept))

    def end(name: str) -> None:
        flops, kept = begun.pop()
        notes[name].append((meter.flops - flops, meter.kept - kept))

    hooks = []
    for name, part in network.named_children():
        for module in part if isinstance(part, nn.ModuleList) else [part]:
            hooks.append(module.register_forward_pre_hook(begin))
            hooks.append(module.register_forward_hook(lambda *_, name=name: end(name)))
    yield notes
    for hook in hooks:
        hook.remove()


def bare_task(kind: type[AdversarialTask], config: Any) -> AdversarialTask:
    """Build a task of generator and discriminator alone; an L1 term, which costs nothing, replaces frozen networks."""
    task = kind.__new__(kind)
    alone = {"l1": 1.0, "root": 0.0, "lpips": 0.0, "clip": 0.0, "vision": 0.0}
    phases = tuple(p.model_copy(update={"loss": p.loss.model_copy(update=alone)}) for p in config.train.phases)
    task.config, task.train = config, config.train.model_copy(update={"phases": phases})
    task.device = torch.device("cpu")
    task.generator, task.discriminator = kind.build_generator(config), Discriminator(config.discriminator)
    networks = {"g": task.generator, "d": task.discriminator}
    task.trained_networks = {
        name: TrainedNetwork(name, n, task.train, task.device, sharded=False) for name, n in networks.items()
    }
    return task


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


class Measure(NamedTuple):
    """What one step takes, by pass: fake, d, r1 (d with the penalty), g. Parts are those of forward passes."""

    parts: dict[str, int]  # FLOPs
    flops: dict[str, int]
    kept: dict[str, int]  # bytes; `level` is the most that one level of the generator keeps


def measure(task: AdversarialTask, phase: PhaseConfig, size: int) -> Measure:
    """Measure one step on a batch of any size; large ones are extrapolated."""
    if size <= LARGE:
        return play(task, phase, size)
    pairs = zip(play(task, phase, SMALL), play(task, phase, LARGE), strict=True)
    return Measure(*({key: a[key] + (size - SMALL) * (b[key] - a[key]) for key in a} for a, b in pairs))


def play(task: AdversarialTask, phase: PhaseConfig, size: int) -> Measure:
    """Play one step."""
    batch = make_batch(task, phase.crop, size)
    plain, notes, pyramid = synthesize(task, batch, checkpointing=False)
    parts = sum_parts("generator", plain, notes)
    meters = {"fake": plain}
    if task.train.checkpointing:
        meters["fake"], _, pyramid = synthesize(task, batch, checkpointing=True)
    if phase.is_adversarial:
        with torch.no_grad(), Meter() as meter, watching(task.discriminator, meter) as judged:
            task.discriminator(pyramid, [batch.tokens], batch.lr)
        parts |= sum_parts("discriminator", meter, judged)
        meters["d"] = update(task, lambda: task.discriminator_terms(batch, phase, pyramid, penalised=False))
        if phase.loss.r1:
            meters["r1"] = update(task, lambda: task.discriminator_terms(batch, phase, pyramid, penalised=True))
    meters["g"] = update(task, lambda: task.generator_terms(batch, phase, pyramid))
    kept = {name: meter.kept for name, meter in meters.items()}
    kept["level"] = max(bytes_ for _, bytes_ in notes["levels"])
    return Measure(parts, {name: meter.flops for name, meter in meters.items()}, kept)


def synthesize(task: AdversarialTask, batch: Batch, checkpointing: bool) -> tuple[Meter, dict[str, Any], list[Tensor]]:
    """Run the generator -> its meter, what its parts took, the pyramid"""
    for level in task.generator.modules():
        if isinstance(level, Level):
            level.checkpointing = checkpointing
    with Meter(task.generator) as meter, watching(task.generator, meter) as notes, meter.keeping():
        return meter, notes, task.fake_pyramid(batch)


def sum_parts(name: str, meter: Meter, notes: dict[str, list[tuple[int, int]]]) -> dict[str, int]:
    """FLOPs of every part of a network, and of it as a whole."""
    return {f"{name}.{part}": sum(flops for flops, _ in taken) for part, taken in notes.items()} | {name: meter.flops}


def update(task: AdversarialTask, make_terms: Callable[[], dict[str, Tensor]]) -> Meter:
    """Compute a network's terms and their gradients."""
    with Meter(task.generator, task.discriminator) as meter:
        with meter.keeping():
            terms = make_terms()
        torch.stack(list(terms.values())).sum().backward()
    return meter


@dataclass(frozen=True)
class PhaseCost:
    """What a phase of the training costs."""

    phase: PhaseConfig
    size: int  # images of one process's micro-batch
    parts: dict[str, float]  # FLOPs of one image's forward pass; the discriminator's only where it learns
    flops: float  # of one image in training
    memory: dict[str, float]  # bytes of one process


@dataclass(frozen=True)
class Budget:
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


def make_budget(kind: type[AdversarialTask], config: Any, gpus: int = 1) -> Budget:
    """Measure all phases of a config: gigasr's with AdversarialTask, gigasr_base's with BaseAdversarialTask."""
    with FakeTensorMode():
        task = bare_task(kind, config)
        parameters = count_parameters({"generator": task.generator, "discriminator": task.discriminator})
        return Budget(parameters, [cost_of(task, phase, gpus) for phase in task.train.phases], gpus)


def count_parameters(networks: dict[str, nn.Module]) -> dict[str, int]:
    """Parameters of every part of each network, and of each as a whole."""
    counts: dict[str, int] = {}
    for name, network in networks.items():
        parts = {f"{name}.{part}": child for part, child in network.named_children()} | {name: network}
        counts |= {part: sum(p.numel() for p in module.parameters()) for part, module in parts.items()}
    return counts


def cost_of(task: AdversarialTask, phase: PhaseConfig, gpus: int) -> PhaseCost:
    """Measure one phase."""
    train = task.train
    size = phase.micro_batch_size(gpus * train.accumulation)
    parts, flops, kept = measure(task, phase, size)
    forward = {name: count / size for name, count in parts.items()}
    memory = memory_of_networks(task, gpus) | {"activations": peak(kept, train.accumulation, train.checkpointing)}
    return PhaseCost(phase, size, forward, step_flops(flops, train.accumulation, train.r1_every) / size, memory)


def step_flops(flops: dict[str, int], accumulation: int, r1_every: int) -> float:
    """FLOPs of a step, given those of its passes; the penalty is shared among r1_every steps."""
    plain = flops.get("d", 0)
    syntheses = 2 if plain and accumulation > 1 else 1
    return syntheses * flops["fake"] + plain + (flops.get("r1", plain) - plain) / r1_every + flops["g"]


def peak(kept: dict[str, int], accumulation: int, checkpointing: bool) -> float:
    """Most bytes kept at one time, given those of each pass: the generator's are held while the others come and go."""
    judging = max(kept.get("d", 0), kept.get("r1", 0))
    answering = kept["fake"] + max(kept["g"], kept["level"] if checkpointing else 0)
    return max(answering, judging + (kept["fake"] if accumulation == 1 else 0))


def memory_of_networks(task: AdversarialTask, gpus: int) -> dict[str, float]:
    """Bytes in one process beside activations. Only the generator and its average are ever sharded.

    The exchange takes a second copy of the gradients (DDP's buckets); for a sharded generator, weights and gradients of
    its largest level and of what is in no level, gathered while they are needed.
    """
    g, d = (sum(p.numel() for p in network.parameters()) for network in (task.generator, task.discriminator))
    blocks = [module for module in task.generator.modules() if isinstance(module, Level)]
    levels = [sum(p.numel() for p in block.parameters()) for block in blocks]
    shards = gpus if task.train.sharded else 1
    exchange = 2 * (g - sum(levels) + max(levels)) + d if shards > 1 else g + d
    return {
        "weights": FLOAT * (g / shards + d),
        "gradients": FLOAT * (g / shards + d),
        "optimiser": 2 * FLOAT * (g / shards + d),
        "average": FLOAT * g / shards,
        "exchange": FLOAT * exchange if gpus > 1 else 0,
    }
